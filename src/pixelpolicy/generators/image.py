"""A small text-to-image generator in the classes of Stable Diffusion 3.5, at a millionth of its cost.

`AutoencoderKL`, `SD3Transformer2DModel` and `FlowMatchEulerDiscreteScheduler` are diffusers' own (Esser et al. 2024,
arXiv 2403.03206); only the prompt encoder is ours, because the prompts have fifteen words.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pixelpolicy.worlds import shapes

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


class PromptEncoder(nn.Module):
    """Words to ``prompt_embeds [batch, words, width]`` and ``pooled [batch, width]``.

    A small network over all slots together lets each word know its sentence: "left of" means nothing by itself.
    """

    def __init__(
        self, vocabulary: tuple[str, ...] = shapes.VOCABULARY, length: int = shapes.MOST_WORDS, width: int = 64
    ):
        super().__init__()
        self.config = {"vocabulary": list(vocabulary), "length": length, "width": width}
        self.embedding = nn.Embedding(len(vocabulary), width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.5)
        self.sentence = nn.Sequential(
            nn.Linear(length * width, 4 * width), nn.SiLU(), nn.Linear(4 * width, (length + 1) * width)
        )

    def tokens(self, prompts: list[str]) -> Int[Tensor, "batch words"]:
        """Token numbers of prompts. Raises `PromptError` outside the vocabulary; "" is the empty prompt."""
        rows = shapes.token_rows(prompts, tuple(self.config["vocabulary"]), self.config["length"])
        return torch.tensor(rows, device=self.position.device)

    def forward(self, tokens: Int[Tensor, "batch words"]) -> tuple[Tensor, Tensor]:
        embeds = self.embedding(tokens) + self.position
        context = self.sentence(embeds.flatten(1)).unflatten(1, (-1, embeds.shape[-1]))
        return embeds + context[:, :-1], context[:, -1]

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> PromptEncoder:
        encoder = cls(**json.loads((folder / "config.json").read_text()))
        encoder.load_state_dict(load_file(folder / "model.safetensors"))
        return encoder


@dataclass
class ImageGenerator:
    """The parts of a latent text-to-image model; the first three are plain diffusers components."""

    transformer: SD3Transformer2DModel
    vae: AutoencoderKL
    scheduler: FlowMatchEulerDiscreteScheduler
    prompt_encoder: PromptEncoder

    @property
    def device(self) -> torch.device:
        return self.transformer.device

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.transformer.config
        return config.in_channels, config.sample_size, config.sample_size

    def to(self, *args, **kwargs) -> ImageGenerator:
        """Move all parts to a device or dtype, in place."""
        for module in (self.transformer, self.vae, self.prompt_encoder):
            module.to(*args, **kwargs)
        return self

    def student(self) -> ImageGenerator:
        """The same generator with a transformer of its own to train."""
        return replace(self, transformer=copy.deepcopy(self.transformer).requires_grad_(True))

    def reference(self) -> ImageGenerator:
        """The same generator with a transformer of its own that nothing trains."""
        return replace(self, transformer=copy.deepcopy(self.transformer).requires_grad_(False))

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> tuple[Float[Tensor, "batch words width"], Float[Tensor, "batch width"]]:
        """``(prompt_embeds, pooled)`` of prompts. Raises `PromptError` outside the vocabulary."""
        return self.prompt_encoder(self.prompt_encoder.tokens(prompts))

    def velocity(self, latents, sigma, prompt_embeds, pooled) -> Float[Tensor, "batch channels height width"]:
        """The flow's velocity ``x1 - x0`` (noise minus picture) at noise level ``sigma``, a number or ``[batch]``."""
        timestep = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32).expand(len(latents)) * 1000
        return self.transformer(
            hidden_states=latents,
            encoder_hidden_states=prompt_embeds,
            pooled_projections=pooled,
            timestep=timestep,
            return_dict=False,
        )[0]

    def decode(self, latents: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """Pictures in [-1, 1] of latents; keeps the gradient."""
        config = self.vae.config
        return self.vae.decode(latents / config.scaling_factor + config.shift_factor).sample.clamp(-1, 1)

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels of a sampler with so many steps, from 1 down to 0, shifted as the scheduler says."""
        sigma = torch.linspace(1, 0, steps + 1)
        shift = self.scheduler.config.shift
        return shift * sigma / (1 + (shift - 1) * sigma)

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        *,
        steps: int = 10,
        guidance_scale: float = 1.0,
        batch_size: int = 128,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures by Euler steps of the flow's ODE, one random stream a sample."""
        pictures = []
        for start in range(0, len(prompts), batch_size):
            texts, part = prompts[start : start + batch_size], seeds[start : start + batch_size]
            latents = initial_noise(part, self.latent_shape).to(self.device)
            embeds, pooled = self.encode(texts)
            if guidance_scale != 1:
                empty = self.encode([""] * len(texts))
            sigmas = self.sigmas(steps)
            for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
                velocity = self.velocity(latents, sigma, embeds, pooled)
                if guidance_scale != 1:
                    unconditional = self.velocity(latents, sigma, *empty)
                    velocity = unconditional + guidance_scale * (velocity - unconditional)
                latents = latents + (following - sigma) * velocity
            pictures.append(self.decode(latents))
        return torch.cat(pictures)


def initial_noise(seeds: list[int], shape: tuple[int, ...]) -> Float[Tensor, "batch ..."]:
    """Standard normal noise, one generator a sample, so that a sample does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds])


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
    return ImageGenerator(transformer, vae, FlowMatchEulerDiscreteScheduler(shift=1.0), PromptEncoder(width=text_width))
