"""Pictures packed for a page: every state of a trajectory in one PNG."""

from __future__ import annotations

import io
import math
from base64 import b64encode
from typing import Any

import numpy as np
from PIL import Image

from pixelpolicy.errors import FigureError

# Longest side in pixels of a picture that a page carries: thirty states of 1024 x 1024 would weigh some 60 MB.
LARGEST = 256


def as_pixels(frames: Any) -> np.ndarray:
    """Pictures ``[..., 3, height, width]`` as uint8 ``[..., height, width, 3]``.

    ``frames`` is a tensor or an array: uint8 in 0 .. 255, or floats in [-1, 1]. Raises `FigureError` for anything else.
    """
    array = frames.detach().cpu() if hasattr(frames, "detach") else np.asarray(frames)
    if hasattr(array, "is_floating_point"):
        array = (array.float() if array.is_floating_point() else array).numpy()
    if array.ndim < 3 or array.shape[-3] != 3 or 0 in array.shape:
        raise FigureError(f"frames have shape {list(array.shape)}; give [..., 3, height, width], with no side of 0")
    if array.dtype != np.uint8:
        if not np.issubdtype(array.dtype, np.floating):
            raise FigureError(f"frames are of {array.dtype}; give uint8 in 0 .. 255, or floats in [-1, 1]")
        least, most = array.min(), array.max()
        if not (least >= -1.001 and most <= 1.001):  # so written, NaN is refused too
            raise FigureError(
                f"frames lie between {least:g} and {most:g}; floats are pictures in [-1, 1]. "
                "Decode latents first, clamp what oversteps, or give uint8"
            )
        array = np.rint((array.clip(-1, 1) + 1) * 127.5).astype(np.uint8)
    return np.moveaxis(array, -3, -1)


def sprite(pixels: np.ndarray) -> tuple[str, tuple[int, int, int]]:
    """Pictures uint8 ``[states, height, width, 3]`` in one PNG, row by row: ``(data URL, (width, height, columns))``.

    Pictures larger than `LARGEST` are made smaller.
    """
    scale = min(1.0, LARGEST / max(pixels.shape[1:3]))
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in (pixels.shape[2], pixels.shape[1]))
        pixels = np.stack([Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS) for picture in pixels])
    states, height, width, _ = pixels.shape
    # nearly square, because browsers refuse pictures that are very long
    columns = math.ceil(math.sqrt(states))
    rows = math.ceil(states / columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:states] = pixels
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2).reshape(rows * height, columns * width, 3)
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}", (width, height, columns)
