"""RWR, RAFT, DDPO and DPOK on equal samples: `python benchmarks/ddpo_comparison.py [--methods rwr] [--seeds 0 1 2]`.

The same base, prompts, reward and number of pictures; each method with the sampler and the learning rate that suit
it. What is recorded is left alone, a run that was interrupted goes on. Leaves a record a method and seed in
`benchmarks/09-ddpo-comparison.json`, and the logs beside it.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.recording import arguments, changes, keep_record, scores, train
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import DDPO, DPOK, GRPOConfig, LoopConfig, RewardWeighted, RewardWeightedConfig
from pixelpolicy.finetune.reward_weighted import best_of_group, exponential
from pixelpolicy.generators import load
from pixelpolicy.policies import DenoisingPolicy, ddim_eta, ode
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

NAME = "09-ddpo-comparison"
BATCH = 192  # pictures an iteration, of all methods
LOOP = LoopConfig(
    iterations=60, learning_rate=5e-4, warmup_iterations=4, cooldown_iterations=40, save_every=10, progress=False
)
GROUPS = RewardWeightedConfig(prompts_per_iteration=16, group_size=12, noise_draws=2, minibatches=2, anchor_weight=2.0)
STEPS = GRPOConfig(
    prompts_per_iteration=16, group_size=12, trained_steps=5, minibatches=2, clip_range=2e-3, kl_weight=0.0
)
PLAIN = {"transition": ode, "steps": 10}  # no density is asked for, so that pictures may be drawn as they are judged
NOISY = {"transition": partial(ddim_eta, noise=1.0), "steps": 6}
METHODS: dict[str, dict[str, Any]] = {
    "rwr": {
        "make": partial(RewardWeighted, weights_of=partial(exponential, beta=0.03)),
        "config": GROUPS, "policy": PLAIN, "learning_rate": 2e-4,
    },
    "raft": {
        "make": partial(RewardWeighted, weights_of=partial(best_of_group, keep=3)),
        "config": GROUPS, "policy": PLAIN, "learning_rate": 2e-4,
    },
    "ddpo": {"make": DDPO, "config": STEPS, "policy": NOISY, "learning_rate": 5e-4},
    "dpok": {"make": DPOK, "config": replace(STEPS, kl_weight=0.02), "policy": NOISY, "learning_rate": 5e-4},
}  # fmt: skip


@functools.cache
def of_the_base(per_kind: int) -> dict[str, dict[str, float]]:
    return scores(load("shapes"), per_kind)


def run(method: str, seed: int, iterations: int, per_kind: int) -> None:
    settings, base = METHODS[method], load("shapes")
    policy = DenoisingPolicy(base.student(), **settings["policy"])
    config = replace(settings["config"], seed=seed)
    algorithm = settings["make"](policy, shapes_dense(), shapes.draw_prompts, config)
    folder = course_root() / "runs" / NAME / method / f"seed-{seed}"
    loop_config = replace(LOOP, iterations=iterations, folder=folder, learning_rate=settings["learning_rate"])
    loop = train(algorithm, loop_config, every=10)
    with loop.averaged_weights():
        judged = DenoisingPolicy(algorithm.policy.generator, **NOISY)  # one sampler for all, or no KL would compare
        metrics = changes(of_the_base(per_kind), scores(algorithm.policy.generator, per_kind), judged, base)
    write_json(course_root() / "benchmarks" / NAME / method / f"seed-{seed}.json", loop.history)
    samples = len(loop.history) * BATCH
    keep_record(NAME, metrics, loop.history, seed=seed, samples=samples, method=method, source=__file__)
    accuracy = metrics["accuracy"]
    print(f"{method} seed {seed}: {accuracy['before']:.3f} -> {accuracy['after']:.3f}", flush=True)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--per-kind", type=int, default=256, help="pictures a kind at the end")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    path = course_root() / "benchmarks" / f"{NAME}.json"
    for seed in asked.seeds:
        for method in asked.methods:
            done = read_benchmark(path) if path.exists() else []
            if (method, seed) not in [(made["method"], made["seed"]) for made in done]:
                run(method, seed, asked.iterations or LOOP.iterations, asked.per_kind)


if __name__ == "__main__":
    main()
