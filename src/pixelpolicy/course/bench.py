"""`pixelpolicy bench`: tunes and runs the methods of `algorithms.py`, measures them alike, and collects the records.

A method is tuned by the same effort: `RATES` times its learning rate, each for half of the pictures and with a seed of
its own, the most accurate on the validation set chosen. A run has one thread and leaves one file,
`benchmarks/algorithms/METHOD/seed-N.json`; `collect` makes `benchmarks/algorithms.json` of those that are there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm

from pixelpolicy.course import algorithms
from pixelpolicy.course.algorithms import METHODS, Budget, Search, noisy
from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.parallel import in_parallel
from pixelpolicy.course.results import record, validate_record
from pixelpolicy.errors import LabError
from pixelpolicy.finetune import Loop, LoopConfig
from pixelpolicy.generators import load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import trajectory_kl
from pixelpolicy.rewards import learned_proxy
from pixelpolicy.worlds import shapes

NAME = "algorithms"
RATES = (0.25, 0.5, 1.0, 2.0)  # what each method's learning rate is multiplied with in tuning
TUNING_SEED = 100  # none that is reported
FULL = Budget()


# Measuring ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure(generator: ImageGenerator, per_kind: int, search: Search | None = None, shift: int = 0) -> dict[str, float]:
    """The proxy and the strict verifier, which nothing climbed, on the test set and on held-out prompts.

    By the plain ODE of ten steps, or what a ``search`` delivers, with noise that ``shift`` sets apart.
    """
    found: dict[str, float] = {}
    for split, ending in (("test", ""), ("held-out", "_held_out")):
        texts, seeds = shapes.evaluation_pairs(split, per_kind)
        if search:
            pictures = search(generator, texts, torch.tensor(seeds) + shift).samples
        else:
            pictures = generator.generate(texts, seeds, steps=10, guidance_scale=1.0)
        scores = shapes.measure(pictures.numpy(), texts)
        found |= {f"{key}{ending}": float(np.nan_to_num(scores[key])) for key in ("accuracy", "dense", "diversity")}
        found[f"proxy{ending}"] = learned_proxy()(pictures, texts).mean().item()
    return found


def kl_to_base(tuned: ImageGenerator, base: ImageGenerator, per_kind: int) -> float:
    """Nats of a path, by one noisy sampler for all methods: exact at each step, the mean over paths."""
    texts, seeds = shapes.evaluation_pairs("test", max(per_kind // 10, 1))
    return trajectory_kl(noisy(tuned), noisy(base), texts, torch.tensor(seeds)).mean().item()


@torch.no_grad()
def validated(generator: ImageGenerator, per_kind: int) -> float:
    """Strict accuracy on the validation set, by which learning rates are chosen."""
    texts, seeds = shapes.evaluation_pairs("validation", per_kind)
    return shapes.measure(generator.generate(texts, seeds, steps=10, guidance_scale=1.0).numpy(), texts)["accuracy"]


# Runs -----------------------------------------------------------------------------------------------------------------


def folder_of(root: Path) -> Path:
    return root / "benchmarks" / NAME


def _file(root: Path, method: str, seed: int) -> Path:
    return folder_of(root) / method / f"seed-{seed}.json"


def _tuned(root: Path, method: str, rate: float) -> Path:
    return folder_of(root) / method / f"tuning-{rate:g}.json"


def _read(path: Path) -> dict[str, Any]:
    """A file that a run left. Raises `LabError` where it cannot be read, and says which."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{path} cannot be read ({error}). Delete it, and `pixelpolicy bench` makes it anew") from error


def rates(method: str) -> list[float]:
    """The learning rates that tuning tries; none for a search."""
    return [METHODS[method].learning_rate * factor for factor in RATES] if METHODS[method].make else []


def read_trial(root: Path, method: str, rate: float) -> dict[str, float]:
    """The validation accuracy of a trial, and its CPU seconds. Raises `LabError` where it cannot be read."""
    return _read(_tuned(root, method, rate))


def chosen_rate(root: Path, method: str) -> float:
    """The learning rate whose half run was the most accurate. Raises `LabError` where a trial is missing."""
    trials = {rate: _tuned(root, method, rate) for rate in rates(method)}
    if missing := [path.name for path in trials.values() if not path.exists()]:
        raise LabError(f"{method} is not tuned: {', '.join(missing)} missing. `pixelpolicy bench` tunes before it runs")
    return max(trials, key=lambda rate: read_trial(root, method, rate)["accuracy"])


