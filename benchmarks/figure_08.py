"""Chapter 08's figures and its table of results: `python benchmarks/figure_08.py`, after the lab was recorded.

Also writes the figures' alternative texts into the chapter. `--table` rewrites the table alone, `--check` writes
nothing and fails where the table is not that of the records.
"""

import argparse
from statistics import median

import numpy as np
import torch
from chapter import ROOT, Chapter, spread
from matplotlib.figure import Figure
from torch import Tensor

from pixelpolicy import rewards, viz
from pixelpolicy.atlas.data import load as literature
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.generators import load
from pixelpolicy.rewards.compressibility import kilobytes
from pixelpolicy.rewards.reading import read, scores
from pixelpolicy.viz.reward_map import reward_map
from pixelpolicy.worlds import shapes, words

WORDS = ("CAT", "DOG", "42", "GO")


# Three searches --------------------------------------------------------------------------------------------------


class Pictures:
    """Pictures of the base as latents, to be changed by a search; the verifier stands beside."""

    def __init__(self, per_kind: int):
        self.base = load("shapes")
        self.prompts, seeds = shapes.evaluation_pairs("validation", per_kind)
        config = self.base.vae.config
        with torch.no_grad():
            mode = self.base.vae.encode(self.base.generate(self.prompts, seeds)).latent_dist.mode()
        self.start = (mode - config.shift_factor) * config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.base.decode(latents)

    def verdicts(self, pictures: Tensor) -> tuple[float, float]:
        """The mean of the dense verifier, and the share that the strict one accepts."""
        found = shapes.verify(pictures.detach().numpy(), self.prompts)
        return float(np.mean([v.dense for v in found])), float(np.mean([v.strict for v in found]))

    def climb(self, steps: int) -> tuple[Tensor, list[tuple[float, float, float]]]:
        """Adam on the proxy: where it ends, and (proxy, dense, strict) at each step."""
        latents, log = self.start.clone().requires_grad_(), []
        optimizer = torch.optim.Adam([latents], lr=0.02)
        for _ in range(steps):
            pictures = self.base.decode(latents)
            value = rewards.learned_proxy()(pictures, self.prompts)
            log.append((value.mean().item(), *self.verdicts(pictures)))
            optimizer.zero_grad()
            (-value.sum()).backward()
            optimizer.step()
        return latents.detach(), log

    def shrink(self, steps: int) -> Tensor:
        """Hill climbing towards small files."""
        latents, stream = self.start.clone(), torch.Generator().manual_seed(0)
        best = torch.full((len(latents),), torch.inf)
        for _ in range(steps):
            tried = latents + 0.3 * torch.rand(1, generator=stream) * torch.randn(latents.shape, generator=stream)
            size = torch.tensor([kilobytes(picture) for picture in self.decode(tried).numpy()])
            better = size <= best
            latents, best = torch.where(better[:, None, None, None], tried, latents), torch.where(better, size, best)
        return latents


def tiles(word: str, rounds: int = 400, count: int = 24) -> Tensor:
    """Black and white tiles that the first reader takes for a word."""
    rng, prompts = np.random.default_rng([8, *word.encode()]), [words.prompt(word)] * count
    grid = rng.random((8, 16)) < 0.5
    for _ in range(rounds):
        copies = np.repeat(grid[None], count, 0)
        for copy in copies[1:]:
            copy.reshape(-1)[rng.integers(grid.size, size=rng.integers(1, 8))] ^= True
        wide = copies.repeat(3, 1).repeat(3, 2)[:, None].repeat(3, 1).astype(np.float32) * 2 - 1
        marks = np.array(scores(read(torch.from_numpy(wide)), prompts))
        chosen = (marks + 1e-3 * rng.random(count)).argmax()
        grid, picture = copies[chosen], torch.from_numpy(wide[chosen])
        if marks.max() == 1:
            break
    return picture


