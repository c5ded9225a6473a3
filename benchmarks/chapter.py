"""What the scripts share that draw a chapter's figures and write its results: the block between two markers."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from pixelpolicy import viz

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Chapter:
    """A chapter of ``name``, such as 12-grpo; ``results`` gives the text between its markers, from records alone."""

    name: str
    results: Callable[[], str]

    @property
    def path(self) -> Path:
        return ROOT / "chapters" / f"{self.name}.md"

    @property
    def block(self) -> re.Pattern:
        """The markers, and what stands between them."""
        script = f"benchmarks/figure_{self.name[:2]}.py"
        return re.compile(rf"(<!-- results: made by {re.escape(script)} -->\n).*?(<!-- end of results -->)", re.S)

    def with_results(self, text: str) -> str:
        return self.block.sub(lambda found: f"{found[1]}\n{self.results()}\n{found[2]}", text)

    def write_results(self, parser: argparse.ArgumentParser) -> argparse.Namespace | None:
        """Rewrite the results, or with --check only compare them; None where no figure is asked for."""
        parser.add_argument("--table", action="store_true", help="rewrite the results only")
        parser.add_argument("--check", action="store_true", help="write nothing; fail where the results differ")
        asked, text = parser.parse_args(), self.path.read_text(encoding="utf-8")
        if asked.check:
            stale = text != self.with_results(text)
            sys.exit(f"{self.path.name}'s results are not those of the records: run it without --check" if stale else 0)
        self.path.write_text(self.with_results(text), encoding="utf-8")
        return None if asked.table else asked

    def place(self, picture: viz.Picture, name: str) -> None:
        """Write a figure, and its alternative text into the chapter."""
        picture.save(ROOT / "chapters" / "figures" / f"{name}.png")
        text = self.path.read_text(encoding="utf-8")
        alt_line = re.compile(rf"(```\{{figure\}} figures/{re.escape(name)}\.png\n:alt: )[^\n]*")
        new, found = alt_line.subn(lambda match: match[1] + picture.alt, text)
        if found != 1:
            sys.exit(f"{self.path} shows figures/{name}.png {found} times, with an :alt: line; it must be once")
        self.path.write_text(new, encoding="utf-8")
        print(f"{name}: {picture.alt}", flush=True)


def axes(columns: int, width: float = 8.4, height: float = 3.1) -> tuple[Figure, list]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(1, columns)))
    for axis in panels:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, panels


def spread(values: list[float], digits: int = 3) -> str:
    """The median, and in brackets the lowest and the highest where they differ."""
    low, middle, high = (f"{value:.{digits}f}" for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
