"""A small text-to-image generator in the classes of Stable Diffusion 3.5, at a millionth of its cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from pixelpolicy.generators.flow import FlowGenerator, PromptEncoder
from pixelpolicy.worlds import shapes

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


@dataclass
class ImageGenerator(FlowGenerator):
    """The parts of a latent text-to-image model; all but the prompt encoder are plain diffusers components."""

    vae: AutoencoderKL

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    def decode(self, latents: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """Pictures in [-1, 1] of latents; keeps the gradient."""
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor + config.shift_factor).sample.clamp(-1, 1)


def build(
    width: int = 96, layers: int = 4, text_width: int = 64, channels: tuple[int, ...] = (16, 24, 32)
) -> ImageGenerator:
    """A fresh generator for 32x32 pictures: latents of 4x8x8, 16 picture tokens and 5 word tokens."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel

    vae = AutoencoderKL(
        sample_size=shapes.SIZE,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        shift_factor=0.0,
    )
    latent_size = shapes.SIZE // 2 ** (len(channels) - 1)
    transformer = SD3Transformer2DModel(
        sample_size=latent_size,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=width // 32,
        caption_projection_dim=width,
        joint_attention_dim=text_width,
        pooled_projection_dim=text_width,
        pos_embed_max_size=latent_size // 2,
    )
    return ImageGenerator(
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        prompt_encoder=PromptEncoder.of(shapes, text_width),
    )
