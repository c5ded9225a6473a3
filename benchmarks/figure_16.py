"""Chapter 16's figures and its results: `python benchmarks/figure_16.py` (some seconds, nothing is trained).

Also writes the figures' alternative texts into the chapter. `--table` rewrites the results alone, `--check` writes
nothing and fails where they are not those of the records.
"""

import argparse

import numpy as np
import torch
from chapter import ROOT, Chapter, axes, spread
from matplotlib.patches import Polygon, Rectangle

from pixelpolicy import viz
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.finetune import DistillationConfig, distill
from pixelpolicy.generators import load
from pixelpolicy.rewards import stability
from pixelpolicy.worlds import boxes, furniture

NAME = "16-three-d"


def base_pieces() -> viz.Picture:
    texts, seeds = furniture.evaluation_pairs("test", per_kind=4)
    pieces = load("furniture").generate(texts, seeds).numpy()
    stand = furniture.stands(pieces).tolist()
    pictures = boxes.render(pieces, (35.0,), size=72, oversample=2)[:, 0]
    alt = (
        "Two rows of chairs, tables, lamps and shelves made of boxes by the untouched base, each under its prompt. "
        f"{sum(stand)} of {len(stand)} have a solid green frame and stand; the others, in dashed red, have feet that "
        "are short or misplaced, or parts that hang in the air."
    )
    return viz.sample_sheet(pictures, texts, accepted=stand, alt=alt)


def tilt() -> viz.Picture:
    """A sound table, one with short feet, one whose load is beside its foot, from above."""
    rng = np.random.default_rng(3)
    pieces = {
        name: furniture.furnish("a red table", rng, flaw=flaw)
        for name, flaw in {"sound": None, "short feet": "short", "beside its foot": "shifted"}.items()
    }
    figure, panels = axes(3, height=2.9)
    margins = []
    for axis, (name, piece) in zip(panels, pieces.items(), strict=True):
        rows = boxes.checked(piece[None])
        corners, centre = boxes.foot(rows)[0], boxes.centre_of_mass(rows)[0]
        low = boxes.undersides(rows)[0]
        for box, height in zip(rows[0], low, strict=True):
            if box[0] > 0.5:
                bears = height <= low.min() + boxes.CONTACT
                place, size = box[[1, 3]] - box[[4, 6]], 2 * box[[4, 6]]
                style = {"facecolor": "#0072B2"} if bears else {"facecolor": "none", "edgecolor": "#999999"}
                axis.add_patch(Rectangle(place, *size, zorder=2 if bears else 1, **style))
        axis.add_patch(Polygon(corners, facecolor="#56B4E9", alpha=0.35, zorder=0))
        axis.plot(centre[0], centre[2], "o", color="#D55E00", zorder=3)
        edge = np.roll(corners, -1, 0) - corners
        length = np.maximum(np.linalg.norm(edge, axis=1), 1e-9)
        offset = centre[[0, 2]] - corners
        inside = np.where(length > 1e-6, (edge[:, 0] * offset[:, 1] - edge[:, 1] * offset[:, 0]) / length, np.inf)
        best = int(inside.argmin())
        outward = np.array([edge[best, 1], -edge[best, 0]]) / length[best]
        axis.annotate("", centre[[0, 2]] + inside[best] * outward, centre[[0, 2]],
                      arrowprops={"arrowstyle": "->", "color": "#D55E00"})  # fmt: skip
        margins.append(float(boxes.tilt_margin(piece[None])[0]))
        axis.set(title=f"{name}: {margins[-1]:.0f} degrees", aspect="equal", xlabel="x, metres")
        axis.autoscale_view()
    panels[0].set_ylabel("z, metres")
    alt = (
        "Three tables from above. Filled, what touches the ground; shaded, the foot round it; a dot, the plumb point "
        f"of the centre of mass. Sound: the dot lies well inside, margin {margins[0]:.0f} degrees. With short feet on "
        f"one side the foot is a strip, margin {margins[1]:.0f}. With its load beside its foot the dot lies outside, "
        f"margin {margins[2]:.0f}."
    )
    return viz.picture(figure, alt=alt)


