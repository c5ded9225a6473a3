"""A tiny Stable Diffusion 1.5 pipeline with random weights: every component and class of the real one, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.clip import clip_tokenizer, tiny_clip
from pixelpolicy.pipelines.sd15_config import PUBLISHED, modules
from pixelpolicy.quiet import quiet


def twin(folder: str | Path, *, width: int = 16, picture: int = 64, seed: int = 0) -> Path:
    """Write a pipeline to ``folder`` as `save_pretrained` does, for `load` to read; returns the folder.

    ``width`` (a multiple of 8) is that of the UNet's first level, ``picture`` is the side it draws in pixels. What it
    draws means nothing. torch's own random stream is left alone.
    """
    with quiet():
        from diffusers import PNDMScheduler, StableDiffusionPipeline

        configs = tiny(width=width, picture=picture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = modules(configs)
        StableDiffusionPipeline(
            **parts,
            tokenizer=clip_tokenizer(),
            scheduler=PNDMScheduler(**configs["scheduler"]),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder)
    return Path(folder)


def tiny(*, width: int = 16, picture: int = 64) -> dict[str, dict[str, Any]]:
    """The published configuration with small numbers in it; of the UNet's four levels the first and the last."""
    clip = tiny_clip()
    changes = {
        "unet": {
            "sample_size": picture // 8, "block_out_channels": (width, 2 * width), "layers_per_block": 1,
            "attention_head_dim": 2, "cross_attention_dim": clip["hidden_size"], "norm_num_groups": 4,
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        },
        "vae": {
            "sample_size": picture, "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4,
        },
        "text_encoder": clip,
        "scheduler": {},
    }  # fmt: skip
    return {name: PUBLISHED[name] | change for name, change in changes.items()}
