"""Fine-tuning generators by reward: one file a family of methods, and one loop for all."""

from pixelpolicy.finetune.ddpo import DDPO, DPOK, PromptStatistics
from pixelpolicy.finetune.distillation import DistillationConfig, distill
from pixelpolicy.finetune.forward_process import AWM, DiffusionNFT, ForwardProcessConfig, awm_loss, nft_loss
from pixelpolicy.finetune.grpo import GRPO, GRPOConfig, random_steps, window_steps
from pixelpolicy.finetune.kto import DiffusionKTO, Labelled, above_the_group
from pixelpolicy.finetune.loop import Loop, LoopConfig
from pixelpolicy.finetune.preference import (
    DiffusionDPO,
    Pairs,
    PreferenceConfig,
    best_and_worst,
    d3po_loss,
    diffusion_dpo_loss,
    diffusion_kto_loss,
    displacement,
    pair_states,
    spo_loss,
)
from pixelpolicy.finetune.reward_gradient import (
    RewardGradient,
    RewardGradientConfig,
    Window,
    last_steps,
    one_leap,
)
from pixelpolicy.finetune.reward_weighted import RewardWeighted, RewardWeightedConfig
from pixelpolicy.finetune.schedule import Schedule, ScheduleConfig, ScheduleSearch
from pixelpolicy.finetune.search import Found, Pool, draw_pool, optimise_noise, steer
from pixelpolicy.finetune.step_aware import D3PO, SPO, StepPreferenceConfig, best_and_worst_candidates, judge_by_leap
from pixelpolicy.finetune.token_grpo import TokenGRPO

__all__ = [
    "AWM",
    "D3PO",
    "DDPO",
    "DPOK",
    "DiffusionDPO",
    "DiffusionKTO",
    "DiffusionNFT",
    "DistillationConfig",
    "ForwardProcessConfig",
    "Found",
    "GRPO",
    "GRPOConfig",
    "Labelled",
    "Loop",
    "LoopConfig",
    "Pairs",
    "Pool",
    "PreferenceConfig",
    "PromptStatistics",
    "RewardGradient",
    "RewardGradientConfig",
    "RewardWeighted",
    "RewardWeightedConfig",
    "SPO",
    "Schedule",
    "ScheduleConfig",
    "ScheduleSearch",
    "StepPreferenceConfig",
    "TokenGRPO",
    "Window",
    "above_the_group",
    "awm_loss",
    "best_and_worst",
    "best_and_worst_candidates",
    "d3po_loss",
    "diffusion_dpo_loss",
    "diffusion_kto_loss",
    "displacement",
    "distill",
    "draw_pool",
    "judge_by_leap",
    "last_steps",
    "nft_loss",
    "one_leap",
    "pair_states",
    "optimise_noise",
    "random_steps",
    "spo_loss",
    "steer",
    "window_steps",
]
