"""Figures and results of chapter 19: `python benchmarks/figure_19.py` (--table, --check: the results alone)."""

import argparse
from statistics import median

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread
from overoptimisation import EVERY, NAME, policy_of

from pixelpolicy import viz
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.generators import load
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.rl import best_of_n_kl, explained_share, fit_goodhart, goodhart_curve

PROXY = "#D55E00"
STYLES = {"DRaFT": ("-", "#D55E00", "proxy alone"), "DRaFT, ensemble": ("--", "#0072B2", "lower bound of five"),
          "DRaFT, KL": ("-.", "#009E73", "proxy and a price of nats")}  # fmt: skip


def runs(method: str) -> list[dict]:
    """The metrics of a method's records, seed after seed."""
    path = ROOT / "benchmarks" / f"{NAME}.json"
    found = read_benchmark(path) if path.exists() else []
    return [run["metrics"] for run in found if run["method"] == method]


def roots(curve: dict) -> list[float]:
    return [max(kl, 0.0) ** 0.5 for kl in curve["kl_nats"]]


def parting() -> viz.Picture:
    """Proxy and gold over sqrt(KL): one line a seed, and Gao's curve fitted to each."""
    figure, (left, middle, right) = axes(3, width=9.2)
    lone, told = runs("DRaFT"), []
    for number, run in enumerate(lone):
        curve, shade = run["curve"], 1 - 0.25 * number
        far = torch.linspace(0, max(roots(curve)), 60, dtype=torch.float64)
        fitted = goodhart_curve(far, run["gao"]["alpha"], run["gao"]["beta"]) + run["gold"]["before"]
        left.plot(roots(curve), curve["proxy"], "-o", ms=3, color=PROXY, alpha=shade)
        middle.plot(roots(curve), curve["dense"], "-o", ms=3, color="#0072B2", alpha=shade)
        middle.plot(far, fitted, ":", color="#777777", lw=1)
        gold = run["gold"]
        told.append(f"gold {gold['before']:.2f} to {gold['peak']:.2f} and down to {gold['after']:.2f} while the proxy "
                    f"goes from {run['proxy']['before']:.2f} to {run['proxy']['after']:.2f}")  # fmt: skip
    for number, run in enumerate(runs("best-of-n")):
        distance, gold = torch.tensor(roots(run["curve"])).double(), torch.tensor(run["curve"]["dense"]).double()
        right.plot(distance, gold, "-o", ms=3, color="#009E73", alpha=1 - 0.25 * number)
        far = torch.linspace(0, float(distance.max()), 60, dtype=torch.float64)
        fit = fit_goodhart(distance, gold - gold[0], "best-of-n")
        right.plot(far, goodhart_curve(far, *fit, "best-of-n") + gold[0], ":", color="#777777", lw=1)
    left.set(title="what is climbed", ylabel="the proxy")
    middle.set(title="what was meant", ylabel="gold", ylim=(0.3, 0.95))
    right.set(title="best of N, to N = 64", ylim=(0.3, 0.95))
    for axis in (left, middle, right):
        axis.set_xlabel("square root of the KL, in nats")
    best = [f"{run['curve']['dense'][-1]:.2f}" for run in runs("best-of-n")]
    return viz.picture(
        figure,
        alt=f"Three panels over the square root of the KL. Left the proxy under DRaFT, rising to the end; in the "
        f"middle gold, rising, turning and falling; a line a seed: {'; '.join(told)}. Dotted, a fitted curve. "
        f"Right, gold of "
        f"the best of N, which ends at {', '.join(best)} for N = 64.",
    )


def brakes() -> viz.Picture:
    """Gold over iterations: medians over seeds, the range shaded."""
    figure, panels = axes(2)
    told = []
    for method, (style, colour, name) in STYLES.items():
        found = runs(method)
        if not found:
            continue
        for axis, key in zip(panels, ("proxy", "dense"), strict=True):
            values = np.array([run["curve"][key] for run in found])
            steps = np.arange(values.shape[1]) * EVERY
            axis.plot(steps, np.median(values, 0), style, color=colour, label=name)
            axis.fill_between(steps, values.min(0), values.max(0), color=colour, alpha=0.12, lw=0)
        told.append(f"{name}, peak {median(r['gold']['peak'] for r in found):.2f}, end "
                    f"{median(r['gold']['after'] for r in found):.2f}")  # fmt: skip
    panels[0].set(title="the lone proxy", xlabel="iterations")
    panels[1].set(title="gold", xlabel="iterations")
    panels[0].legend(frameon=False, fontsize=8)
    return viz.picture(
        figure, alt=f"The proxy and gold over iterations for three ways to climb. Gold: {'; '.join(told)}."
    )