def three_hacks(pictures: Pictures, climbed: Tensor, shown: tuple[int, ...] = (1, 5, 9, 13)) -> viz.Picture:
    shrunk, forged = pictures.shrink(1500), [tiles(word) for word in WORDS]
    readings = rewards.compare_readers(torch.stack(forged), [words.prompt(word) for word in WORDS])
    start, proxy = pictures.decode(pictures.start), rewards.learned_proxy()
    rows = {
        "small files": (start, pictures.decode(shrunk), lambda p: [f"{kilobytes(x):.2f} kB" for x in p.numpy()]),
        "the proxy": (start, pictures.decode(climbed), lambda p: [f"{v:.2f}" for v in proxy(p, pictures.prompts)]),
    }
    figure = Figure(figsize=(9.4, 4.6))
    grid = figure.add_gridspec(3, 8, hspace=0.2, wspace=0.08)

    def show(place, picture: Tensor, title: str, accepted: bool | None = None) -> None:
        axis = figure.add_subplot(place)
        axis.imshow(((picture.clamp(-1, 1) + 1) / 2).permute(1, 2, 0), interpolation="nearest")
        axis.set_xticks([]), axis.set_yticks([])
        axis.set_title(title, fontsize=7, pad=2)
        for spine in axis.spines.values() if accepted is not None else ():
            spine.set(color="#009E73" if accepted else "#D55E00", linewidth=2)
            spine.set_linestyle("-" if accepted else (0, (3, 2)))

    counts = {}
    for row, (name, (before, after, says)) in zip((0, 2), rows.items(), strict=True):
        for side, part in enumerate((before, after)):
            strict = rewards.shapes_strict()(part, pictures.prompts).bool()
            told = says(part)
            counts[name, side] = int(strict[list(shown)].sum())
            for k, i in enumerate(shown):
                show(grid[row, 4 * side + k], part[i], told[i], bool(strict[i]))
    heard = [
        tuple("".join(letter if letter.isascii() else "?" for letter in text) for text in pair)
        for pair in zip(readings.first, readings.second, strict=True)
    ]
    for k, (picture, (first, second)) in enumerate(zip(forged, heard, strict=True)):
        show(grid[1, 2 * k : 2 * k + 2], picture, f"first '{first}', second '{second}'")
    return viz.picture(
        figure,
        alt="Three rows. Above, four pictures of the base, of which the verifier accepts "
        f"{counts['small files', 0]}, and what a search for small files makes of them: it accepts "
        f"{counts['small files', 1]}. In the middle four fields of black and white tiles without a letter to be "
        f"seen, which one reader takes for {', '.join(first for first, _ in heard)} and another for "
        f"{', '.join(repr(second) for _, second in heard)}. Below, the same four pictures and what climbing the "
        f"proxy makes of them: its value rises in each, and the verifier accepts {counts['the proxy', 1]} of 4.",
    )


# The proxy where it has never been, and the climb ----------------------------------------------------------------


def strange() -> viz.Picture:
    one = torch.from_numpy(shapes.draw([[shapes.Thing("red", "circle", 16.0, 16.0, 4.0)]]))
    empty = torch.from_numpy(shapes.draw([[]]))
    full = torch.from_numpy(shapes.COLOURS["red"] * 2 - 1)[None, :, None, None].expand(one.shape)
    stream = torch.Generator().manual_seed(0)
    cases = {
        "a true picture": one,
        "an empty one": empty,
        "all red": full,
        "its negative": -one,
        "stripes of red": torch.where(torch.arange(32) % 4 < 2, full, empty),
        "noise": torch.rand(one.shape, generator=stream) * 2 - 1,
    }
    pictures, prompts = torch.cat(list(cases.values())), ["a red circle"] * len(cases)
    values, truth = rewards.learned_proxy()(pictures, prompts), rewards.shapes_dense()(pictures, prompts)
    told = [f"{n}: proxy {v:.2f}, verifier {d:.2f}" for n, v, d in zip(cases, values, truth, strict=True)]
    alt = f"Six pictures judged for 'a red circle': {'; '.join(told)}."
    return viz.sample_sheet(pictures, told, columns=6, size=1.5, alt=alt)


def goodhart(log: list[tuple[float, float, float]]) -> viz.Picture:
    proxy, dense, strict = (list(column) for column in zip(*log, strict=True))
    best = int(np.argmax(dense))
    return viz.curves(
        {
            "proxy (climbed)": (range(len(log)), proxy),
            "dense verifier": (range(len(log)), dense),
            "strict verifier": (range(len(log)), strict),
        },
        xlabel="gradient steps on the proxy",
        ylabel="mean over the pictures",
        alt=f"Three curves over {len(log)} steps. The proxy rises from {proxy[0]:.2f} to {proxy[-1]:.2f}. The dense "
        f"verifier goes from {dense[0]:.2f} to its best, {dense[best]:.2f}, at step {best}, and then down to "
        f"{dense[-1]:.2f}; the strict one from {strict[0]:.2f} to {max(strict):.2f} at most and down to "
        f"{strict[-1]:.2f}.",
    )


