"""A shape thrown under gravity that bounces off the ground: prompts, a simulator, and a verifier that tracks.

A clip is explained by physics: the verifier finds the object's colour, follows its centre from frame to frame, looks
for the throw that would have made this track, and draws what it found. It accepts only if the throw explains the track
(Newton's law and the bounce), the drawing explains the frames (nothing is left over), and both are what was asked for.

Clips are float32 arrays ``[batch, frames, 3, 24, 24]`` in [-1, 1]. Lengths are in pixels, times in frames; y points
down, so that gravity is positive and a throw upwards has a negative speed.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from pixelpolicy.errors import PromptError, SizeError

SIZE, FRAMES = 24, 8
GROUND = 22.0  # the y at which everything bounces
GRAVITY = 1.5  # pixels a frame, a frame
RESTITUTION = 0.8  # share of the speed that a bounce leaves
COLOURS = {
    "red": np.array([0.90, 0.25, 0.25], dtype=np.float32),
    "green": np.array([0.25, 0.75, 0.35], dtype=np.float32),
    "blue": np.array([0.25, 0.45, 0.95], dtype=np.float32),
    "yellow": np.array([0.95, 0.80, 0.25], dtype=np.float32),
}
SHAPES = ("disc", "square", "triangle")
DIRECTIONS = ("left", "right", "up", "down")
KINDS = DIRECTIONS  # prompts are sorted, and accuracy is reported, by direction
FLAWS = ("vanishing", "jitter", "gravity", "direction", "colour", "shape")

RADIUS_RANGE = (2.8, 3.6)  # of the disc of equal area
SIDEWAYS = (0.8, 1.5)  # speed of what is thrown left or right
UPWARDS, DOWNWARDS = (-6.0, -4.2), (0.3, 1.5)  # speed of what is thrown up or down

FOREGROUND = 0.22  # RGB distance from the stage at which a pixel belongs to the object
LEAST_COSINE = 0.96  # of the object's colour to the palette
BRIGHTNESS_RANGE = (0.75, 1.25)  # of the object, against the palette
ACCEPTED_RADII = (2.4, 4.2)
LEAST_IOU = 0.80  # soft intersection over union with the best template, mean over frames
MOST_MASS_CHANGE = 0.25  # of a frame, against the median of its clip
MOST_RESIDUAL = 0.20  # RGB distance, averaged over 3x3 pixels, that the drawing may leave unexplained in any frame
MOST_DEVIATION = 0.60  # root mean square distance of the track from the best throw
LEAST_FALL = 3.0  # between the highest and the lowest centre: what rolls along the ground was not thrown
LEAST_SIDEWAYS = 0.5  # speed from which a throw goes to the left or right
LEAST_UPWARDS = 2.0  # speed from which another goes up


@dataclass(frozen=True)
class Prompt:
    """What a prompt asks for; ``kind`` is its direction."""

    text: str
    colour: str
    shape: str
    direction: str

    @property
    def kind(self) -> str:
        return self.direction


@dataclass(frozen=True)
class Track:
    """What the verifier measures in clips: arrays with one row a clip."""

    centres: np.ndarray  # [batch, frames, 2] x and y; nan where a frame shows nothing
    masses: np.ndarray  # [batch, frames] pixels covered
    colours: np.ndarray  # [batch, colours] cosine to the palette
    brightness: np.ndarray  # [batch] against the palette
    ious: np.ndarray  # [batch, shapes]
    residuals: np.ndarray  # [batch] the most that the drawing leaves unexplained
    throws: np.ndarray  # [batch, 4] x, y, and speeds of the best throw at the first frame
    deviations: np.ndarray  # [batch] distance of the track from it


@dataclass(frozen=True)
class Verdict:
    """``strict`` accepts or not, and does so where all of ``checks`` hold; ``dense`` in [0, 1] says how near."""

    strict: bool
    dense: float
    checks: dict[str, bool]
    centres: np.ndarray  # [frames, 2]
    radius: float


CHECKS = ("presence", "mass", "physics", "direction", "colour", "shape", "clean")


# Prompts ------------------------------------------------------------------------------------------------------


@functools.cache
def prompts(kind: str | None = None) -> tuple[str, ...]:
    """All prompts, or those of one direction, in a fixed order."""
    if kind is not None and kind not in KINDS:
        raise PromptError(f"unknown kind of prompt {kind!r}; choose one of {', '.join(KINDS)}")
    wanted = DIRECTIONS if kind is None else (kind,)
    return tuple(f"a {c} {s} thrown {d}" for d, c, s in itertools.product(wanted, COLOURS, SHAPES))


def is_held_out(text: str) -> bool:
    """Whether fine-tuning never sees this prompt (about one in six, fixed by a checksum of the text)."""
    parse(text)
    return zlib.crc32(text.encode()) % 6 == 0


def trained_prompts(kind: str | None = None) -> tuple[str, ...]:
    """The prompts that fine-tuning may use."""
    return tuple(p for p in prompts(kind) if not is_held_out(p))


def held_out_prompts(kind: str | None = None) -> tuple[str, ...]:
    """The prompts kept back from fine-tuning; the base has seen them."""
    return tuple(p for p in prompts(kind) if is_held_out(p))


def draw_prompts(count: int, rng: np.random.Generator) -> list[str]:
    """Random prompts to train on."""
    return [str(text) for text in rng.choice(trained_prompts(), count)]


@functools.cache
def parse(text: str) -> Prompt:
    """Read a prompt. Raises `PromptError` with the vocabulary where it is outside the world."""
    parts = text.split()
    known = len(parts) == 5 and parts[0] == "a" and parts[3] == "thrown"
    if not (known and parts[1] in COLOURS and parts[2] in SHAPES and parts[4] in DIRECTIONS):
        raise PromptError(
            f"the prompt {text!r} is outside the vocabulary of bounce. Write 'a COLOUR SHAPE thrown DIRECTION' with "
            f"colours {', '.join(COLOURS)}; shapes {', '.join(SHAPES)}; directions {', '.join(DIRECTIONS)}."
        )
    return Prompt(text, parts[1], parts[2], parts[4])


VOCABULARY = ("", *COLOURS, *SHAPES, *DIRECTIONS)  # "" pads and is no prompt
MOST_WORDS = 3


def words(text: str) -> list[str]:
    """The words of a prompt that carry meaning, each in `VOCABULARY`; "" has none."""
    if text == "":
        return []
    asked = parse(text)
    return [asked.colour, asked.shape, asked.direction]


def token_rows(texts: list[str], vocabulary: tuple[str, ...] = VOCABULARY, length: int = MOST_WORDS) -> list[list[int]]:
    """The numbers of each prompt's `words` in a vocabulary, filled up with 0 to ``length``."""
    rows = [[vocabulary.index(word) for word in words(text)] for text in texts]
    return [row + [0] * (length - len(row)) for row in rows]


