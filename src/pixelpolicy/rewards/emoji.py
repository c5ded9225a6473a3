"""Emoji pictures of two vendors with their names, from npm's packages of Iconify: what image-text is fitted to.

Needs npm, a network that reaches its registry, and the extra ``rewards`` (resvg-py). Only remaking needs this.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelpolicy import npm
from pixelpolicy.errors import CheckpointError

SIDE = 64
_FILES = ("icons.json", "chars.json")
PACKAGES = {
    "fluent": (
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
    ),
    "noto": (
        "@iconify-json/noto@1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
}
SKIN_TONE = re.compile("1f3f[b-f]")  # among the code points of an emoji


@dataclass(frozen=True)
class Emoji:
    """One vendor's emoji without variants of skin tone: captions, and pictures ``[n, 4, 64, 64]``, RGBA in [0, 1]."""

    captions: tuple[str, ...]
    pictures: Tensor

    def on(self, ground: Tensor) -> Tensor:
        """Pictures ``[n, 3, 64, 64]`` in [-1, 1] on grounds of one colour each, ``[n, 3]`` or ``[3]`` in [0, 1]."""
        opaque = self.pictures[:, 3:]
        return (self.pictures[:, :3] * opaque + ground[..., None, None] * (1 - opaque)) * 2 - 1


def collect() -> dict[str, Emoji]:
    """The emoji of each vendor, fetched with npm and drawn. Raises `CheckpointError` where something is missing."""
    lock = {
        package: {"integrity": integrity, "files": {name: f"{vendor}/{name}" for name in _FILES}}
        for vendor, (package, integrity) in PACKAGES.items()
    }
    with tempfile.TemporaryDirectory(prefix="emoji-") as scratch:
        npm.unpack(
            lock, Path(scratch), error=CheckpointError, lock_name="rewards/emoji.py", user="remaking image-text",
            again="the same command again",
        )  # fmt: skip
        read = {v: [json.loads((Path(scratch) / v / name).read_text("utf-8")) for name in _FILES] for v in PACKAGES}
    return {vendor: _drawn(icons, characters) for vendor, (icons, characters) in read.items()}


def _drawn(icons: dict, characters: dict[str, str]) -> Emoji:
    names = {name for points, name in characters.items() if not SKIN_TONE.search(points)} & icons["icons"].keys()
    captions = sorted(names)
    pictures = np.stack([_picture(icons, icons["icons"][name]) for name in captions])
    return Emoji(
        tuple(name.replace("-", " ") for name in captions), torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    )


def _picture(icons: dict, icon: dict) -> np.ndarray:
    """One icon as RGBA levels ``[64, 64, 4]``; its frame is its own, or that of the set."""
    try:
        import resvg_py
    except ImportError as error:
        raise CheckpointError(f'emoji are drawn by resvg-py ({error}); pip install ".[rewards]"') from error
    frame = [icon.get(key, icons.get(key, 0)) for key in ("left", "top", "width", "height")]
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{" ".join(map(str, frame))}" width="{SIDE}" height="{SIDE}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))
