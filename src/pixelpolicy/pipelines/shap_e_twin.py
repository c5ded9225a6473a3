"""A tiny Shap-E pipeline with random weights: every component and class of the real one, made offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from pixelpolicy.pipelines.clip import clip_tokenizer, tiny_clip
from pixelpolicy.pipelines.shap_e_config import PUBLISHED, modules
from pixelpolicy.quiet import quiet


def twin(folder: str | Path, *, width: int = 32, layers: int = 2, seed: int = 0) -> Path:
    """Write a pipeline to ``folder`` as `save_pretrained` does, for `load` to read; returns the folder.

    ``width`` (a multiple of 16) and ``layers`` are the prior's. What it draws means nothing. torch's own random stream
    is left alone.
    """
    with quiet():
        from diffusers import HeunDiscreteScheduler, ShapEPipeline

        configs = tiny(width=width, layers=layers)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = modules(configs)
            torch.nn.init.normal_(parts["prior"].positional_embedding, std=0.1)  # zeros in a fresh one
        scheduler = HeunDiscreteScheduler(**configs["scheduler"])
        ShapEPipeline(**parts, scheduler=scheduler, tokenizer=clip_tokenizer()).save_pretrained(folder)
    return Path(folder)


def tiny(*, width: int = 32, layers: int = 2) -> dict[str, dict[str, Any]]:
    """The published configuration with small numbers in it: 64 latents, which are the weights of four layers."""
    clip = tiny_clip()
    hidden, latent = 16, 24
    changes = {
        "prior": {
            "num_attention_heads": 2, "attention_head_dim": width // 2, "num_layers": layers, "embedding_dim": latent,
            "num_embeddings": 4 * hidden, "time_embed_dim": 2 * width, "embedding_proj_dim": clip["projection_dim"],
            "clip_embed_dim": 2 * latent,
        },
        "text_encoder": clip,
        "shap_e_renderer": {
            "param_shapes": ((hidden, 93), *((hidden, hidden),) * 3), "d_latent": latent, "d_hidden": hidden,
        },
        "scheduler": {},
    }  # fmt: skip
    return {name: PUBLISHED[name] | change for name, change in changes.items()}
