"""Over-optimisation, recorded: `python benchmarks/overoptimisation.py --seed 0` (goes on where it stopped).

A preference model fitted to few answers of a simulated rater is climbed by DRaFT on the shapes base, alone and with
brakes, and by best-of-n; gold is the dense verifier. The KL is that of the sampler's noisy steps, in nats and exact.
Leaves one record a method in `benchmarks/19-open-problems-overoptimisation.json`.
"""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.recording import arguments, keep_record
from pixelpolicy.finetune import Loop, LoopConfig, RewardGradient, RewardGradientConfig, last_steps
from pixelpolicy.generators import load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ddim_eta, trajectory_kl
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.rewards.ensemble import Committee, agreement, cautious, fit_committee, simulated_comparisons
from pixelpolicy.rl import Reward, best_of_n_kl, early_stop, expected_best, fit_goodhart
from pixelpolicy.worlds import shapes

NAME = "19-open-problems-overoptimisation"
PAIRS, HELD_OUT, MEMBERS = 200, 300, 5
ITERATIONS, EVERY, RATE = 144, 6, 3e-4
COUNTS = (1, 2, 4, 8, 16, 32, 64)


def policy_of(generator: ImageGenerator) -> DenoisingPolicy:
    return DenoisingPolicy(generator, partial(ddim_eta, noise=1.0), steps=6)


def judges(base: ImageGenerator, seed: int) -> tuple[Committee, dict[str, float]]:
    """A committee that learnt from few answers, and how often it agrees with held-out ones."""
    rng = np.random.default_rng([19, seed])
    drawn = 2 * (PAIRS + HELD_OUT)  # about half of them differ enough to have an answer
    asked = shapes.draw_prompts(drawn, rng)
    left, right = (base.generate(asked, rng.integers(2**62, size=drawn).tolist(), steps=6) for _ in range(2))
    answers = simulated_comparisons(left, right, asked, least_gap=0.1, seed=seed)
    committee = fit_committee(answers[:PAIRS], MEMBERS, seed=seed)
    parts = {"seen": answers[:PAIRS], "held_out": answers[PAIRS : PAIRS + HELD_OUT]}
    return committee, {name: agreement(committee.reward(0), part) for name, part in parts.items()}


@torch.no_grad()
def look(student: ImageGenerator, base: ImageGenerator, committee: Committee, climbed: Reward) -> dict[str, float]:
    """Gold and proxy of pictures by the noisy sampler, and a query: gold of 128 pictures of other prompts and seeds."""
    policy, found = policy_of(student), {}
    for split, per_kind in (("test", 48), ("validation", 32)):
        texts, seeds = shapes.evaluation_pairs(split, per_kind)
        samples = policy.rollout(texts, seeds=torch.tensor(seeds)).samples
        scores = shapes.measure(samples.numpy(), texts)
        if split == "validation":
            found["query"] = scores["dense"]
            continue
        members = committee(samples, texts)
        found |= {key: float(np.nan_to_num(scores[key])) for key in ("dense", "accuracy", "diversity")}
        found |= {"proxy": members[0].mean().item(), "climbed": climbed(samples, texts).mean().item()}
        found["spread"] = members.std(0, correction=0).mean().item()
        rows = torch.arange(0, len(texts), 6)
        some = [texts[row] for row in rows]
        kl = trajectory_kl(policy, policy_of(base), some, torch.tensor(seeds)[rows])
        found["kl_nats"] = kl.mean().item()
    return found


def climb(base: ImageGenerator, committee: Committee, reward: Reward, kl_weight: float, folder: Path, seed: int):
    """DRaFT-2 along a reward; the log with a look every so many iterations."""
    student = base.student()
    settings = RewardGradientConfig(prompts_per_iteration=48, kl_weight=kl_weight, seed=seed)
    algorithm = RewardGradient(policy_of(student), reward, shapes.draw_prompts, settings, last_steps(2))
    config = LoopConfig(
        ITERATIONS, RATE, warmup_iterations=2, ema_decay=0.5, folder=folder, save_every=EVERY, progress=False
    )
    loop = Loop(algorithm, config)

    def watch(loop: Loop, metrics: dict[str, float]) -> None:
        if loop.iteration % EVERY == 0:
            with loop.averaged_weights():
                metrics |= look(student, base, committee, reward)
            print({k: round(v, 3) for k, v in metrics.items()}, flush=True)

    return loop.run([watch])


