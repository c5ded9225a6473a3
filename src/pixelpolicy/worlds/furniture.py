"""Furniture built of at most twelve boxes: prompts, sound and flawed pieces, and a verifier that asks: does it stand?

Pieces are float32 arrays ``[batch, 12, 10]`` as in `worlds.boxes`. A piece *stands* if it rests on the ground, hangs
together, and can be tilted by at least `LEAST_MARGIN` degrees before it falls. That says nothing of what it is: the
side checks of `measure` do (height, symmetry, colour, and precision, the share that resembles a true piece).
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from pixelpolicy.errors import PromptError
from pixelpolicy.worlds import boxes as solids
from pixelpolicy.worlds.boxes import CENTRE, CHANNELS, COLOUR, HALF

BOXES = 12
KINDS = ("chair", "table", "lamp", "shelf")
COLOURS = {
    "red": np.array([0.80, 0.27, 0.25], dtype=np.float32),
    "green": np.array([0.30, 0.62, 0.36], dtype=np.float32),
    "blue": np.array([0.27, 0.44, 0.80], dtype=np.float32),
    "yellow": np.array([0.90, 0.74, 0.28], dtype=np.float32),
}
HELD_OUT = ("a green table", "a blue lamp", "a yellow chair")  # fine-tuning never sees them
LEAST_MARGIN = 6.0  # degrees
FLAWS = ("short", "shifted", "apart")
REFERENCES = 2_048  # true pieces of each kind that precision compares with

VOCABULARY = ("", *COLOURS, *KINDS)  # "" pads and is no prompt
MOST_WORDS = 2


@dataclass(frozen=True)
class Verdict:
    """``strict``: it stands. Then why, or why not, and what else there is to say of the piece."""

    strict: bool
    tilt: float  # degrees, see `boxes.tilt_margin`
    grounded: bool
    connected: bool
    height: float
    symmetry: float
    colour: bool  # most of its material is nearest to the colour asked for
    attributes: np.ndarray  # width, height, depth, height of the centre of mass, number of boxes / 12


# Prompts ------------------------------------------------------------------------------------------------------


@functools.cache
def prompts(kind: str | None = None) -> tuple[str, ...]:
    """All prompts, or those of one kind of furniture, in a fixed order."""
    if kind is None:
        return tuple(itertools.chain.from_iterable(prompts(k) for k in KINDS))
    if kind not in KINDS:
        raise PromptError(f"unknown kind of furniture {kind!r}; choose one of {', '.join(KINDS)}")
    return tuple(f"a {colour} {kind}" for colour in COLOURS)


def is_held_out(text: str) -> bool:
    """Whether fine-tuning never sees this prompt; the base has."""
    parse(text)
    return text in HELD_OUT


def trained_prompts(kind: str | None = None) -> tuple[str, ...]:
    """The prompts that fine-tuning may use."""
    return tuple(text for text in prompts(kind) if text not in HELD_OUT)


def held_out_prompts(kind: str | None = None) -> tuple[str, ...]:
    """The prompts kept back from fine-tuning."""
    return tuple(text for text in prompts(kind) if text in HELD_OUT)


def draw_prompts(count: int, rng: np.random.Generator) -> list[str]:
    """Random prompts to train on, each kind with the same chance."""
    return [str(rng.choice(trained_prompts(str(rng.choice(KINDS))))) for _ in range(count)]


@functools.cache
def parse(text: str) -> tuple[str, str]:
    """``(colour, kind)`` of a prompt. Raises `PromptError` with the vocabulary where it is outside the world."""
    words = text.split(" ")
    if len(words) != 3 or words[0] != "a" or words[1] not in COLOURS or words[2] not in KINDS:
        raise PromptError(
            f"the prompt {text!r} is outside the vocabulary of furniture. Write 'a COLOUR KIND' with colours "
            f"{', '.join(COLOURS)} and kinds {', '.join(KINDS)}."
        )
    return words[1], words[2]


def words(text: str) -> list[str]:
    """The words of a prompt that carry meaning: colour and kind; "" has none."""
    return [] if text == "" else list(parse(text))


def token_rows(texts: list[str], vocabulary: tuple[str, ...] = VOCABULARY, length: int = MOST_WORDS) -> list[list[int]]:
    """The numbers of each prompt's `words` in a vocabulary, filled up with 0 to ``length``."""
    rows = [[vocabulary.index(word) for word in words(text)] for text in texts]
    return [row + [0] * (length - len(row)) for row in rows]


