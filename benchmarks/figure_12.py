"""Chapter 12's figures and its table of results: `python benchmarks/figure_12.py`, after the runs were recorded.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the table alone, `--check` writes
nothing and fails where the table is not that of the records.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from chapter import ROOT, Chapter, axes, spread
from matplotlib.figure import Figure
from torch import Tensor

from pixelpolicy import viz
from pixelpolicy.course import recorded
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.generators import evaluate, load
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, flow_sde, ode
from pixelpolicy.rl import group_advantages
from pixelpolicy.rl.advantages import CONVENTIONS
from pixelpolicy.viz.figures import OTHERS
from pixelpolicy.worlds import shapes

TRANSITIONS = {  # each at its published noise
    "ODE": ode,
    "Flow-SDE, a = 0.7": partial(flow_sde, noise=0.7),
    "Dance-SDE, η = 0.3": partial(dance_sde, noise=0.3),
    "CPS, a = 0.8": partial(cps, noise=0.8),
}
COLOURS = dict(zip(TRANSITIONS, ("#777777", *OTHERS[:3]), strict=True))
STYLES = dict(zip(TRANSITIONS, ("-", "--", "-.", ":"), strict=True))
STEPS = 10


# The opening: before and after -----------------------------------------------------------------------------------


def before_after(base: ImageGenerator, columns: int = 8) -> viz.Picture:
    prompts, seeds = shapes.evaluation_pairs("test", per_kind=4)
    prompts, seeds = prompts[::2], seeds[::2]  # two of each kind
    tuned = recorded.apply("12-grpo-long", 0, load("shapes"))
    pictures = [generator.generate(prompts, seeds) for generator in (base, tuned)]
    accepted = [verdict.strict for part in pictures for verdict in shapes.verify(part.numpy(), prompts)]
    return viz.sample_sheet(
        torch.cat(pictures),
        prompts * 2,
        columns=columns,
        accepted=accepted,
        alt="Two rows of pictures of coloured shapes for the same eight prompts and the same noise. Above, by the "
        f"untouched base, {sum(accepted[:columns])} of {columns} match their prompts and have a solid green frame; the "
        "others show a wrong colour, shape, number or place, in dashed red. Below, after the recorded long run, "
        f"{sum(accepted[columns:])} of {columns} match.",
    )


# Advantages in a group of six ------------------------------------------------------------------------------------


def largest_advantage(spread: float, convention: str) -> float:
    """The best advantage of six rewards whose population standard deviation is ``spread``."""
    pattern = torch.tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
    return group_advantages(0.5 + spread * pattern, torch.zeros(6).long(), convention=convention).max().item()


def advantages() -> viz.Picture:
    rewards, one = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64), torch.zeros(6).long()
    styles = dict(zip(CONVENTIONS, ((0, "-"), (1, "--"), (2, "-."), (3, ":")), strict=True))
    figure, (left, right) = axes(2)
    winners = {}
    for convention, (index, style) in styles.items():
        colour = OTHERS[index]
        values = group_advantages(rewards, one, convention=convention)
        winners[convention] = values[0].item()
        left.bar(torch.arange(6) + 0.2 * (index - 1.5), values, width=0.18, color=colour, label=convention)
        spreads = torch.logspace(-9, -1, 81).tolist()
        best = [largest_advantage(spread, convention) for spread in spreads]
        right.plot(spreads, best, color=colour, linestyle=style, linewidth=1.8, label=convention)
    left.set(xlabel="attempt (the first alone has reward 1)", ylabel="advantage", xticks=range(6))
    left.set_xticklabels([str(n + 1) for n in range(6)])
    right.set(xlabel="standard deviation of the rewards", ylabel="largest advantage", xscale="log")
    right.legend(frameon=False, fontsize=8)
    return viz.picture(
        figure,
        alt="Two panels for groups of six under four published conventions. Left: where one attempt alone succeeds, "
        f"its advantage is {winners['flow-grpo']:.2f} in flow-grpo and {winners['dance-grpo']:.2f} in dance-grpo. "
        "Right: the largest advantage against the spread of the rewards. As rewards become equal it falls to nothing, "
        "in flow-grpo and nft below a spread of about 0.0001, in ddpo below 0.000001, in dance-grpo only below "
        "0.00000001.",
    )


# What a transition does to the marginal when steps are few -------------------------------------------------------


def plain_sigmas(steps: int, shift: float = 3.0) -> Tensor:
    level = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * level / (1 + (shift - 1) * level)


def diffusers_sigmas(steps: int, shift: float = 3.0) -> Tensor:
    """What diffusers' scheduler gives by default: levels shifted for training, and once more for sampling."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.double()


