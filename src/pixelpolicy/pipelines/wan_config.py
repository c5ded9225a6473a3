"""The configuration of Wan2.1-T2V-1.3B, and what the model weighs: counted, not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixelpolicy.pipelines import counting
from pixelpolicy.pipelines.counting import Footprint
from pixelpolicy.pipelines.loading import Source

REPOSITORY = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
LICENCE = "Apache-2.0"
# Pictures and clips for the model's page.
UNNEEDED = ("assets/*", "examples/*")
SOURCE = Source("WanPipeline", "Wan2.1", REPOSITORY, UNNEEDED)
FETCH = SOURCE.fetch()
# The clips that the figures below are for: height, width, frames.
CLIP = (240, 416, 33)
TOKENS = 512  # of a text, whatever its length

# The config.json of each part of that repository, with diffusers' and transformers' defaults left out.
PUBLISHED: dict[str, dict[str, Any]] = {
    "transformer": {
        "patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16,
        "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30,
        "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "eps": 1e-6,
    },
    "vae": {
        "base_dim": 96, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
        "temperal_downsample": [False, True, True],
    },
    "text_encoder": {
        "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 256384,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    },
    "scheduler": {
        "num_train_timesteps": 1000, "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0,
    },
}  # fmt: skip


def modules(configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The three networks of a pipeline with fresh random weights, under the names that the pipeline gives them."""
    from diffusers import AutoencoderKLWan, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    return {
        "transformer": WanTransformer3DModel(**configs["transformer"]),
        "vae": AutoencoderKLWan(**configs["vae"]),
        "text_encoder": UMT5EncoderModel(UMT5Config(**configs["text_encoder"])),
    }


def parameter_counts(rank: int = 32) -> dict[str, int]:
    """Parameters of each network as published, and of a ``lora`` of that rank: see `counting.parameter_counts`."""
    from pixelpolicy.pipelines.wan import TARGETS

    return counting.parameter_counts(lambda: modules(PUBLISHED), "transformer", TARGETS, rank)


def latent_size(height: int, width: int, frames: int) -> tuple[int, int, int]:
    """Frames, height and width of the latents of a clip."""
    return (frames - 1) // 4 + 1, height // 8, width // 8


def activation_bytes(
    *, clip: tuple[int, int, int] = CLIP, tokens: int = TOKENS, rank: int = 32, checkpointed: bool = False
) -> int:
    """Bytes that one sample's forward keeps for its backward, with the transformer in bfloat16 and its LoRA in float32.

    Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them.
    """
    from diffusers import WanTransformer3DModel

    from pixelpolicy.pipelines.wan import TARGETS

    frames, height, width = latent_size(*clip)
    with torch.device("meta"):
        network = WanTransformer3DModel(**PUBLISHED["transformer"])
        student = counting.student(network, TARGETS, rank, torch.bfloat16)
        inputs = {
            "hidden_states": torch.empty(1, 16, frames, height, width, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
            "encoder_hidden_states": torch.empty(1, tokens, 4096, dtype=torch.bfloat16),
        }
    if checkpointed:
        student.enable_gradient_checkpointing()
    patches = frames * (height // 2) * (width // 2)
    return counting.kept_bytes(
        lambda: student(**inputs).sample, lambda shape: shape[-2] == patches and shape[-1] in (patches, tokens)
    )


def decode_bytes(*, clip: tuple[int, int, int] = CLIP, checkpointed: bool = False) -> int:
    """Bytes that one clip's decoding keeps for its backward, with the autoencoder in float32."""
    from diffusers import AutoencoderKLWan

    from pixelpolicy.pipelines.wan import decoded

    with torch.device("meta"):
        vae = AutoencoderKLWan(**PUBLISHED["vae"]).requires_grad_(False)
        latents = torch.empty(1, 16, *latent_size(*clip), requires_grad=True)
    length = latents.shape[-1] * latents.shape[-2]
    return counting.kept_bytes(
        lambda: decoded(vae, latents, checkpointed=checkpointed), lambda shape: set(shape[-2:]) == {length}
    )


def footprint(rank: int = 32, *, checkpointed: bool = True) -> Footprint:
    """What Wan2.1-T2V-1.3B needs for clips of `CLIP`: see `Footprint`. The files hold float32."""
    sample = activation_bytes(rank=rank, checkpointed=checkpointed)
    return counting.footprint(parameter_counts(rank), "transformer", sample, stored=4)
