"""The methods that `bench.py` compares: the same base, prompts, proxy reward and number of pictures for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from pixelpolicy.finetune import (
    AWM,
    D3PO,
    DDPO,
    DPOK,
    GRPO,
    SPO,
    DiffusionDPO,
    DiffusionKTO,
    DiffusionNFT,
    ForwardProcessConfig,
    GRPOConfig,
    Labelled,
    Pairs,
    PreferenceConfig,
    RewardGradient,
    RewardGradientConfig,
    RewardWeighted,
    RewardWeightedConfig,
    StepPreferenceConfig,
    above_the_group,
    best_and_worst,
    diffusion_dpo_loss,
    last_steps,
    one_leap,
    window_steps,
)
from pixelpolicy.finetune.batch import BatchConfig
from pixelpolicy.finetune.preference import sample_groups
from pixelpolicy.finetune.reward_gradient import hinge
from pixelpolicy.finetune.reward_weighted import best_of_group, exponential
from pixelpolicy.finetune.search import Found, draw_pool, steer
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, ddim_eta, flow_sde, ode
from pixelpolicy.rewards import learned_proxy
from pixelpolicy.worlds import shapes

BATCH = 192  # pictures an iteration, of methods that draw groups


@dataclass(frozen=True)
class Budget:
    """``pictures`` that a run draws and has judged, and pictures a kind of prompt that it is measured on."""

    pictures: int = 5_760
    per_kind: int = 256


Make = Callable[[ImageGenerator, int, Budget], Any]
Search = Callable[[ImageGenerator, list[str], Tensor], Found]


@dataclass(frozen=True)
class Method:
    """How a method is run, and what a table says of it.

    ``kind`` is "online", "offline" (its pictures are all of the base) or "search" (nothing is trained). ``make`` takes
    the student, a seed and a budget; ``batch`` is how many pictures an iteration draws, offline how many it uses.
    ``search`` delivers a picture for each prompt and seed, the chosen of ``draws`` that it pays for.
    """

    label: str
    kind: str
    lab: str
    key: str
    make: Make | None = None
    learning_rate: float = 5e-4
    batch: int = BATCH
    search: Search | None = None
    draws: int = 1


ETA, SDE = partial(ddim_eta, noise=1.0), partial(flow_sde, noise=0.7)


def noisy(student: ImageGenerator, transition: Callable = ETA) -> DenoisingPolicy:
    return DenoisingPolicy(student, transition, steps=6)


def plain(student: ImageGenerator, steps: int = 10, micro_batch: int = 96) -> DenoisingPolicy:
    return DenoisingPolicy(student, ode, steps=steps, micro_batch=micro_batch)


def reward_weighted(weights_of: Callable) -> Make:
    settings = RewardWeightedConfig(noise_draws=2, anchor_weight=2.0)
    return lambda student, seed, budget: RewardWeighted(
        plain(student), learned_proxy(), shapes.draw_prompts, replace(settings, seed=seed), weights_of
    )


def policy_gradient(algorithm: Callable, transition: Callable, choose: dict | None = None, **settings: Any) -> Make:
    config = GRPOConfig(**{"trained_steps": 5, "kl_weight": 0.02} | settings)
    return lambda student, seed, budget: algorithm(
        noisy(student, transition), learned_proxy(), shapes.draw_prompts, replace(config, seed=seed), **choose or {}
    )


def reward_gradient(window: Callable, objective: dict | None = None) -> Make:
    return lambda student, seed, budget: RewardGradient(
        plain(student, 5, 48), learned_proxy(), shapes.draw_prompts,
        RewardGradientConfig(prompts_per_iteration=48, seed=seed), window, **objective or {},
    )  # fmt: skip


def drawn_once(student: ImageGenerator, seed: int, budget: Budget, group_size: int = 4):
    """All the pictures of an offline method: of the base, in groups, judged by the proxy."""
    settings = BatchConfig(budget.pictures // group_size, group_size, 1, seed)
    rng = np.random.default_rng([seed, 13])
    return sample_groups(plain(student), learned_proxy(), shapes.draw_prompts, settings, rng, 0)[0]


def offline_dpo(anchor: float) -> Make:
    def make(student: ImageGenerator, seed: int, budget: Budget) -> DiffusionDPO:
        drawn = drawn_once(student, seed, budget)
        best, worst = best_and_worst(drawn.rewards, drawn.groups)
        pairs = Pairs([drawn.prompts[row] for row in best], drawn.latents[best], drawn.latents[worst])
        config = PreferenceConfig(prompts_per_iteration=BATCH // 2, seed=seed)
        loss = partial(diffusion_dpo_loss, anchor=anchor)
        return DiffusionDPO(plain(student), config=config, pairs=pairs, loss_of=loss)

    return make


def offline_kto(student: ImageGenerator, seed: int, budget: Budget) -> DiffusionKTO:
    drawn = drawn_once(student, seed, budget)
    rows, wanted = above_the_group(drawn.rewards, drawn.groups)
    labelled = Labelled([drawn.prompts[row] for row in rows], drawn.latents[rows], wanted)
    config = PreferenceConfig(prompts_per_iteration=BATCH // 4, group_size=4, seed=seed)
    return DiffusionKTO(plain(student), config=config, labelled=labelled)


def step_preference(algorithm: Callable) -> Make:
    config = StepPreferenceConfig(prompts_per_iteration=BATCH // 4, group_size=4)
    return lambda student, seed, budget: algorithm(
        noisy(student), learned_proxy(), shapes.draw_prompts, replace(config, seed=seed)
    )


def forward_process(algorithm: Callable) -> Make:
    settings = ForwardProcessConfig(noise_draws=2)
    return lambda student, seed, budget: algorithm(
        plain(student, 6), learned_proxy(), shapes.draw_prompts, replace(settings, seed=seed)
    )


def best_of(draws: int) -> Search:
    return lambda base, texts, seeds: draw_pool(
        plain(base), learned_proxy(), texts, seeds=seeds, draws=draws
    ).best(draws)  # fmt: skip


def steered(particles: int) -> Search:
    return lambda base, texts, seeds: steer(
        DenoisingPolicy(base, ETA, steps=10, micro_batch=96), learned_proxy(), texts, seeds=seeds, particles=particles
    )


REFL = reward_gradient(one_leap(2, 3), {"objective": partial(hinge, enough=1.0)})
DANCE = policy_gradient(GRPO, partial(dance_sde, noise=0.3), kl_weight=0.0)
MIX = policy_gradient(GRPO, SDE, {"choose_steps": window_steps}, trained_steps=2, noise_only_where_trained=True)

METHODS: dict[str, Method] = {
    "rwr": Method("RWR", "online", "09", "peters2007rwr", reward_weighted(partial(exponential, beta=0.03)), 2e-4),
    "raft": Method("RAFT", "online", "09", "dong2023raft", reward_weighted(partial(best_of_group, keep=3)), 2e-4),
    "ddpo": Method("DDPO", "online", "09", "black2023ddpo", policy_gradient(DDPO, ETA, kl_weight=0.0)),
    "dpok": Method("DPOK", "online", "09", "fan2023dpok", policy_gradient(DPOK, ETA)),
    "refl": Method("ReFL", "online", "10", "xu2023imagereward", REFL, 2e-4, batch=48),
    "draft": Method("DRaFT-1", "online", "10", "clark2023draft", reward_gradient(last_steps(1)), 3e-4, batch=48),
    "dpo": Method("Diffusion-DPO", "offline", "11", "wallace2023ddpo", offline_dpo(0.0), 3e-4),
    "dpo-anchored": Method("Diffusion-DPO, anchored", "offline", "11", "wallace2023ddpo", offline_dpo(2.0), 3e-4),
    "kto": Method("Diffusion-KTO", "offline", "11", "li2024kto", offline_kto, 3e-4),
    "d3po": Method("D3PO", "online", "11", "yang2023d3po", step_preference(D3PO), 3e-4),
    "spo": Method("SPO", "online", "11", "liang2024spo", step_preference(SPO), 3e-4),
    "flow-grpo": Method("Flow-GRPO", "online", "12", "liu2025flowgrpo", policy_gradient(GRPO, SDE)),
    "dance-grpo": Method("DanceGRPO", "online", "12", "xue2025dancegrpo", DANCE),
    "mix-grpo": Method("MixGRPO", "online", "12", "li2025mixgrpo", MIX),
    "cps": Method("Flow-CPS", "online", "12", "wang2025cps", policy_gradient(GRPO, partial(cps, noise=0.5))),
    "nft": Method("DiffusionNFT", "online", "13", "zheng2025nft", forward_process(DiffusionNFT)),
    "awm": Method("AWM", "online", "13", "xue2025awm", forward_process(AWM)),
    "best-of-4": Method("best of 4", "search", "13", "", search=best_of(4), draws=4),
    "best-of-12": Method("best of 12", "search", "13", "", search=best_of(12), draws=12),
    "steered-4": Method("steering, 4 particles", "search", "13", "singhal2025fk", search=steered(4), draws=4),
}
