"""What the generators of pretrained pipelines share: an adapter to train, prompts that are encoded once, pictures."""

from __future__ import annotations

import gc
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pixelpolicy.errors import PromptError, SizeError
from pixelpolicy.pipelines.lora import sharing_copy, with_lora
from pixelpolicy.policies.transitions import ode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(eq=False)
class PipelineGenerator:
    """A diffusers pipeline as `policies.denoising.Denoiser` wants it; it draws pictures of ``height`` x ``width``.

    ``template`` is what a prompt is set into, at ``{prompt}``; the empty prompt stays empty. Each prompt is encoded
    once and alone, so that its embedding does not depend on its company; embeddings are kept on the CPU, and a
    generator, its students and its references share them. ``decode_batch`` latents are decoded at a time; by default
    8, and one on the CPU, where its intermediate pictures then stay in the cache. ``transformer`` is the network that
    denoises, whatever its kind.

    A kind of pipeline says what its network, text encoders and LoRA are, and has `velocity`, `sigmas`, `sides`
    and `embed`. Raises `SizeError` for a size that the model cannot draw, `PromptError` for a template without
    ``{prompt}``.
    """

    NETWORK: ClassVar[str]
    TARGETS: ClassVar[tuple[str, ...]]
    TEXT_ENCODERS: ClassVar[tuple[str, ...]]
    RANK: ClassVar[int]
    ALPHA: ClassVar[float]

    pipeline: DiffusionPipeline
    height: int = 512
    width: int = 512
    template: str = "{prompt}"
    decode_batch: int | None = None
    transformer: nn.Module | None = None
    base: Self | None = None
    embeddings: dict[str, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)
    latest: dict[tuple, tuple[Tensor, ...]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.transformer is None:
            self.transformer = getattr(self.pipeline, self.NETWORK)
        if "{prompt}" not in self.template:
            raise PromptError(f'the template {self.template!r} has no place for the prompt: write "{{prompt}}" into it')
        unit, most = self.sides()
        for side in (self.height, self.width):
            if side % unit or not 0 < side <= (most or side):
                raise SizeError(
                    f"pictures of {self.height} x {self.width} were asked for; this model draws sides that are "
                    f"multiples of {unit}{f' up to {most}' if most else ''}. Choose height and width among them."
                )

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the network computes; an adapter's is float32 whatever this is."""
        return next(self.transformer.parameters()).dtype  # of the first layer, which no adapter takes

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        scale = self.pipeline.vae_scale_factor
        return self.transformer.config.in_channels, self.height // scale, self.width // scale

    # Of each kind of pipeline -------------------------------------------------------------------------------------

    def sides(self) -> tuple[int, int | None]:
        """``(unit, most)``: the sides of pictures are multiples of ``unit``, up to ``most`` where there is a bound."""
        raise NotImplementedError

    def embed(self, text: str) -> tuple[Tensor, ...]:
        """What the network is told of one text: tensors ``[1, ...]``."""
        raise NotImplementedError

    def velocity(self, latents: Tensor, sigma: Tensor, *conditioning: Tensor) -> Tensor:
        raise NotImplementedError

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        raise NotImplementedError

    def initial_scale(self, steps: int) -> float:
        """What unit noise is multiplied with to be the first state of so many steps; 1 where sampling begins at
        sigma = 1."""
        return 1.0

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents in the units and the form in which the autoencoder made them."""
        config = self.pipeline.vae.config
        return latents / config.scaling_factor + (config.shift_factor or 0)

    # Weights ------------------------------------------------------------------------------------------------------

    def student(self, rank: int | None = None, alpha: float | None = None, *, seed: int = 0) -> Self:
        """The same generator with a LoRA to train, which changes nothing yet; the frozen weights are shared.

        Rank and alpha are by default ``RANK`` and ``ALPHA`` of the kind. A student's student goes on from a copy of its
        adapter, of whatever rank.
        """
        if self.base is not None:
            return replace(self, transformer=sharing_copy(self.transformer))
        rank, alpha = self.RANK if rank is None else rank, self.ALPHA if alpha is None else alpha
        return replace(
            self, transformer=with_lora(self.transformer, self.TARGETS, rank=rank, alpha=alpha, seed=seed), base=self
        )

    def reference(self) -> Self:
        """The generator without the adapter: the very same weights, which nothing trains."""
        return self.base or self

    def checkpoint_gradients(self, on: bool = True) -> None:
        """Keep less of a forward for its backward, which then computes the rest again: of this network, and of the
        autoencoder, which generators of one pipeline share. The gradient stays what it was."""
        for module in (self.transformer, self.pipeline.vae):
            (module.enable_gradient_checkpointing if on else module.disable_gradient_checkpointing)()

    # Prompts ------------------------------------------------------------------------------------------------------

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
            parts = self.embed(self.template.replace("{prompt}", prompt) if prompt else "")
            self.embeddings[prompt] = tuple(part[0].cpu() for part in parts)

    def forget_text_encoders(self) -> None:
        """Drop the text encoders from memory: of students and references too."""
        for name in self.TEXT_ENCODERS:
            setattr(self.pipeline, name, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> tuple[Float[Tensor, "batch ..."], ...]:
        """What the network is told of prompts, on the device. Raises `PromptError` as `remember` does."""
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

    # Sampling -----------------------------------------------------------------------------------------------------

    def decode(self, latents: Tensor) -> Float[Tensor, "batch 3 height width"]:
        """Pictures in [-1, 1] of latents at the last noise level, in the autoencoder's dtype, autocast or not.

        Keeps the gradient. In float32 outside; latents in float64 give pictures in float64.
        """
        vae = self.pipeline.vae
        with torch.autocast(latents.device.type, enabled=False):
            own = self.unscaled(latents.to(vae.dtype))
            parts = own.split(self.decode_batch or (1 if latents.device.type == "cpu" else 8))
            pictures = [vae.decode(part, return_dict=False)[0] for part in parts]
        return torch.cat(pictures).to(torch.promote_types(latents.dtype, torch.float32)).clamp(-1, 1)

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
        pictures, sigmas, scale = [], self.sigmas(steps).to(self.device), self.initial_scale(steps)
        for start in range(0, len(prompts), batch_size):
            texts, part = prompts[start : start + batch_size], seeds[start : start + batch_size]
            streams = [torch.Generator().manual_seed(int(seed)) for seed in part]
            noise = torch.stack([torch.randn(self.latent_shape, generator=s) for s in streams])
            latents = (scale * noise).to(self.device)
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
