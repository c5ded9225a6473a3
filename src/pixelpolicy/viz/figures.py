"""Figures of the course. Each needs alternative text and refuses to be drawn without it."""

from __future__ import annotations

import html
import io
import math
import textwrap
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

# Okabe and Ito's palette, less its yellow: told apart by colour-blind readers, legible on white and on black.
COLOURS = {
    "base": "#999999",
    "best-of-n": "#56B4E9",
    "ddpo": "#CC79A7",
    "grpo": "#D55E00",
    "nft": "#0072B2",
    "dpo": "#009E73",
    "reward-gradient": "#E69F00",
}

# Tol's muted palette, for lines that are no algorithm.
OTHERS = ("#332288", "#44AA99", "#AA4499", "#117733", "#88CCEE", "#882255")


@dataclass(frozen=True)
class Picture:
    """A PNG with alternative text; a notebook shows it, `save` writes it."""

    png: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        source = b64encode(self.png).decode()
        tag = f'<img alt="{html.escape(self.alt, quote=True)}" src="data:image/png;base64,{source}">'
        return {"text/html": tag, "text/plain": self.alt}

    def save(self, path) -> None:
        with open(path, "wb") as file:
            file.write(self.png)


def picture(figure: Figure, *, alt: str, dpi: int = 110) -> Picture:
    """Render a figure. Raises `ValueError` without alternative text."""
    if not alt.strip():
        raise ValueError("a figure needs alternative text: say in alt= what it shows to someone who cannot see it")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, bbox_inches="tight", metadata={"Software": None})
    return Picture(buffer.getvalue(), alt)


def _to_array(pictures) -> np.ndarray:
    array = pictures.detach().cpu().numpy() if hasattr(pictures, "detach") else np.asarray(pictures)
    return ((array.clip(-1, 1) + 1) / 2).transpose(0, 2, 3, 1)


def sample_sheet(
    pictures,
    prompts: Sequence[str],
    *,
    alt: str,
    columns: int = 8,
    accepted: Sequence[bool] | None = None,
    titles: bool = True,
    size: float = 1.25,
) -> Picture:
    """Pictures ``[batch, 3, height, width]`` in [-1, 1] in a grid, each under its prompt.

    ``accepted`` frames each picture: a solid green frame where True, a dashed red one where False.
    """
    images, rows = _to_array(pictures), math.ceil(len(prompts) / columns)
    lines = max((_wrap(prompt).count("\n") + 1 for prompt in prompts), default=0) if titles else 0
    more = 0.1 * max(0, lines - 4)  # inches a row: up to four lines have room
    figure = Figure(figsize=(columns * size, rows * (size * (1.4 if titles else 1.08) + more)))
    axes = np.atleast_1d(
        figure.subplots(rows, columns, gridspec_kw={"hspace": (0.45 if titles else 0.08) + more / size, "wspace": 0.1})
    )
    for index, axis in enumerate(axes.flat):
        axis.set_xticks([]), axis.set_yticks([])
        if index >= len(prompts):
            axis.axis("off")
            continue
        axis.imshow(images[index], interpolation="nearest")
        if titles:
            axis.set_title(_wrap(prompts[index]), fontsize=6, pad=2)
        if accepted is not None:
            for spine in axis.spines.values():
                spine.set(color="#009E73" if accepted[index] else "#D55E00", linewidth=2)
                spine.set_capstyle("butt")  # a projecting cap would fill the gaps between dashes
                spine.set_linestyle("-" if accepted[index] else (0, (3, 2)))
    return picture(figure, alt=alt)


def _wrap(prompt: str) -> str:
    return textwrap.fill(prompt, 21)


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    alt: str,
    xlabel: str,
    ylabel: str,
    levels: Mapping[str, float] | None = None,
    bands: Mapping[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    colours: Mapping[str, str] | None = None,
    ylim: tuple[float, float] | None = None,
) -> Picture:
    """Lines with labels; ``levels`` are dashed horizontals (a baseline), ``bands`` low and high round a line."""
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for index, (label, (x, y)) in enumerate(series.items()):
        colour = (colours or {}).get(label, COLOURS.get(label, OTHERS[index % len(OTHERS)]))
        axis.plot(x, y, label=label, color=colour, linewidth=1.8)
        if bands and label in bands:
            axis.fill_between(x, *bands[label], color=colour, alpha=0.2, linewidth=0)
    styles = ["--", ":", "-.", (0, (5, 1, 1, 1))]
    for index, (label, level) in enumerate((levels or {}).items()):
        axis.axhline(level, color="#777777", linestyle=styles[index % 4], linewidth=1.2, label=label)
    axis.set(xlabel=xlabel, ylabel=ylabel, **({"ylim": ylim} if ylim else {}))
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return picture(figure, alt=alt)
