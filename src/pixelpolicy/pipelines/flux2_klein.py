"""FLUX.2 klein (Black Forest Labs 2026) as diffusers has it, as a policy's generator.

The autoencoder's latents are cut into patches of 2 x 2, and each of the ``4 x 32`` channels of the patches is
standardised by the running mean and variance of a batch norm. These are a policy's states, ``[128, height / 16,
width / 16]``; the network sees them packed: a row of tokens, one a patch, and the place of each. It predicts the
velocity of a flow. The base model is published with guidance (4 is the pipeline's default). A policy has none unless it
is told, which halves what a step costs.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pixelpolicy.pipelines.flux2_klein_config import SOURCE
from pixelpolicy.pipelines.flux2_klein_twin import twin
from pixelpolicy.pipelines.generator import PipelineGenerator
from pixelpolicy.pipelines.loading import open_for_profile, open_pipeline

__all__ = ["TARGETS", "Flux2KleinGenerator", "load", "load_for_profile", "twin"]

# What diffusers' own script for a LoRA of this model adapts: the picture's projections of attention in the blocks with
# two streams, and all that goes into and out of the attention and the feed-forward of the blocks with one.
TARGETS = tuple(f"attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0", "to_qkv_mlp_proj", "to_out"))


@dataclass(eq=False)
class Flux2KleinGenerator(PipelineGenerator):
    """`Flux2KleinPipeline` as a generator of pictures from text alone: see `PipelineGenerator`.

    Rank and alpha are those of Flow-GRPO for another model. A text is always ``max_sequence_length`` tokens to the
    network, most of them padding, as it is in the pipeline.
    """

    NETWORK, TARGETS, RANK, ALPHA = "transformer", TARGETS, 32, 64
    TEXT_ENCODERS = ("text_encoder",)

    max_sequence_length: int = 512

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        unit, _ = self.sides()
        return self.transformer.config.in_channels, self.height // unit, self.width // unit

    def sides(self) -> tuple[int, int | None]:
        return 2 * self.pipeline.vae_scale_factor, None

    def embed(self, text: str) -> tuple[Float[Tensor, "1 tokens width"]]:
        """``(prompt_embeds,)`` of a text: three layers of the language model side by side."""
        return self.pipeline.encode_prompt(text, self.device, max_sequence_length=self.max_sequence_length)[:1]

    def velocity(self, latents, sigma, prompt_embeds) -> Float[Tensor, "batch channels height width"]:
        """The flow's velocity ``x1 - x0`` (noise minus picture) at noise level ``sigma``, in float32."""
        sigma = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32)
        rows, columns, words = (
            torch.arange(n, device=latents.device) for n in (*latents.shape[-2:], prompt_embeds.shape[1])
        )
        zero = rows[:1]
        tokens = self.transformer(
            hidden_states=latents.to(self.dtype).flatten(2).transpose(1, 2),
            encoder_hidden_states=prompt_embeds,
            timestep=sigma.expand(len(latents)),
            img_ids=torch.cartesian_prod(zero, rows, columns, zero),
            txt_ids=torch.cartesian_prod(zero, zero, zero, words),
            return_dict=False,
        )[0]
        return tokens.float().transpose(1, 2).reshape(latents.shape)

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels that the pipeline goes through in so many steps: the more tokens a picture has, and the
        fewer the steps, the longer they stay high."""
        from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

        scheduler = copy.deepcopy(self.pipeline.scheduler)
        _, height, width = self.latent_shape
        shift = compute_empirical_mu(height * width, steps)
        scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps), mu=shift, device="cpu")
        return scheduler.sigmas

    def unscaled(self, latents: Tensor) -> Float[Tensor, "batch channels height width"]:
        """Latents as the autoencoder made them, before they were standardised and cut into patches."""
        vae = self.pipeline.vae
        mean, variance = (values[:, None, None] for values in (vae.bn.running_mean, vae.bn.running_var))
        return functional.pixel_shuffle(latents * (variance + vae.config.batch_norm_eps).sqrt() + mean, 2)


def load(
    folder_or_id: str | Path | None = None,
    *,
    height: int = 512,
    width: int = 512,
    dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **settings,
) -> Flux2KleinGenerator:
    """A generator from a folder or from what was fetched of a repository (by default the base 4B); never downloads.

    On CUDA by default, in bfloat16; on the CPU in float32. ``settings`` are fields of `Flux2KleinGenerator`. Raises
    `CheckpointError` where the weights are not there: not fetched yet, or not whole.
    """
    pipeline = open_pipeline(SOURCE, folder_or_id, dtype=dtype, vae_dtype=vae_dtype, device=device)
    return Flux2KleinGenerator(pipeline, height, width, **settings)


def load_for_profile(*, height: int = 512, width: int = 512, **settings) -> Flux2KleinGenerator:
    """What the profile gpu trains: FLUX.2 klein base 4B, or in a rehearsal its tiny random twin, of 64 x 64."""
    return open_for_profile(load, twin, height=height, width=width, **settings)
