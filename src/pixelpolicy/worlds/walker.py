"""A walker of six boxes over eight frames: prompts, sound and flawed motions, and a verifier of gait.

Samples are float32 arrays ``[batch, 8, 42]``: a row is a frame, and has seven numbers for each of `PARTS`: presence
(there if above 0.5), place x, y, z, sine and cosine of the pitch, and half the length. The torso's x is its step since
the frame before, and the places of the other parts are relative to the torso's; `bodies` puts them where they are. x
points right, y up, z towards the viewer; lengths are in metres, the ground is y = 0, frames are `SECONDS` apart.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np

from pixelpolicy.errors import PromptError, SizeError

FRAMES, SECONDS = 8, 0.1
PARTS = ("torso", "head", "left thigh", "left shin", "right thigh", "right shin")
NUMBERS = 7
PRESENCE, X, Y, Z, SINE, COSINE, LENGTH = range(NUMBERS)
HALF_LENGTHS = np.array([0.26, 0.11, 0.22, 0.22, 0.22, 0.22])
HALF_WIDTHS = np.array([0.12, 0.09, 0.07, 0.055, 0.07, 0.055])
SIDES = np.array([0.0, 0.0, 0.1, 0.1, -0.1, -0.1])  # z of each part, relative to the torso
COLOURS = np.array([[0.55, 0.58, 0.62], [0.92, 0.80, 0.62], [0.84, 0.37, 0.0], [0.93, 0.55, 0.2],
                    [0.0, 0.45, 0.70], [0.34, 0.65, 0.88]])  # fmt: skip

GAITS = ("walk", "run", "hop")
KINDS = GAITS
PACES = ("slowly", "quickly")
DIRECTIONS = {"left": -1, "right": 1}
SPEEDS = {  # metres a second that are drawn
    ("walk", "slowly"): (0.6, 0.9),
    ("walk", "quickly"): (1.2, 1.5),
    ("run", "slowly"): (1.8, 2.2),
    ("run", "quickly"): (2.7, 3.2),
    ("hop", "slowly"): (0.6, 0.9),
    ("hop", "quickly"): (1.3, 1.6),
}
VOCABULARY = ("", *GAITS, *PACES, *DIRECTIONS)  # "" pads and is no prompt
MOST_WORDS = 3
FLAWS = ("moonwalk", "direction", "gait", "pace", "float", "limp", "apart")

# What the verifier accepts. Clean data passes each of these with room to spare.
CONTACT = 0.035  # a foot so near the ground is planted
MOST_SKATE = 0.06  # metres that planted feet may slide from a frame to the next, on average
SPEED_SLACK = 0.18  # by which the speed may leave the range drawn, as a share of it
MOST_GAP = 0.07  # between the ends of parts that a joint holds together
LENGTH_SLACK = 0.06  # metres by which half a length may differ from `HALF_LENGTHS`
LEAST_UPRIGHT = 0.85  # cosine of the torso's pitch, on average
LEAST_SWING = 0.2  # how far one foot passes the other
MOST_APART = 0.12  # of the feet of one who hops, on average
DEEPEST = -0.06


@dataclass(frozen=True)
class Prompt:
    gait: str
    pace: str
    direction: int


@dataclass(frozen=True)
class Verdict:
    """``strict`` accepts or not; then why, or why not. ``dense`` in [0, 1] is the share of the checks passed."""

    strict: bool
    dense: float
    whole: bool
    grounded: bool
    progress: bool
    gait: bool
    planted: bool
    skate: float
    swing: float
    speed: float
    attributes: np.ndarray  # speed, where the feet are to one another first and last, height of the hip


# Prompts ------------------------------------------------------------------------------------------------------


@functools.cache
def prompts(kind: str | None = None) -> tuple[str, ...]:
    """All prompts, or those of one gait, in a fixed order."""
    if kind is None:
        return tuple(itertools.chain.from_iterable(prompts(k) for k in KINDS))
    if kind not in KINDS:
        raise PromptError(f"unknown gait {kind!r}; choose one of {', '.join(KINDS)}")
    return tuple(f"{kind} {pace} to the {direction}" for pace in PACES for direction in DIRECTIONS)


def draw_prompts(count: int, rng: np.random.Generator) -> list[str]:
    """Random prompts to train on."""
    return [str(text) for text in rng.choice(prompts(), count)]


@functools.cache
def parse(text: str) -> Prompt:
    """Read a prompt. Raises `PromptError` with the vocabulary where it is outside the world."""
    if text not in prompts():
        raise PromptError(
            f"the prompt {text!r} is outside the vocabulary of walkers. Write 'GAIT PACE to the DIRECTION' with gaits "
            f"{', '.join(GAITS)}; paces {', '.join(PACES)}; directions {', '.join(DIRECTIONS)}."
        )
    gait, pace, *_, direction = text.split()
    return Prompt(gait, pace, DIRECTIONS[direction])


def words(text: str) -> list[str]:
    """The words of a prompt that carry meaning: gait, pace, direction; "" has none."""
    if text == "":
        return []
    parse(text)
    return [word for word in text.split() if word in VOCABULARY]


def token_rows(texts: list[str], vocabulary: tuple[str, ...] = VOCABULARY, length: int = MOST_WORDS) -> list[list[int]]:
    """The numbers of each prompt's `words` in a vocabulary, filled up with 0 to ``length``."""
    rows = [[vocabulary.index(word) for word in words(text)] for text in texts]
    return [row + [0] * (length - len(row)) for row in rows]