# Physics ------------------------------------------------------------------------------------------------------

_HALF_SIDE = np.sqrt(np.pi) / 2  # of the square, for radius 1
_CIRCUMRADIUS = np.sqrt(4 * np.pi / (3 * np.sqrt(3)))  # of the triangle, for radius 1
_REACH = {  # of a shape of radius 1 from its centroid: sideways, up, down
    "disc": (1.0, 1.0, 1.0),
    "square": (_HALF_SIDE,) * 3,
    "triangle": (_CIRCUMRADIUS * np.sqrt(3) / 2, _CIRCUMRADIUS, _CIRCUMRADIUS / 2),
}


def reach(shape: str) -> tuple[float, float, float]:
    """How far a shape of radius 1 reaches from its centroid: sideways, up, down."""
    return _REACH[shape]


def heights(y, speed, lowest, *, gravity=GRAVITY, restitution=RESTITUTION, frames: int = FRAMES) -> np.ndarray:
    """The y of a centre in each frame, ``[..., frames]``: exact flight, and a bounce where it reaches ``lowest``.

    ``y`` and ``speed`` at the first frame, and ``lowest``, are arrays that broadcast.
    """
    y, v, lowest = (np.array(a, dtype=np.float64) for a in np.broadcast_arrays(y, speed, lowest))
    path = [y]
    for _ in range(frames - 1):
        fallen, fast = y + v + gravity / 2, v + gravity
        hits = fallen > lowest
        root = np.sqrt(np.maximum(v**2 + 2 * gravity * np.maximum(lowest - y, 0), 0))
        left = np.clip(1 - (root - v) / gravity, 0, 1)
        away = -restitution * root
        y = np.where(hits, np.minimum(lowest + away * left + gravity * left**2 / 2, lowest), fallen)
        v = np.where(hits, away + gravity * left, fast)
        path.append(y)
    return np.stack(path, -1)


