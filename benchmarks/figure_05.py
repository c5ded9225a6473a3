"""The figures of chapter 05: `python benchmarks/figure_05.py`. Minutes on one core; no network is trained for them."""

from dataclasses import replace
from functools import partial
from statistics import median

import torch
from matplotlib.figure import Figure

from pixelpolicy import viz
from pixelpolicy.control.alignment import (
    AlignmentConfig,
    by_preferences,
    by_reward,
    by_weights,
    compare,
    fit_reward,
)
from pixelpolicy.control.exact import masses, total_variation, world
from pixelpolicy.course.files import course_root
from pixelpolicy.rl import exact_kl, group_advantages, tilted
from pixelpolicy.viz.figures import COLOURS, OTHERS

METHODS = {"RWR": OTHERS[1], "RLHF": OTHERS[2], "DPO": COLOURS["dpo"], "GRPO": COLOURS["grpo"]}


def axes(columns: int, width: float = 8.4, height: float = 3.1) -> tuple[Figure, list]:
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(figure.subplots(1, columns))
    for axis in panels:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, panels


def leash() -> viz.Picture:
    """The mixture tilted at three prices, and all prices at once: reward against KL."""
    here = world("mixture")
    x, p = here.reference.outcomes(), masses(here.reference)
    p, rewards = p / p.sum(), here.reward(x)
    figure, (left, right) = axes(2)
    left.fill_between(x, p / here.reference.cell, color=COLOURS["base"], alpha=0.5, label="reference")
    for colour, beta in zip(OTHERS, (3.0, 0.7, 0.2), strict=False):
        q = tilted(p, rewards, beta)
        left.plot(x, q / here.reference.cell, color=colour, label=f"beta {beta:g}")
        right.plot(exact_kl(q, p), (q * rewards).sum(), "o", color=colour, zorder=3)
        print(f"beta {beta}: reward {(q * rewards).sum():.2f}, KL {exact_kl(q, p):.2f}")
    betas = torch.logspace(1.5, -1, 60, dtype=torch.float64)
    qs = torch.stack([tilted(p, rewards, beta.item()) for beta in betas])
    right.plot(exact_kl(qs, p.expand_as(qs)), (qs * rewards).sum(1), color="#777777", label="all prices")
    left.set(xlabel="what is drawn", ylabel="density", xlim=(-5, 6))
    right.set(xlabel="KL to the reference (nats)", ylabel="mean reward", xlim=(-0.1, 4))
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="A mixture and its tilts; reward against KL.")


def samples(seeds: int = 5) -> viz.Picture:
    """How far from the closed form each method ends, by the number of samples it was given."""
    figure, panels = axes(3, 9.5)
    for axis, name in zip(panels, ("bandit", "chain", "mixture"), strict=True):
        here = world(name)
        best, apart = here.optimum(), {method: {} for method in METHODS}
        for count in (512, 2048, 8192, 32768):
            rows = {method: [] for method in METHODS}
            for seed in range(seeds):
                stream = torch.Generator().manual_seed(seed)
                pairs = compare(here, count, stream)
                plan = partial(by_reward, here, config=AlignmentConfig(group_size=256), seed=seed)
                own = AlignmentConfig(iterations=count // 256)
                policies = {
                    "RWR": by_weights(here, here.reference.sample(count, stream)),
                    "RLHF": plan(fit_reward(here, *pairs)),
                    "DPO": by_preferences(here, *pairs),
                    "GRPO": by_reward(here, here.reward, own, seed=seed),
                }
                for method, policy in policies.items():
                    rows[method].append(total_variation(masses(policy), best))
            for method, row in rows.items():
                apart[method][count] = median(row)
        for (method, colour), marker in zip(METHODS.items(), "osD^", strict=True):
            axis.loglog(apart[method].keys(), apart[method].values(), marker=marker, color=colour, label=method)
            print(name, method, {count: round(value, 4) for count, value in apart[method].items()}, flush=True)
        axis.axhline(0.05, color="#777777", linestyle="--", linewidth=1)
        axis.set(title=name, xlabel="samples or comparisons", ylim=(1e-3, 0.5))
    panels[0].set_ylabel("total variation to the closed form")
    panels[0].legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="Distance from the closed form against samples, four methods, three worlds.")