# The records -----------------------------------------------------------------------------------------------------


def runs() -> list[dict]:
    return [run["metrics"] for run in read_benchmark(ROOT / "benchmarks" / "08-rewards.json")]


def pairs() -> viz.Picture:
    counts = {"yours": 30, "few": 600, "many": 3000}
    found = {
        where: [median(run["preference_accuracy"][f"{name}_{where}"] for run in runs()) for name in counts]
        for where in ("own", "held_out")
    }
    ceiling = median(run["preference_ceiling"] for run in runs())
    figure = Figure(figsize=(6.4, 3.2))
    axis = figure.subplots()
    axis.plot(list(counts.values()), found["own"], "--s", color="#56B4E9", label="on the pairs it learnt from")
    axis.plot(list(counts.values()), found["held_out"], "-o", color="#D55E00", label="on held-out pairs")
    axis.axhline(ceiling, color="#777777", linestyle="--", linewidth=1.2, label="from the true scores: the ceiling")
    axis.axhline(0.5, color="#777777", linestyle=":", linewidth=1.2, label="a coin")
    axis.set(xscale="log", xlabel="pairs", ylabel="answers foretold", ylim=(0.4, 1.04))
    axis.set_xticks(list(counts.values()), [f"{count:,}" for count in counts.values()])
    axis.minorticks_off()
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="center left")
    return viz.picture(
        figure,
        alt="Share of answers that a preference model foretells, after 30, 600 and 3,000 pairs: on its own pairs "
        + ", ".join(f"{value:.2f}" for value in found["own"])
        + "; on held-out pairs "
        + ", ".join(f"{value:.2f}" for value in found["held_out"])
        + f". Who knows the true scores foretells {ceiling:.2f}.",
    )


def table() -> str:
    """What lab 08 measured: medians over the recorded seeds, in brackets the lowest and the highest."""
    rows = {
        "verifier accepts, of true pictures": lambda m: m["verifier_on_true"],
        "verifier accepts, of true pictures under another, similar prompt": lambda m: m["verifier_on_wrong"],
        "first reader without a fault, words in clear print": lambda m: m["ocr_exact"],
        "second reader": lambda m: m["ocr_exact_second"],
        "image-text, recall@1 of 150, held-out concepts and vendor": lambda m: m["recall_at_1"],
        "the same, captions shuffled": lambda m: m["recall_at_1_control"],
        "your bridge, relation turned round: own prompt preferred": lambda m: m["word_order"],
        "preference model, 600 pairs, held-out": lambda m: m["preference_accuracy"]["few_held_out"],
        "preference model, 3,000 pairs, held-out": lambda m: m["preference_accuracy"]["many_held_out"],
        "calibration error, 600 pairs": lambda m: m["calibration_error"]["few"],
        "the same, margins divided by a temperature": lambda m: m["calibration_error"]["few_softened"],
        "calibration error, 3,000 pairs": lambda m: m["calibration_error"]["many"],
        "proxy, correlation with the dense verifier": lambda m: m["proxy_agreement"]["correlation"],
        "proxy, accepted above rejected": lambda m: m["proxy_agreement"]["auc"],
    }
    lines = [f"| | {len(runs())} seed{'s' * (len(runs()) > 1)} |", "|---|---|"]
    lines += [f"| {name} | {spread([get(run) for run in runs()])} |" for name, get in rows.items()]
    lines += ["", "| hack | reward, before | after | check, before | after |", "|---|---|---|---|---|"]
    for hack, (reward, check) in {
        "bytes": ("kilobytes", "strict"),
        "text": ("first_reader", "second_reader"),
        "proxy": ("proxy", "strict"),
    }.items():
        cells = [
            spread([run["hacks"][hack][key][when] for run in runs()])
            for key in (reward, check)
            for when in ("before", "after")
        ]
        lines.append(f"| {hack}: {reward.replace('_', ' ')} against {check.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


CHAPTER = Chapter("08-rewards", table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    asked = CHAPTER.write_results(parser)
    CHAPTER.place(pairs(), "08-pairs")
    if asked is None:
        return
    torch.set_num_threads(1)
    pictures = Pictures(per_kind=4)
    climbed, log = pictures.climb(200)
    CHAPTER.place(goodhart(log), "08-goodhart")
    CHAPTER.place(three_hacks(pictures, climbed), "08-hacks")
    CHAPTER.place(strange(), "08-strange")
    CHAPTER.place(reward_map(literature()), "08-map")


if __name__ == "__main__":
    main()