def throw(prompt: str, rng: np.random.Generator, *, gravity: float = GRAVITY) -> tuple[np.ndarray, float]:
    """A track ``[frames, 2]`` of a random throw that a prompt describes, all of it on the stage, and a radius."""
    asked, radius = parse(prompt), float(rng.uniform(*RADIUS_RANGE))
    side, up, down = (radius * reach for reach in reach(asked.shape))
    sign = {"left": -1, "right": 1}.get(asked.direction, 0)
    while True:
        vx = sign * rng.uniform(*SIDEWAYS) if sign else rng.uniform(-0.15, 0.15)
        travel = vx * (FRAMES - 1)
        x = rng.uniform(1 + side - min(travel, 0), SIZE - 1 - side - max(travel, 0))
        y = rng.uniform(1 + up, GROUND - down - 1)
        vy = rng.uniform(*{"up": UPWARDS, "down": DOWNWARDS}.get(asked.direction, (-3.0, 0.5)))
        ys = heights(y, vy, GROUND - down, gravity=gravity)
        if ys.min() >= 0.5 + up and (asked.direction == "up" or y < GROUND - down - 5):
            return np.stack([x + vx * np.arange(FRAMES), ys], -1), radius


def scene(prompt: str, rng: np.random.Generator, *, flaw: str | None = None) -> dict:
    """What `draw` needs for one clip of a prompt: colour, shape, radius, track, and how visible each frame is.

    With a ``flaw`` of `FLAWS` it is one that the prompt misdescribes (direction, colour, shape: a caption as the web
    has them) or that no camera could have seen (vanishing, jitter, gravity: bad footage). Raises `ValueError` for
    another.
    """
    if flaw is not None and flaw not in FLAWS:
        raise ValueError(f"unknown flaw {flaw!r}; choose one of {', '.join(FLAWS)}")
    asked = parse(prompt)
    colour, shape, direction = asked.colour, asked.shape, asked.direction
    if flaw == "colour":
        colour = str(rng.choice([c for c in COLOURS if c != colour]))
    if flaw == "shape":
        shape = str(rng.choice([s for s in SHAPES if s != shape]))
    if flaw == "direction":
        direction = str(rng.choice([d for d in DIRECTIONS if d != direction]))
    weak = rng.uniform(0.05, 0.5) * GRAVITY if flaw == "gravity" else GRAVITY
    if flaw == "gravity" and direction == "up":  # a weakly held throw upwards would leave the stage
        weak = rng.uniform(1.6, 2.2) * GRAVITY
    track, radius = throw(f"a {colour} {shape} thrown {direction}", rng, gravity=weak)
    visible = np.ones(FRAMES)
    if flaw == "vanishing":
        first, length = rng.integers(1, FRAMES - 1), rng.integers(1, 4)
        visible[first : first + length] = 0
    if flaw == "jitter":
        track = np.clip(track + rng.normal(0, 1.1, track.shape), 1 + radius, SIZE - 1 - radius)
    return {"colour": colour, "shape": shape, "radius": radius, "track": track, "visible": visible}