def spreads(transition, sigmas: Tensor, data: float) -> list[float]:
    """Standard deviation after each step for pictures ``N(0, data^2)`` under the exact velocity.

    Velocity and step are linear in x, so that a step's factor is what it makes of x = 1.
    """
    one, variance, found = torch.ones((), dtype=torch.float64), sigmas[0] ** 2 + (1 - sigmas[0]) ** 2 * data**2, []
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        velocity = (sigma - (1 - sigma) * data**2) / ((1 - sigma) ** 2 * data**2 + sigma**2) * one
        factor, std = (ode if following == 0 else transition)(one, velocity, sigma, following)
        variance = factor**2 * variance + std**2
        found.append(float(variance.sqrt()))
    return found


def marginals() -> viz.Picture:
    sigmas, data, counts = diffusers_sigmas(STEPS), 0.6, (4, 6, 10, 20, 50, 100, 200)
    figure, (left, right) = axes(2)
    last, highest = {}, 0.0
    for label, transition in TRANSITIONS.items():
        style = {"color": COLOURS[label], "linestyle": STYLES[label], "linewidth": 1.8, "label": label}
        noise = [s / float(n) for s, n in zip(spreads(transition, sigmas, 0.0)[:-1], sigmas[1:-1], strict=True)]
        last[label], highest = noise[-1], max(highest, *noise[:-1])
        left.plot(range(1, STEPS), noise, marker="o", markersize=3, **style)
        right.plot(counts, [spreads(transition, plain_sigmas(n), data)[-1] / data for n in counts], **style)
    left.set(xlabel=f"after step (of {STEPS})", ylabel="noise over nominal", yscale="log")
    right.set(xlabel="number of steps", ylabel="spread of samples over data's", xscale="log")
    right.set_xticks(counts, [str(n) for n in counts])
    right.minorticks_off()
    left.legend(frameon=False, fontsize=8)
    listed = ", ".join(f"{label.split(',')[0]} {value:.1f}" for label, value in last.items())
    return viz.picture(
        figure,
        alt="Two panels of four samplers under an exact velocity. Left: noise in the latent over what the level asks, "
        f"with diffusers' default levels at shift 3 and {STEPS} steps, for one known picture. None is above "
        f"{highest:.1f} until the last noisy step, where they stand at: {listed}. Right: the spread of the "
        "samples over that of the data against the number of steps. The ODE and both SDEs approach 1 as steps are "
        "added; CPS stays at about 0.8.",
    )


# The same on the real base ---------------------------------------------------------------------------------------


@dataclass
class Rescheduled(ImageGenerator):
    """The same generator on other noise levels."""

    levels: Tensor | None = None

    def sigmas(self, steps: int) -> Tensor:
        return self.levels.float()


def residues(base: ImageGenerator, latents: Tensor) -> Tensor:
    """What a latent holds beyond its picture: its difference to the latent of the decoded picture."""
    config, pictures = base.vae.config, base.decode(latents)
    again = (base.vae.encode(pictures).latent_dist.mode() - config.shift_factor) * config.scaling_factor
    return latents - again


@torch.no_grad()
def samplers(base: ImageGenerator, per_kind: int) -> viz.Picture:
    schedules = {"plain": base.sigmas(STEPS), "diffusers": diffusers_sigmas(STEPS)}
    prompts, seeds = shapes.evaluation_pairs("test", per_kind)
    shown = [kind * per_kind + 1 for kind in range(len(shapes.KINDS))]
    figure = Figure(figsize=(8.4, 5.0))
    grid = figure.subplots(len(TRANSITIONS), 2 * len(shown) + 1, width_ratios=[1] * 4 + [0.3] + [1] * 4)
    accepted, left_over = {}, {}
    for row, (label, transition) in enumerate(TRANSITIONS.items()):
        for schedule, levels in schedules.items():
            generator = Rescheduled(**{**vars(base), "levels": levels})
            rollout = DenoisingPolicy(generator, transition, steps=STEPS).rollout(prompts, seeds=torch.tensor(seeds))
            parts = [residues(base, part) for part in rollout.states[:, -1].split(96)]
            accepted[schedule] = accepted.get(schedule, []) + [
                shapes.measure(rollout.samples.numpy(), prompts)["accuracy"]
            ]
            left_over[schedule] = left_over.get(schedule, []) + [torch.cat(parts).std().item()]
        residue = torch.cat(parts)  # of the schedule that is shown, the last
        for column, index in enumerate(shown):
            grid[row, column].imshow(((rollout.samples[index] + 1) / 2).permute(1, 2, 0), interpolation="nearest")
            grid[row, len(shown) + 1 + column].imshow(residue[index, 0], cmap="PuOr", vmin=-0.6, vmax=0.6)
        for first, name, values in ((0, "accepted", accepted), (len(shown) + 1, "noise in the latent", left_over)):
            title = f"{name} {values['diffusers'][-1]:.2f} (plain levels {values['plain'][-1]:.2f})"
            grid[row, first].set_title(title, loc="left", fontsize=8, pad=3)
        grid[row, 0].set_ylabel(label.replace(", ", "\n"), fontsize=8)
        grid[row, len(shown)].set_visible(False)
    for axis in grid.flat:
        axis.set_xticks([]), axis.set_yticks([])
    names = [label.split(",")[0] for label in TRANSITIONS]
    listed = {
        key: ", ".join(f"{name} {value:.2f}" for name, value in zip(names, values["diffusers"], strict=True))
        for key, values in (("accepted", accepted), ("noise", left_over))
    }
    return viz.picture(
        figure,
        alt=f"One row a sampler. Left, pictures of four prompts in {STEPS} steps on diffusers' default levels at shift "
        f"3. Share of {len(prompts)} that the verifier accepts: {listed['accepted']}. Right, as maps in two colours, "
        "the noise left in the first channel of the same latents; its standard deviation over all pictures and "
        f"channels: {listed['noise']}.",
    )