def normalised(seeds: int = 3) -> viz.Picture:
    """The leash that GRPO ends with, against the leash it was given: centred and normalised advantages."""
    base = world("chain")
    p, rewards = masses(base.reference), base.reward(base.reference.outcomes())
    figure, (left, right) = axes(2)
    scales, betas = {"none": OTHERS[0], "group": COLOURS["grpo"]}, (0.3, 0.6, 1.0, 1.6, 2.4)
    for axis, factor in ((left, 1.0), (right, 3.0)):
        for scale, colour in scales.items():
            ends = []
            for beta in betas:
                here = replace(base, beta=beta, reward=lambda s, k=factor: k * base.reward(s))
                config = AlignmentConfig(iterations=200, group_size=256, leash="loss")
                got = []
                for seed in range(seeds):
                    advantages = partial(group_advantages, scale=scale)
                    q = masses(by_reward(here, here.reward, config, seed=seed, advantages=advantages))
                    slope = torch.linalg.lstsq(
                        torch.stack([factor * rewards, torch.ones_like(p)], 1) * q.sqrt()[:, None],
                        ((q / p).log() * q.sqrt())[:, None],
                    ).solution[0]
                    got.append(1 / slope.item())
                ends.append(median(got))
            label = "mean only" if scale == "none" else "mean and deviation"
            axis.plot(betas, ends, "o-", color=colour, label=label)
            print(f"reward times {factor:g}, {label}: {[round(end, 2) for end in ends]}", flush=True)
        axis.plot(betas, betas, "--", color="#777777", linewidth=1, label="what was asked")
        axis.set(title=f"reward times {factor:g}", xlabel="beta asked for", ylabel="beta that it ends with")
        axis.set_ylim(0, 4)
    left.legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="The leash that training ends with against the leash asked for.")


def gold(seed: int = 0, proxies: int = 24) -> viz.Picture:
    """Proxies fitted to few and many comparisons, and what optimising them earns."""
    centres = torch.arange(-4, 6.5, dtype=torch.float64)
    here = replace(
        world("mixture"),
        reward=lambda x: x - 0.3 * x**2,
        features=lambda x: (-(((x[..., None] - centres) / 0.8) ** 2) / 2).exp(),
    )
    x, p = here.reference.outcomes(), masses(here.reference)
    p, true, stream = p / p.sum(), here.reward(x), torch.Generator().manual_seed(seed)
    figure, (left, right) = axes(2, height=3.3)
    left.fill_between(x, 6 * p / p.max() - 12, -12, color=COLOURS["base"], alpha=0.4, label="where samples are")
    betas = torch.logspace(1.5, -1.5, 100, dtype=torch.float64)
    for colour, count in zip(OTHERS, (100, 300, 1_000, 30_000), strict=False):
        walks = []
        for number in range(proxies):
            proxy = fit_reward(here, *compare(here, count, stream))(x)
            qs = torch.stack([tilted(p, proxy, beta.item()) for beta in betas])
            walks.append(torch.stack([exact_kl(qs, p.expand_as(qs)), (qs * true).sum(1)]))
            if count == 100 and number < 10:
                left.plot(x, proxy - (p * (proxy - true)).sum(), color=OTHERS[1], linewidth=0.8, alpha=0.8)
        kl, value = torch.stack(walks).mean(0)
        right.plot(kl.sqrt(), value, color=colour, label=f"{count:,} comparisons")
        right.plot(kl[value.argmax()].sqrt(), value.max(), "o", color=colour)
        print(f"{count} comparisons: gold {value[0]:.2f}, peak {value.max():.2f} at KL {kl[value.argmax()]:.2f}, "
              f"end {value[-1]:.2f} at KL {kl[-1]:.2f}", flush=True)  # fmt: skip
    left.plot(x, true, color="#777777", linestyle="--", label="gold")
    left.set(xlabel="what is drawn", ylabel="reward", xlim=(-5, 6.5), ylim=(-12, 8))
    right.set(xlabel="square root of the KL", ylabel="gold")
    left.legend(frameon=False, fontsize=8)
    right.legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="Proxies beside gold; gold against the square root of the KL.")


def main() -> None:
    torch.set_num_threads(1)
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    for name, make in (("leash", leash), ("gold", gold), ("normalised", normalised), ("samples", samples)):
        make().save(folder / f"05-{name}.png")
        print(f"05-{name}.png", flush=True)


if __name__ == "__main__":
    main()
