"""How well a picture compresses as JPEG: the simplest rewards of DDPO (Black et al. 2023, arXiv 2305.13301).

Neither has a gradient, neither looks at the prompt, and both can be driven to the absurd: that is their use here.
"""

from __future__ import annotations

import functools
import io

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards.pictures import as_arrays, per_sample
from pixelpolicy.rl.reward import Reward


def jpeg_compressibility(quality: int = 95) -> Reward:
    """Minus the kilobytes (of 1,000 bytes) of a picture ``[batch, 3, height, width]`` in [-1, 1] as JPEG.

    Raises `RewardError` for a ``quality`` outside 1 to 95, the range in which it means something to JPEG.
    """
    return _jpeg("compressibility", -1.0, quality)


def jpeg_incompressibility(quality: int = 95) -> Reward:
    """The kilobytes of a picture as JPEG; `jpeg_compressibility` with the other sign."""
    return _jpeg("incompressibility", 1.0, quality)


@functools.cache  # so that two rewards of one name and quality are equal, and add up
def _jpeg(name: str, sign: float, quality: int) -> Reward:
    if quality not in range(1, 96):
        raise RewardError(f"a JPEG quality of {quality!r} was given; give a whole number from 1 to 95")

    def reward(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        pictures, finite = as_arrays(samples, prompts)
        return per_sample([sign * kilobytes(picture, quality) for picture in pictures], finite)

    return Reward(name if quality == 95 else f"{name} (quality {quality})", reward)


def kilobytes(picture: np.ndarray, quality: int = 95) -> float:
    """The size of one picture ``[3, height, width]`` in [-1, 1] as JPEG, header and all."""
    return len(_file(picture, quality)) / 1000


def header_kilobytes(quality: int = 95) -> float:
    """What a JPEG takes before its first pixel and after its last: tables and markers, the same for every picture."""
    file = _file(np.zeros((3, 8, 8), dtype=np.float32), quality)
    scan = file.index(b"\xff\xda") + 2  # the marker "start of scan", then its own header, then the pixels
    return (scan + int.from_bytes(file[scan : scan + 2], "big") + len(b"\xff\xd9")) / 1000


def _file(picture: np.ndarray, quality: int) -> bytes:
    levels = ((picture + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.transpose(1, 2, 0)).save(file, "JPEG", quality=quality)
    return file.getvalue()
