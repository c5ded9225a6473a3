"""Text rendering: is the word that the prompt asks for what stands in the picture?

The reader is rapidocr's recogniser alone (PP-OCRv6, Apache-2.0), run by onnxruntime on the whole picture; its detector,
which takes seconds a picture, is never loaded. The score counts letters, as in Flow-GRPO's task of text rendering. The
second reader is an older recogniser (PP-OCRv4, of rapidocr-onnxruntime 1.4.4): where the two disagree about a picture
that scores well, one of them is being fooled.
"""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards.pictures import as_arrays, per_sample
from pixelpolicy.rl.reward import Reward
from pixelpolicy.verified import CHECKPOINTS, check_manifest
from pixelpolicy.worlds import words

READERS = ("first", "second")
MODEL = "PP-OCRv6_rec_small.onnx"  # in the package rapidocr
SECOND = "second-reader"  # among the checkpoints that come with this package
HEIGHT = 48  # pixels: what both recognisers were trained on
NARROWEST = 16
AT_ONCE = 32  # pictures in one pass, to bound the memory


def text_rendering() -> Reward:
    """1 minus the share of letters that are wrong, in [0, 1], for prompts such as ``the word "CAT"``.

    Pictures are ``[batch, 3, height, width]`` in [-1, 1], of any size, with nothing in them but the word. Letter case
    and spaces do not count. It has no gradient.
    """
    return _reading_reward("text", "first")


def second_text_rendering() -> Reward:
    """The same score from the second reader, for checking: train on `text_rendering`, never on this one."""
    return _reading_reward("text, second reader", "second")


@dataclass(frozen=True)
class Readings:
    """What two readers make of pictures: their texts, their scores ``[batch]``, and where those lie apart."""

    first: list[str]
    second: list[str]
    first_scores: Float[Tensor, "batch"]
    second_scores: Float[Tensor, "batch"]
    disagree: Bool[Tensor, "batch"]


def compare_readers(samples: Tensor, prompts: list[str], *, apart: float = 0.5) -> Readings:
    """Both readers on pictures ``[batch, 3, height, width]``; they disagree where their scores differ by ``apart``.

    Raises `ValueError` where the shape is another, and `PromptError` for a prompt that asks for no word.
    """
    pictures, _ = as_arrays(samples, prompts)
    texts = {reader: _read(pictures, reader) for reader in READERS}
    first, second = (torch.tensor(scores(texts[reader], prompts)) for reader in READERS)
    return Readings(texts["first"], texts["second"], first, second, (first - second).abs() >= apart)


def read(samples: Tensor, reader: str = "first") -> list[str]:
    """The text in each picture ``[batch, 3, height, width]`` in [-1, 1], as ``reader`` (first, second) reads it."""
    return _read(as_arrays(samples, [""] * len(samples))[0], reader)


def scores(texts: list[str], prompts: list[str]) -> list[float]:
    """How near each text is to the word of its prompt: 1 - edit distance / length of the longer, in [0, 1]."""
    pairs = [(_plain(text), _plain(words.parse(prompt))) for text, prompt in zip(texts, prompts, strict=True)]
    return [1 - edit_distance(text, word) / max(len(text), len(word)) for text, word in pairs]


def edit_distance(a: str, b: str) -> int:
    """The least number of letters to insert, delete or replace that makes ``b`` of ``a``: Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(b, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (letter != other))
    return row[-1]


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


@functools.cache  # so that two rewards of one reader are equal, and add up
def _reading_reward(name: str, reader: str) -> Reward:
    def reward(samples: Tensor, prompts: list[str]) -> Float[Tensor, "batch"]:
        for prompt in prompts:
            words.parse(prompt)  # before the pictures are read
        pictures, finite = as_arrays(samples, prompts)
        return per_sample(scores(_read(pictures, reader), prompts), finite)

    return Reward(name, reward)


def _read(pictures: np.ndarray, reader: str) -> list[str]:
    """Greedy reading: the likeliest letter at each place, repetitions, then blanks, removed: CTC's rule."""
    if not len(pictures):
        return []
    session, letters = _reader(reader, torch.get_num_threads())
    height, width = pictures.shape[2:]
    size = (HEIGHT, max(NARROWEST, round(HEIGHT * width / height)))
    texts = []
    for some in torch.from_numpy(pictures).clamp(-1, 1).split(AT_ONCE):
        resized = torch.nn.functional.interpolate(some, size, mode="bilinear", align_corners=False)
        blue_first = np.ascontiguousarray(resized.numpy()[:, ::-1])
        places = session.run(None, {session.get_inputs()[0].name: blue_first})[0].argmax(-1)  # [batch, places]
        for row in places:
            kept = row[(row != 0) & np.append(True, row[1:] != row[:-1])]
            texts.append("".join(letters[k] for k in kept))
    return texts


@functools.cache
def _reader(name: str, threads: int):
    """An onnxruntime session, and the letter of each of its outputs; the first is the blank, the last the space."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RewardError(
            f"onnxruntime is needed to read pictures and does not import ({error}). {_INSTALL}"
        ) from error
    if name not in READERS:
        raise RewardError(f"there is no reader {name!r}; choose one of {', '.join(READERS)}")
    path = _first_model() if name == "first" else _second_model()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, ["", *session.get_modelmeta().custom_metadata_map["character"].split("\n"), " "]


_INSTALL = "Install what the course needs once more: pip install --constraint constraints.txt --editable ."


def _first_model() -> Path:
    found = importlib.util.find_spec("rapidocr")  # not imported: it would bring OpenCV and a logger along
    path = Path(found.submodule_search_locations[0]) / "models" / MODEL if found else None
    if path is None or not path.is_file():
        what = f"the package rapidocr has no {MODEL}" if found else "the package rapidocr is not installed"
        raise RewardError(f"{what}, and text is read by its recogniser. {_INSTALL}")
    return path


def _second_model() -> Path:
    check_manifest(CHECKPOINTS / SECOND)
    return CHECKPOINTS / SECOND / "model.onnx"
