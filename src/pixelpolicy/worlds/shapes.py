"""Coloured shapes on a dark ground: prompts, a renderer, and an exact verifier.

A picture is explained by synthesis: the verifier finds the objects, draws what it found, and accepts only if
the drawing matches both the picture (nothing is left over) and the prompt (every object asked for, no other).

Pictures are float32 arrays ``[batch, 3, 32, 32]`` in [-1, 1]; lengths are in pixels.
"""

from __future__ import annotations

import functools
import itertools
import zlib
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from pixelpolicy.errors import PromptError, SizeError

SIZE = 32
BACKGROUND = np.array([0.12, 0.13, 0.16], dtype=np.float32)
COLOURS = {
    "red": np.array([0.90, 0.25, 0.25], dtype=np.float32),
    "green": np.array([0.25, 0.75, 0.35], dtype=np.float32),
    "blue": np.array([0.25, 0.45, 0.95], dtype=np.float32),
    "yellow": np.array([0.95, 0.80, 0.25], dtype=np.float32),
}
SHAPES = ("circle", "square", "triangle")
NUMBERS = {"two": 2, "three": 3, "four": 4}
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
KINDS = ("single", "count", "two", "relation")

RADIUS_RANGE = (3.2, 5.0)  # of the circle of equal area
GAP = 1.5  # least distance between the boxes of two objects
LEAST_OFFSET = 4.0  # "left of" asks for this much, and for more than the offset across

FOREGROUND_THRESHOLD = 0.22  # RGB distance from the ground at which a pixel belongs to an object
LEAST_AREA = 10.0  # a smaller component is debris
LEAST_COSINE = 0.97  # of an object's colour to the palette
BRIGHTNESS_RANGE = (0.75, 1.25)  # of an object, against the palette
ACCEPTED_RADII = (2.4, 6.5)  # of an object; those drawn have `RADIUS_RANGE`
LEAST_IOU = 0.80  # soft intersection over union with the best template
MOST_RESIDUAL = 0.16  # RGB distance, averaged over 3x3 pixels, that synthesis may leave unexplained


@dataclass(frozen=True)
class Thing:
    """One object of a scene; ``radius`` is that of the circle of equal area."""

    colour: str
    shape: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Prompt:
    """What a prompt asks for: its kind, the ``(colour, shape)`` wanted, and for relations where the first is."""

    text: str
    kind: str
    wanted: tuple[tuple[str, str], ...]
    relation: str | None = None


@dataclass(frozen=True)
class Detection:
    """What the verifier found: objects that pass for one, what else there is, and the unexplained remainder."""

    things: tuple[Thing, ...]
    colour_scores: np.ndarray  # [found, colours] in [0, 1]
    shape_scores: np.ndarray  # [found, shapes] in [0, 1]
    clean: np.ndarray  # [found] bool: colour, brightness and outline are those of a true object
    residual: float


@dataclass(frozen=True)
class Verdict:
    """``strict`` accepts or not; ``dense`` in [0, 1] says how near; ``things`` are matched to the prompt's order."""

    strict: bool
    dense: float
    things: tuple[Thing, ...]


# Prompts ------------------------------------------------------------------------------------------------------


def _phrase(colour: str, shape: str) -> str:
    return f"a {colour} {shape}"


@functools.cache
def prompts(kind: str | None = None) -> tuple[str, ...]:
    """All prompts, or all of one kind, in a fixed order."""
    if kind is None:
        return tuple(itertools.chain.from_iterable(prompts(k) for k in KINDS))
    pairs = list(itertools.product(COLOURS, SHAPES))
    if kind == "single":
        return tuple(_phrase(*pair) for pair in pairs)
    if kind == "count":
        return tuple(f"{number} {c} {s}s" for number in NUMBERS for c, s in pairs)
    ordered = [(a, b) for a in pairs for b in pairs if a != b]
    if kind == "two":
        return tuple(f"{_phrase(*a)} and {_phrase(*b)}" for a, b in ordered)
    if kind == "relation":
        return tuple(f"{_phrase(*a)} {r} {_phrase(*b)}" for r in RELATIONS for a, b in ordered)
    raise PromptError(f"unknown kind of prompt {kind!r}; choose one of {', '.join(KINDS)}")


_CONVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above", None: "and"}


def is_held_out(text: str) -> bool:
    """Whether fine-tuning never sees this prompt (about one in six, fixed by a checksum of the text).

    "A above B" and "B below A" mean the same, so they are held out together.
    """
    asked = parse(text)
    if asked.kind in ("two", "relation"):
        first, second = asked.wanted
        text = min(text, f"{_phrase(*second)} {_CONVERSE[asked.relation]} {_phrase(*first)}")
    return zlib.crc32(text.encode()) % 6 == 0


