"""Generators of a few tokens of numbers: the boxes of a piece of furniture, the limbs of a walker.

The tokens lie side by side as a picture of one row, so that the transformer is the image generator's own class; a
change of units stands where an image has its autoencoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import ClassVar

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pixelpolicy.generators.flow import FlowGenerator, PromptEncoder


class Units(nn.Module):
    """Latents of mean 0 and variance 1 to tokens in the world's units and back: ``mean`` and ``std`` of each number.

    ``mean`` and ``std`` have shape ``[tokens, channels]``.
    """

    def __init__(self, tokens: int, channels: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(tokens, channels))
        self.register_buffer("std", torch.ones(tokens, channels))

    @torch.no_grad()
    def fit(self, samples: Float[Tensor, "batch tokens channels"], least: float = 1e-3) -> None:
        """Set the units by samples. A number that hardly varies is divided by ``least``."""
        self.mean.copy_(samples.mean(0))
        self.std.copy_(samples.std(0).clamp_min(least))

    def decode(self, latents: Float[Tensor, "batch channels 1 tokens"]) -> Float[Tensor, "batch tokens channels"]:
        return latents.squeeze(2).transpose(1, 2) * self.std + self.mean

    def encode(self, samples: Float[Tensor, "batch tokens channels"]) -> Float[Tensor, "batch channels 1 tokens"]:
        return ((samples - self.mean) / self.std).transpose(1, 2).unsqueeze(2)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tokens, channels = self.mean.shape
        (folder / "config.json").write_text(json.dumps({"tokens": tokens, "channels": channels}, indent=2) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> Units:
        units = cls(**json.loads((folder / "config.json").read_text()))
        units.load_state_dict(load_file(folder / "model.safetensors"))
        return units


@dataclass
class TokenGenerator(FlowGenerator):
    """The parts of a model whose samples are ``[batch, tokens, channels]`` in the world's units."""

    codec: Units

    OWN: ClassVar = FlowGenerator.OWN | {"codec": Units.from_pretrained}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        tokens, channels = self.codec.mean.shape
        return channels, 1, tokens

    def decode(self, latents: Tensor) -> Float[Tensor, "batch tokens channels"]:
        """Tokens in the world's units of latents; keeps the gradient."""
        return self.codec.decode(latents)


def build(
    world: ModuleType, tokens: int, channels: int, *, width: int = 96, layers: int = 4, text_width: int = 64
) -> TokenGenerator:
    """A fresh generator of ``tokens`` tokens of ``channels`` numbers for the prompts of a world."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return TokenGenerator(
        transformer=row_transformer(tokens, channels, width=width, layers=layers, text_width=text_width),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        prompt_encoder=PromptEncoder.of(world, text_width),
        codec=Units(tokens, channels),
    )


def row_transformer(tokens: int, channels: int, *, width: int, layers: int, text_width: int) -> nn.Module:
    """`SD3Transformer2DModel` on latents ``[batch, channels, 1, tokens]``, a token a position."""
    from diffusers import SD3Transformer2DModel

    return SD3Transformer2DModel(
        sample_size=tokens,
        patch_size=1,
        in_channels=channels,
        out_channels=channels,
        num_layers=layers,
        attention_head_dim=32,
        num_attention_heads=width // 32,
        caption_projection_dim=width,
        joint_attention_dim=text_width,
        pooled_projection_dim=text_width,
        pos_embed_max_size=tokens,
    )
