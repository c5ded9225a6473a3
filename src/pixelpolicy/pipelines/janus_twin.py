"""A tiny Janus with random weights and a tokenizer of its own: the classes of the real one, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.clip import WORDS
from pixelpolicy.pipelines.janus_config import PUBLISHED, model
from pixelpolicy.quiet import quiet

SPECIAL = ("<bos>", "<eos>", "<pad>", "<unk>", "<begin_of_image>", "<end_of_image>", "<image_placeholder>")


def twin(folder: str | Path, *, width: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """Write a model and its tokenizer to ``folder``, for `janus.load` to read; returns the folder.

    It draws 32 x 32 pixels of 8 x 8 codes, which mean nothing. torch's own random stream is left alone.
    """
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer()
        model(tiny(len(words), width=width, layers=layers)).save_pretrained(folder)
        words.save_pretrained(folder)
    return Path(folder)


def tiny(vocabulary: int, *, width: int = 64, layers: int = 2) -> dict[str, Any]:
    """The published configuration with small numbers in it."""
    changes = {
        "text_config": {
            "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
            "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": vocabulary,
            "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
        },
        "vision_config": {
            "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 4,
            "num_image_tokens": 64, "projection_dim": width,
        },
        "vq_config": {
            "num_embeddings": 32, "base_channels": 32, "channel_multiplier": (1, 1, 1), "num_res_blocks": 1,
            "latent_channels": 32, "projection_dim": width, "image_token_embed_dim": width,
        },
    }  # fmt: skip
    parts = {name: PUBLISHED[name] | change for name, change in changes.items()}
    return parts | {"image_token_id": SPECIAL.index("<image_placeholder>"), "tie_word_embeddings": False}


def tokenizer() -> Any:
    """A fast tokenizer that knows whole words, letters and digits, and the marks of an image."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*SPECIAL, *WORDS, *letters]))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"[^a-z]"), "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"},
    )  # fmt: skip