@torch.no_grad()
def credit(states: int = 24, branches: int = 6) -> viz.Picture:
    """The share of gold's variance that is decided after each step."""
    base, gold = load("shapes"), shapes_dense()
    policy, rows = policy_of(base), torch.arange(states) + 50_000_000
    noisy, sigmas, told = policy.noisy_steps(), base.sigmas(policy.steps), []
    figure, (axis,) = axes(1, width=5.6)
    prompts = {"three red circles": "-", "a red circle left of a blue square": "--"}
    for (prompt, style), colour in zip(prompts.items(), ("#0072B2", "#D55E00"), strict=True):
        asked, shares = [prompt] * states, []
        trunk = [state for _, state, _, _ in policy.walk(asked, seeds=rows, noisy=noisy)]
        words = policy.conditioning(asked)
        for step in range(policy.steps):
            values = []
            for number in range(branches):
                state, fresh = trunk[step], policy.draws(rows + 1000 * (number + 1))
                for later in range(step, policy.steps):
                    mean, std = policy.gaussian(state, words, sigmas, later, later in noisy)
                    state = mean + std * next(fresh) if later in noisy else mean
                values.append(gold(base.decode(state), asked))
            shares.append(explained_share(torch.stack(values, 1)))
        axis.plot(range(policy.steps), shares, style, marker="o", ms=4, color=colour, label=prompt)
        told.append(f"{prompt}: {', '.join(f'{share:.2f}' for share in shares)}")
    axis.set(xlabel="steps taken, of 6", ylabel="share decided", ylim=(-0.15, 1.05))
    axis.legend(frameon=False, fontsize=8)
    return viz.picture(
        figure, alt=f"Which share of gold's variance is decided after 0 to 5 steps. For {'; for '.join(told)}."
    )


def table() -> str:
    heads = ("climbed by DRaFT", "gold of the base", "peak", "end", "fall", "gold, stopped by queries", "share of the "
             "peak kept", "queries", "nats at the peak")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for method, (_, _, name) in STYLES.items():
        found = runs(method)
        if found:
            golds = [spread([run["gold"][key] for run in found]) for key in ("before", "peak", "after")]
            stops = [run["early_stop"] for run in found]
            cells = [*golds, spread([100 * run["fall"] for run in found], 0) + "%"]
            cells += [spread([stop["gold"] for stop in stops]), spread([stop["kept_share"] for stop in stops])]
            cells += [spread([stop["queries"] for stop in stops], 0), spread([r["peak_kl_nats"] for r in found], 0)]
            lines.append(f"| {name}, {len(found)} seed{'s' if len(found) > 1 else ''} | {' | '.join(cells)} |")
    lone = runs("DRaFT")
    if not lone:
        return "*Not recorded in this copy: `python benchmarks/overoptimisation.py --seed 0`.*\n"
    agreed = spread([run["agreement"]["held_out"] for run in lone])
    best = runs("best-of-n")
    text = f"\n\nThe proxy agrees with {agreed} of held-out answers."
    if best:
        kl = best_of_n_kl(64).item()
        text += (f" Best of 64, chosen by it, spends {kl:.1f} nats and has gold "
                 f"{spread([run['curve']['dense'][-1] for run in best])}; of 1 to 64, gold is highest at "
                 f"{spread([max(run['curve']['dense']) for run in best])}.")  # fmt: skip
    return "\n".join(lines) + text + "\n"


CHAPTER = Chapter("19-open-problems", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="one figure")
    asked = CHAPTER.write_results(parser)
    if asked is None:
        return
    for name, draw in {"19-parting": parting, "19-brakes": brakes, "19-credit": credit}.items():
        if asked.only in (None, name):
            CHAPTER.place(draw(), name)


if __name__ == "__main__":
    main()