# Moving -------------------------------------------------------------------------------------------------------

_PERIOD = {"walk": (0.80, 0.92), "run": (0.58, 0.64), "hop": (0.54, 0.62)}  # seconds from plant to plant of a foot
_DUTY = {"walk": 0.6, "run": 0.28, "hop": 0.5}  # share of a period in which a foot is planted
_LIFT = {"walk": 0.11, "run": 0.22, "hop": 0.18}
_HIP = {"walk": 0.79, "run": 0.76, "hop": 0.74}  # metres above the ground, on average
_BOB = {"walk": 0.012, "run": 0.035, "hop": 0.07}
_LEAN = {"walk": 0.05, "run": 0.2, "hop": 0.1}


def _foot(time: np.ndarray, phase: float, speed: float, period: float, gait: str) -> tuple[np.ndarray, np.ndarray]:
    """Where a foot is, relative to a start of the hip at 0, by time: planted, then swung to the next place."""
    duty = _DUTY[gait]
    cycle = time / period + phase
    step, within = np.floor(cycle), cycle % 1
    # planted so that the hip passes over it in the middle of the stance
    plant = speed * period * (step - phase + duty / 2)
    swing = np.clip((within - duty) / (1 - duty), 0, 1)
    return plant + speed * period * swing**2 * (3 - 2 * swing), _LIFT[gait] * np.sin(np.pi * swing)