def trained_prompts(kind: str | None = None) -> tuple[str, ...]:
    """The prompts that fine-tuning may use."""
    return tuple(p for p in prompts(kind) if not is_held_out(p))


def held_out_prompts(kind: str | None = None) -> tuple[str, ...]:
    """The prompts kept back from fine-tuning; the base has seen them."""
    return tuple(p for p in prompts(kind) if is_held_out(p))


def draw_prompts(count: int, rng: np.random.Generator) -> list[str]:
    """Random prompts to train on, each kind with the same chance however many prompts it has."""
    return [str(rng.choice(trained_prompts(str(rng.choice(KINDS))))) for _ in range(count)]


@functools.cache
def parse(text: str) -> Prompt:
    """Read a prompt. Raises `PromptError` with the vocabulary where it is outside the world."""

    def pair(words: list[str]) -> tuple[str, str]:
        if len(words) != 3 or words[0] != "a" or words[1] not in COLOURS or words[2] not in SHAPES:
            raise PromptError(
                f"the prompt {text!r} is outside the vocabulary of shapes. Write 'a COLOUR SHAPE', "
                f"'NUMBER COLOUR SHAPEs', 'a COLOUR SHAPE and a COLOUR SHAPE' or 'a COLOUR SHAPE RELATION a COLOUR "
                f"SHAPE' with colours {', '.join(COLOURS)}; shapes {', '.join(SHAPES)}; numbers "
                f"{', '.join(NUMBERS)}; relations {', '.join(RELATIONS)}."
            )
        return words[1], words[2]

    words = text.split()
    if words and words[0] in NUMBERS and len(words) == 3 and words[2].endswith("s"):
        one = pair(["a", words[1], words[2][:-1]])
        return Prompt(text, "count", (one,) * NUMBERS[words[0]])
    first = pair(words[:3])
    middle = " ".join(words[3:-3])
    if len(words) == 3:
        return Prompt(text, "single", (first,))
    second = pair(words[-3:])
    if middle == "and" and first != second:
        return Prompt(text, "two", (first, second))
    if middle in RELATIONS and first != second:
        return Prompt(text, "relation", (first, second), middle)
    pair([])
    raise AssertionError("unreachable")


VOCABULARY = ("", *NUMBERS, *COLOURS, *SHAPES, "and", "left", "right", "above", "below")  # "" pads and is no prompt
MOST_WORDS = 5


def words(text: str) -> list[str]:
    """The words of a prompt that carry meaning, at most `MOST_WORDS`, each in `VOCABULARY`; "" has none."""
    if text == "":
        return []
    parse(text)
    return [w.removesuffix("s") if w not in VOCABULARY else w for w in text.split() if w not in ("a", "of")]


def token_rows(texts: list[str], vocabulary: tuple[str, ...] = VOCABULARY, length: int = MOST_WORDS) -> list[list[int]]:
    """The numbers of each prompt's `words` in a vocabulary, filled up with 0 to ``length``."""
    rows = [[vocabulary.index(word) for word in words(text)] for text in texts]
    return [row + [0] * (length - len(row)) for row in rows]


# Drawing ------------------------------------------------------------------------------------------------------

_GRID_Y, _GRID_X = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5, indexing="ij")
_GRID_X, _GRID_Y = _GRID_X.astype(np.float32), _GRID_Y.astype(np.float32)
_HALF_SIDE = np.sqrt(np.pi) / 2  # of the square, for radius 1
_CIRCUMRADIUS = np.sqrt(4 * np.pi / (3 * np.sqrt(3)))  # of the triangle, for radius 1


def extent(shape: str, radius: float) -> tuple[float, float, float, float]:
    """How far a shape reaches to the left, right, up and down of its centroid."""
    if shape == "circle":
        return (radius,) * 4
    if shape == "square":
        return (_HALF_SIDE * radius,) * 4
    top = _CIRCUMRADIUS * radius
    return top * np.sqrt(3) / 2, top * np.sqrt(3) / 2, top, top / 2


