"""A canvas to paint on, as an environment of Gymnasium: a few thick strokes, and each earns the error it removes.

Importing this module registers ``PixelPolicy/Canvas-v0``, whose targets are digits to train on, and
``PixelPolicy/CanvasHeldOut-v0``, whose targets are digits kept back. Both have a batched version, so that
``control.make`` and ``control.ppo.train`` play them as they play CartPole.

Pictures are float32 arrays ``[batch, 24, 24]`` of ink, 0 (black ground) to 1 (white); lengths are in pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Float, Int

from pixelpolicy.errors import ControlError, SizeError
from pixelpolicy.worlds import digits

ID, HELD_OUT_ID = "PixelPolicy/Canvas-v0", "PixelPolicy/CanvasHeldOut-v0"
SIZE = 24
STROKES = 6  # of an episode
NUMBERS = ("middle x", "middle y", "half length x", "half length y", "radius")  # of a stroke, in this order
CENTRES = np.array([SIZE / 2, SIZE / 2, 0, 0, 1.5], dtype=np.float32)  # a stroke of zeros is a dot in the middle
UNITS = np.array([3, 3, 2, 2, 0.2], dtype=np.float32)  # pixels that one unit of an action moves each number
BOUND = 3.0  # an action lies in [-3, 3]
SQUINT = 2  # the painter sees pixels averaged 2 x 2
SEEN = (SIZE // SQUINT) ** 2
GAIN = 2.0  # the digits' ink, enlarged, is multiplied with it: thicker, and still read


Brush = Callable[..., np.ndarray]  # as `line`
Improvement = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # as `improvement`


# Painting -----------------------------------------------------------------------------------------------------

_Y, _X = (grid.astype(np.float32) + 0.5 for grid in np.mgrid[:SIZE, :SIZE])


@functools.cache
def targets(split: str = "train") -> tuple[Float[np.ndarray, "count 24 24"], Int[np.ndarray, "count"]]:
    """What is to be painted: the digits of a split, enlarged and thickened, and which digit each is.

    Raises `PromptError` for a split that `digits.load` does not know.
    """
    pictures, labels = digits.load(split)
    enlarge = digits.area_average(SIZE, digits.SIZE).T
    enlarge = enlarge / enlarge.sum(1, keepdims=True)
    ink = enlarge @ ((pictures[:, 0] + 1) / 2) @ enlarge.T
    return (GAIN * ink).clip(0, 1).astype(np.float32), labels


def line(
    x: Float[np.ndarray, "batch"], y: Float[np.ndarray, "batch"], half_x: Float[np.ndarray, "batch"],
    half_y: Float[np.ndarray, "batch"], radius: Float[np.ndarray, "batch"],
) -> Float[np.ndarray, "batch 24 24"]:  # fmt: skip
    """The share of each pixel that a straight stroke covers: 1 well within the radius, 0 well outside.

    The stroke goes from the middle ``(x, y)`` as far as ``(half_x, half_y)`` to both sides, with round ends. Across
    its rim the share falls along a line, within half a pixel to both sides of the radius.
    """
    x, y, half_x, half_y, radius = (np.asarray(v)[:, None, None] for v in (x, y, half_x, half_y, radius))
    dx, dy = _X - x, _Y - y
    along = ((dx * half_x + dy * half_y) / (half_x**2 + half_y**2 + 1e-6)).clip(-1, 1)
    distance = np.sqrt((dx - along * half_x) ** 2 + (dy - along * half_y) ** 2)
    return (radius + 0.5 - distance).clip(0, 1)


def covers(actions: Float[np.ndarray, "batch 5"], brush: Brush = line) -> Float[np.ndarray, "batch 24 24"]:
    """What the strokes that actions stand for cover, by `line` or another brush.

    Actions outside the bounds are clipped. Raises `SizeError` for another shape.
    """
    actions = np.asarray(actions, dtype=np.float32)
    if actions.ndim != 2 or actions.shape[1] != len(NUMBERS):
        raise SizeError(f"strokes have the shape {list(actions.shape)}; give [batch, 5]: {', '.join(NUMBERS)}")
    return brush(*(CENTRES + UNITS * actions.clip(-BOUND, BOUND)).T)


def add(
    canvases: Float[np.ndarray, "batch 24 24"], actions: Float[np.ndarray, "batch 5"], brush: Brush = line
) -> Float[np.ndarray, "batch 24 24"]:
    """The canvases with one more stroke each. Ink stays: a stroke can cover black, and nothing covers a stroke."""
    return np.maximum(canvases, covers(actions, brush))


def errors(
    canvases: Float[np.ndarray, "batch 24 24"], wanted: Float[np.ndarray, "batch 24 24"]
) -> Float[np.ndarray, "batch"]:
    """The squared difference of each canvas from its target, as a share of that of the empty canvas."""
    gaps = ((canvases - wanted) ** 2).sum((1, 2))
    return gaps / (wanted**2).sum((1, 2)).clip(1e-6)


def improvement(
    before: Float[np.ndarray, "batch 24 24"], after: Float[np.ndarray, "batch 24 24"],
    wanted: Float[np.ndarray, "batch 24 24"],
) -> Float[np.ndarray, "batch"]:  # fmt: skip
    """The reward of a stroke: by how much it lowered `errors`; below 0 where it did harm.

    Along an episode the rewards sum to the share of the error that was removed (Huang et al. 2019, arXiv 1903.04411,
    pay a difference likewise).
    """
    return errors(before, wanted) - errors(after, wanted)


def observations(
    canvases: Float[np.ndarray, "batch 24 24"], wanted: Float[np.ndarray, "batch 24 24"], painted: np.ndarray
) -> Float[np.ndarray, "batch 289"]:
    """What a painter sees, squinting: the target (144 numbers), what is missing of it (144), the share of strokes made.

    Where there is too much ink the missing is negative.
    """

    def squint(pictures: np.ndarray) -> np.ndarray:
        side = SIZE // SQUINT
        return pictures.reshape(-1, side, SQUINT, side, SQUINT).mean((2, 4)).reshape(-1, SEEN)

    share = np.asarray(painted, dtype=np.float32)[:, None] / STROKES
    return np.concatenate([squint(wanted), squint(wanted - canvases), share], axis=1).astype(np.float32)


def paint(
    act: Callable[[Float[np.ndarray, "batch 289"]], Any], wanted: Float[np.ndarray, "batch 24 24"]
) -> Float[np.ndarray, "strokes+1 batch 24 24"]:
    """The canvas before and after each stroke, for targets of your own; ``act`` maps observations to strokes."""
    states = [np.zeros_like(wanted)]
    for stroke in range(STROKES):
        seen = observations(states[-1], wanted, np.full(len(wanted), stroke))
        states.append(add(states[-1], np.asarray(act(seen))))
    return np.stack(states)


def read(canvases: Float[np.ndarray, "batch 24 24"]) -> Int[np.ndarray, "batch"]:
    """The digit that the reader of `digits` takes each canvas for: a check that no reward here pays for."""
    shrink = digits.area_average(SIZE, digits.SIZE)
    small = shrink @ np.asarray(canvases, dtype=np.float64) @ shrink.T
    return digits.recognise((2 * small - 1).astype(np.float32)[:, None]).argmax(1)


# Environments -------------------------------------------------------------------------------------------------


def _spaces() -> tuple[spaces.Box, spaces.Box]:
    seen = spaces.Box(-1, 1, (2 * SEEN + 1,), np.float32)
    return seen, spaces.Box(-BOUND, BOUND, (len(NUMBERS),), np.float32)


class CanvasEnv(gymnasium.Env):
    """One painter: an episode is one target and `STROKES` strokes.

    - observation: float32 of 289, see `observations`
    - action: five numbers in [-3, 3], the `NUMBERS` of a stroke in `UNITS` of pixels around `CENTRES`
    - reward: `improvement`, or another function of the canvas before, the canvas after and the target
    - info: ``error`` now, from 1 (an empty canvas) down to 0, and ``index`` of the target

    ``reset`` draws a target of ``split``, or takes ``options={"index": number}``. Raises `ControlError` for an index
    that is not there and for a step where no episode runs.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 2}

    def __init__(
        self, split: str = "train", render_mode: str | None = None, *, brush: Brush = line,
        reward: Improvement = improvement,
    ):  # fmt: skip
        self.render_mode, self._brush, self._reward = render_mode, brush, reward
        self._targets = targets(split)[0]
        self.observation_space, self.action_space = _spaces()
        self._painted = STROKES  # no episode runs before the first reset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        drawn = self.np_random.integers(len(self._targets))
        self._index = int(_indices((options or {}).get("index", drawn), self._targets, 1)[0])
        self._wanted = self._targets[self._index][None]
        self._canvas, self._painted = np.zeros_like(self._wanted), 0
        return self._seen(), self._info()

    def step(self, action):
        if self._painted == STROKES:
            raise ControlError("no episode runs: it has ended, or none has begun. Call reset() before step().")
        before, self._canvas = self._canvas, add(self._canvas, np.asarray(action)[None], self._brush)
        self._painted += 1
        reward = float(self._reward(before, self._canvas, self._wanted)[0])
        return self._seen(), reward, self._painted == STROKES, False, self._info()

    def render(self) -> np.ndarray | None:
        """Target and canvas beside each other, uint8 ``[192, 400, 3]``."""
        if self.render_mode is None:
            return None
        return side_by_side(self._wanted[0], self._canvas[0])

    def _seen(self) -> np.ndarray:
        return observations(self._canvas, self._wanted, np.array([self._painted]))[0]

    def _info(self) -> dict[str, Any]:
        return {"error": float(errors(self._canvas, self._wanted)[0]), "index": self._index}


