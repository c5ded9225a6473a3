"""The configuration of Stable Diffusion 3.5 medium, and what the model weighs: counted, not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixelpolicy.pipelines import counting
from pixelpolicy.pipelines.clip import CLIP_L
from pixelpolicy.pipelines.counting import Footprint
from pixelpolicy.pipelines.loading import Source

REPOSITORY = "stabilityai/stable-diffusion-3.5-medium"
LICENCE = "Stability AI Community License"
# What the repository holds twice, or for other programs than diffusers.
UNNEEDED = ("*fp16*", "sd3.5_medium*", "text_encoders/*", "vae copy/*", "*.png")
SOURCE = Source(
    "StableDiffusion3Pipeline",
    "Stable Diffusion 3",
    REPOSITORY,
    UNNEEDED,
    f"The model is gated: first accept the {LICENCE} at https://huggingface.co/{REPOSITORY} and log in with "
    f"`hf auth login`.",
)
FETCH = SOURCE.fetch()

# The config.json of each part of that repository, with diffusers' and transformers' defaults left out.
PUBLISHED: dict[str, dict[str, Any]] = {
    "transformer": {
        "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
        "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
        "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm",
    },
    "vae": {
        "sample_size": 1024, "latent_channels": 16, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 32, "scaling_factor": 1.5305, "shift_factor": 0.0609,
        "use_quant_conv": False, "use_post_quant_conv": False,
    },
    "text_encoder": CLIP_L,
    "text_encoder_2": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
        "projection_dim": 1280, "hidden_act": "gelu", "vocab_size": 49408, "max_position_embeddings": 77,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
    },
    "text_encoder_3": {
        "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    },
    "scheduler": {"num_train_timesteps": 1000, "shift": 3.0},
}  # fmt: skip


def modules(configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The five networks of a pipeline with fresh random weights, under the names that the pipeline gives them."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    return {
        "transformer": SD3Transformer2DModel(**configs["transformer"]),
        "vae": AutoencoderKL(**configs["vae"]),
        "text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder"])),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])),
        "text_encoder_3": T5EncoderModel(T5Config(**configs["text_encoder_3"])),
    }


def parameter_counts(rank: int = 32) -> dict[str, int]:
    """Parameters of each network as published, and of a ``lora`` of that rank: see `counting.parameter_counts`."""
    from pixelpolicy.pipelines.sd3 import TARGETS

    return counting.parameter_counts(lambda: modules(PUBLISHED), "transformer", TARGETS, rank)


def activation_bytes(*, picture: int = 512, tokens: int = 77 + 128, rank: int = 32) -> int:
    """Bytes that one sample's forward keeps for its backward, with the transformer in bfloat16 and its LoRA in float32.

    Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them.
    """
    from diffusers import SD3Transformer2DModel

    from pixelpolicy.pipelines.sd3 import TARGETS

    with torch.device("meta"):
        network = SD3Transformer2DModel(**PUBLISHED["transformer"])
        student = counting.student(network, TARGETS, rank, torch.bfloat16)
        inputs = {
            "hidden_states": torch.empty(1, 16, picture // 8, picture // 8, dtype=torch.bfloat16),
            "encoder_hidden_states": torch.empty(1, tokens, 4096, dtype=torch.bfloat16),
            "pooled_projections": torch.empty(1, 2048, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
        }
    lengths = {(picture // 16) ** 2, (picture // 16) ** 2 + tokens}
    return counting.kept_bytes(lambda: student(**inputs).sample, lambda shape: set(shape[-2:]) <= lengths)


def footprint(rank: int = 32) -> Footprint:
    """What SD3.5 medium needs at 512 x 512 pixels: see `Footprint`. The files and the loaded weights are bfloat16, but
    the autoencoder's once loaded."""
    counts = parameter_counts(rank)
    return counting.footprint(counts, "transformer", activation_bytes(rank=rank), stored=2)