# Building -----------------------------------------------------------------------------------------------------


def _box(x0: float, x1: float, y0: float, y1: float, z0: float, z1: float) -> list[float]:
    """A box from its bounds, without a colour."""
    return [1, (x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2, abs(x1 - x0) / 2, abs(y1 - y0) / 2, abs(z1 - z0) / 2]


def _legs(w: float, d: float, top: float, t: float) -> list[list[float]]:
    """Four legs with sides 2t, their outer corners at (+-w, +-d)."""
    sides = [(-1, 1), (1, 1), (-1, -1), (1, -1)]
    return [_box(a * w, a * (w - 2 * t), 0, top, b * d, b * (d - 2 * t)) for a, b in sides]


def _chair(rng) -> dict[int, list[float]]:
    w, d, seat = rng.uniform(0.20, 0.28), rng.uniform(0.20, 0.27), rng.uniform(0.40, 0.52)
    thick, t, back = rng.uniform(0.05, 0.08), rng.uniform(0.024, 0.036), rng.uniform(0.38, 0.58)
    parts = {0: _box(-w, w, seat, seat + thick, -d, d)}
    parts |= dict(enumerate(_legs(w, d, seat, t), 1))
    b, top = rng.uniform(0.04, 0.07), seat + thick
    parts[5] = _box(-w, w, top, top + back, -d, -d + b)
    if rng.random() < 0.4:
        arm = top + rng.uniform(0.16, 0.24)
        for n, side in enumerate((-1, 1)):
            parts[6 + n] = _box(side * w, side * (w - 0.05), arm, arm + 0.045, -d + b, d)
            parts[8 + n] = _box(side * w, side * (w - 0.05), top, arm, d - 0.05, d)
    if rng.random() < 0.4:
        y = rng.uniform(0.12, 0.22)
        for n, side in enumerate((-1, 1)):
            parts[10 + n] = _box(side * w, side * (w - 2 * t), y, y + 0.045, -d + 2 * t, d - 2 * t)
    return parts


def _table(rng) -> dict[int, list[float]]:
    w, d, top = rng.uniform(0.36, 0.68), rng.uniform(0.28, 0.46), rng.uniform(0.50, 0.74)
    thick, t, inset = rng.uniform(0.05, 0.09), rng.uniform(0.03, 0.045), rng.uniform(0.0, 0.06)
    parts = {0: _box(-w, w, top, top + thick, -d, d)}
    if rng.random() < 0.3:
        foot, f = rng.uniform(0.55, 0.75), rng.uniform(0.05, 0.08)
        parts[5] = _box(-foot * w, foot * w, 0, f, -foot * d, foot * d)
        parts[6] = _box(-0.07, 0.07, f, top, -0.07, 0.07)
        return parts
    parts |= dict(enumerate(_legs(w - inset, d - inset, top, t), 1))
    if rng.random() < 0.4:
        y = rng.uniform(0.12, 0.24)
        parts[7] = _box(-w + inset + t, w - inset - t, y, y + 0.05, -d + inset + t, d - inset - t)
    return parts


def _lamp(rng) -> dict[int, list[float]]:
    foot, f, pole = rng.uniform(0.17, 0.25), rng.uniform(0.06, 0.10), rng.uniform(0.80, 1.20)
    s, shade, t = rng.uniform(0.11, 0.19), rng.uniform(0.20, 0.32), rng.uniform(0.028, 0.042)
    parts = {0: _box(-foot, foot, 0, f, -foot, foot), 1: _box(-t, t, f, f + pole, -t, t)}
    top = f + pole
    if rng.random() < 0.4:  # the shade hangs forward from an arm
        reach, hang = rng.uniform(0.03, 0.07), rng.uniform(0.08, 0.16)
        parts[3] = _box(-t, t, top, top + 2 * t, -t, reach + t)
        parts[4] = _box(-t, t, top - hang, top, reach + t, reach + 3 * t)
        z = reach + 2 * t
        parts[2] = _box(-s, s, top - hang - shade, top - hang, z - s, z + s)
        return parts
    parts[2] = _box(-s, s, top, top + shade, -s, s)
    return parts


def _shelf(rng) -> dict[int, list[float]]:
    w, d, top = rng.uniform(0.28, 0.48), rng.uniform(0.15, 0.22), rng.uniform(0.95, 1.45)
    t, boards = rng.uniform(0.022, 0.036), int(rng.integers(3, 6))
    parts = {n: _box(side * w, side * (w - 2 * t), 0, top, -d, d) for n, side in enumerate((-1, 1))}
    for n, y in enumerate(np.linspace(rng.uniform(0.06, 0.14), top - 2 * t, boards)):
        parts[2 + n] = _box(-w + 2 * t, w - 2 * t, y, y + 2 * t, -d, d)
    if rng.random() < 0.5:
        parts[7] = _box(-w, w, 0.0, top, -d - 0.03, -d)
    return parts


_BUILD = {"chair": _chair, "table": _table, "lamp": _lamp, "shelf": _shelf}


def furnish(text: str, rng: np.random.Generator, *, flaw: str | None = None) -> np.ndarray:
    """One piece ``[12, 10]`` that a prompt describes; with one of `FLAWS`, one that does not stand.

    "short" takes the bearing from one side, "shifted" moves the load beside its foot, "apart" lifts a part off.
    """
    colour, kind = parse(text)
    piece = np.zeros((BOXES, CHANNELS), dtype=np.float32)
    for slot, part in _BUILD[kind](rng).items():
        piece[slot, :7] = part
    there = piece[:, 0] > 0
    if flaw is not None:
        _spoil(piece, kind, flaw, rng)
    shade = rng.uniform(0.92, 1.08) * rng.uniform(0.94, 1.06, (BOXES, 1))
    piece[there, COLOUR] = np.clip(COLOURS[colour] * shade, 0, 1)[there]
    return piece


def _spoil(piece: np.ndarray, kind: str, flaw: str, rng: np.random.Generator) -> None:
    """Work one flaw into a piece, in place."""
    if flaw not in FLAWS:
        raise ValueError(f"unknown flaw {flaw!r}; choose one of {', '.join(FLAWS)}")
    there, sign = piece[:, 0] > 0, rng.choice([-1.0, 1.0])
    bearing = there & (piece[:, 2] - piece[:, 5] < 1e-6)
    if flaw == "apart":
        if kind == "shelf":  # its top board hovers
            high = np.arange(BOXES) == 1 + np.count_nonzero(there[2:7])
        else:
            high = there & (piece[:, 2] > np.quantile(piece[there, 2], 0.6))
        piece[high, 2] += rng.uniform(0.06, 0.2) + (2 * piece[high, 5] if kind == "shelf" else 0)
        return
    axis = 1 if kind == "shelf" and flaw == "short" else 3 if kind == "shelf" else int(rng.choice([1, 3]))
    if flaw == "short" and bearing.sum() == 1:  # a single foot loses most of its one half
        piece[bearing, axis] += sign * 0.7 * piece[bearing, axis + 3]
        piece[bearing, axis + 3] *= rng.uniform(0.15, 0.28)
    elif flaw == "short":
        lifted = bearing & (sign * piece[:, axis] > -1e-6)
        cut = rng.uniform(0.08, 0.25)
        piece[lifted, 2] += cut / 2
        piece[lifted, 5] -= cut / 2
    else:
        mass = piece[:, HALF].prod(-1)
        reach = (np.abs(piece[:, axis]) + piece[:, axis + 3])[bearing].max()
        piece[bearing, axis] += sign * reach * rng.uniform(1.1, 1.4) * mass.sum() / mass[~bearing].sum()


def draw(texts: list[str], rng: np.random.Generator, *, flawed: bool = False) -> np.ndarray:
    """Pieces ``[batch, 12, 10]`` that prompts describe, sound ones, or with ``flawed`` ones that do not stand."""
    return np.stack([furnish(text, rng, flaw=str(rng.choice(FLAWS)) if flawed else None) for text in texts])


def sample(count: int, rng: np.random.Generator, *, flawed: bool = False) -> tuple[list[str], np.ndarray]:
    """Random prompts, held-out ones too, and pieces ``[count, 12, 10]`` of what they describe, see `draw`."""
    texts = [str(text) for text in rng.choice(prompts(), count)]
    return texts, draw(texts, rng, flawed=flawed)


# Verifying ----------------------------------------------------------------------------------------------------

_PALETTE = np.stack(list(COLOURS.values()))
_NAMES = tuple(COLOURS)


def stands(boxes: np.ndarray) -> np.ndarray:
    """Which pieces stand, ``[batch]``."""
    return (solids.tilt_margin(boxes) >= LEAST_MARGIN) & solids.grounded(boxes) & solids.connected(boxes)


def verify(boxes: np.ndarray, texts: list[str]) -> list[Verdict]:
    """Judge pieces ``[batch, 12, 10]``, one prompt each. Pieces with a number that is not finite do not stand."""
    if len(boxes) != len(texts):
        raise ValueError(f"{len(boxes)} pieces were given with {len(texts)} prompts; one prompt a piece")
    if not texts:
        return []
    boxes = solids.checked(boxes)
    boxes[~np.isfinite(boxes).all((1, 2))] = 0
    tilt, grounded, connected = solids.tilt_margin(boxes), solids.grounded(boxes), solids.connected(boxes)
    high, mirrored, described = solids.height(boxes), solids.symmetry(boxes), attributes(boxes)
    mass = boxes[..., HALF].prod(-1) * solids.present(boxes)
    nearest = ((boxes[..., None, COLOUR] - _PALETTE) ** 2).sum(-1).argmin(-1)  # [batch, boxes]
    wanted = np.array([_NAMES.index(parse(text)[0]) for text in texts])
    coloured = (mass * (nearest == wanted[:, None])).sum(1) > 0.5 * mass.sum(1)
    strict = (tilt >= LEAST_MARGIN) & grounded & connected
    rows = zip(strict, tilt, grounded, connected, high, mirrored, coloured, described, strict=True)
    return [
        Verdict(bool(s), float(t), bool(g), bool(c), float(h), float(m), bool(k), a) for s, t, g, c, h, m, k, a in rows
    ]


def attributes(boxes: np.ndarray) -> np.ndarray:
    """Width, height, depth and height of the centre of mass in metres, and a twelfth of the number of boxes."""
    boxes = solids.checked(boxes)
    there = solids.present(boxes)[..., None]
    low = np.where(there, boxes[..., CENTRE] - boxes[..., HALF], np.inf).min(1)
    high = np.where(there, boxes[..., CENTRE] + boxes[..., HALF], -np.inf).max(1)
    extent = np.where(there.any(1), high - np.where(np.isfinite(low), low, 0), 0.0)
    lowest = np.where(there.any((1, 2)), low[:, 1], 0.0)
    above = solids.centre_of_mass(boxes)[:, 1] - lowest
    return np.concatenate([extent, above[:, None], there.sum(1) / BOXES], 1)


def diversity(verdicts: list[Verdict], texts: list[str]) -> float:
    """Mean pairwise distance of `attributes` within a prompt over pieces that stand; nan where no prompt has two."""
    groups: dict[str, list[np.ndarray]] = {}
    for verdict, text in zip(verdicts, texts, strict=True):
        if verdict.strict:
            groups.setdefault(text, []).append(verdict.attributes)
    means = [
        np.linalg.norm(np.subtract.outer(a, a)[:, range(5), :, range(5)], axis=0)[np.triu_indices(len(a), 1)].mean()
        for a in map(np.array, groups.values())
        if len(a) > 1
    ]
    return float(np.mean(means)) if means else float("nan")


def _form(boxes: np.ndarray) -> np.ndarray:
    """What precision compares: presence, centre and half size of every box that is there, ``[batch, 84]``."""
    boxes = solids.checked(boxes)
    form = boxes[..., :7] * solids.present(boxes)[..., None]
    form[..., 0] = 0.3 * solids.present(boxes)
    return form.reshape(len(boxes), -1)


@functools.cache
def _true(kind: str) -> tuple[cKDTree, float]:
    """True pieces of a kind, and how far a piece may be from the nearest: twice as far as 99% of other true ones."""
    rng = np.random.default_rng([KINDS.index(kind), 77])
    known = cKDTree(_form(draw([f"a red {kind}"] * REFERENCES, rng)))
    others, _ = known.query(_form(draw([f"a red {kind}"] * 512, rng)))
    return known, 2 * float(np.quantile(others, 0.99))


def resembles(boxes: np.ndarray, texts: list[str]) -> np.ndarray:
    """Which pieces are near to a true piece of what was asked for, whatever their colour, see `_true`."""
    kinds = np.array([parse(text)[1] for text in texts])
    form, near = _form(boxes), np.zeros(len(texts), dtype=bool)
    finite = np.isfinite(form).all(1)
    for kind in KINDS:
        rows = (kinds == kind) & finite
        if rows.any():
            known, most = _true(kind)
            near[rows] = known.query(form[rows])[0] <= most
    return near


# Measuring ----------------------------------------------------------------------------------------------------


def evaluation_pairs(split: str = "test", per_kind: int = 256) -> tuple[list[str], list[int]]:
    """The fixed ``(prompts, seeds)`` on which all is measured, kind after kind, ``per_kind`` of each.

    ``test`` and ``validation`` use trained prompts, ``held-out`` the others (a shelf is not among them); no seed is
    shared.
    """
    splits = {"test": 0, "validation": 1, "held-out": 2}
    if split not in splits:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(splits)}")
    texts: list[str] = []
    for kind in KINDS:
        pool = held_out_prompts(kind) if split == "held-out" else trained_prompts(kind)
        texts += [pool[i % len(pool)] for i in range(per_kind)] if pool else []
    first = 1_000_000 * (1 + splits[split])
    return texts, list(range(first, first + len(texts)))


