"""Fine-tuning generators by reward: one file a family of methods, and one loop for all."""

from pixelpolicy.finetune.ddpo import DDPO, DPOK, PromptStatistics
from pixelpolicy.finetune.distillation import DistillationConfig, distill
from pixelpolicy.finetune.forward_process import AWM, DiffusionNFT, ForwardProcessConfig, awm_loss, nft_loss
from pixelpolicy.finetune.grpo import GRPO, GRPOConfig, random_steps, window_steps
from pixelpolicy.finetune.loop import Loop, LoopConfig
from pixelpolicy.finetune.preference import (
    DiffusionDPO,
    Pairs,
    PreferenceConfig,
    best_and_worst,
    d3po_loss,
    diffusion_dpo_loss,
    diffusion_kto_loss,
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
from pixelpolicy.finetune.token_grpo import TokenGRPO

__all__ = [
    "AWM",
    "DDPO",
    "DPOK",
    "DiffusionDPO",
    "DiffusionNFT",
    "DistillationConfig",
    "ForwardProcessConfig",
    "GRPO",
    "GRPOConfig",
    "Loop",
    "LoopConfig",
    "Pairs",
    "PreferenceConfig",
    "PromptStatistics",
    "RewardGradient",
    "RewardGradientConfig",
    "RewardWeighted",
    "RewardWeightedConfig",
    "Schedule",
    "ScheduleConfig",
    "ScheduleSearch",
    "TokenGRPO",
    "Window",
    "awm_loss",
    "best_and_worst",
    "d3po_loss",
    "diffusion_dpo_loss",
    "diffusion_kto_loss",
    "distill",
    "last_steps",
    "nft_loss",
    "one_leap",
    "random_steps",
    "window_steps",
]