class CanvasVectorEnv(VectorEnv):
    """Many painters in one array, much quicker than one after the other; else as `CanvasEnv`.

    An episode that has ended begins anew at the next step, which ignores its action, as Gymnasium's own do.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self, num_envs: int = 1, split: str = "train", *, brush: Brush = line, reward: Improvement = improvement
    ):
        self.num_envs, self._brush, self._reward = num_envs, brush, reward
        self._targets = targets(split)[0]
        self.single_observation_space, self.single_action_space = _spaces()
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._painted = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        drawn = self.np_random.integers(len(self._targets), size=self.num_envs)
        self._index = _indices((options or {}).get("index", drawn), self._targets, self.num_envs).copy()
        self._wanted = self._targets[self._index]
        self._canvas, self._painted = np.zeros_like(self._wanted), np.zeros(self.num_envs, dtype=int)
        return observations(self._canvas, self._wanted, self._painted), self._info()

    def step(self, actions):
        if self._painted is None:
            raise ControlError("no episode runs: none has begun. Call reset() before step().")
        anew = self._painted == STROKES
        before, self._canvas = self._canvas, add(self._canvas, np.asarray(actions), self._brush)
        rewards = np.where(anew, 0, self._reward(before, self._canvas, self._wanted))
        if anew.any():
            self._index[anew] = self.np_random.integers(len(self._targets), size=int(anew.sum()))
            self._wanted[anew] = self._targets[self._index[anew]]
            self._canvas[anew] = 0
        self._painted = np.where(anew, 0, self._painted + 1)
        seen = observations(self._canvas, self._wanted, self._painted)
        return seen, rewards, self._painted == STROKES, np.zeros(self.num_envs, dtype=bool), self._info()

    def _info(self) -> dict[str, Any]:
        return {"error": errors(self._canvas, self._wanted), "index": self._index.copy()}


def _indices(index: Any, pictures: np.ndarray, count: int) -> np.ndarray:
    array = np.atleast_1d(np.asarray(index))
    if array.shape != (count,) or array.dtype.kind not in "iu" or ((array < 0) | (array >= len(pictures))).any():
        raise ControlError(f"index is {index!r}; give {count} of the whole numbers from 0 to {len(pictures) - 1}")
    return array


def side_by_side(wanted: Float[np.ndarray, "24 24"], canvas: Float[np.ndarray, "24 24"], scale: int = 8) -> np.ndarray:
    """A target and a canvas beside each other, a grey gap between, as uint8 ``[24 scale, 50 scale, 3]``."""
    gap = np.full((SIZE, 2), 0.5, dtype=np.float32)
    row = np.concatenate([wanted, gap, canvas], axis=1).repeat(scale, 0).repeat(scale, 1)
    return np.repeat((255 * row).round().astype(np.uint8)[..., None], 3, axis=-1)


for _id, _split in ((ID, "train"), (HELD_OUT_ID, "held-out")):
    gymnasium.register(
        id=_id, entry_point=f"{__name__}:CanvasEnv", vector_entry_point=f"{__name__}:CanvasVectorEnv",
        kwargs={"split": _split},
    )  # fmt: skip
