"""The race of lab 10: `python benchmarks/reward_gradient_race.py`, in one process on an idle machine.

For each seed DDPO climbs the proxy by its numbers; then DRaFT and ReFL climb it by its gradient until they stand where
DDPO ended. CPU seconds of training count, those of looking do not. Every run that is finished is kept in
`benchmarks/10-reward-gradient-race.json` at once, and is not run again: interrupt it as you like.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from pixelpolicy.course.files import course_root
from pixelpolicy.course.recording import keep_record
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import (
    DDPO,
    GRPOConfig,
    Loop,
    LoopConfig,
    RewardGradient,
    RewardGradientConfig,
    last_steps,
    one_leap,
)
from pixelpolicy.finetune.reward_gradient import descend_reward, hinge
from pixelpolicy.generators import load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ddim_eta, ode
from pixelpolicy.rewards import learned_proxy
from pixelpolicy.worlds import shapes

NAME = "10-reward-gradient-race"
DDPO_SETTINGS = GRPOConfig(
    prompts_per_iteration=16, group_size=12, trained_steps=5, minibatches=2, clip_range=2e-3, kl_weight=0.02
)
SETTINGS = RewardGradientConfig(prompts_per_iteration=48)
RUNS = {  # iterations, learning rate, iterations between looks, warm-up, share of old weights in the average
    "DDPO": (60, 5e-4, 5, 4, 0.8),
    "DRaFT-1": (400, 5e-4, 4, 2, 0.5),
    "ReFL": (400, 2e-4, 4, 2, 0.5),
    "DRaFT-2 with KL": (400, 3e-4, 4, 2, 0.5),
}


def make(method: str, student: ImageGenerator, seed: int) -> DDPO | RewardGradient:
    noisy = DenoisingPolicy(student, partial(ddim_eta, noise=1.0), steps=6)
    if method == "DDPO":
        noisy = replace(noisy, transition=partial(ddim_eta, noise=0.6))
        return DDPO(noisy, learned_proxy(), shapes.draw_prompts, replace(DDPO_SETTINGS, seed=seed))
    plain, settings = DenoisingPolicy(student, ode, steps=5, micro_batch=48), replace(SETTINGS, seed=seed)
    policy, window, objective = {
        "DRaFT-1": (plain, last_steps(1), descend_reward),
        "ReFL": (plain, one_leap(2, 3), partial(hinge, enough=1.0)),
        "DRaFT-2 with KL": (replace(plain, transition=noisy.transition), last_steps(2), descend_reward),
    }[method]
    if "KL" in method:
        settings = replace(settings, kl_weight=1.0)
    return RewardGradient(policy, learned_proxy(), shapes.draw_prompts, settings, window, objective)


@torch.no_grad()
def look(generator: ImageGenerator, per_kind: int) -> dict[str, float]:
    """The proxy's word on the validation pairs, by the plain ODE, and the verifier's beside it."""
    texts, seeds = shapes.evaluation_pairs("validation", per_kind)
    pictures = generator.generate(texts, seeds)
    scores = shapes.measure(pictures.numpy(), texts) | {"proxy": learned_proxy()(pictures, texts).mean().item()}
    return {key: float(np.nan_to_num(scores[key])) for key in ("proxy", "accuracy", "dense", "diversity")}


def climb(method: str, seed: int, goal: float | None, iterations: int | None, per_kind: int) -> list[dict[str, Any]]:
    """The log of one run: a row a look, with the CPU seconds of training until then; to the goal, if there is one."""
    count, rate, every, warm, average = RUNS[method]
    student = load("shapes").student()
    settings = LoopConfig(
        iterations or count, rate, warmup_iterations=warm, ema_decay=average, name=f"{method}, {seed}"
    )
    loop = Loop(make(method, student, seed), settings)
    log = [look(student, per_kind) | {"cpu": 0.0, "wall": 0.0, "iterations": 0}]
    spent = {"cpu": 0.0, "wall": 0.0}
    while loop.iteration < settings.iterations and (goal is None or log[-1]["proxy"] < goal):
        row = loop.iterate()
        spent = {"cpu": spent["cpu"] + row["cpu_seconds"], "wall": spent["wall"] + row["seconds"]}
        if loop.iteration % every == 0 or loop.iteration == settings.iterations:
            with loop.averaged_weights():
                log.append(look(student, per_kind) | spent | {"iterations": loop.iteration})
            print(method, seed, {key: round(value, 3) for key, value in log[-1].items()}, flush=True)
    return log


def reached(log: list[dict[str, Any]], goal: float) -> dict[str, Any] | None:
    """The first look at which the proxy has reached a goal: no straight lines, the whole stretch to it counts."""
    return next((row for row in log if row["proxy"] >= goal), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, help="fewer than the runs have, for a trial")
    parser.add_argument("--per-kind", type=int, default=64, help="pictures a kind at each look")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    path = course_root() / "benchmarks" / f"{NAME}.json"
    done = {(r["method"], r["seed"]): r for r in (read_benchmark(path) if path.exists() else [])}
    for seed in asked.seeds:
        rival = done.get(("DDPO", seed), {}).get("metrics", {}).get("log")
        for method in RUNS:
            if (method, seed) in done:
                continue
            goal = max(row["proxy"] for row in rival) if rival else None
            log = climb(method, seed, goal, asked.iterations, asked.per_kind)
            rival = rival or log
            keep(method, seed, log, rival)


def keep(method: str, seed: int, log: list[dict[str, Any]], rival: list[dict[str, Any]]) -> None:
    """One record: the log, and where the goal was reached, if it was, beside DDPO's time to it."""
    goal = max(row["proxy"] for row in rival)
    metrics: dict[str, Any] = {"goal": goal, "log": log, "before": log[0], "after": log[-1]}
    if (mine := reached(log, goal)) is not None:
        theirs = reached(rival, goal)
        metrics |= {
            "seconds_to_goal": mine["cpu"], "ddpo_seconds_to_goal": theirs["cpu"],
            "speedup": theirs["cpu"] / max(mine["cpu"], 1e-9), "accuracy_at_goal": mine["accuracy"],
            "ddpo_accuracy_at_goal": theirs["accuracy"], "diversity_at_goal": mine["diversity"],
            "ddpo_diversity_at_goal": theirs["diversity"],
        }  # fmt: skip
    size = (DDPO_SETTINGS if method == "DDPO" else SETTINGS).size
    rows = [{"seconds": log[-1]["wall"], "cpu_seconds": log[-1]["cpu"]}]
    keep_record(NAME, metrics, rows, seed=seed, method=method, samples=max(log[-1]["iterations"], 1) * size,
                source=__file__)  # fmt: skip


if __name__ == "__main__":
    main()
