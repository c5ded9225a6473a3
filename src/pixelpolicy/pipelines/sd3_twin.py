"""A tiny Stable Diffusion 3 pipeline with random weights: every component and class of the real one, made offline."""

from __future__ import annotations

import json
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.quiet import quiet
from pixelpolicy.pipelines.sd3_config import PUBLISHED, modules

# The twin's tokenizers know these words; any other is spelt letter by letter.
WORDS = (
    "a an and the of on in with left right above below one two three four red green blue yellow black white circle "
    "square triangle circles squares triangles flat drawing picture plain background"
).split()
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"


def twin(folder: str | Path, *, width: int = 64, layers: int = 2, picture: int = 64, seed: int = 0) -> Path:
    """Write a pipeline to ``folder`` as `save_pretrained` does, for `load` to read; returns the folder.

    ``width`` (a multiple of 32) and ``layers`` are the transformer's, ``picture`` is the side it draws in pixels. What
    it draws means nothing. torch's own random stream is left alone.
    """
    with quiet():
        from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

        configs = tiny(width=width, layers=layers, picture=picture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = modules(configs)
        scheduler = FlowMatchEulerDiscreteScheduler(**configs["scheduler"])
        StableDiffusion3Pipeline(**parts, scheduler=scheduler, **tokenizers()).save_pretrained(folder)
    return Path(folder)


def tiny(*, width: int = 64, layers: int = 2, picture: int = 64) -> dict[str, dict[str, Any]]:
    """The published configuration with small numbers in it."""
    text = 32
    clip = {
        "hidden_size": text, "intermediate_size": 2 * text, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": text, "vocab_size": len(clip_vocabulary()[0]),
    }  # fmt: skip
    changes = {
        "transformer": {
            "sample_size": picture // 8, "num_layers": layers, "attention_head_dim": 32,
            "num_attention_heads": width // 32, "caption_projection_dim": width, "joint_attention_dim": 2 * text,
            "pooled_projection_dim": 2 * text, "pos_embed_max_size": max(picture // 16, 16),
            "dual_attention_layers": tuple(range(layers // 2)),
        },
        "vae": {
            "sample_size": picture, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
        },
        "text_encoder": clip,
        "text_encoder_2": clip,
        "text_encoder_3": {
            "d_model": 2 * text, "d_ff": 2 * text, "d_kv": 16, "num_layers": 2, "num_heads": 2,
            "vocab_size": len(t5_vocabulary()),
        },
        "scheduler": {},
    }  # fmt: skip
    return {name: PUBLISHED[name] | change for name, change in changes.items()}


def tokenizers() -> dict[str, Any]:
    """The three tokenizers of the pipeline's classes, from vocabularies made here: nothing is fetched.

    The two of CLIP are read from ``vocab.json`` and ``merges.txt``, as those of the published model are.
    """
    from transformers import CLIPTokenizer, T5TokenizerFast

    vocabulary, merges = clip_vocabulary()
    with tempfile.TemporaryDirectory(prefix="pixelpolicy-vocabulary-") as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (Path(folder) / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        first = CLIPTokenizer.from_pretrained(folder, model_max_length=77)
        second = CLIPTokenizer.from_pretrained(folder, model_max_length=77, pad_token="!")
    third = T5TokenizerFast(vocab=t5_vocabulary(), extra_ids=0, model_max_length=512)
    return {"tokenizer": first, "tokenizer_2": second, "tokenizer_3": third}


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte pairs: all bytes, inside a word and at its end, and the merges that put each of `WORDS` together.

    The mark of the end has the highest number, as CLIP's own has: that is how its text encoder finds it.
    """
    from tokenizers.pre_tokenizers import ByteLevel

    letters, merges = sorted(ByteLevel.alphabet()), []
    for word in WORDS:
        pieces = _pieces(word, merges)
        merges += [("".join(pieces[:end]), pieces[end]) for end in range(1, len(pieces))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), CLIP_START, CLIP_END]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def _pieces(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """What is left of a word once the merges, each wherever it fits, have been made in their order."""
    pieces = [*word[:-1], f"{word[-1]}</w>"]
    while possible := set(pairwise(pieces)) & set(merges):
        first = min(possible, key=merges.index)
        place = list(pairwise(pieces)).index(first)
        pieces[place : place + 2] = ["".join(first)]
    return pieces


def t5_vocabulary() -> list[tuple[str, float]]:
    """Pieces of a unigram model with their log-probabilities: T5's special tokens, `WORDS`, printable characters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -3.0) for word in WORDS]
    letters = [(chr(code), -6.0) for code in range(33, 127)]
    return [*special, ("▁", -6.0), *words, *letters]
