"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206) as diffusers has them, as a policy's generator."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pixelpolicy.pipelines.generator import PipelineGenerator
from pixelpolicy.pipelines.loading import open_for_profile, open_pipeline
from pixelpolicy.pipelines.sd3_config import SOURCE
from pixelpolicy.pipelines.sd3_twin import twin

__all__ = ["TARGETS", "SD3Generator", "load", "load_for_profile", "twin"]

# The projections of the joint attention, as Flow-GRPO adapts them (Liu et al. 2025, arXiv 2505.05470).
TARGETS = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)


@dataclass(eq=False)
class SD3Generator(PipelineGenerator):
    """`StableDiffusion3Pipeline` as a generator: see `PipelineGenerator`. Rank and alpha are Flow-GRPO's."""

    NETWORK, TARGETS, RANK, ALPHA = "transformer", TARGETS, 32, 64
    TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

    max_sequence_length: int = 256

    def sides(self) -> tuple[int, int | None]:
        config, scale = self.transformer.config, self.pipeline.vae_scale_factor
        return scale * config.patch_size, scale * config.patch_size * config.pos_embed_max_size

    def embed(self, text: str) -> tuple[Float[Tensor, "1 tokens width"], Float[Tensor, "1 pooled"]]:
        """``(prompt_embeds, pooled)`` of a text."""
        embeds, _, pooled, _ = self.pipeline.encode_prompt(
            text, None, None, self.device, do_classifier_free_guidance=False,
            max_sequence_length=self.max_sequence_length,
        )  # fmt: skip
        return embeds, pooled

    def velocity(self, latents, sigma, prompt_embeds, pooled) -> Float[Tensor, "batch channels height width"]:
        """The flow's velocity ``x1 - x0`` (noise minus picture) at noise level ``sigma``, in float32."""
        sigma = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32)
        return self.transformer(
            hidden_states=latents.to(self.dtype),
            encoder_hidden_states=prompt_embeds,
            pooled_projections=pooled,
            timestep=sigma.expand(len(latents)) * self.pipeline.scheduler.config.num_train_timesteps,
            return_dict=False,
        )[0].float()

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels that the pipeline's own scheduler goes through in so many steps, shifted as it says."""
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(steps, device="cpu")
        return scheduler.sigmas


def load(
    folder_or_id: str | Path | None = None,
    *,
    height: int = 512,
    width: int = 512,
    dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **settings,
) -> SD3Generator:
    """A generator from a folder or from what was fetched of a repository (by default SD3.5 medium); never downloads.

    On CUDA by default, in bfloat16; on the CPU in float32. ``settings`` are fields of `SD3Generator`. Raises
    `CheckpointError` where the weights are not there: not fetched yet, gated, or not whole.
    """
    pipeline = open_pipeline(SOURCE, folder_or_id, dtype=dtype, vae_dtype=vae_dtype, device=device)
    return SD3Generator(pipeline, height, width, **settings)


def load_for_profile(*, height: int = 512, width: int = 512, **settings) -> SD3Generator:
    """What the profile gpu trains: SD3.5 medium, or in a rehearsal its tiny random twin, which draws 64 x 64."""
    return open_for_profile(load, twin, height=height, width=width, **settings)
