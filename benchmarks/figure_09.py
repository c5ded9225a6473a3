"""Chapter 09's figures and its tables of results: `python benchmarks/figure_09.py`.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the results alone, from the records,
and says plainly what is not recorded yet; `--check` writes nothing and fails where they are not those of the records.
"""

from __future__ import annotations

import argparse
from functools import partial
from statistics import mean

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread
from torch import Tensor

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import DDPO, GRPOConfig, Loop, LoopConfig
from pixelpolicy.finetune.reward_weighted import best_of_group, exponential
from pixelpolicy.generators import evaluate, load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ddim_eta
from pixelpolicy.rewards import jpeg_compressibility, jpeg_incompressibility, shapes_dense
from pixelpolicy.rewards.compressibility import header_kilobytes
from pixelpolicy.rl import clipped_surrogate
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import shapes

METHODS = {"rwr": OTHERS[0], "raft": OTHERS[1], "ddpo": viz.COLOURS["ddpo"], "dpok": OTHERS[3]}
STYLES = {"rwr": ":", "raft": "-.", "ddpo": "-", "dpok": "--"}
COMPARISON, LONG, LAB = "09-ddpo-comparison", "09-ddpo-long", "09-ddpo"


# The opening: three wishes ---------------------------------------------------------------------------------------


def wished(base: ImageGenerator, reward, iterations: int) -> ImageGenerator:
    """The base after DDPO for a reward on bytes, which does not look at the prompt."""
    policy = DenoisingPolicy(base.student(), partial(ddim_eta, noise=1.0), steps=6)
    config = GRPOConfig(prompts_per_iteration=192, group_size=1, trained_steps=5, kl_weight=0.0)
    loop = Loop(
        DDPO(policy, reward, shapes.draw_prompts, config),
        LoopConfig(iterations, learning_rate=1e-3, warmup_iterations=2, progress=False),
    )
    loop.run()
    with loop.averaged_weights():
        return policy.generator.reference()


def wishes(base: ImageGenerator, columns: int = 8) -> viz.Picture:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    prompts, seeds = prompts[::2], seeds[::2]  # two of each kind
    generators = {
        "The untouched base": base,
        "After DDPO for small files": wished(base, jpeg_compressibility(), 12),
        "After DDPO for large files": wished(base, jpeg_incompressibility(), 10),
    }
    if recorded_of(LONG):
        generators["After DPOK for the prompt, the recorded long run"] = recorded.apply(LONG, 0, load("shapes"))
    pictures, words = [], []
    for label, generator in generators.items():
        drawn = generator.generate(prompts, seeds)
        size = 1000 * (jpeg_incompressibility()(drawn, prompts).mean().item() - header_kilobytes())
        right = sum(verdict.strict for verdict in shapes.verify(drawn.numpy(), prompts))
        words.append(f"{label}: {size:.0f} coded bytes a picture, {right} of {columns} match")
        pictures.append(drawn)
    together = torch.cat(pictures)
    accepted = [v.strict for v in shapes.verify(together.numpy(), prompts * len(pictures))]
    return viz.sample_sheet(
        together,
        prompts * len(pictures),
        columns=columns,
        accepted=accepted,
        alt=f"{len(pictures)} rows of pictures for the same eight prompts and the same noise. "
        + ". ".join(words)
        + ".",
    )


# Weights from rewards --------------------------------------------------------------------------------------------


def weights() -> viz.Picture:
    rewards, one = torch.linspace(0, 1, 12), torch.zeros(12).long()
    rules = {f"RWR, β = {beta:g}": partial(exponential, beta=beta) for beta in (1.0, 0.3, 0.1)}
    rules["RAFT, best 3"] = partial(best_of_group, keep=3)
    figure, (axis,) = axes(1, width=5.6)
    for index, (label, rule) in enumerate(rules.items()):
        axis.plot(
            rewards, rule(rewards, one), marker="os^D"[index], markersize=4, label=label, color=OTHERS[index],
            linestyle=("-", "--", "-.", ":")[index],
        )  # fmt: skip
    axis.axhline(1, color="#777777", linewidth=1, linestyle=(0, (5, 2)), label="all alike")
    axis.set(xlabel="reward of one of twelve samples", ylabel="weight")
    axis.legend(frameon=False, fontsize=8)
    best = {label: rule(rewards, one)[-1].item() for label, rule in rules.items()}
    listed = ", ".join(f"{label} {value:.1f}" for label, value in best.items())
    return viz.picture(
        figure,
        alt="Weight against reward for a group of twelve with rewards from 0 to 1. All rules rise from left to right "
        f"and have mean 1; the best sample gets: {listed}. RAFT's weights are 0 but for the best three.",
    )