def draw_clips(count: int, rng: np.random.Generator, *, flawed: float = 0.0) -> tuple[list[str], np.ndarray]:
    """Random prompts, all of the world, and clips of them; a share ``flawed`` of them has one of `FLAWS`."""
    texts = [str(text) for text in rng.choice(prompts(), count)]
    flaws = [str(rng.choice(FLAWS)) if rng.random() < flawed else None for _ in range(count)]
    return texts, draw([scene(text, rng, flaw=flaw) for text, flaw in zip(texts, flaws, strict=True)])


# Drawing ------------------------------------------------------------------------------------------------------

_GRID_Y, _GRID_X = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="ij")
_GRID_X, _GRID_Y = _GRID_X.astype(np.float32), _GRID_Y.astype(np.float32)


@functools.cache
def stage() -> np.ndarray:
    """The empty stage ``[3, 24, 24]`` in [0, 1]: a dark wall, and the ground as a lighter strip."""
    picture = np.empty((3, SIZE, SIZE), dtype=np.float32)
    picture[:] = np.array([0.10, 0.11, 0.14], dtype=np.float32)[:, None, None]
    picture[:, int(GROUND) :] = np.array([0.30, 0.31, 0.36], dtype=np.float32)[:, None, None]
    picture.flags.writeable = False
    return picture


def coverage(shape: str, x, y, radius) -> np.ndarray:
    """The share of each pixel that a shape covers, ``[..., 24, 24]``; numbers may be arrays of one shape."""
    x, y, radius = (np.asarray(v, dtype=np.float32)[..., None, None] for v in (x, y, radius))
    dx, dy = _GRID_X - x, _GRID_Y - y
    if shape == "disc":
        distance = np.sqrt(dx * dx + dy * dy) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - np.float32(_HALF_SIDE) * radius
    else:
        slanted = np.abs(dx) * np.float32(np.sqrt(3) / 2) - dy * np.float32(0.5)
        distance = np.maximum(slanted, dy) - np.float32(_CIRCUMRADIUS / 2) * radius
    return np.clip(0.5 - distance, 0.0, 1.0)


def draw(scenes: list[dict]) -> np.ndarray:
    """Draw scenes (see `scene`) as clips ``[batch, frames, 3, 24, 24]`` in [-1, 1]."""
    clips = np.empty((len(scenes), FRAMES, 3, SIZE, SIZE), dtype=np.float32)
    clips[:] = stage()
    for shape in SHAPES:
        rows = [i for i, s in enumerate(scenes) if s["shape"] == shape]
        if not rows:
            continue
        tracks = np.stack([scenes[i]["track"] for i in rows])
        radii = np.array([scenes[i]["radius"] for i in rows])[:, None].repeat(FRAMES, 1)
        cover = coverage(shape, tracks[..., 0], tracks[..., 1], radii)
        cover *= np.stack([scenes[i]["visible"] for i in rows])[..., None, None].astype(np.float32)
        paint = np.stack([COLOURS[scenes[i]["colour"]] for i in rows])[:, None, :, None, None]
        clips[rows] += cover[:, :, None] * (paint - clips[rows])
    return clips * 2 - 1


# Verifying ----------------------------------------------------------------------------------------------------

_NAMES = tuple(COLOURS)
_PAINT = np.stack(list(COLOURS.values()))
_CONTRAST = _PAINT - stage()[:, 0, 0]
_CONTRAST_NORM = np.linalg.norm(_CONTRAST, axis=1)


