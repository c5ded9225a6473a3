"""Wan 2.1, text to video (arXiv 2503.20314), as diffusers has it, as a policy's generator.

The network predicts the velocity of a flow, so that a policy's states and noise levels are the model's own. Published
with the model is another sampler, UniPC, whose step of second order looks back at the steps before it: it has no
density that depends on one state alone. A policy therefore goes through the levels of Euler's sampler for flows,
with the shift that UniPC has.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelpolicy.errors import CheckpointError, SizeError
from pixelpolicy.pipelines.generator import PipelineGenerator
from pixelpolicy.pipelines.loading import open_for_profile, open_pipeline
from pixelpolicy.pipelines.wan_config import SOURCE
from pixelpolicy.pipelines.wan_twin import twin
from pixelpolicy.profiles import rehearsing

__all__ = ["TARGETS", "WanGenerator", "load", "load_for_profile", "twin"]

# The projections of attention, within the clip and to the text, as Flow-GRPO's code adapts them.
TARGETS = tuple(f"attn{n}.{name}" for n in (1, 2) for name in ("to_q", "to_k", "to_v", "to_out.0"))
TWIN_FRAMES = 9


@dataclass(eq=False)
class WanGenerator(PipelineGenerator):
    """`WanPipeline` as a generator of clips with ``frames`` frames: see `PipelineGenerator`.

    A clip is ``[frames, 3, height, width]``, its latents are ``[16, (frames - 1) / 4 + 1, height / 8, width / 8]``.
    Rank and alpha are those of Flow-GRPO's code for this model. Clips are decoded one at a time by default. Raises
    `SizeError` also where ``frames`` is not one more than a multiple of 4.
    """

    NETWORK, TARGETS, RANK, ALPHA = "transformer", TARGETS, 32, 64
    TEXT_ENCODERS = ("text_encoder",)

    frames: int = 33
    max_sequence_length: int = 512
    checkpointed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        stride = self.pipeline.vae_scale_factor_temporal
        if self.frames < 1 or self.frames % stride != 1:
            raise SizeError(
                f"clips of {self.frames} frames were asked for; this model draws one frame more than a multiple of "
                f"{stride}. Choose frames among {1 + stride}, {1 + 2 * stride}, {1 + 3 * stride} ..."
            )

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the network computes; that of its norms and tables is float32 whatever this is."""
        return self.transformer.patch_embedding.weight.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        time, space = self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial
        frames = (self.frames - 1) // time + 1
        return self.transformer.config.in_channels, frames, self.height // space, self.width // space

    def sides(self) -> tuple[int, int | None]:
        return self.pipeline.vae_scale_factor_spatial * self.transformer.config.patch_size[1], None

    def embed(self, text: str) -> tuple[Float[Tensor, "1 tokens width"]]:
        """``(prompt_embeds,)`` of a text."""
        settings = {"do_classifier_free_guidance": False, "max_sequence_length": self.max_sequence_length}
        return (self.pipeline.encode_prompt(text, device=self.device, **settings)[0],)

    def velocity(self, latents, sigma, prompt_embeds) -> Float[Tensor, "batch channels frames height width"]:
        """The flow's velocity ``x1 - x0`` (noise minus clip) at noise level ``sigma``, in float32."""
        sigma = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32)
        return self.transformer(
            hidden_states=latents.to(self.dtype),
            timestep=sigma.expand(len(latents)) * self.pipeline.scheduler.config.num_train_timesteps,
            encoder_hidden_states=prompt_embeds,
            return_dict=False,
        )[0].float()

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels of Euler's sampler in so many steps, with the model's shift."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(steps, device="cpu")
        return scheduler.sigmas

    def checkpoint_gradients(self, on: bool = True) -> None:
        """Keep less of a forward for its backward, which then computes the rest again: of this network, and of each
        frame of latents that this generator decodes. The gradient stays what it was."""
        self.checkpointed = on
        (self.transformer.enable_gradient_checkpointing if on else self.transformer.disable_gradient_checkpointing)()

    def decode(self, latents: Tensor) -> Float[Tensor, "batch frames 3 height width"]:
        """Clips in [-1, 1] of latents at the last noise level, in the autoencoder's dtype, autocast or not.

        Keeps the gradient. In float32 outside; latents in float64 give clips in float64.
        """
        vae = self.pipeline.vae
        mean, std = (
            torch.tensor(values, dtype=vae.dtype, device=latents.device)[:, None, None, None]
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        with torch.autocast(latents.device.type, enabled=False):
            parts = (latents.to(vae.dtype) * std + mean).split(self.decode_batch or 1)
            clips = torch.cat([decoded(vae, part, checkpointed=self.checkpointed) for part in parts])
        return clips.transpose(1, 2).to(torch.promote_types(latents.dtype, torch.float32)).clamp(-1, 1)


def decoded(
    vae: nn.Module, latents: Float[Tensor, "batch channels frames height width"], *, checkpointed: bool = False
) -> Float[Tensor, "batch 3 frames height width"]:
    """What Wan's autoencoder makes of latents in its own units, one frame of them after another: each takes over what
    the convolutions over time kept of those before. Checkpointed, the backward computes each frame again."""
    vae.clear_cache()
    kept, frames = vae._feat_map, []

    def one_frame(latent: Tensor, first: bool, *kept: Tensor | str | None):
        kept = [*kept]
        return vae.decoder(latent, feat_cache=kept, feat_idx=[0], first_chunk=first), *kept

    for place, latent in enumerate(vae.post_quant_conv(latents).split(1, 2)):
        if checkpointed and torch.is_grad_enabled():
            frame, *kept = checkpoint(one_frame, latent, place == 0, *kept, use_reentrant=False)
        else:
            frame, *kept = one_frame(latent, place == 0, *kept)
        frames.append(frame)
    return torch.cat(frames, 2)


def load(
    folder_or_id: str | Path | None = None,
    *,
    height: int = 240,
    width: int = 416,
    frames: int = 33,
    dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **settings,
) -> WanGenerator:
    """A generator from a folder or from what was fetched of a repository (by default Wan2.1-T2V-1.3B); never downloads.

    On CUDA by default, in bfloat16; on the CPU in float32. Whatever scheduler is in the folder, that of Euler takes its
    place, with the same shift. ``settings`` are fields of `WanGenerator`. Raises `CheckpointError` where the weights
    are not there: not fetched yet, not whole, or of a model with two networks (Wan2.2) or with an image to begin from.
    """
    pipeline = open_pipeline(SOURCE, folder_or_id, dtype=dtype, vae_dtype=vae_dtype, device=device)
    later = pipeline.transformer_2 is not None or pipeline.config.expand_timesteps
    if later or pipeline.transformer.config.in_channels != pipeline.vae.config.z_dim:
        raise CheckpointError(
            f"the model in {folder_or_id} is none that Wan2.1 makes of text alone: it has two networks, a noise level "
            f"for each patch, or an image to begin from. Give a pipeline such as {SOURCE.repository!r}."
        )
    from diffusers import FlowMatchEulerDiscreteScheduler

    config = pipeline.scheduler.config
    shift = config.get("flow_shift", config.get("shift", 1.0))
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(config.num_train_timesteps, shift=shift)
    return WanGenerator(pipeline, height, width, frames=frames, **settings)


def load_for_profile(*, height: int = 240, width: int = 416, frames: int = 33, **settings) -> WanGenerator:
    """What the profile gpu trains: Wan2.1-T2V-1.3B, or in a rehearsal its tiny random twin: 9 frames of 64 x 64."""
    frames = TWIN_FRAMES if rehearsing() else frames
    return open_for_profile(load, twin, height=height, width=width, frames=frames, **settings)
