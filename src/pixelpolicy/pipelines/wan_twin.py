"""A tiny Wan pipeline with random weights: every component and class of the real one, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.t5 import t5_tokenizer, t5_vocabulary
from pixelpolicy.pipelines.wan_config import PUBLISHED, modules
from pixelpolicy.quiet import quiet


def twin(folder: str | Path, *, width: int = 48, layers: int = 2, seed: int = 0) -> Path:
    """Write a pipeline to ``folder`` as `save_pretrained` does, for `load` to read; returns the folder.

    ``width`` (a multiple of 24) and ``layers`` are the transformer's; it draws clips of any size and length. What it
    draws means nothing. torch's own random stream is left alone.
    """
    with quiet():
        from diffusers import UniPCMultistepScheduler, WanPipeline

        configs = tiny(width=width, layers=layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = modules(configs)
        scheduler = UniPCMultistepScheduler(**configs["scheduler"])
        WanPipeline(**parts, scheduler=scheduler, tokenizer=t5_tokenizer()).save_pretrained(folder)
    return Path(folder)


def tiny(*, width: int = 48, layers: int = 2) -> dict[str, dict[str, Any]]:
    """The published configuration with small numbers in it."""
    changes = {
        "transformer": {
            "num_attention_heads": width // 24, "attention_head_dim": 24, "text_dim": 32, "freq_dim": 32,
            "ffn_dim": 2 * width, "num_layers": layers,
        },
        "vae": {"base_dim": 4, "num_res_blocks": 1},
        "text_encoder": {
            "d_model": 32, "d_ff": 64, "d_kv": 16, "num_layers": 2, "num_heads": 2, "vocab_size": len(t5_vocabulary()),
        },
        "scheduler": {},
    }  # fmt: skip
    return {name: PUBLISHED[name] | change for name, change in changes.items()}
