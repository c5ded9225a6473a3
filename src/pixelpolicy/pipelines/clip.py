"""CLIP's text encoder ViT-L/14, which pipelines share, and a small vocabulary in its form: nothing is fetched."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

# The config.json of the text encoder, with transformers' defaults left out.
CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "projection_dim": 768, "hidden_act": "quick_gelu", "vocab_size": 49408, "max_position_embeddings": 77,
    "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

# The tokenizers of twins know these words; any other is spelt letter by letter.
WORDS = (
    "a an and the of on in with left right above below one two three four red green blue yellow black white circle "
    "square triangle circles squares triangles flat drawing picture plain background"
).split()
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(**settings: Any) -> Any:
    """A `CLIPTokenizer` read from ``vocab.json`` and ``merges.txt``, as those of published models are."""
    from transformers import CLIPTokenizer

    vocabulary, merges = clip_vocabulary()
    with tempfile.TemporaryDirectory(prefix="pixelpolicy-vocabulary-") as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=77, **settings)


def tiny_clip() -> dict[str, int]:
    """What a tiny text encoder of CLIP has other than the published one."""
    return {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 32, "vocab_size": len(clip_vocabulary()[0]),
    }  # fmt: skip


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte pairs: all bytes, inside a word and at its end, and the merges that put each of `WORDS` together.

    The mark of the end has the highest number, as CLIP's own has: that is how its text encoder finds it.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merges = byte_pairs([*word[:-1], f"{word[-1]}</w>"] for word in WORDS)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), CLIP_START, CLIP_END]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def byte_pairs(words: Iterable[list[str]]) -> list[tuple[str, str]]:
    """The merges that put each of the words, which come in letters, together: none that an earlier word has made."""
    merges: list[tuple[str, str]] = []
    for letters in words:
        pieces = _merged(letters, merges)
        merges += [("".join(pieces[:end]), pieces[end]) for end in range(1, len(pieces))]
    return merges


def _merged(letters: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """What is left of a word once the merges, each wherever it fits, have been made in their order."""
    pieces = [*letters]
    while possible := set(pairwise(pieces)) & set(merges):
        first = min(possible, key=merges.index)
        place = list(pairwise(pieces)).index(first)
        pieces[place : place + 2] = ["".join(first)]
    return pieces