def follow(clips: np.ndarray) -> Track:
    """Measure clips ``[batch, frames, 3, 24, 24]`` in [-1, 1]. Raises `SizeError` for another shape."""
    clips = np.asarray(clips, dtype=np.float32)
    if clips.ndim != 5 or clips.shape[1:] != (FRAMES, 3, SIZE, SIZE):
        raise SizeError(
            f"clips of shape {list(clips.shape)} were given; the verifier of bounce takes "
            f"[batch, {FRAMES}, 3, {SIZE}, {SIZE}] in [-1, 1]"
        )
    difference = (clips + 1) / 2 - stage()
    strength = np.sqrt((difference**2).sum(2))
    top = strength.max((1, 2, 3))
    core = strength >= np.maximum(0.75 * top, FOREGROUND)[:, None, None, None]
    count = np.maximum(core.sum((1, 2, 3)), 1)
    colour = np.einsum("bthw,btchw->bc", core.astype(np.float32), difference) / count[:, None]
    norm = np.maximum(np.linalg.norm(colour, axis=1), 1e-6)
    cosines = colour @ (_CONTRAST / _CONTRAST_NORM[:, None]).T / norm[:, None]
    best = cosines.argmax(1)
    cover = np.einsum("btchw,bc->bthw", difference, colour) / (norm**2)[:, None, None, None]
    near = ndimage.maximum_filter((strength > FOREGROUND).view(np.uint8), (1, 1, 3, 3)).astype(bool)
    cover = np.clip(np.where(near, cover, 0), 0, 1)
    masses = cover.sum((2, 3))
    seen = masses > 2.0
    safe = np.where(seen, masses, 1)
    x, y = (cover * _GRID_X).sum((2, 3)) / safe, (cover * _GRID_Y).sum((2, 3)) / safe
    centres = np.where(seen[..., None], np.stack([x, y], -1), np.nan)
    radius = np.sqrt(np.median(masses, 1) / np.pi)
    ious = np.empty((len(clips), len(SHAPES)))
    drawn = []
    for k, shape in enumerate(SHAPES):
        drawn.append(coverage(shape, x, y, radius[:, None].repeat(FRAMES, 1)) * seen[..., None, None])
        both, either = np.minimum(drawn[k], cover).sum((2, 3)), np.maximum(drawn[k], cover).sum((2, 3))
        ious[:, k] = np.where(seen, both / np.maximum(either, 1e-6), 0).mean(1)
    form = ious.argmax(1)
    template = np.stack(drawn, 1)[np.arange(len(clips)), form]
    left = difference - template[:, :, None] * colour[:, None, :, None, None]
    residuals = ndimage.uniform_filter(np.sqrt((left**2).sum(2)), (0, 0, 3, 3), mode="nearest").max((1, 2, 3))
    down = np.array([reach(SHAPES[k])[2] for k in form]) * radius
    throws, deviations = explain(centres, GROUND - down)
    return Track(centres, masses, cosines, norm / _CONTRAST_NORM[best], ious, residuals, throws, deviations)