def best_of_n(base: ImageGenerator, committee: Committee, seed: int) -> dict[str, list[float]]:
    """Gold and proxy of the picture that the proxy likes best, by n: 64 pictures of each of 32 prompts."""
    texts = shapes.evaluation_pairs("test", 32)[0][::4]
    most = max(COUNTS)
    repeated = [text for text in texts for _ in range(most)]
    seeds = torch.arange(len(repeated)) + 10_000_000 * (seed + 1)
    with torch.no_grad():
        samples = policy_of(base).rollout(repeated, seeds=seeds).samples
        said, gold = (r(samples, repeated).reshape(-1, most) for r in (committee.reward(0), shapes_dense()))
    return {
        "kl_nats": best_of_n_kl(torch.tensor(COUNTS)).tolist(),
        "proxy": [expected_best(said, said, n).mean().item() for n in COUNTS],
        "dense": [expected_best(said, gold, n).mean().item() for n in COUNTS],
    }


def summary(rows: list[dict[str, float]]) -> dict:
    """From the looks of a run: where gold peaked, where it ended, and where a few queries would have stopped."""
    gold, kl = [row["dense"] for row in rows], [max(row["kl_nats"], 0.0) for row in rows]
    peak = int(np.argmax(gold))
    kept, asked = early_stop([row["query"] for row in rows], patience=3)
    found = {"gold": {"before": gold[0], "peak": gold[peak], "after": gold[-1]}, "peak_kl_nats": kl[peak]}
    found |= {"fall": 1 - gold[-1] / gold[peak], "proxy": {"before": rows[0]["proxy"], "after": rows[-1]["proxy"]}}
    found |= {"proxy_at_peak": rows[peak]["proxy"], "accuracy_at_peak": rows[peak]["accuracy"]}
    found |= {"early_stop": {"gold": gold[kept], "kept_share": gold[kept] / gold[peak], "queries": asked}}
    gained = torch.tensor(gold) - gold[0]
    found["gao"] = dict(zip(("alpha", "beta"), fit_goodhart(torch.tensor(kl).sqrt(), gained), strict=True))
    keys = ("kl_nats", "dense", "proxy", "accuracy", "diversity", "query", "spread")
    return found | {"curve": {key: [round(row[key], 4) for row in rows] for key in keys}}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one method")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    base, seed = load("shapes"), asked.seed
    committee, agreed = judges(base, seed)
    print(agreed, flush=True)
    lone = committee.reward(0, "proxy")
    methods = {
        "DRaFT": (lone, 0.0),
        "DRaFT, ensemble": (committee.reward(cautious(1.0), "ensemble"), 0.0),
        "DRaFT, KL": (lone, 10.0),
    }
    for method, (reward, kl_weight) in methods.items():
        if asked.only in (None, method):
            folder = course_root() / "runs" / NAME / f"{method.replace(', ', '-')}-{seed}"
            begin, start = folder / "start.json", look(base, base, committee, reward)
            folder.mkdir(parents=True, exist_ok=True)
            write_json(begin, start)
            log = climb(base, committee, reward, kl_weight, folder, seed)
            rows = [start, *(row for row in log if "dense" in row)]
            metrics = summary(rows) | {"agreement": agreed}
            keep_record(NAME, metrics, log, seed=seed, method=method, source=__file__, samples=48 * len(log))
            print(method, {k: v for k, v in metrics.items() if k != "curve"}, flush=True)
    if asked.only in (None, "best-of-n"):
        wall, cpu = time.perf_counter(), time.process_time()
        curve = best_of_n(base, committee, seed)
        log = [{"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}]
        keep_record(NAME, {"curve": curve, "agreement": agreed}, log, seed=seed, method="best-of-n", source=__file__)
        print("best-of-n", curve, flush=True)


if __name__ == "__main__":
    main()
