"""What the recorded runs of fine-tuning share: their arguments, the watching, the measuring, the record.

The scripts in `benchmarks/` are made of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course import recorded
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import read_benchmark, record
from pixelpolicy.finetune import Loop, LoopConfig
from pixelpolicy.generators import evaluate, load
from pixelpolicy.generators.checkpoint import difference, load_weights, save_weights
from pixelpolicy.generators.flow import FlowGenerator
from pixelpolicy.generators.picture_tokens import PictureTokenGenerator
from pixelpolicy.policies import DenoisingPolicy, TokenPolicy, sequence_kl, trajectory_kl

SPLITS = ("test", "held-out")  # of the world of shapes; a world without held-out prompts has "test" alone


def arguments(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, help="fewer than the run has, for a trial")
    return parser


def train(
    algorithm: Any, config: LoopConfig, every: int, keep: Callable[[dict[str, Tensor]], None] = lambda state: None
) -> Loop:
    """Train to the end, going on where it was interrupted; ``every`` so many iterations the validation set is read.

    ``keep`` is given the averaged weights whenever none before did as well there.
    """
    loop = Loop(algorithm, config)

    def watch(loop: Loop, metrics: dict[str, float]) -> None:
        if loop.iteration % every == 0 or loop.iteration == config.iterations:
            earlier = max((row.get("accuracy", 0.0) for row in loop.history), default=0.0)
            with loop.averaged_weights():
                scores = evaluate(algorithm.policy.generator, "validation", per_kind=64)
                if scores["accuracy"] > earlier:
                    keep(algorithm.model.state_dict())
            metrics |= {key: value for key, value in scores.items() if "_" not in key}

    loop.run([watch])
    return loop


def scores(
    generator: FlowGenerator, per_kind: int = 256, splits: Sequence[str] = SPLITS
) -> dict[str, dict[str, float]]:
    """What `evaluate` says of a generator on the splits that nothing was chosen on."""
    return {split: evaluate(generator, split, per_kind=per_kind) for split in splits}


def changes(
    before: dict, after: dict, policy: DenoisingPolicy | TokenPolicy, base: FlowGenerator | PictureTokenGenerator
) -> dict[str, dict[str, float]]:
    """Metrics of a record: scores before and after, and the KL of the trained ``policy`` to the base in nats.

    Where no two accepted samples share a prompt there is no diversity: 0.
    """
    keys = [key for key in before["test"] if not key.endswith("_se")]
    pairs = {key: (before["test"][key], after["test"][key]) for key in keys}
    metrics = {
        key: dict(zip(("before", "after"), map(float, np.nan_to_num(pair)), strict=True)) for key, pair in pairs.items()
    }
    if "held-out" in before:
        metrics["accuracy_held_out"] = {
            when: s["held-out"]["accuracy"] for when, s in (("before", before), ("after", after))
        }
    texts = base.world.evaluation_pairs("test", 24)[0]
    kl_of = sequence_kl if isinstance(policy, TokenPolicy) else trajectory_kl
    kl = kl_of(policy, replace(policy, generator=base), texts, torch.arange(len(texts)))
    return metrics | {"kl_nats": {"before": 0.0, "after": kl.mean().item()}}


def keep_record(
    name: str, metrics: dict, log: list[dict[str, float]], *, seed: int, source: Path | str, **more: Any
) -> None:
    """Put the record into `benchmarks/NAME.json`, in place of one of the same method and seed."""
    entry = record(
        name, metrics, seed=seed, source=source, seconds=sum(row["seconds"] for row in log),
        cpu_seconds=sum(row["cpu_seconds"] for row in log), **more,
    )  # fmt: skip
    path = course_root() / "benchmarks" / f"{name}.json"

    def which(made: dict) -> tuple[str, int]:
        return made.get("method", ""), made["seed"]

    others = [made for made in (read_benchmark(path) if path.exists() else []) if which(made) != which(entry)]
    write_json(path, sorted([*others, entry], key=which))


def long_run(
    description: str,
    make: Callable[[FlowGenerator, int], Any],
    config: LoopConfig,
    *,
    source: str,
    world: str = "shapes",
    splits: Sequence[str] = SPLITS,
) -> None:
    """The recorded long run of a lab: its log, its weights where they did best on the validation set, its record.

    ``make`` takes a generator to train and a seed, and gives the algorithm.
    """
    parser = arguments(description)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    name, base = config.name, load(world)
    algorithm = make(base.student(), asked.seed)
    folder = course_root() / "runs" / name / f"seed-{asked.seed}"
    best = folder / "best.safetensors"
    config = replace(config, iterations=asked.iterations or config.iterations, folder=folder)
    untrained = base.transformer.state_dict()
    loop = train(algorithm, config, every=20, keep=lambda state: save_weights(difference(state, untrained), best))
    trained = untrained | {key: untrained[key] + change for key, change in load_weights(best).items()}
    recorded.keep(name, asked.seed, loop.history, trained, base)
    tuned = recorded.apply(name, asked.seed, load(world))  # measured as it will be loaded
    metrics = changes(
        scores(base, splits=splits), scores(tuned, splits=splits), replace(algorithm.policy, generator=tuned), base
    )
    samples = len(loop.history) * algorithm.config.size
    keep_record(name, metrics, loop.history, seed=asked.seed, samples=samples, source=source)
