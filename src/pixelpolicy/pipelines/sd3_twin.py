"""A tiny Stable Diffusion 3 pipeline with random weights: every component and class of the real one, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.clip import clip_tokenizer, tiny_clip
from pixelpolicy.pipelines.sd3_config import PUBLISHED, modules
from pixelpolicy.pipelines.t5 import t5_tokenizer, t5_vocabulary
from pixelpolicy.quiet import quiet


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
    clip = tiny_clip()
    text = clip["hidden_size"]
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
    """The three tokenizers of the pipeline's classes, from vocabularies made here: nothing is fetched."""
    return {"tokenizer": clip_tokenizer(), "tokenizer_2": clip_tokenizer(pad_token="!"), "tokenizer_3": t5_tokenizer()}
