"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv 2403.03206) as diffusers has them, as a policy's generator."""

from __future__ import annotations

import copy
import gc
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelpolicy.errors import CheckpointError, PromptError, SizeError
from pixelpolicy.pipelines.lora import sharing_copy, with_lora
from pixelpolicy.pipelines.quiet import quiet
from pixelpolicy.pipelines.sd3_config import FETCH, LICENCE, REPOSITORY, UNNEEDED
from pixelpolicy.pipelines.sd3_twin import twin
from pixelpolicy.policies.transitions import ode
from pixelpolicy.profiles import rehearsing

if TYPE_CHECKING:
    from diffusers import StableDiffusion3Pipeline

__all__ = ["TARGETS", "SD3Generator", "load", "load_for_profile", "twin"]

# The projections of the joint attention, as Flow-GRPO adapts them (Liu et al. 2025, arXiv 2505.05470).
TARGETS = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")


@dataclass(eq=False)
class SD3Generator:
    """A pipeline as `policies.denoising.Denoiser` wants it; it draws pictures of ``height`` x ``width`` pixels.

    ``template`` is what a prompt is set into, at ``{prompt}``; the empty prompt stays empty. Each prompt is encoded
    once and alone, so that its embedding does not depend on its company; embeddings are kept on the CPU, and a
    generator, its students and its references share them. ``decode_batch`` latents are decoded at a time; by default
    8, and one on the CPU, where its intermediate pictures then stay in the cache.

    Raises `SizeError` for a size that the model cannot draw, `PromptError` for a template without ``{prompt}``.
    """

    pipeline: StableDiffusion3Pipeline
    height: int = 512
    width: int = 512
    template: str = "{prompt}"
    max_sequence_length: int = 256
    decode_batch: int | None = None
    transformer: nn.Module | None = None
    base: SD3Generator | None = None
    embeddings: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    latest: dict[tuple, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.transformer is None:
            self.transformer = self.pipeline.transformer
        if "{prompt}" not in self.template:
            raise PromptError(f'the template {self.template!r} has no place for the prompt: write "{{prompt}}" into it')
        config, scale = self.transformer.config, self.pipeline.vae_scale_factor
        unit, most = scale * config.patch_size, scale * config.patch_size * config.pos_embed_max_size
        for side in (self.height, self.width):
            if side % unit or not 0 < side <= most:
                raise SizeError(
                    f"pictures of {self.height} x {self.width} were asked for; this model draws sides that are "
                    f"multiples of {unit} up to {most}. Choose height and width among them."
                )

    @property
    def device(self) -> torch.device:
        return self.transformer.proj_out.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the network computes; an adapter's is float32 whatever this is."""
        return self.transformer.proj_out.weight.dtype

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        scale = self.pipeline.vae_scale_factor
        return self.transformer.config.in_channels, self.height // scale, self.width // scale

    # Weights -----------------------------------------------------------------------------------------------------

    def student(self, rank: int = 32, alpha: float = 64, *, seed: int = 0) -> SD3Generator:
        """The same generator with a LoRA to train, which changes nothing yet; the frozen weights are shared.

        Rank and alpha are Flow-GRPO's. A student's student goes on from a copy of its adapter, of whatever rank.
        """
        if self.base is not None:
            return replace(self, transformer=sharing_copy(self.transformer))
        return replace(
            self, transformer=with_lora(self.transformer, TARGETS, rank=rank, alpha=alpha, seed=seed), base=self
        )

    def reference(self) -> SD3Generator:
        """The generator without the adapter: the very same weights, which nothing trains."""
        return self.base or self

    # Prompts -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def remember(self, prompts: Iterable[str]) -> None:
        """Encode prompts that will be asked for, and the empty one. Raises `PromptError` without text encoders."""
        for prompt in dict.fromkeys(["", *prompts]):
            if prompt in self.embeddings:
                continue
            if self.pipeline.text_encoder is None:
                raise PromptError(
                    f"the prompt {prompt!r} is new, and the text encoders were dropped from memory. Give remember() "
                    f"every prompt before forget_text_encoders(), or load the generator again."
                )
            text = self.template.replace("{prompt}", prompt) if prompt else ""
            embeds, _, pooled, _ = self.pipeline.encode_prompt(
                text, None, None, self.device, do_classifier_free_guidance=False,
                max_sequence_length=self.max_sequence_length,
            )  # fmt: skip
            self.embeddings[prompt] = embeds[0].cpu(), pooled[0].cpu()

    def forget_text_encoders(self) -> None:
        """Drop the text encoders, most of the model's weights, from memory: of students and references too."""
        for name in TEXT_ENCODERS:
            setattr(self.pipeline, name, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch pooled"]]:
        """``(prompt_embeds, pooled)`` of prompts, on the device. Raises `PromptError` as `remember` does."""
        asked = tuple(prompts), self.device, self.dtype
        if asked not in self.latest:  # the steps of a trajectory, and a policy and its reference, ask for the same
            self.remember(prompts)
            places = {prompt: place for place, prompt in enumerate(dict.fromkeys(prompts))}
            rows = torch.tensor([places[prompt] for prompt in prompts], device=self.device)
            # A group asks for one prompt many times: it is copied to the device once.
            parts = (torch.stack(part) for part in zip(*(self.embeddings[prompt] for prompt in places), strict=True))
            found = tuple(part.to(self.device, self.dtype)[rows] for part in parts)
            self.latest.clear()
            self.latest[asked] = found
        return self.latest[asked]

    # Sampling ----------------------------------------------------------------------------------------------------

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

    def decode(self, latents: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """Pictures in [-1, 1] of latents, in the autoencoder's dtype, autocast or not; keeps the gradient."""
        vae = self.pipeline.vae
        with torch.autocast(latents.device.type, enabled=False):
            scaled = latents.to(vae.dtype) / vae.config.scaling_factor + vae.config.shift_factor
            parts = scaled.split(self.decode_batch or (1 if latents.device.type == "cpu" else 8))
            pictures = [vae.decode(part, return_dict=False)[0] for part in parts]
        return torch.cat(pictures).float().clamp(-1, 1)

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels that the pipeline's own scheduler goes through in so many steps, shifted as it says."""
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(steps, device="cpu")
        return scheduler.sigmas

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        *,
        steps: int = 10,
        guidance_scale: float = 1.0,
        batch_size: int = 16,
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pictures by Euler steps of the flow's ODE, one random stream a sample; on the CPU."""
        pictures, sigmas = [], self.sigmas(steps).to(self.device)
        for start in range(0, len(prompts), batch_size):
            texts, part = prompts[start : start + batch_size], seeds[start : start + batch_size]
            streams = [torch.Generator().manual_seed(int(seed)) for seed in part]
            latents = torch.stack([torch.randn(self.latent_shape, generator=s) for s in streams]).to(self.device)
            guided = guidance_scale != 1
            conditioning = self.encode([""] * len(texts) + texts if guided else texts)
            for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
                velocity = self.velocity(torch.cat([latents] * 2) if guided else latents, sigma, *conditioning)
                if guided:
                    unconditional, conditional = velocity.chunk(2)
                    velocity = unconditional + guidance_scale * (conditional - unconditional)
                latents, _ = ode(latents, velocity, sigma, following)
            pictures.append(self.decode(latents).cpu())
        return torch.cat(pictures)


# Loading ----------------------------------------------------------------------------------------------------------


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
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    folder = _find(REPOSITORY if folder_or_id is None else folder_or_id)
    try:
        with quiet():
            from diffusers import StableDiffusion3Pipeline

            kinds = {"vae": vae_dtype, "default": dtype}
            pipeline = StableDiffusion3Pipeline.from_pretrained(folder, dtype=kinds, local_files_only=True)
    except Exception as error:  # whatever the many loaders of a pipeline raise
        raise CheckpointError(
            f"{folder} is no whole Stable Diffusion 3 pipeline ({type(error).__name__}: {error}). Fetch it again with "
            f"`{FETCH}`, or give a folder that `StableDiffusion3Pipeline.save_pretrained` wrote."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    for name in ("transformer", "vae", *TEXT_ENCODERS):
        if (part := getattr(pipeline, name)) is not None:
            part.to(device).eval().requires_grad_(False)
    return SD3Generator(pipeline, height, width, **settings)


def load_for_profile(*, height: int = 512, width: int = 512, **settings) -> SD3Generator:
    """What the profile gpu trains: SD3.5 medium, or in a rehearsal its tiny random twin, which draws 64 x 64."""
    if not rehearsing():
        return load(height=height, width=width, **settings)
    with tempfile.TemporaryDirectory(prefix="pixelpolicy-twin-") as folder:
        return load(twin(folder), height=64, width=64, **settings)


def _find(folder_or_id: str | Path) -> Path:
    """The folder of the weights; `CheckpointError` says how to fetch them where there is none."""
    folder = Path(folder_or_id)
    if folder.is_dir():
        return folder
    if isinstance(folder_or_id, Path) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", folder_or_id):
        raise CheckpointError(
            f"there is no folder {folder}. Give one that `StableDiffusion3Pipeline.save_pretrained` wrote, or the id "
            f"of a repository, such as {REPOSITORY!r}."
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(folder_or_id, local_files_only=True, ignore_patterns=list(UNNEEDED)))
    except (OSError, ValueError) as error:
        command = FETCH.replace(REPOSITORY, folder_or_id)
        terms = (
            f" The model is gated: first accept the {LICENCE} at https://huggingface.co/{REPOSITORY} and log in with "
            f"`hf auth login`."
            if folder_or_id == REPOSITORY
            else ""
        )
        raise CheckpointError(
            f"the weights of {folder_or_id} are not on this machine, or not all of them.{terms} Fetch them with "
            f"`{command}`."
        ) from error