# What a reward is compared with ----------------------------------------------------------------------------------


def baselines(base: ImageGenerator, per_kind: int = 12, attempts: int = 8) -> viz.Picture:
    """Rewards of the base, prompt by prompt, and the mean over all of them."""
    rng = np.random.default_rng(0)
    figure, (axis,) = axes(1, width=7.2)
    means, everything, place_x, middles = {}, [], 0, {}
    for index, kind in enumerate(shapes.KINDS):
        pool = shapes.trained_prompts(kind)
        chosen = [pool[i] for i in rng.permutation(len(pool))[:per_kind]]
        prompts = [prompt for prompt in chosen for _ in range(attempts)]
        drawn = base.generate(prompts, list(range(len(prompts))))
        rewards = shapes_dense()(drawn, prompts).view(-1, attempts)
        everything.append(rewards)
        means[kind], first = rewards.mean(1), place_x
        for row in rewards[rewards.mean(1).argsort()]:
            axis.scatter([place_x] * attempts, row, s=9, alpha=0.45, color=OTHERS[index], linewidths=0)
            axis.plot([place_x - 0.4, place_x + 0.4], [row.mean()] * 2, color=OTHERS[index], linewidth=2)
            place_x += 1
        middles[kind], place_x = (first + place_x - 1) / 2, place_x + 1
    overall = torch.cat(everything).mean().item()
    axis.axhline(overall, color="#777777", linestyle="--", linewidth=1.2, label="mean of the batch")
    axis.set(ylabel="dense reward", xticks=list(middles.values()))
    axis.set_xticklabels(list(middles))
    axis.set_ylim(-0.05, 1.18)
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    listed = ", ".join(f"{kind} from {value.min():.2f} to {value.max():.2f}" for kind, value in means.items())
    return viz.picture(
        figure,
        alt=f"Dense rewards of the base, {attempts} dots for each of {sum(map(len, means.values()))} prompts in four "
        f"kinds, with each prompt's mean as a bar and the mean of all, {overall:.2f}, as a dashed line. The prompts' "
        f"means: {listed}.",
    )


# Clamp and maximum -----------------------------------------------------------------------------------------------


