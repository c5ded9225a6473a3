"""The recorded long run of lab 13: `python benchmarks/forward_process_long.py --seed 0` (goes on where it was stopped).

DiffusionNFT as in the lab, with the library's functions, for three times as many iterations: the brake must hold.
Leaves the log, the weights and a record under `benchmarks/13-forward-process-long`.
"""

from dataclasses import replace
from functools import partial

import torch

from pixelpolicy.course import recorded
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.recording import long_run
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import DiffusionNFT, ForwardProcessConfig, LoopConfig
from pixelpolicy.generators import load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, cps, ode, trajectory_kl
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

SETTINGS = ForwardProcessConfig(
    prompts_per_iteration=16, group_size=12, minibatches=2, noise_draws=2, old_decay=0.5, kl_weight=0.1
)
LOOP = LoopConfig(
    iterations=150, learning_rate=1e-3, warmup_iterations=4, cooldown_iterations=120, name="13-forward-process-long"
)


def make(student: ImageGenerator, seed: int, **settings) -> DiffusionNFT:
    policy = DenoisingPolicy(student, ode, steps=6)
    return DiffusionNFT(policy, shapes_dense(), shapes.draw_prompts, replace(SETTINGS, seed=seed, **settings))


def measure_kl() -> None:
    """The ODE has no density, and no KL. That of the records is along CPS, lab 12's sampler, with the same weights."""
    path, base = course_root() / "benchmarks" / f"{LOOP.name}.json", load("shapes")
    noisy, texts = DenoisingPolicy(base, partial(cps, noise=0.5), steps=6), shapes.evaluation_pairs("test", 24)[0]
    entries = read_benchmark(path)
    for entry in entries:
        tuned = recorded.apply(LOOP.name, entry["seed"], load("shapes"))
        kl = trajectory_kl(replace(noisy, generator=tuned), noisy, texts, torch.arange(len(texts)))
        entry["metrics"]["kl_nats"]["after"] = kl.mean().item()
    write_json(path, entries)


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__)
    measure_kl()
