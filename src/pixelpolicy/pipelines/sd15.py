"""Stable Diffusion 1.5 (Rombach et al. 2022, arXiv 2112.10752) as diffusers has it, as a policy's generator.

Its UNet predicts the noise of a variance-preserving process, ``x_vp = sqrt(abar) x0 + sqrt(1-abar) x1``, at one of a
thousand timesteps. A policy's states are those of a flow, ``x = (1-sigma) x0 + sigma x1``. The change of variables

    abar = (1-sigma)^2 / ((1-sigma)^2 + sigma^2),    x_vp = x / sqrt((1-sigma)^2 + sigma^2)

is exact, so that `transitions.ddim_eta` on these states is `DDIMScheduler.step` on those. Two things are unlike a
flow's: sampling begins a little below sigma = 1, where unit noise of the process is shorter in the flow's coordinates
(`initial_scale`), and ends a little above 0, at the scheduler's ``final_alpha_cumprod``: the last step draws noise too.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelpolicy.errors import CheckpointError, RolloutError
from pixelpolicy.pipelines.generator import PipelineGenerator
from pixelpolicy.pipelines.loading import open_for_profile, open_pipeline
from pixelpolicy.pipelines.sd15_config import SOURCE
from pixelpolicy.pipelines.sd15_twin import twin

__all__ = ["TARGETS", "SD15Generator", "load", "load_for_profile", "twin"]

# The projections of attention, within the picture and to the text.
TARGETS = tuple(f"attn{n}.{name}" for n in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0"))


@dataclass(eq=False)
class SD15Generator(PipelineGenerator):
    """`StableDiffusionPipeline` with a `DDIMScheduler` as a generator: see `PipelineGenerator`.

    Rank and alpha are those of the LoRA in DDPO's code for PyTorch (kvablack/ddpo-pytorch), which takes the defaults.
    """

    NETWORK, TARGETS, RANK, ALPHA = "unet", TARGETS, 4, 4
    TEXT_ENCODERS = ("text_encoder",)

    def sides(self) -> tuple[int, int | None]:
        return self.pipeline.vae_scale_factor, None

    def embed(self, text: str) -> tuple[Float[Tensor, "1 tokens width"]]:
        """``(prompt_embeds,)`` of a text."""
        return (self.pipeline.encode_prompt(text, self.device, 1, False)[0],)

    def velocity(self, latents, sigma, prompt_embeds) -> Float[Tensor, "batch channels height width"]:
        """The flow's velocity ``x1 - x0`` (noise minus picture) at noise level ``sigma``, a number below 1 or
        ``[batch]``; in float32, or for latents in float64 in float64.

        The UNet is asked at the timestep nearest to sigma. Raises `RolloutError` at sigma = 1, where all is noise and
        its prediction tells nothing of the picture.
        """
        latents = latents.to(torch.promote_types(latents.dtype, torch.float32))
        sigma = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32).expand(len(latents))
        if not (sigma < 1).all():
            raise RolloutError(
                f"a velocity was asked for at sigma = {sigma.max().item():g}; a network that predicts noise has one "
                f"only below 1. Take the noise levels from `sigmas`."
            )
        timesteps, sigma = self.timesteps(sigma), sigma[:, None, None, None].to(latents.dtype)
        noise = self.transformer(
            (latents / _length(sigma)).to(self.dtype),
            timesteps,
            encoder_hidden_states=prompt_embeds,
            return_dict=False,
        )[0]
        return (noise.to(latents.dtype) - latents) / (1 - sigma)  # x0 is (latents - sigma noise) / (1 - sigma)

    def decode(self, latents: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """Pictures in [-1, 1] of latents at the *last* noise level of `sigmas`, where every trajectory ends.

        A predicted picture ``x0`` is brought there by the ODE: ``x + (sigmas[-1] - sigma) velocity``.
        """
        return super().decode(latents / _length(_sigma(self.pipeline.scheduler.final_alpha_cumprod)))

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The flow's noise levels at the timesteps of DDIM, and at last that of ``final_alpha_cumprod``.

        Raises `RolloutError` for more steps than half the timesteps of training, which leave no room between them.
        """
        most = self.pipeline.scheduler.config.num_train_timesteps // 2
        if not 0 < steps <= most:
            raise RolloutError(f"a trajectory of {steps} steps was asked for; this sampler takes 1 to {most}")
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(steps, device="cpu")
        return _sigma(torch.cat([scheduler.alphas_cumprod[scheduler.timesteps], scheduler.final_alpha_cumprod[None]]))

    def timesteps(self, sigma: Float[Tensor, "batch"]) -> Int[Tensor, "batch"]:
        """The timestep of training whose noise level is nearest."""
        levels = _sigma(self.pipeline.scheduler.alphas_cumprod).to(sigma.device)
        return (sigma[:, None] - levels).abs().argmin(1)

    def initial_scale(self, steps: int) -> float:
        """How long unit noise of the process is in the flow's coordinates, at the first noise level."""
        return _length(self.sigmas(steps)[0]).item()


def _sigma(alphas_cumprod: Tensor) -> Tensor:
    """The flow's noise level at which signal and noise stand as they do at ``alphas_cumprod``."""
    noise = (1 - alphas_cumprod).sqrt()
    return noise / (alphas_cumprod.sqrt() + noise)


def _length(sigma: Tensor) -> Tensor:
    """What a state of the process is multiplied with to be one of the flow."""
    return ((1 - sigma) ** 2 + sigma**2).sqrt()


def load(
    folder_or_id: str | Path | None = None,
    *,
    height: int = 512,
    width: int = 512,
    dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **settings,
) -> SD15Generator:
    """A generator from a folder or from what was fetched of a repository (by default SD 1.5); never downloads.

    On CUDA by default, in bfloat16; on the CPU in float32. Whatever scheduler is in the folder, DDIM takes its noise
    levels, with timesteps ``leading``; the filter of pictures is left out. ``settings`` are fields of `SD15Generator`.
    Raises `CheckpointError` where the weights are not there: not fetched yet, not whole, or of a network that does not
    predict the noise.
    """
    no_filter = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = open_pipeline(SOURCE, folder_or_id, dtype=dtype, vae_dtype=vae_dtype, device=device, **no_filter)
    config = pipeline.scheduler.config
    if (predicted := config.get("prediction_type", "epsilon")) != "epsilon":
        raise CheckpointError(
            f"the network in {folder_or_id} predicts {predicted!r}; give a Stable Diffusion 1.x pipeline, whose "
            f"prediction_type is 'epsilon', such as {SOURCE.repository!r}."
        )
    from diffusers import DDIMScheduler

    settled = {"timestep_spacing": "leading", "clip_sample": False, "thresholding": False}
    pipeline.scheduler = DDIMScheduler.from_config(config, **settled)
    return SD15Generator(pipeline, height, width, **settings)


def load_for_profile(*, height: int = 512, width: int = 512, **settings) -> SD15Generator:
    """What the profile gpu trains: SD 1.5, or in a rehearsal its tiny random twin, which draws 64 x 64."""
    return open_for_profile(load, twin, height=height, width=width, **settings)
