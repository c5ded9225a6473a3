"""The pair labeller: two pictures of one prompt, and a person who says which is better."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anywidget
import numpy as np
import traitlets

from pixelpolicy.errors import FigureError, PixelPolicyError
from pixelpolicy.files import write_whole
from pixelpolicy.widgets.assets import joined
from pixelpolicy.widgets.explorer import described
from pixelpolicy.widgets.sprites import as_pixels, sprite

CHOICES = ("", "left", "right", "unsure")  # "" is a pair that nobody has judged yet


class PairLabeller(anywidget.AnyWidget):
    """Pairs of pictures to be compared by click or by key; answers reach Python one by one and are kept on disk.

    - ``left``, ``right [pairs, 3, height, width]``: uint8, or floats in [-1, 1]
    - ``prompts``: one a pair
    - ``alt``: what the pictures show, for those who cannot see them
    - ``file``: where answers are kept after each one, and from where those of an earlier session are taken up again;
      None keeps them in memory alone. A file with answers to other pairs is put aside under a free name.

    ``answers`` (one of `CHOICES` a pair) may be read, set and observed. It takes a kernel to label: on a static page
    the pairs can be looked through, and the widget says so. Raises `FigureError` where the parts do not fit, where
    ``alt`` is missing, and for an answer that is none.
    """

    _esm = joined("js", "explorer", "pair_labeller")
    _css = joined("css", "paper", "explorer", "pair_labeller")

    sheet = traitlets.Unicode().tag(sync=True)  # left and right of each pair, in turn
    grid = traitlets.Tuple(traitlets.Int(), traitlets.Int(), traitlets.Int()).tag(sync=True)
    prompts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    answers = traitlets.List(traitlets.Unicode()).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)
    trouble = traitlets.Unicode().tag(sync=True)  # why the last answer could not be kept
    asked = traitlets.Float(0).tag(sync=True)  # a page asks whether a kernel is there,
    heard = traitlets.Float(0).tag(sync=True)  # and the kernel repeats what it heard

    def __init__(
        self,
        left: Any,
        right: Any,
        prompts: Sequence[str],
        *,
        alt: str,
        file: Path | str | None = None,
        caption: str = "",
    ):
        sides = [as_pixels(left), as_pixels(right)]
        if sides[0].shape != sides[1].shape or sides[0].ndim != 4 or isinstance(prompts, str):
            shapes = " and ".join(str(list(side.shape)) for side in sides)
            raise FigureError(f"the sides have shapes {shapes} as pixels; give both [pairs, 3, height, width]")
        if len(prompts) != len(sides[0]):
            raise FigureError(f"{len(prompts)} prompts came with {len(sides[0])} pairs; give one prompt a pair")
        turn = np.stack(sides, 1).reshape(-1, *sides[0].shape[1:])
        sheet, grid = sprite(turn)
        told = json.dumps(list(prompts)).encode()
        self._pairs = hashlib.sha256(turn.tobytes() + told).hexdigest()
        self._file = Path(file) if file else None
        super().__init__(
            sheet=sheet,
            grid=grid,
            prompts=[str(text) for text in prompts],
            answers=self._kept(len(prompts)),
            alt=described(alt),
            caption=caption,
        )

    @property
    def judged(self) -> list[int]:
        """The numbers of the pairs of which one side was preferred."""
        return [i for i, answer in enumerate(self.answers) if answer in ("left", "right")]

    @traitlets.validate("answers")
    def _one_a_pair(self, proposal: Any) -> list[str]:
        given = proposal["value"]
        wrong = [answer for answer in given if answer not in CHOICES]
        if wrong or (self.prompts and len(given) != len(self.prompts)):
            raise FigureError(
                f"{len(given)} answers came for {len(self.prompts)} pairs, {wrong[:1]} among them; give one a pair of "
                f"{', '.join(repr(choice) for choice in CHOICES)}"
            )
        return given

    @traitlets.observe("answers")
    def _keep(self, change: Any) -> None:
        if self._file is None or (not self._file.exists() and not any(change["new"])):
            return
        text = json.dumps({"pairs": self._pairs, "answers": change["new"]}, indent=1) + "\n"
        try:
            write_whole(self._file, text)
            self.trouble = ""
        except PixelPolicyError as error:
            self.trouble = str(error)

    @traitlets.observe("asked")
    def _answer(self, change: Any) -> None:
        self.heard = change["new"]

    def _kept(self, count: int) -> list[str]:
        """The answers of an earlier session to these very pairs; those to others are put aside."""
        if self._file is None or not self._file.exists():
            return [""] * count
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            if found["pairs"] == self._pairs and len(found["answers"]) == count:
                return [answer if answer in CHOICES else "" for answer in found["answers"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # put aside with those to other pairs
        number = 1
        while (aside := self._file.with_name(f"{self._file.stem}-{number}{self._file.suffix}")).exists():
            number += 1
        os.replace(self._file, aside)
        return [""] * count