def seen_again(views: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The views of the solid that views ``[1, views, side, side]`` carve, its points in pixels ``where``."""
    rows = views.flatten(2)
    solid = torch.stack([rows[:, v, pixels] for v, pixels in enumerate(where)]).amin(0)
    empty = torch.zeros_like(rows[:, 0])
    again = [empty.scatter_reduce(1, pixels[None], solid, "amax") for pixels in where]
    return torch.stack(again, 1).view_as(views)


def hull(size: int = 48, side: int = 96) -> viz.Picture:
    where = torch.from_numpy(boxes.pixels_of_grid(size=size, side=side))
    chairs = furniture.draw([f"a {colour} chair" for colour in furniture.COLOURS], np.random.default_rng(5))
    masks = torch.from_numpy(boxes.silhouettes(chairs, size=size))
    sets = {"one chair": masks[:1], "four chairs": torch.stack([masks[v, v] for v in range(4)])[None]}
    figure, panels = axes(8, width=8.6, height=2.7)
    figure.clear()
    panels = figure.subplots(2, 8)
    shares = {}
    for row, (name, views) in zip(panels, sets.items(), strict=True):
        again = seen_again(views, where)
        shares[name] = (torch.minimum(views, again).sum() / torch.maximum(views, again).sum()).item()
        for n, axis in enumerate(row):
            axis.imshow((views if n < 4 else again)[0, n % 4].numpy(), cmap="Greys", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.set_title(f"view {n + 1}" if n < 4 else "again", fontsize=8)
        row[0].set_ylabel(f"{name}\nagreement {shares[name]:.2f}", fontsize=8)
    alt = (
        "Two rows of eight silhouettes: four views, then what the solid carved from them shows again. One chair: views "
        f"and hull agree, {shares['one chair']:.2f}. Four different chairs, one a view: what is seen again lacks parts "
        f"of each, {shares['four chairs']:.2f}."
    )
    return viz.picture(figure, alt=alt)


def distilled(count: int = 6) -> viz.Picture:
    """Objects from the same noise, distilled plainly and with the score of standing picking among four noises."""
    base, start = load("furniture"), torch.Generator().manual_seed(16)
    texts = furniture.draw_prompts(count, np.random.default_rng(16))
    noise = torch.randn(count, *base.latent_shape, generator=start)
    plain, _ = distill(base, texts, noise)
    picked, _ = distill(base, texts, noise, reward=stability.standing(), config=DistillationConfig(tries=4))
    pieces = base.decode(torch.cat([plain, picked])).numpy()
    stand = furniture.stands(pieces).tolist()
    alt = (
        f"Two rows of {count} pieces of furniture with the same prompts and first noise. Above, distilled plainly: "
        f"{sum(stand[:count])} stand. Below, with the best of four noises a step: {sum(stand[count:])} stand."
    )
    pictures = boxes.render(pieces, (35.0,), size=72, oversample=2)[:, 0]
    return viz.sample_sheet(pictures, texts * 2, accepted=stand, columns=count, alt=alt)


def results() -> str:
    """The lab's tables, from its records."""
    path = ROOT / "benchmarks" / f"{NAME}.json"
    runs = [run["metrics"] for run in read_benchmark(path) if run["profile"] == "cpu"] if path.exists() else []
    if not runs:
        return "No run of the lab has been recorded yet."

    def value(*keys: str, digits: int = 3) -> str:
        found = runs
        for key in keys:
            found = [metrics[key] for metrics in found]
        return spread(found, digits)

    columns = {"stands": "accuracy", "diversity": "diversity", "height": "height", "precision": "precision"}
    lines = [f"| | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name, when in (("base", "before"), ("RAFT", "after")):
        lines.append(f"| {name} | " + " | ".join(value(key, when) for key in columns.values()) + " |")
    for name, group in (("GRPO", "grpo"), ("RAFT by the learned preference", "learned")):
        stand, height, near = (value(group, key) for key in ("accuracy", "height", "precision"))
        lines.append(f"| {name} | {stand} | | {height} | {near} |")
    lines += [f"| DPO, {name} | {value('dpo', name)} | | | |" for name in ("plain", "mended")]
    lines.append(f"| raw tilt, no leash | | | {value('slab', 'height')} | {value('slab', 'precision')} |")
    for count in runs[0]["best_of_n"]:
        lines.append(f"| base, best of {count} | {value('best_of_n', count)} | | | |")
    seeds = "one seed" if len(runs) == 1 else f"{len(runs)} seeds: the median, and the range in brackets"
    seconds, one, four = (value(*k, digits=n) for *k, n in (
        ("training_cpu_seconds", 0), ("views", "of one", 2), ("views", "of several", 2)))  # fmt: skip
    lines += ["", f"Lab 16 under profile `cpu`, {seeds}. RAFT took {seconds} CPU seconds. Height is a share of that of "
              "true furniture; clean data has diversity of about 0.30. Views of one piece agree to "
              f"{one}, of four pieces to {four}.", ""]  # fmt: skip
    learned = {name: value("agreement", key, digits=2) for name, key in (
        ("four", "held out"), ("one", "one view"), ("best", "ceiling"), ("error", "calibration error"))}  # fmt: skip
    lines += [f"The learned preference agrees with its rater on {learned['four']} of new comparisons of the base's own "
              f"samples, by one view on {learned['one']}; the rater's own errors leave {learned['best']} at best. Its "
              f"calibration error is {learned['error']}. What the rater thinks of samples, its worth: base "
              f"{value('worth', 'base', digits=2)}, by the learned preference "
              f"{value('worth', 'learned from views', digits=2)}, RAFT {value('worth', 'RAFT', digits=2)}.",
              ""]  # fmt: skip
    columns = {"stands": "accuracy", "height": "height", "precision": "precision", "learned score": "learned",
               "worth to the rater": "worth"}  # fmt: skip
    lines += [f"| distilled | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for name in runs[0]["distilled"]:
        lines.append(f"| {name} | " + " | ".join(value("distilled", name, key) for key in columns.values()) + " |")
    lines += ["", "The same 48 objects from the same noise, 100 steps each but for the second row."]
    return "\n".join(lines)


CHAPTER = Chapter(NAME, results)

if __name__ == "__main__":
    if CHAPTER.write_results(argparse.ArgumentParser(description=__doc__)) is not None:
        for name, draw in {"16-base": base_pieces, "16-tilt": tilt, "16-hull": hull, "16-distil": distilled}.items():
            CHAPTER.place(draw(), name)