def _train(method: str, seed: int, rate: float, budget: Budget, folder: Path) -> tuple[Loop, float, float]:
    """A trained loop, and the wall and CPU seconds of all of it; goes on from ``folder``'s checkpoint."""
    settings = METHODS[method]
    torch.set_num_threads(1)
    iterations = max(budget.pictures // settings.batch, 1)
    wall, cpu = time.perf_counter(), time.process_time()
    algorithm = settings.make(load("shapes").student(), seed, budget)  # offline methods draw their pictures here
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    config = LoopConfig(
        iterations, rate, warmup_iterations=max(iterations // 10, 1), cooldown_iterations=iterations // 2,
        folder=folder, save_every=max(iterations // 3, 1), name=f"{method}, {seed}", progress=False,
    )  # fmt: skip
    loop = Loop(algorithm, config)
    loop.run()
    wall += sum(row["seconds"] for row in loop.history)
    return loop, wall, cpu + sum(row["cpu_seconds"] for row in loop.history)


def tune(root: Path, method: str, rate: float, budget: Budget) -> None:
    """One trial: half of the pictures at a learning rate; leaves its validation accuracy."""
    scratch = root / "runs" / NAME / f"{method}-tuning-{rate:g}"
    half = replace(budget, pictures=budget.pictures // 2)
    loop, _, cpu = _train(method, TUNING_SEED, rate, half, scratch)
    with loop.averaged_weights():
        accuracy = validated(loop.algorithm.policy.generator, max(budget.per_kind // 2, 1))
    write_json(_tuned(root, method, rate), {"accuracy": accuracy, "cpu_seconds": round(cpu, 1)})
    shutil.rmtree(scratch, ignore_errors=True)


def measure_base(root: Path, budget: Budget) -> dict[str, float]:
    """What the untouched base measures: made once, and read by every run."""
    path = folder_of(root) / "base.json"
    if not path.exists():
        torch.set_num_threads(1)
        write_json(path, measure(load("shapes"), budget.per_kind))
    return _read(path)


def run(root: Path, method: str, seed: int, budget: Budget) -> None:
    """One run from the base to its record, in one thread; a record that is there is left alone."""
    settings, path, before = METHODS[method], _file(root, method, seed), measure_base(root, budget)
    if path.exists():
        return
    base, told = load("shapes"), {}
    if settings.make is None:
        torch.set_num_threads(1)
        wall, cpu = time.perf_counter(), time.process_time()
        after = measure(base, budget.per_kind, settings.search, 10_000_000 * settings.draws * seed)
        wall, cpu, log = time.perf_counter() - wall, time.process_time() - cpu, []
        drawn = 2 * len(shapes.KINDS) * budget.per_kind * settings.draws
    else:
        scratch, rate = root / "runs" / NAME / f"{method}-{seed}", chosen_rate(root, method)
        loop, wall, cpu = _train(method, seed, rate, budget, scratch)
        log, drawn = loop.history, budget.pictures
        with loop.averaged_weights():
            tuned = loop.algorithm.policy.generator
            after = measure(tuned, budget.per_kind)
            kl = kl_to_base(tuned, base, budget.per_kind)
        told = {"kl_nats": {"before": 0.0, "after": kl}, "learning_rate": rate}
    metrics: dict[str, Any] = {key: {"before": before[key], "after": after[key]} for key in before} | told
    source = algorithms.__file__
    made = record(NAME, metrics, seed=seed, seconds=wall, cpu_seconds=cpu, method=method, samples=drawn, source=source)
    write_json(path, {"record": made, "log": log})
    if settings.make is not None:
        shutil.rmtree(scratch, ignore_errors=True)


def collect(root: Path) -> list[dict[str, Any]]:
    """All the records that are there, in the order of `METHODS`, also written to `benchmarks/algorithms.json`."""
    found = []
    for method in METHODS:
        for path in sorted((folder_of(root) / method).glob("seed-*.json")):
            found.append(validate_record(_read(path)["record"]))
    if found:
        write_json(root / "benchmarks" / f"{NAME}.json", found)
    return found


def _called(job: tuple[Callable, tuple]) -> None:
    function, given = job
    function(*given)


def bench(
    methods: Sequence[str] = tuple(METHODS),
    seeds: Sequence[int] = (0, 1, 2),
    *,
    budget: Budget = FULL,
    root: Path | None = None,
    **parallel: Any,
) -> list[dict[str, Any]]:
    """Tune and run what is missing of some methods and seeds, and collect all the records.

    ``parallel`` is what `in_parallel` takes: ``workers``, ``backend``, ``scheduler``. Interrupted, it goes on where it
    stopped. Raises `LabError` for a method that is not in `METHODS`.
    """
    root = root or course_root()
    if unknown := [method for method in methods if method not in METHODS]:
        raise LabError(f"there is no method {', '.join(unknown)}; choose from {', '.join(METHODS)}")
    trials = [(tune, (root, m, r, budget)) for m in methods for r in rates(m) if not _tuned(root, m, r).exists()]
    runs = [(run, (root, m, seed, budget)) for seed in seeds for m in methods if not _file(root, m, seed).exists()]
    for title, jobs in (("base", [(measure_base, (root, budget))]), ("tuning", trials), ("runs", runs)):
        for _ in tqdm(in_parallel(_called, jobs, **parallel), desc=title, total=len(jobs)):
            pass  # each leaves its own file, so that nothing is lost when the rest is interrupted
    return collect(root)
