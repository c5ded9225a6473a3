"""A tiny FLUX.2 klein pipeline with random weights: every component and class of the real one, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.flux2_klein_config import PUBLISHED, modules
from pixelpolicy.pipelines.qwen import qwen_tokenizer
from pixelpolicy.quiet import quiet


def twin(folder: str | Path, *, width: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """Write a pipeline to ``folder`` as `save_pretrained` does, for `load` to read; returns the folder.

    ``width`` (a multiple of 32) is the transformer's, which has ``layers`` of each of its two kinds of blocks; it draws
    pictures of any size. What it draws means nothing. torch's own random stream is left alone.
    """
    with quiet():
        from diffusers import FlowMatchEulerDiscreteScheduler, Flux2KleinPipeline

        tokenizer = qwen_tokenizer()
        configs = tiny(len(tokenizer), width=width, layers=layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = modules(configs)
            norm = parts["vae"].bn  # a fresh one changes nothing
            norm.running_mean.normal_(std=0.5)
            norm.running_var.uniform_(0.25, 4.0)
        scheduler = FlowMatchEulerDiscreteScheduler(**configs["scheduler"])
        Flux2KleinPipeline(**parts, scheduler=scheduler, tokenizer=tokenizer).save_pretrained(folder)
    return Path(folder)


def tiny(vocabulary: int, *, width: int = 64, layers: int = 2) -> dict[str, dict[str, Any]]:
    """The published configuration with small numbers in it. The text encoder has the layers that are looked at."""
    text = 16
    changes = {
        "transformer": {
            "num_layers": layers, "num_single_layers": layers, "attention_head_dim": 32,
            "num_attention_heads": width // 32, "joint_attention_dim": 3 * text, "timestep_guidance_channels": 32,
            "axes_dims_rope": (8, 8, 8, 8),
        },
        "vae": {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4},
        "text_encoder": {
            "vocab_size": vocabulary, "hidden_size": text, "intermediate_size": 2 * text, "num_hidden_layers": 28,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 512,
        },
        "scheduler": {},
    }  # fmt: skip
    return {name: PUBLISHED[name] | change for name, change in changes.items()}