def coverage(shape, x, y, radius) -> np.ndarray:
    """The share of each pixel that a shape covers, ``[..., 32, 32]``; numbers may be arrays of one shape."""
    x, y, radius = (np.asarray(v, dtype=np.float32)[..., None, None] for v in (x, y, radius))
    dx, dy = _GRID_X - x, _GRID_Y - y
    if shape == "circle":
        distance = np.sqrt(dx * dx + dy * dy) - radius
    elif shape == "square":
        distance = np.maximum(np.abs(dx), np.abs(dy)) - np.float32(_HALF_SIDE) * radius
    else:
        inner = np.float32(_CIRCUMRADIUS / 2) * radius
        slanted = np.abs(dx) * np.float32(np.sqrt(3) / 2) - dy * np.float32(0.5)
        distance = np.maximum(slanted, dy) - inner
    return np.clip(0.5 - distance, 0.0, 1.0)


def draw(scenes) -> np.ndarray:
    """Draw scenes (each a sequence of `Thing`) as pictures ``[batch, 3, 32, 32]`` in [-1, 1]."""
    pictures = np.empty((len(scenes), 3, SIZE, SIZE), dtype=np.float32)
    pictures[:] = BACKGROUND[:, None, None]
    for shape in SHAPES:
        owners = [(i, t) for i, scene in enumerate(scenes) for t in scene if t.shape == shape]
        if not owners:
            continue
        covers = coverage(shape, *np.array([(t.x, t.y, t.radius) for _, t in owners]).T)
        for (i, thing), cover in zip(owners, covers, strict=True):
            colour = COLOURS[thing.colour][:, None, None]
            pictures[i] += cover * (colour - pictures[i])
    return pictures * 2 - 1


def _apart(a: Thing, b: Thing) -> bool:
    la, ra, ua, da = extent(a.shape, a.radius)
    lb, rb, ub, db = extent(b.shape, b.radius)
    return (
        a.x + ra + GAP < b.x - lb or b.x + rb + GAP < a.x - la or a.y + da + GAP < b.y - ub or b.y + db + GAP < a.y - ua
    )


def holds(relation: str, first: Thing, second: Thing) -> bool:
    """Whether ``first`` stands in ``relation`` to ``second``: far enough along the axis, and farther than across."""
    rx, ry = RELATIONS[relation]
    dx, dy = first.x - second.x, first.y - second.y
    along, across = (dx * rx, dy) if rx else (dy * ry, dx)
    return along >= LEAST_OFFSET and along > abs(across)


def place(wanted, rng: np.random.Generator, relation: str | None = None) -> tuple[Thing, ...]:
    """Put objects at random places and sizes, apart from one another and inside the picture."""
    while True:
        things: list[Thing] = []
        for colour, shape in wanted:
            for _ in range(20):
                radius = rng.uniform(*RADIUS_RANGE)
                left, right, up, down = extent(shape, radius)
                x, y = rng.uniform(1 + left, SIZE - 1 - right), rng.uniform(1 + up, SIZE - 1 - down)
                thing = Thing(colour, shape, float(x), float(y), float(radius))
                if all(_apart(thing, other) for other in things):
                    things.append(thing)
                    break
            else:
                break
        if len(things) == len(wanted) and (relation is None or holds(relation, *things)):
            return tuple(things)


def scene(prompt: str, rng: np.random.Generator, *, flawed: bool = False) -> tuple[Thing, ...]:
    """A scene that a prompt describes, or with ``flawed`` one that it misdescribes in a single point.

    The flaws are those of captions crawled from the web: a wrong colour, shape, number or relation, an object too
    many or too few.
    """
    asked = parse(prompt)
    wanted, relation = list(asked.wanted), asked.relation
    if not flawed:
        return place(wanted, rng, relation)
    flaw = rng.choice({"count": ["number", "colour", "shape"], "relation": ["relation", "colour", "shape"]}.get(
        asked.kind, ["colour", "shape", "number"]))  # fmt: skip
    which = int(rng.integers(len(wanted)))
    colour, shape = wanted[which]
    if flaw == "colour":
        wanted[which] = (str(rng.choice([c for c in COLOURS if c != colour])), shape)
    elif flaw == "shape":
        wanted[which] = (colour, str(rng.choice([s for s in SHAPES if s != shape])))
    elif flaw == "relation":
        relation = str(rng.choice([r for r in RELATIONS if r != relation]))
    elif len(wanted) == 1 or (len(wanted) < 4 and rng.random() < 0.5):
        wanted.append((colour, shape))
    else:
        del wanted[which]
    return place(wanted, rng, relation)


# Verifying ----------------------------------------------------------------------------------------------------

_DIRECTIONS = np.stack([c - BACKGROUND for c in COLOURS.values()])
_CONTRASTS = np.linalg.norm(_DIRECTIONS, axis=1)
_DIRECTIONS = _DIRECTIONS / _CONTRASTS[:, None]
_NAMES = tuple(COLOURS)
_CONNECTED = np.ones((3, 3), dtype=int)


