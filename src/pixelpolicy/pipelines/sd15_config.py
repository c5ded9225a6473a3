"""The configuration of Stable Diffusion 1.5, and what the model weighs: counted, not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixelpolicy.pipelines import counting
from pixelpolicy.pipelines.clip import CLIP_L
from pixelpolicy.pipelines.counting import Footprint
from pixelpolicy.pipelines.loading import Source

# A mirror: the repository that the model was published in, runwayml/stable-diffusion-v1-5, is gone.
REPOSITORY = "stable-diffusion-v1-5/stable-diffusion-v1-5"
LICENCE = "CreativeML Open RAIL-M"
# What the repository holds twice, or for other programs than diffusers, and the filter of pictures, which is not used.
UNNEEDED = ("*.bin", "*.ckpt", "*fp16*", "*non_ema*", "v1-5-pruned*", "safety_checker/*")
SOURCE = Source("StableDiffusionPipeline", "Stable Diffusion 1.5", REPOSITORY, UNNEEDED)
FETCH = SOURCE.fetch()

# The config.json of each part of that repository, with diffusers' and transformers' defaults left out.
PUBLISHED: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 64, "in_channels": 4, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
        "layers_per_block": 2, "attention_head_dim": 8, "cross_attention_dim": 768, "norm_num_groups": 32,
        "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    },
    "vae": {
        "sample_size": 512, "latent_channels": 4, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 32, "scaling_factor": 0.18215,
    },
    "text_encoder": CLIP_L,
    "scheduler": {
        "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "steps_offset": 1, "set_alpha_to_one": False, "skip_prk_steps": True,
    },
}  # fmt: skip


def modules(configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The three networks of a pipeline with fresh random weights, under the names that the pipeline gives them."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    return {
        "unet": UNet2DConditionModel(**configs["unet"]),
        "vae": AutoencoderKL(**configs["vae"]),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**configs["text_encoder"])),
    }


def parameter_counts(rank: int = 4) -> dict[str, int]:
    """Parameters of each network as published, and of a ``lora`` of that rank: see `counting.parameter_counts`."""
    from pixelpolicy.pipelines.sd15 import TARGETS

    return counting.parameter_counts(lambda: modules(PUBLISHED), "unet", TARGETS, rank)


def activation_bytes(*, picture: int = 512, rank: int = 4, checkpointed: bool = False) -> int:
    """Bytes that one sample's forward keeps for its backward, with the UNet in bfloat16 and its LoRA in float32.

    Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them.
    """
    from diffusers import UNet2DConditionModel

    from pixelpolicy.pipelines.sd15 import TARGETS

    with torch.device("meta"):
        network = counting.student(UNet2DConditionModel(**PUBLISHED["unet"]), TARGETS, rank, torch.bfloat16)
        inputs = {
            "sample": torch.empty(1, 4, picture // 8, picture // 8, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
            "encoder_hidden_states": torch.empty(1, 77, 768, dtype=torch.bfloat16),
        }
    if checkpointed:
        network.enable_gradient_checkpointing()
    lengths = {(picture // (8 << level)) ** 2 for level in range(4)} | {77}
    heads = PUBLISHED["unet"]["attention_head_dim"]
    return counting.kept_bytes(
        lambda: network(**inputs).sample, lambda shape: shape[-3] == heads and set(shape[-2:]) <= lengths
    )


def decode_bytes(*, picture: int = 512, checkpointed: bool = False) -> int:
    """Bytes that one picture's decoding keeps for its backward, with the autoencoder in float32."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(**PUBLISHED["vae"]).requires_grad_(False)
        latents = torch.empty(1, 4, picture // 8, picture // 8, requires_grad=True)
    if checkpointed:
        vae.enable_gradient_checkpointing()
    length = (picture // 8) ** 2
    return counting.kept_bytes(lambda: vae.decode(latents).sample, lambda shape: set(shape[-2:]) == {length})


def footprint(rank: int = 4, *, checkpointed: bool = False) -> Footprint:
    """What SD 1.5 needs at 512 x 512 pixels: see `Footprint`. The files hold float32."""
    sample = activation_bytes(rank=rank, checkpointed=checkpointed)
    return counting.footprint(parameter_counts(rank), "unet", sample, stored=4)