def explain(centres: np.ndarray, lowest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The throw that explains tracks ``[batch, frames, 2]`` best, and the root mean square distance that it leaves.

    Sideways a throw is a straight line (least squares); upwards its two numbers are searched on a grid that closes in
    twice. Frames without a centre (nan) are left out; with fewer than four left the distance is the picture's side.
    """
    seen = np.isfinite(centres).all(-1)
    counts, times = np.maximum(seen.sum(1), 1), np.arange(FRAMES)
    xs, ys = (np.where(seen, centres[..., i], 0) for i in (0, 1))
    mean_t, mean_x = (seen * times).sum(1) / counts, xs.sum(1) / counts
    off_t = (times - mean_t[:, None]) * seen
    vx = (off_t * xs).sum(1) / np.maximum((off_t**2).sum(1), 1e-6)
    x = mean_x - vx * mean_t
    gap_x = ((xs - x[:, None] - vx[:, None] * times) * seen) ** 2
    first = np.where(seen[:, 0], ys[:, 0], GROUND / 2)
    y, vy = first, np.full(len(ys), -2.0)
    for reach_y, reach_v, count in ((0.5, 6.0, 25), (0.25, 0.5, 9), (0.1, 0.12, 7)):
        ty = y[:, None, None] + np.linspace(-reach_y, reach_y, 3)[:, None]
        tv = vy[:, None, None] + np.linspace(-reach_v, reach_v, count)
        ty = np.minimum(ty, lowest[:, None, None])
        paths = heights(ty, tv, lowest[:, None, None])
        errors = (((paths - ys[:, None, None]) * seen[:, None, None]) ** 2).sum(-1).reshape(len(ys), -1)
        winner = errors.argmin(1)
        y = np.broadcast_to(ty, paths.shape[:-1]).reshape(len(ys), -1)[np.arange(len(ys)), winner]
        vy = np.broadcast_to(tv, paths.shape[:-1]).reshape(len(ys), -1)[np.arange(len(ys)), winner]
    gap_y = errors[np.arange(len(ys)), winner] if len(ys) else np.zeros(0)
    deviations = np.sqrt((gap_x.sum(1) + gap_y) / counts)
    return np.stack([x, y, vx, vy], 1), np.where(seen.sum(1) >= 4, np.minimum(deviations, SIZE), SIZE)


def verify(clips: np.ndarray, texts: list[str]) -> list[Verdict]:
    """Hold clips against one prompt each. Raises `SizeError`, and `PromptError` outside the vocabulary."""
    if len(clips) != len(texts):
        raise ValueError(f"{len(clips)} clips were given with {len(texts)} prompts; one prompt a clip")
    if not len(texts):
        return []
    asked, t = [parse(text) for text in texts], follow(clips)
    rows = np.arange(len(texts))
    median = np.median(t.masses, 1)
    radius = np.sqrt(median / np.pi)
    change = np.abs(t.masses / np.maximum(median, 1e-6)[:, None] - 1).max(1)
    sized = np.clip(np.minimum(radius / ACCEPTED_RADII[0], ACCEPTED_RADII[1] / np.maximum(radius, 1e-6)), 0, 1)
    dimmed = np.minimum(t.brightness / BRIGHTNESS_RANGE[0], BRIGHTNESS_RANGE[1] / np.maximum(t.brightness, 1e-6))
    colour = np.array([_NAMES.index(a.colour) for a in asked])
    shape = np.array([SHAPES.index(a.shape) for a in asked])
    right_colour, right_shape = t.colours.argmax(1) == colour, t.ious.argmax(1) == shape
    towards = _towards(t.throws, [a.direction for a in asked])
    ys = np.where(np.isfinite(t.centres[..., 1]), t.centres[..., 1], GROUND)
    fall = ys.max(1) - ys.min(1)
    checks = {
        "presence": (t.masses > 0.5 * np.pi * ACCEPTED_RADII[0] ** 2).all(1),
        "mass": (change <= MOST_MASS_CHANGE) & (sized == 1),
        "physics": (t.deviations <= MOST_DEVIATION) & (fall >= LEAST_FALL),
        "direction": towards >= 1,
        "colour": right_colour & (t.colours[rows, colour] >= LEAST_COSINE) & (dimmed >= 1),
        "shape": right_shape & (t.ious[rows, shape] >= LEAST_IOU),
        "clean": t.residuals <= MOST_RESIDUAL,
    }
    seen = np.isfinite(t.centres).all(-1).mean(1)
    parts = {
        "mass": np.clip(1.5 - change / (2 * MOST_MASS_CHANGE), 0, 1) * sized,
        "physics": np.clip(fall / LEAST_FALL, 0, 1) / (1 + (t.deviations / MOST_DEVIATION / 2) ** 2),
        "direction": np.clip(towards, 0, 1),
        "colour": np.clip((t.colours[rows, colour] - 0.7) / 0.25, 0, 1) * np.clip(dimmed, 0, 1),
        "shape": np.clip((t.ious[rows, shape] - 0.65) / 0.2, 0, 1) * np.where(right_shape, 1, 0.5),
        "clean": np.clip(2 - t.residuals / MOST_RESIDUAL, 0, 1),
    }
    dense = seen * np.mean(list(parts.values()), 0)
    strict = np.all([checks[name] for name in CHECKS], 0)
    return [
        Verdict(
            bool(strict[i]), float(dense[i]), {n: bool(checks[n][i]) for n in CHECKS}, t.centres[i], float(radius[i])
        )
        for i in rows
    ]


def _towards(throws: np.ndarray, directions: list[str]) -> np.ndarray:
    """How far throws go the way they should: from 1 on they do; one row a clip."""
    vx, vy = throws[:, 2], throws[:, 3]
    sign = np.array([{"left": -1, "right": 1}.get(d, 0) for d in directions])
    straight = np.clip(2 - np.abs(vx) / LEAST_SIDEWAYS, -1, 1)
    up = np.minimum(straight, -vy / LEAST_UPWARDS)
    down = np.minimum(straight, 1 + (vy + LEAST_UPWARDS / 2) / LEAST_UPWARDS)
    return np.where(sign != 0, sign * vx / LEAST_SIDEWAYS, np.where(np.array(directions) == "up", up, down))


# Measuring ----------------------------------------------------------------------------------------------------


def distance(a: Verdict, b: Verdict) -> float:
    """How differently two accepted clips move: the distance of their centres, mean over frames, and of their
    diameters, as a share of the picture's side."""
    moved = np.linalg.norm(a.centres - b.centres, axis=-1).mean()
    return float(np.hypot(moved, 2 * (a.radius - b.radius))) / SIZE


def diversity(verdicts: list[Verdict], texts: list[str]) -> float:
    """Mean pairwise `distance` within a prompt over accepted clips; nan where no prompt has two of them."""
    groups: dict[str, list[Verdict]] = {}
    for verdict, text in zip(verdicts, texts, strict=True):
        if verdict.strict:
            groups.setdefault(text, []).append(verdict)
    pairs = [np.mean([distance(a, b) for a, b in itertools.combinations(g, 2)]) for g in groups.values() if len(g) > 1]
    return float(np.mean(pairs)) if pairs else float("nan")


def evaluation_pairs(split: str = "test", per_kind: int = 256) -> tuple[list[str], list[int]]:
    """The fixed ``(prompts, seeds)`` on which accuracy is measured, direction after direction, ``per_kind`` of each.

    ``test`` and ``validation`` use trained prompts, ``held-out`` the others; no seed is shared.
    """
    splits = {"test": 0, "validation": 1, "held-out": 2}
    if split not in splits:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(splits)}")
    texts: list[str] = []
    for k, kind in enumerate(KINDS):
        pool = held_out_prompts(kind) if split == "held-out" else trained_prompts(kind)
        order = np.random.default_rng([splits[split], k]).permutation(len(pool))
        texts += [pool[order[i % len(order)]] for i in range(per_kind)]
    first = 1_000_000 * (1 + splits[split])
    return texts, list(range(first, first + len(texts)))