def detect(picture: np.ndarray) -> Detection:
    """Find the objects of one picture ``[3, 32, 32]`` in [-1, 1]."""
    rgb = (np.asarray(picture, dtype=np.float32) + 1) / 2
    difference = rgb - BACKGROUND[:, None, None]
    strength = np.sqrt((difference**2).sum(0))
    labels, count = ndimage.label(strength > FOREGROUND_THRESHOLD, _CONNECTED)
    things, colour_scores, shape_scores, clean = [], [], [], []
    for index, box in enumerate(ndimage.find_objects(labels, count), start=1):
        rows, columns = (slice(max(s.start - 1, 0), s.stop + 1) for s in box)
        mine = ndimage.binary_dilation(labels[rows, columns] == index, _CONNECTED)
        mine &= (labels[rows, columns] == index) | (labels[rows, columns] == 0)
        local = difference[:, rows, columns] * mine
        core = strength[rows, columns] * mine
        core = core >= 0.7 * core.max()
        colour = local[:, core].mean(1)
        norm = float(np.linalg.norm(colour))
        cosines = _DIRECTIONS @ colour / max(norm, 1e-6)
        best = int(cosines.argmax())
        brightness = norm / _CONTRASTS[best]
        cover = np.clip(np.tensordot(colour / max(norm, 1e-6) ** 2, local, 1), 0, 1)
        area = float(cover.sum())
        if area < LEAST_AREA:
            continue
        x = float((cover * _GRID_X[rows, columns]).sum() / area)
        y = float((cover * _GRID_Y[rows, columns]).sum() / area)
        radius = float(np.sqrt(area / np.pi))
        ious = np.empty(len(SHAPES))
        for k, shape in enumerate(SHAPES):
            template = coverage(shape, x, y, radius)[rows, columns]
            ious[k] = np.minimum(template, cover).sum() / np.maximum(template, cover).sum()
        form = int(ious.argmax())
        things.append(Thing(_NAMES[best], SHAPES[form], x, y, radius))
        dimmed = min(brightness, 1 / max(brightness, 1e-6))
        # A picture filled with blue is no blue square, though the template fits.
        sized = min(radius / ACCEPTED_RADII[0], ACCEPTED_RADII[1] / radius, 1)
        colour_scores.append(sized * np.clip((cosines - 0.85) / 0.15, 0, 1) * min(dimmed / BRIGHTNESS_RANGE[0], 1))
        # The right outline at 0.9 scores 1; a circle mistaken for a square, at about 0.85, near a half.
        shape_scores.append(sized * np.clip((ious - 0.75) / 0.15, 0, 1) * np.where(ious == ious[form], 1.0, 0.5))
        clean.append(
            cosines[best] >= LEAST_COSINE
            and BRIGHTNESS_RANGE[0] <= brightness <= BRIGHTNESS_RANGE[1]
            and ious[form] >= LEAST_IOU
            and sized == 1
        )
    unexplained = rgb - (draw([things])[0] + 1) / 2
    residual = ndimage.uniform_filter(np.sqrt((unexplained**2).sum(0)), 3, mode="nearest").max()
    return Detection(
        tuple(things),
        np.array(colour_scores).reshape(-1, len(COLOURS)),
        np.array(shape_scores).reshape(-1, len(SHAPES)),
        np.array(clean, dtype=bool),
        float(residual),
    )


def judge(picture: np.ndarray, prompt: str) -> Verdict:
    """Hold one picture against a prompt."""
    asked, found = parse(prompt), detect(picture)
    wanted, n_found = asked.wanted, len(found.things)
    if n_found == 0:
        return Verdict(False, 0.0, ())
    colours = found.colour_scores[:, [_NAMES.index(c) for c, _ in wanted]]
    shapes = found.shape_scores[:, [SHAPES.index(s) for _, s in wanted]]
    scores = (colours + shapes) / 2
    rows, columns = linear_sum_assignment(-scores)
    order = rows[np.argsort(columns)]
    matched = tuple(found.things[i] for i in order)
    dense = scores[rows, columns].sum() / max(n_found, len(wanted))
    related = True
    if asked.relation is not None:
        related = len(matched) == 2 and holds(asked.relation, *matched)
        dense = 0.6 * dense + 0.4 * dense * related
    dense *= np.clip(2 - found.residual / MOST_RESIDUAL, 0, 1)
    strict = (
        n_found == len(wanted)
        and all((t.colour, t.shape) == w for t, w in zip(matched, wanted, strict=True))
        and bool(found.clean.all())
        and related
        and found.residual <= MOST_RESIDUAL
    )
    return Verdict(bool(strict), float(dense), matched)