def _segment(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """The part between two ends ``[frames, 2]``: x, y, sine and cosine of the pitch, half the length."""
    along = top - bottom
    length = np.linalg.norm(along, axis=-1)
    return np.stack([*((top + bottom) / 2).T, *(along / length[:, None]).T, length / 2], -1)


def move(text: str, rng: np.random.Generator, *, flaw: str | None = None) -> np.ndarray:
    """One motion ``[8, 6, 7]``, as `bodies` gives it, that a prompt describes; with one of `FLAWS`, one it does not.

    "moonwalk" has stiff legs and glides, "limp" drags one leg, "float" treads the air, "apart" loses a shin; the
    others are sound motions of another direction, gait or pace than the prompt says.
    """
    if flaw is not None and flaw not in FLAWS:
        raise ValueError(f"unknown flaw {flaw!r}; choose one of {', '.join(FLAWS)}")
    asked = parse(text)
    gait, pace, direction = asked.gait, asked.pace, asked.direction
    if flaw == "direction":
        direction = -direction
    elif flaw == "pace":
        pace = PACES[1 - PACES.index(pace)]
    elif flaw == "gait":
        gait = str(rng.choice([g for g in GAITS if g != gait]))
    size, speed = rng.uniform(0.93, 1.07), rng.uniform(*SPEEDS[gait, pace])
    period, start = rng.uniform(*_PERIOD[gait]), rng.random()
    time = np.arange(FRAMES) * SECONDS
    # in the frame of one who goes to the right; the other is its mirror image
    dips = 1 if gait == "hop" else 2  # a period: the hip is lowest where a foot's stance is half over
    dip = 2 * np.pi * dips * (start + time / period - _DUTY[gait] / 2)
    hip = np.stack([speed * time, size * _HIP[gait] - _BOB[gait] * np.cos(dip)], -1)
    lean = _LEAN[gait] + rng.uniform(-0.04, 0.04)
    up = np.array([np.sin(lean), np.cos(lean)])
    half = HALF_LENGTHS * size
    neck = hip + 2 * half[0] * up
    frames = np.zeros((FRAMES, len(PARTS), NUMBERS))
    frames[:, 0, 1:3], frames[:, 0, SINE:] = (hip + neck) / 2, [*up, half[0]]
    frames[:, 1, 1:3], frames[:, 1, SINE:] = neck + half[1] * up, [*up, half[1]]
    still = int(rng.integers(FRAMES))  # the frame whose pose a stiff leg keeps
    for side, offset in enumerate((0.0, 0.0 if gait == "hop" else 0.5)):
        foot = np.stack(_foot(time, start + offset, speed, period, gait), -1)
        if flaw == "moonwalk" or (flaw == "limp" and side == 0):
            foot = np.stack([hip[:, 0] + (foot - hip)[still, 0], np.full(FRAMES, foot[still, 1])], -1)
            foot[:, 1] *= flaw == "moonwalk"  # the leg that limps drags along the ground
        leg = slice(2 + 2 * side, 4 + 2 * side)
        frames[:, leg, 1:3], frames[:, leg, SINE:] = _leg(hip, foot, 2 * half[2])
    frames[..., PRESENCE] = 1
    frames[..., Z] = SIDES * size
    if flaw == "float":
        frames[..., Y] += rng.uniform(0.12, 0.3)
    elif flaw == "apart":
        shin = rng.choice([3, 5])
        frames[:, shin, X] += rng.choice([-1, 1]) * rng.uniform(0.15, 0.3)
    if direction < 0:
        frames[..., X] *= -1
        frames[..., SINE] *= -1
    return frames


def _leg(hip: np.ndarray, foot: np.ndarray, bone: float) -> tuple[np.ndarray, np.ndarray]:
    """Thigh and shin of a leg whose knee bends forward: ``(places [frames, 2, 2], the rest [frames, 2, 3])``."""
    reach = foot - hip
    distance = np.linalg.norm(reach, axis=-1, keepdims=True)
    reach = reach * np.minimum(1, 1.998 * bone / distance)
    distance = np.linalg.norm(reach, axis=-1, keepdims=True)
    aside = np.stack([-reach[:, 1], reach[:, 0]], -1) / distance
    knee = hip + reach / 2 + aside * np.sqrt(np.maximum(bone**2 - distance**2 / 4, 0))
    both = np.stack([_segment(hip, knee), _segment(knee, hip + reach)], 1)
    return both[..., :2], both[..., 2:]


def draw(texts: list[str], rng: np.random.Generator, *, flawed: bool = False) -> np.ndarray:
    """Samples ``[batch, 8, 42]`` that prompts describe, or with ``flawed`` ones with a flaw each."""
    return samples_of(np.stack([move(text, rng, flaw=str(rng.choice(FLAWS)) if flawed else None) for text in texts]))


def sample(count: int, rng: np.random.Generator, *, flawed: bool = False) -> tuple[list[str], np.ndarray]:
    """Random prompts, and samples ``[count, 8, 42]`` of them, sound or flawed."""
    texts = draw_prompts(count, rng)
    return texts, draw(texts, rng, flawed=flawed)


def samples_of(places: np.ndarray) -> np.ndarray:
    """`bodies` ``[batch, 8, 6, 7]`` as samples ``[batch, 8, 42]``: steps of the torso, and all else relative to it."""
    rows = np.array(places, dtype=np.float64)
    rows[:, :, 1:, 1:4] -= rows[:, :, :1, 1:4]
    steps = np.diff(rows[:, :, 0, X], axis=1)
    rows[:, :, 0, X] = np.concatenate([steps[:, :1], steps], 1)
    return rows.reshape(len(rows), FRAMES, -1).astype(np.float32)


def bodies(samples: np.ndarray) -> np.ndarray:
    """Samples ``[batch, 8, 42]`` with every part where it is, ``[batch, 8, 6, 7]``; the torso begins at x = 0.

    Raises `SizeError` for another shape.
    """
    samples = np.asarray(samples, dtype=np.float64)
    if samples.ndim != 3 or samples.shape[1:] != (FRAMES, len(PARTS) * NUMBERS):
        raise SizeError(
            f"walkers of shape {list(samples.shape)} were given; give [batch, {FRAMES}, {len(PARTS) * NUMBERS}]"
        )
    rows = samples.reshape(len(samples), FRAMES, len(PARTS), NUMBERS).copy()
    rows[:, 0, 0, X] = 0
    rows[:, :, 0, X] = np.cumsum(rows[:, :, 0, X], axis=1)
    rows[:, :, 1:, 1:4] += rows[:, :, :1, 1:4]
    return rows


# Verifying ----------------------------------------------------------------------------------------------------


def ends(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The upper and the lower ends of parts ``[..., 7]`` as x, y."""
    half = places[..., [SINE, COSINE]] * places[..., LENGTH, None]
    return places[..., [X, Y]] + half, places[..., [X, Y]] - half


def feet(places: np.ndarray) -> np.ndarray:
    """Where the feet are: x, y of the lower ends of the left and the right shin, ``[batch, 8, 2, 2]``."""
    return ends(places[:, :, [3, 5]])[1]


def skate(feet: np.ndarray) -> np.ndarray:
    """Metres that feet ``[batch, frames, 2, 2]`` slide from a frame to the next while planted in both, on average.

    0 where no foot is ever planted in two frames running.
    """
    down = feet[..., 1] <= CONTACT
    both = down[:, 1:] & down[:, :-1]
    slide = np.abs(np.diff(feet[..., 0], axis=1)) * both
    return slide.sum((1, 2)) / np.maximum(both.sum((1, 2)), 1)


def verify(samples: np.ndarray, texts: list[str]) -> list[Verdict]:
    """Judge samples ``[batch, 8, 42]``, one prompt each. A sample with a number that is not finite passes nothing."""
    if len(samples) != len(texts):
        raise ValueError(f"{len(samples)} walkers were given with {len(texts)} prompts; one prompt a walker")
    if not texts:
        return []
    places = bodies(samples)
    finite = np.isfinite(places).all((1, 2, 3))
    places[~finite] = 0
    asked = [parse(text) for text in texts]
    upper, lower = ends(places)
    joints = [(0, 1), (2, 3), (4, 5)]  # neck and knees: the lower end of one, the upper of the other
    gaps = [np.linalg.norm(upper[:, :, 0] - lower[:, :, 1], axis=-1)]
    gaps += [np.linalg.norm(lower[:, :, a] - upper[:, :, b], axis=-1) for a, b in joints[1:]]
    gaps += [np.linalg.norm(lower[:, :, 0] - upper[:, :, thigh], axis=-1) for thigh in (2, 4)]
    whole = (
        finite
        & (places[..., PRESENCE] > 0.5).all((1, 2))
        & (np.max(gaps, axis=(0, 2)) <= MOST_GAP)
        & (np.abs(places[..., LENGTH] - HALF_LENGTHS).max((1, 2)) <= LENGTH_SLACK)
        & (np.abs(np.hypot(places[..., SINE], places[..., COSINE]) - 1).max((1, 2)) <= 0.15)
        & (places[:, :, 0, COSINE].mean(1) >= LEAST_UPRIGHT)
    )
    foot = feet(places)
    lowest, apart = foot[..., 1].min(2), foot[:, :, 0, 0] - foot[:, :, 1, 0]
    grounded = (lowest.min(1) <= CONTACT) & (lowest.min(1) >= DEEPEST)
    speed = places[:, -1, 0, X] / (SECONDS * (FRAMES - 1))
    ranges = np.array([SPEEDS[one.gait, one.pace] for one in asked])
    toward = speed * np.array([one.direction for one in asked])
    progress = (toward >= ranges[:, 0] * (1 - SPEED_SLACK)) & (toward <= ranges[:, 1] * (1 + SPEED_SLACK))
    swing, flight = np.ptp(apart, axis=1), (lowest > CONTACT).sum(1)
    rises = np.ptp(foot[..., 1], axis=1).min(1) > CONTACT  # both feet leave the ground at some time
    strides = (swing >= LEAST_SWING) & rises
    right = {
        "walk": strides & (flight == 0),
        "run": strides & (flight >= 1),
        "hop": (np.abs(apart).mean(1) <= MOST_APART) & rises & (flight >= 1),
    }
    gait = np.array([right[one.gait][i] for i, one in enumerate(asked)])
    slide = skate(foot)
    planted = finite & (slide <= MOST_SKATE)
    checks = np.stack([whole, grounded & finite, progress & finite, gait & finite, planted], -1)
    hip = (lower[:, :, 0, 1]).mean(1)
    described = np.stack([toward, apart[:, 0], apart[:, -1], hip], -1)
    return [
        Verdict(bool(c.all()), float(c.mean()), *map(bool, c), float(s), float(w), float(v), a)
        for c, s, w, v, a in zip(checks, slide, swing, toward, described, strict=True)
    ]


def diversity(verdicts: list[Verdict], texts: list[str]) -> float:
    """Mean pairwise distance of ``attributes`` within a prompt over accepted motions; nan where no prompt has two."""
    groups: dict[str, list[np.ndarray]] = {}
    for verdict, text in zip(verdicts, texts, strict=True):
        if verdict.strict:
            groups.setdefault(text, []).append(verdict.attributes)
    means = [
        np.linalg.norm(a[:, None] - a[None], axis=-1)[np.triu_indices(len(a), 1)].mean()
        for a in map(np.array, groups.values())
        if len(a) > 1
    ]
    return float(np.mean(means)) if means else float("nan")


# Measuring ----------------------------------------------------------------------------------------------------


def evaluation_pairs(split: str = "test", per_kind: int = 256) -> tuple[list[str], list[int]]:
    """The fixed ``(prompts, seeds)`` on which accuracy is measured, gait after gait, ``per_kind`` of each.

    "test" and "validation" share no seed.
    """
    splits = {"test": 0, "validation": 1}
    if split not in splits:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(splits)}")
    texts = [prompts(kind)[i % len(prompts(kind))] for kind in KINDS for i in range(per_kind)]
    first = 1_000_000 * (1 + splits[split])
    return texts, list(range(first, first + len(texts)))


def measure(samples: np.ndarray, texts: list[str]) -> dict[str, float]:
    """Accuracy (all and by gait, with its standard error), diversity, and side checks.

    ``skate`` is in metres a frame, and ``skate_accepted`` that of accepted motions; ``swing`` is how far the feet of
    walkers and runners pass each other, in metres; the others are shares that pass a check of the verifier.
    """
    verdicts = verify(samples, texts)
    strict = np.array([v.strict for v in verdicts], dtype=float)
    kinds = np.array([parse(text).gait for text in texts])
    striding = [v.swing for v, kind in zip(verdicts, kinds, strict=True) if kind != "hop"]
    result = {
        "accuracy": float(strict.mean()),
        "accuracy_se": float(strict.std() / np.sqrt(len(strict))),
        "dense": float(np.mean([v.dense for v in verdicts])),
        "diversity": diversity(verdicts, texts),
        "skate": float(np.mean([v.skate for v in verdicts])),
        "swing": float(np.mean(striding)) if striding else float("nan"),
    }
    for name in ("whole", "grounded", "progress", "gait", "planted"):
        result[name] = float(np.mean([getattr(v, name) for v in verdicts]))
    for kind in KINDS:
        if (kinds == kind).any():
            result[f"accuracy_{kind}"] = float(strict[kinds == kind].mean())
    return result


# Showing ------------------------------------------------------------------------------------------------------


def shown(sample: np.ndarray) -> dict[str, np.ndarray]:
    """One sample ``[8, 42]`` as the parts of a `viz.boxes.Boxes` with y up, each ``[8, 6, 3]`` or ``[8, 6, 3, 3]``."""
    places = bodies(np.asarray(sample)[None])[0]
    sine, cosine = places[..., SINE], places[..., COSINE]
    norm = np.maximum(np.hypot(sine, cosine), 1e-6)
    rotations = np.zeros((*places.shape[:2], 3, 3))
    rotations[..., 0, 1], rotations[..., 1, 1] = sine / norm, cosine / norm  # the length runs along a box's own y
    rotations[..., 0, 0], rotations[..., 1, 0] = cosine / norm, -sine / norm
    rotations[..., 2, 2] = 1
    rotations = np.where((np.hypot(sine, cosine) > 1e-6)[..., None, None], rotations, np.eye(3))
    halves = np.zeros((*places.shape[:2], 3))
    there = places[..., PRESENCE] > 0.5
    halves[..., 0] = halves[..., 2] = HALF_WIDTHS * there
    halves[..., 1] = np.maximum(places[..., LENGTH], 0.01) * there
    return {
        "centres": places[..., [X, Y, Z]],
        "halves": halves,
        "colours": np.broadcast_to(COLOURS, halves.shape),
        "rotations": rotations,
    }