def clamped(new: Tensor, old: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """The clamp alone, without PPO's maximum."""
    return -(advantages * (new - old).exp().clamp(1 - clip_range, 1 + clip_range)).mean()


def clamp() -> viz.Picture:
    ratios = torch.cat(
        [torch.linspace(0.5, 0.799, 40), torch.linspace(0.801, 1.199, 80), torch.linspace(1.201, 1.5, 40)]
    )
    figure, panels = axes(2)
    for axis, gain in zip(panels, (1.0, -1.0), strict=True):
        for label, objective, style in (("with the maximum", clipped_surrogate, "-"), ("clamp alone", clamped, "--")):
            slopes = []
            for ratio in ratios:
                new = ratio.log().reshape(1).requires_grad_()
                loss = objective(new, torch.zeros(1), torch.tensor([gain]), 0.2)
                (slope,) = torch.autograd.grad(loss, new)
                slopes.append(-slope.item())
            axis.plot(ratios, slopes, style, linewidth=1.8, label=label, color=OTHERS[label == "clamp alone"])
        axis.axvspan(0.8, 1.2, color="#777777", alpha=0.12, linewidth=0)
        axis.set(xlabel="ratio", ylabel="push on the log-probability", title=f"advantage {gain:+.0f}")
    panels[0].legend(frameon=False, fontsize=8)
    return viz.picture(
        figure,
        alt="Two panels: the push on a step's log-probability against its ratio, for advantage +1 and -1, clip range "
        "0.2 shaded. Inside the range both rules push alike, by the ratio times the advantage. Beyond the range on the "
        "side that the advantage asks for both are 0. On the other side, where the policy went the wrong way, the rule "
        "with the maximum still pushes back, and the clamp alone is 0.",
    )


# Results ---------------------------------------------------------------------------------------------------------


def recorded_of(name: str) -> list[dict]:
    """The records of a benchmark; none where it has not been run yet."""
    path = ROOT / "benchmarks" / f"{name}.json"
    return read_benchmark(path) if path.exists() else []


def comparison() -> viz.Picture | None:
    """Validation accuracy of the four methods over their iterations: mean over seeds, lowest and highest."""
    runs = recorded_of(COMPARISON)
    if not runs:
        return None
    figure, (axis,) = axes(1, width=6.4, height=3.4)
    ends = []
    for method in [name for name in METHODS if any(run["method"] == name for run in runs)]:
        seeds = [run["seed"] for run in runs if run["method"] == method]
        logs = [[r for r in recorded.history(f"{COMPARISON}/{method}", seed) if "accuracy" in r] for seed in seeds]
        x = [row["iteration"] for row in logs[0]]
        values = np.array([[row["accuracy"] for row in log] for log in logs])
        axis.plot(x, values.mean(0), STYLES[method], color=METHODS[method], linewidth=1.8, label=method.upper())
        axis.fill_between(x, values.min(0), values.max(0), color=METHODS[method], alpha=0.18, linewidth=0)
        ends.append(f"{method.upper()} {values[:, -1].mean():.2f}")
    start = evaluate(load("shapes"), "validation", per_kind=64)["accuracy"]
    axis.axhline(start, color="#777777", linestyle=(0, (5, 2)), linewidth=1.2, label="base")
    axis.set(xlabel="iteration of 192 pictures", ylabel="strict accuracy (validation)")
    axis.legend(frameon=False, fontsize=8)
    return viz.picture(
        figure,
        alt="Strict accuracy over the iterations for four methods, a line for the mean over seeds in a band from the "
        f"lowest to the highest, the base at {start:.2f} as a level. In the end: {', '.join(ends)}.",
    )


def results() -> str:
    """The comparison, the lab and the long run: medians over seeds, in brackets the lowest and the highest."""
    compared, lab, long = recorded_of(COMPARISON), recorded_of(LAB), recorded_of(LONG)
    missing = [f"`{name}`" for name, runs in ((COMPARISON, compared), (LAB, lab), (LONG, long)) if not runs]
    parts = []
    if picture := comparison():
        parts.append(
            "```{figure} figures/09-comparison.png\n:alt: " + picture.alt + "\n\nFour methods on the same number of "
            "pictures: the mean over seeds, and the band from the lowest to the highest.\n```"
        )
    if compared or lab or long:
        keys = ("accuracy", "accuracy_held_out", "diversity")
        head = "| | seeds | pictures | accuracy | held-out prompts | diversity | KL, nats |"
        lines = [head, "|---|---|---|---|---|---|---|"]
        start = (compared or lab or long)[0]["metrics"]
        lines.append("| base | | | " + " | ".join(f"{start[key]['before']:.3f}" for key in keys) + " | 0 |")
        for count in lab[0]["metrics"]["best_of_n"] if lab else ():
            accuracies = [run["metrics"]["best_of_n"][count] for run in lab]
            lines.append(f"| base, best of {count} | {len(lab)} | | {spread(accuracies)} | | | |")
        groups = {name.upper(): [run for run in compared if run["method"] == name] for name in METHODS}
        groups |= {"lab 09, as you run it": lab, "recorded long run, DPOK": long}
        for title, runs in groups.items():
            if runs:
                cells = [spread([run["metrics"][key]["after"] for run in runs]) for key in keys]
                cells.append(spread([run["metrics"]["kl_nats"]["after"] for run in runs], 1))
                samples = runs[0].get("samples", "")
                lines.append(f"| {title} | {len(runs)} | {samples} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    if lab and "coded_bytes" in lab[0]["metrics"]:
        small = [run["metrics"]["coded_bytes"]["small"] / run["metrics"]["coded_bytes"]["before"] - 1 for run in lab]
        strict = [run["metrics"]["accuracy_of_wishes"]["small"] for run in lab]
        parts.append(
            f"The wish for small files, in the lab: coded bytes {mean(small):+.0%}, strict accuracy then "
            f"{mean(strict):.3f} (mean over seeds: {len(lab)})."
        )
    if missing:
        parts.append(f"Not recorded in this copy of the course yet: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


CHAPTER = Chapter("09-ddpo", results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    asked = CHAPTER.write_results(parser)
    if picture := comparison():
        picture.save(ROOT / "chapters" / "figures" / "09-comparison.png")
    if asked is None:
        return
    base = load("shapes")
    CHAPTER.place(weights(), "09-weights")
    CHAPTER.place(clamp(), "09-clamp")
    CHAPTER.place(baselines(base), "09-baselines")
    CHAPTER.place(wishes(base), "09-wishes")


if __name__ == "__main__":
    main()