# The recorded long run -------------------------------------------------------------------------------------------


def long_run(base: ImageGenerator) -> viz.Picture:
    runs, untouched = recorded.records("12-grpo-long"), evaluate(base, "validation", per_kind=64)
    figure, panels = axes(3, width=9.6)
    keys = {"accuracy": "strict accuracy", "diversity": "diversity", "kl": "KL to the base, nats a dimension"}
    for style, run in zip(("-", "--", ":", "-."), runs, strict=False):
        log = recorded.history("12-grpo-long", run["seed"])
        for axis, (key, title) in zip(panels, keys.items(), strict=True):
            rows = [row for row in log if key in row]
            values = [row[key] for row in rows]
            if key == "kl":  # one value an iteration: show the trend
                values = [
                    sum(values[max(0, i - 9) : i + 1]) / len(values[max(0, i - 9) : i + 1]) for i in range(len(rows))
                ]
            x = [row["iteration"] for row in rows]
            axis.plot(x, values, style, color=viz.COLOURS["grpo"], linewidth=1.5, label=f"seed {run['seed']}")
            axis.set(xlabel="iteration", title=title)
            axis.title.set_fontsize(9)
    for axis, key in zip(panels[:2], ("accuracy", "diversity"), strict=True):
        axis.axhline(untouched[key], color="#777777", linestyle=(0, (5, 2)), label="base")
    best = read_benchmark(ROOT / "benchmarks" / "12-grpo.json")[0]["metrics"]["best_of_n"]
    panels[0].axhline(best["4"], color=viz.COLOURS["best-of-n"], linestyle=(0, (1, 2)), label="base, best of 4")
    panels[0].legend(frameon=False, fontsize=8, loc="center right")
    after = {key: [run["metrics"][key]["after"] for run in runs] for key in ("accuracy", "diversity")}
    before = {key: runs[0]["metrics"][key]["before"] for key in after}
    ends = " and ".join(f"{key} from {before[key]:.2f} to {median(after[key]):.2f}" for key in after)
    return viz.picture(
        figure,
        alt=f"Three panels over the iterations of the recorded long run, one line for each of {len(runs)} seeds: "
        f"strict accuracy with the base and its best of four ({best['4']:.2f}) as levels, diversity with the base as a "
        f"level, and the KL to the base. The median over seeds moves {ends}.",
    )


# The table -------------------------------------------------------------------------------------------------------


def table() -> str:
    """Base, its best of N, the lab and the long run: medians over seeds, in brackets the lowest and the highest."""
    lab, long = (read_benchmark(ROOT / "benchmarks" / f"{name}.json") for name in ("12-grpo", "12-grpo-long"))
    keys = ("accuracy", "accuracy_held_out", "diversity", "kl_nats")
    lines = ["| | accuracy | held-out prompts | diversity | KL to the base, nats |", "|---|---|---|---|---|"]
    start = lab[0]["metrics"]
    lines.append("| base | " + " | ".join(f"{start[key]['before']:.3f}" for key in keys[:3]) + " | 0 |")
    for count in start["best_of_n"]:
        lines.append(f"| base, best of {count} | {spread([run['metrics']['best_of_n'][count] for run in lab])} | | | |")
    for title, runs in (("lab 12, as you run it", lab), ("recorded long run", long)):
        cells = [spread([run["metrics"][key]["after"] for run in runs], 1 if key == "kl_nats" else 3) for key in keys]
        lines.append(f"| {title}, {len(runs)} seeds | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


CHAPTER = Chapter("12-grpo", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-kind", type=int, default=64, help="pictures a kind and sampler")
    asked = CHAPTER.write_results(parser)
    if asked is None:
        return
    base = load("shapes")
    CHAPTER.place(advantages(), "12-advantages")
    CHAPTER.place(marginals(), "12-marginals")
    CHAPTER.place(long_run(base), "12-long-run")
    CHAPTER.place(before_after(base), "12-before-after")
    CHAPTER.place(samplers(base, asked.per_kind), "12-samplers")


if __name__ == "__main__":
    main()