def reduced(pictures: np.ndarray) -> np.ndarray:
    """Square pictures ``[batch, 3, side, side]`` averaged down to 32x32; those that have that size are left alone.

    Raises `SizeError` where the pictures are not square or their side is no multiple of 32.
    """
    height, width = pictures.shape[-2:]
    factor = height // SIZE
    if height != width or height % SIZE or not factor:
        raise SizeError(
            f"pictures of {height}x{width} pixels were given; the verifier of shapes takes square ones whose side is "
            f"a multiple of {SIZE}, and averages them down to {SIZE}x{SIZE}. Draw or resize them so."
        )
    if factor == 1:
        return pictures
    return pictures.reshape(*pictures.shape[:-2], SIZE, factor, SIZE, factor).mean((-3, -1), dtype=np.float32)


def verify(pictures: np.ndarray, texts: list[str]) -> list[Verdict]:
    """Hold pictures ``[batch, 3, side, side]`` against one prompt each; larger ones than 32x32 are `reduced` first."""
    if len(pictures) != len(texts):
        raise ValueError(f"{len(pictures)} pictures were given with {len(texts)} prompts; one prompt a picture")
    pictures = reduced(np.asarray(pictures)) if len(texts) else pictures
    return [judge(picture, text) for picture, text in zip(pictures, texts, strict=True)]


def distance(a: tuple[Thing, ...], b: tuple[Thing, ...]) -> float:
    """How differently two accepted pictures of one prompt arrange their objects.

    The mean distance of matched objects in (x, y, 2 radius), as a share of the picture's side; objects that the
    prompt does not tell apart are matched for the least sum.
    """
    cost = np.full((len(a), len(b)), 1e3)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        if (a[i].colour, a[i].shape) == (b[j].colour, b[j].shape):
            offset = (a[i].x - b[j].x, a[i].y - b[j].y, 2 * (a[i].radius - b[j].radius))
            cost[i, j] = np.linalg.norm(offset)
    return float(cost[linear_sum_assignment(cost)].mean()) / SIZE


def diversity(verdicts: list[Verdict], texts: list[str]) -> float:
    """Mean pairwise `distance` within a prompt over accepted pictures; nan where no prompt has two of them."""
    groups: dict[str, list[tuple[Thing, ...]]] = {}
    for verdict, text in zip(verdicts, texts, strict=True):
        if verdict.strict:
            groups.setdefault(text, []).append(verdict.things)
    pairs = [np.mean([distance(a, b) for a, b in itertools.combinations(g, 2)]) for g in groups.values() if len(g) > 1]
    return float(np.mean(pairs)) if pairs else float("nan")


# Measuring ----------------------------------------------------------------------------------------------------


def evaluation_pairs(split: str = "test", per_kind: int = 256) -> tuple[list[str], list[int]]:
    """The fixed ``(prompts, seeds)`` on which accuracy is measured, kind after kind, ``per_kind`` of each.

    ``test`` and ``validation`` use trained prompts, ``held-out`` the others; no seed is shared. Each kind takes at
    most 32 prompts, so that diversity within a prompt can be measured.
    """
    splits = {"test": 0, "validation": 1, "held-out": 2}
    if split not in splits:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(splits)}")
    texts: list[str] = []
    for k, kind in enumerate(KINDS):
        pool = held_out_prompts(kind) if split == "held-out" else trained_prompts(kind)
        order = np.random.default_rng([splits[split], k]).permutation(len(pool))[:32]
        texts += [pool[order[i % len(order)]] for i in range(per_kind)]
    first = 1_000_000 * (1 + splits[split])
    return texts, list(range(first, first + len(texts)))


def measure(pictures: np.ndarray, texts: list[str]) -> dict[str, float]:
    """Accuracy (all and by kind, with its standard error), dense score and diversity of pictures."""
    verdicts = verify(pictures, texts)
    strict = np.array([v.strict for v in verdicts], dtype=float)
    kinds = np.array([parse(t).kind for t in texts])
    result = {
        "accuracy": float(strict.mean()),
        "accuracy_se": float(strict.std() / np.sqrt(len(strict))),
        "dense": float(np.mean([v.dense for v in verdicts])),
        "diversity": diversity(verdicts, texts),
    }
    for kind in KINDS:
        if (kinds == kind).any():
            result[f"accuracy_{kind}"] = float(strict[kinds == kind].mean())
    return result
