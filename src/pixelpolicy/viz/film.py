"""Moving pictures: frames as an animation that plays once, and the frames of an episode of control."""

from __future__ import annotations

import html
import io
import os
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pixelpolicy.errors import ControlError, FigureError

LONGEST = 5.0  # seconds: what moves for longer needs a button that stops it


@dataclass(frozen=True)
class Film:
    """A GIF that plays once, with its last frame as a still, and alternative text; `save` writes the GIF.

    Whoever asks their system for less motion is shown the still.
    """

    gif: bytes
    still: bytes
    alt: str

    def _repr_mimebundle_(self, include=None, exclude=None):
        moving, still = (b64encode(source).decode() for source in (self.gif, self.still))
        shown = (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="data:image/png;base64,{still}">'
            f'<img alt="{html.escape(self.alt, quote=True)}" src="data:image/gif;base64,{moving}"></picture>'
        )
        return {"text/html": shown, "text/plain": self.alt}

    def save(self, path) -> None:
        with open(path, "wb") as file:
            file.write(self.gif)


def film(frames: UInt8[np.ndarray, "time height width 3"], *, alt: str, fps: float = 25, shrink: int = 1) -> Film:
    """Frames as a film of at most 5 s, which plays once. A longer one is thinned evenly, and so runs faster.

    ``shrink`` makes each frame smaller by that factor, averaging. Raises `FigureError` without alternative text, for
    frames of another form, and for a rate or factor that is not positive.
    """
    if not alt.strip():
        raise FigureError("a film needs alternative text: say in alt= what happens, to someone who cannot see it")
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or not len(frames):
        raise FigureError(
            f"frames are {frames.dtype} {list(frames.shape)}; give uint8 [time, height, width, 3], one frame at least"
        )
    if not fps > 0 or shrink < 1:
        raise FigureError(f"fps is {fps}, shrink {shrink}; give frames a second above 0 and a factor from 1 on")
    most = max(1, int(LONGEST * fps))
    if len(frames) > most:
        frames = frames[np.linspace(0, len(frames) - 1, most).round().astype(int)]
    pictures = [Image.fromarray(frame).reduce(shrink) for frame in frames]
    palette = _palette(pictures)
    reduced = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    gif, still = io.BytesIO(), io.BytesIO()
    # without loop= a GIF plays once
    reduced[0].save(gif, "GIF", save_all=True, append_images=reduced[1:], duration=1000 / fps, disposal=1)
    pictures[-1].save(still, "PNG")
    return Film(gif.getvalue(), still.getvalue(), alt)


def _palette(pictures: list[Image.Image], samples: int = 8) -> Image.Image:
    """One palette for the whole film, from some of its frames: with one a frame, still parts would flicker."""
    chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, min(samples, len(pictures))).astype(int)]
    sheet = np.concatenate([np.asarray(picture) for picture in chosen])
    return Image.fromarray(sheet).quantize(64, dither=Image.Dither.NONE)


def episode_frames(
    act: Callable, name: str, *, seed: int = 0, every: int = 1, most_steps: int = 1000
) -> UInt8[np.ndarray, "time height width 3"]:
    """Every ``every``-th frame of one episode, with its last; ``act`` maps observations ``[1, ...]`` to actions.

    ``every=2`` shows CartPole, which lives at 50 steps a second, at its own pace. Ends after ``most_steps`` steps at
    the latest. Raises `ControlError` where there is no such environment, or it draws no pictures.
    """
    import gymnasium  # here, so that labs without control do not load it
    import torch

    if not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # else pygame complains that there is no screen
        os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    try:
        env = gymnasium.make(name, render_mode="rgb_array")
        observation, frames, over, step = env.reset(seed=seed)[0], [env.render()], False, 0
    except gymnasium.error.Error as error:
        raise ControlError(f"no film can be made of '{name}': {error}") from error
    while not over and step < most_steps:
        action = np.asarray(act(torch.as_tensor(observation)[None]))[0]
        observation, _, terminated, truncated, _ = env.step(action)
        step, over = step + 1, terminated or truncated
        if step % every == 0 or over:
            frames.append(env.render())
    env.close()
    return np.stack(frames)


def side_by_side(films: Sequence[UInt8[np.ndarray, "_ height width 3"]], *, gap: int = 8) -> np.ndarray:
    """Frames of equal size beside each other, a white gap between; the shorter ones stand still at their last."""
    longest = max(len(frames) for frames in films)
    held = [np.concatenate([f, np.repeat(f[-1:], longest - len(f), 0)]) for f in films]
    white = np.full((longest, held[0].shape[1], gap, 3), 255, np.uint8)
    parts = [part for frames in held for part in (frames, white)]
    return np.concatenate(parts[:-1], axis=2)
