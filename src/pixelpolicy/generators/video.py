"""A small text-to-video generator: a frame autoencoder, and Wan's own transformer on one token a frame.

`WanTransformer3DModel` is diffusers' own (Wan 2.1), with a small configuration: a clip is a latent video ``[channels,
frames, 1, 1]``, so that attention runs over time alone. On these tokens it takes 1.2 times as long as a transformer
written by hand (`benchmarks/video_throughput.py`), about as long as `SD3Transformer2DModel` does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pixelpolicy.generators.flow import FlowGenerator, PromptEncoder
from pixelpolicy.worlds import bounce

CODE = 32  # numbers a frame


class FrameCodec(nn.Module):
    """Frames to `CODE` numbers and back: a patch embedding at 6x6, convolutions there, and one dense layer.

    The code is wide enough to keep a disc from a square. `fit_scale` brings codes to mean 0 and variance 1.
    """

    def __init__(self, code: int = CODE, width: int = 32):
        super().__init__()
        self.config = {"code": code, "width": width}
        self.inwards = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(36 * width, code),
        )
        self.outwards = nn.Sequential(
            nn.Linear(code, 256),
            nn.SiLU(),
            nn.Linear(256, 36 * width),
            nn.SiLU(),
            nn.Unflatten(1, (width, 6, 6)),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 48, 3, padding=1),
            nn.PixelShuffle(4),
        )
        stage = torch.from_numpy(bounce.stage().copy()) * 2 - 1
        self.register_buffer("stage", stage, persistent=False)
        self.register_buffer("mean", torch.zeros(code))
        self.register_buffer("std", torch.ones(code))

    @torch.no_grad()
    def fit_scale(self, clips: Float[Tensor, "batch frames 3 24 24"]) -> None:
        """Set ``mean`` and ``std`` of each number of the code by clips."""
        codes = self.encode_frames(clips.flatten(0, 1))
        self.mean.copy_(codes.mean(0))
        self.std.copy_(codes.std(0).clamp_min(1e-3))

    def encode_frames(self, frames: Float[Tensor, "frames 3 24 24"]) -> Float[Tensor, "frames code"]:
        """Codes as the layers give them, unscaled."""
        return self.inwards(frames - self.stage)

    def decode_frames(self, codes: Float[Tensor, "frames code"]) -> Float[Tensor, "frames 3 24 24"]:
        """Frames of unscaled codes, not clamped."""
        return self.outwards(codes) + self.stage

    def encode(self, clips: Float[Tensor, "batch frames 3 24 24"]) -> Float[Tensor, "batch code frames 1 1"]:
        """Latents of clips, scaled."""
        codes = (self.encode_frames(clips.flatten(0, 1)) - self.mean) / self.std
        return codes.unflatten(0, clips.shape[:2]).transpose(1, 2)[..., None, None]

    def decode(self, latents: Float[Tensor, "batch code frames 1 1"]) -> Float[Tensor, "batch frames 3 24 24"]:
        """Clips in [-1, 1] of latents, of any number of frames; keeps the gradient."""
        codes = latents.flatten(2).transpose(1, 2) * self.std + self.mean
        return self.decode_frames(codes.flatten(0, 1)).unflatten(0, codes.shape[:2]).clamp(-1, 1)

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> FrameCodec:
        codec = cls(**json.loads((folder / "config.json").read_text()))
        codec.load_state_dict(load_file(folder / "model.safetensors"))
        return codec


def one_frame(
    latents: Float[Tensor, "batch code frames 1 1"], rng: np.random.Generator
) -> Float[Tensor, "batch code 1 1 1"]:
    """A random frame of each clip's latents: what VADER decodes, to save the memory of the others."""
    chosen = torch.from_numpy(rng.integers(latents.shape[2], size=len(latents))).to(latents.device)
    return latents[torch.arange(len(latents)), :, chosen].unsqueeze(2)


@dataclass
class VideoGenerator(FlowGenerator):
    """The parts of a text-to-video model; samples are clips ``[batch, frames, 3, 24, 24]`` in [-1, 1]."""

    codec: FrameCodec

    OWN: ClassVar = FlowGenerator.OWN | {"codec": FrameCodec.from_pretrained}

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        return self.transformer.config.in_channels, bounce.FRAMES, 1, 1

    def velocity(self, latents, sigma, prompt_embeds, pooled) -> Float[Tensor, "batch code frames 1 1"]:
        """The flow's velocity at noise level ``sigma``, a number or ``[batch]``. Wan has no use for ``pooled``."""
        timestep = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32).expand(len(latents)) * 1000
        return self.transformer(
            hidden_states=latents, encoder_hidden_states=prompt_embeds, timestep=timestep, return_dict=False
        )[0]

    def decode(self, latents: Tensor) -> Float[Tensor, "batch frames 3 24 24"]:
        """Clips in [-1, 1] of latents; keeps the gradient."""
        return self.codec.decode(latents)


def build(width: int = 96, layers: int = 4, text_width: int = 64) -> VideoGenerator:
    """A fresh generator of clips of the bounce world: one token a frame."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    return VideoGenerator(
        transformer=clip_transformer(CODE, width=width, layers=layers, text_width=text_width),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
        prompt_encoder=PromptEncoder.of(bounce, text_width),
        codec=FrameCodec(),
    )


def clip_transformer(channels: int, *, width: int, layers: int, text_width: int) -> nn.Module:
    """`WanTransformer3DModel` on latents ``[batch, channels, frames, 1, 1]``, a token a frame."""
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 1, 1),
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=channels,
        out_channels=channels,
        text_dim=text_width,
        freq_dim=64,
        ffn_dim=4 * width,
        num_layers=layers,
        cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
        rope_max_seq_len=32,
    )