@functools.cache
def true_height(kind: str) -> float:
    """The mean height of true pieces of a kind, in metres."""
    return float(solids.height(draw([f"a red {kind}"] * 512, np.random.default_rng([KINDS.index(kind), 78]))).mean())


def measure(boxes: np.ndarray, texts: list[str]) -> dict[str, float]:
    """The share that stands (``accuracy``, by kind too), and the side checks.

    ``tilts``, ``grounded``, ``connected``: shares that pass each part; ``height``: the mean height of all pieces as a
    share of that of true pieces of their kinds; ``symmetry``; ``colour``: share in the colour asked for;
    ``precision``: share that `resembles` a true piece; ``diversity`` of the pieces that stand.
    """
    verdicts = verify(boxes, texts)
    strict = np.array([v.strict for v in verdicts], dtype=float)
    kinds = np.array([parse(t)[1] for t in texts])
    result = {
        "accuracy": float(strict.mean()),
        "accuracy_se": float(strict.std() / np.sqrt(len(strict))),
        "tilts": float(np.mean([v.tilt >= LEAST_MARGIN for v in verdicts])),
        "grounded": float(np.mean([v.grounded for v in verdicts])),
        "connected": float(np.mean([v.connected for v in verdicts])),
        "height": float(np.mean([v.height / true_height(kind) for v, kind in zip(verdicts, kinds, strict=True)])),
        "symmetry": float(np.mean([v.symmetry for v in verdicts])),
        "colour": float(np.mean([v.colour for v in verdicts])),
        "precision": float(resembles(boxes, texts).mean()),
        "diversity": diversity(verdicts, texts),
    }
    for kind in KINDS:
        if (kinds == kind).any():
            result[f"accuracy_{kind}"] = float(strict[kinds == kind].mean())
    return result