def measure(clips: np.ndarray, texts: list[str]) -> dict[str, float]:
    """Accuracy (all, by direction, with its standard error), dense score and diversity of clips; the share that passes
    each of `CHECKS`; and of all clips the mean mass (pixels) and displacement (pixels along the track), which no
    prompt asks for: they should stay those of clean clips."""
    verdicts = verify(clips, texts)
    strict = np.array([v.strict for v in verdicts], dtype=float)
    kinds = np.array([parse(t).kind for t in texts])
    steps = [np.linalg.norm(np.diff(v.centres, axis=0), axis=1) for v in verdicts]
    result = {
        "accuracy": float(strict.mean()),
        "accuracy_se": float(strict.std() / np.sqrt(len(strict))),
        "dense": float(np.mean([v.dense for v in verdicts])),
        "diversity": diversity(verdicts, texts),
        "mass": float(np.mean([np.pi * v.radius**2 for v in verdicts])),
        "displacement": float(np.mean([np.nansum(s) for s in steps])),
    }
    result |= {f"passes_{name}": float(np.mean([v.checks[name] for v in verdicts])) for name in CHECKS}
    for kind in KINDS:
        if (kinds == kind).any():
            result[f"accuracy_{kind}"] = float(strict[kinds == kind].mean())
    return result
