"""The recorded long run of lab 12: `python benchmarks/grpo_long.py --seed 0` (goes on where it was interrupted).

The same algorithm as in the lab, with the library's functions, for longer. Leaves the log, the weights and a record
under `benchmarks/12-grpo-long`.
"""

import argparse
from dataclasses import replace
from functools import partial

import torch

from pixelpolicy.course import recorded
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import read_benchmark, record
from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig
from pixelpolicy.generators import evaluate, load
from pixelpolicy.policies import DenoisingPolicy, cps, trajectory_kl
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

NAME = "12-grpo-long"
SETTINGS = GRPOConfig(
    prompts_per_iteration=16, group_size=12, trained_steps=5, minibatches=2, clip_range=2e-3, kl_weight=0.02
)
LOOP = LoopConfig(
    iterations=480,
    learning_rate=5e-4,
    warmup_iterations=4,
    cooldown_iterations=410,
    ema_decay=0.95,
    save_every=10,
    name=NAME,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=LOOP.iterations)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    base, student = load("shapes"), load("shapes")
    student.transformer.requires_grad_(True)
    policy = DenoisingPolicy(student, partial(cps, noise=0.5), steps=6)
    algorithm = GRPO(policy, shapes_dense(), shapes.draw_prompts, replace(SETTINGS, seed=asked.seed))
    folder = course_root() / "runs" / NAME / f"seed-{asked.seed}"
    loop = Loop(algorithm, replace(LOOP, iterations=asked.iterations, folder=folder))

    def watch(loop: Loop, metrics: dict[str, float]) -> None:
        if loop.iteration % 20 == 0 or loop.iteration == asked.iterations:
            with loop.averaged_weights():
                scores = evaluate(student, "validation", per_kind=64)
            metrics |= {key: scores[key] for key in ("accuracy", "dense", "diversity")}

    log = loop.run([watch])
    with loop.averaged_weights():
        recorded.keep(NAME, asked.seed, log, student.transformer.state_dict(), base)

    tuned = recorded.apply(NAME, asked.seed, load("shapes"))  # measured as it will be loaded
    before = {split: evaluate(base, split) for split in ("test", "held-out")}
    after = {split: evaluate(tuned, split) for split in ("test", "held-out")}
    texts = shapes.evaluation_pairs("test", 24)[0]
    kl = trajectory_kl(
        replace(policy, generator=tuned), replace(policy, generator=base), texts, torch.arange(len(texts))
    )
    keys = ["accuracy", *(f"accuracy_{kind}" for kind in shapes.KINDS), "dense", "diversity"]
    metrics = {key: {"before": before["test"][key], "after": after["test"][key]} for key in keys}
    metrics["accuracy_held_out"] = {
        when: s["held-out"]["accuracy"] for when, s in (("before", before), ("after", after))
    }
    metrics["kl_nats"] = {"before": 0.0, "after": kl.mean().item()}
    entry = record(
        NAME,
        metrics,
        seed=asked.seed,
        seconds=sum(row["seconds"] for row in log),
        cpu_seconds=sum(row["cpu_seconds"] for row in log),
        samples=len(log) * SETTINGS.prompts_per_iteration * SETTINGS.group_size,
        source=__file__,
    )
    path = course_root() / "benchmarks" / f"{NAME}.json"
    others = [r for r in (read_benchmark(path) if path.exists() else []) if r["seed"] != asked.seed]
    write_json(path, sorted([*others, entry], key=lambda r: r["seed"]))


if __name__ == "__main__":
    main()
