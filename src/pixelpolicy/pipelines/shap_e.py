"""Shap-E, text to 3D (Jun and Nichol 2023, arXiv 2305.02463), as diffusers has it, as a policy's generator.

Its network predicts the clean latents ``x0`` from a state of a variance-preserving process. diffusers samples it with
Heun's method in the coordinates of Karras et al. (2022, arXiv 2206.00364): ``x_k = x0 + s x1``, at noise levels ``s``
from about 400 down to 0. Heun's step has no noise, and its second half looks back at the first: it is no policy. A
policy takes the *ancestral* step instead. Of the noise ``s^2`` of a state, ``s'^2`` shall remain; draw ``eta^2`` of
what the exact posterior ``q(x_k' | x_k, x0)``, a Gaussian, draws, and keep of the predicted noise what fills the rest:

    x_k' = x0 + sqrt(s'^2 - up^2) x1 + up z,    up^2 = eta^2 s'^2 (s^2 - s'^2) / s^2,    z standard normal

With eta = 0 this is the first half of Heun's step, Euler's: ``x_k + (s' - s) (x_k - x0) / s``. A policy's states are
those of a flow, ``x = (1-sigma) x0 + sigma x1``, and the change of variables

    sigma = s / (1 + s),    x = x_k / (1 + s)

is exact. In it ``(s'/s)^2`` is the ratio in `transitions.ddim_eta`, and ``up / (1 + s')`` its standard deviation: the
ancestral step with its density *is* DDIM's with that eta, and `ddim_eta` is the transition for this model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pixelpolicy.errors import CheckpointError, RolloutError, SizeError
from pixelpolicy.pipelines.generator import PipelineGenerator
from pixelpolicy.pipelines.loading import open_for_profile, open_pipeline
from pixelpolicy.pipelines.shap_e_config import POINTS, RAYS, SOURCE
from pixelpolicy.pipelines.shap_e_twin import twin
from pixelpolicy.profiles import rehearsing

__all__ = ["TARGETS", "ShapEGenerator", "cameras", "load", "load_for_profile", "render", "twin"]

# The projections of attention.
TARGETS = tuple(f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0"))
TWIN_VIEWS, TWIN_POINTS = 2, (4, 8)


@dataclass(eq=False)
class ShapEGenerator(PipelineGenerator):
    """`ShapEPipeline` as a generator of objects, each seen in ``views`` views: see `PipelineGenerator`.

    A sample is ``[views, 3, size, size]``, from cameras that stand evenly round the object; its latents are
    ``[1024, 1024]``: the rows of the weights of a network that says how dense and of what colour each point is.
    ``points`` are looked up on each ray, first evenly and then where those found something.

    The clean latents that the network predicts are clamped, after guidance. So guidance belongs to the generator here:
    set ``guidance``, and leave a policy's ``guidance_scale`` at 1. Rank and alpha are this course's choice. Raises
    `SizeError` also for views that are not square, and for none.
    """

    NETWORK, TARGETS, RANK, ALPHA = "prior", TARGETS, 16, 32
    TEXT_ENCODERS = ("text_encoder",)

    height: int = 64
    width: int = 64
    views: int = 4
    guidance: float = 1.0
    points: tuple[int, int] = POINTS
    checkpointed: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.height != self.width or self.views < 1:
            raise SizeError(
                f"{self.views} views of {self.height} x {self.width} were asked for; this model renders one or more "
                f"square ones, such as 4 of 64 x 64."
            )

    @property
    def latent_shape(self) -> tuple[int, int]:
        return self.transformer.config.num_embeddings, self.transformer.config.embedding_dim

    def sides(self) -> tuple[int, int | None]:
        return 1, None

    def embed(self, text: str) -> tuple[Float[Tensor, "1 width"]]:
        """``(prompt_embeds,)`` of a text; of the empty one zeros, as the pipeline has it for guidance."""
        embeds = self.pipeline._encode_prompt(text, self.device, 1, False)
        return (embeds if text else torch.zeros_like(embeds),)

    def velocity(self, latents, sigma, prompt_embeds) -> Float[Tensor, "batch tokens width"]:
        """The flow's velocity ``x1 - x0`` (noise minus latents) at noise level ``sigma``, a number between 0 and 1 or
        ``[batch]``; in float32, or for latents in float64 in float64.

        Raises `RolloutError` at sigma = 0 and 1, where a prediction of the clean latents has none.
        """
        latents = latents.to(torch.promote_types(latents.dtype, torch.float32))
        sigma = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32).expand(len(latents))
        if not ((sigma > 0) & (sigma < 1)).all():
            raise RolloutError(
                f"a velocity was asked for at sigma from {sigma.min().item():g} to {sigma.max().item():g}; a network "
                f"that predicts the clean latents has one only between 0 and 1. Take the noise levels from `sigmas`."
            )
        levels = sigma[:, None, None].to(latents.dtype)
        states, timesteps = latents / ((1 - levels) ** 2 + levels**2).sqrt(), self.timesteps(sigma)
        guided = self.guidance != 1
        if guided:
            states, timesteps = torch.cat([states, states]), torch.cat([timesteps, timesteps])
            prompt_embeds = torch.cat([torch.zeros_like(prompt_embeds), prompt_embeds])
        predicted = self.transformer(states.to(self.dtype), timesteps, proj_embedding=prompt_embeds, return_dict=False)[
            0
        ][..., : latents.shape[-1]].to(latents.dtype)  # the second half is a variance, which nobody asks for
        if guided:
            unconditional, conditional = predicted.chunk(2)
            predicted = unconditional + self.guidance * (conditional - unconditional)
        config = self.pipeline.scheduler.config
        if config.clip_sample:
            predicted = predicted.clamp(-config.clip_sample_range, config.clip_sample_range)
        return (latents - predicted) / levels

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The flow's noise levels at those of the scheduler in so many steps of Heun, and at last 0.

        Raises `RolloutError` for fewer than 2, which the scheduler would begin at its lowest level.
        """
        if steps < 2:
            raise RolloutError(f"a trajectory of {steps} steps was asked for; this sampler takes at least 2")
        scheduler = copy.deepcopy(self.pipeline.scheduler)
        scheduler.set_timesteps(steps, device="cpu")
        # The scheduler names each level between the first and the last twice, once for either half of Heun's step.
        levels = torch.cat([scheduler.sigmas[::2], scheduler.sigmas[-1:]])
        return levels / (1 + levels)

    def timesteps(self, sigma: Float[Tensor, "batch"]) -> Float[Tensor, "batch"]:
        """Where noise levels lie between the timesteps of training, evenly in their logarithm, as the scheduler has
        it."""
        alphas_cumprod = self.pipeline.scheduler.alphas_cumprod.double()
        table = ((1 - alphas_cumprod) / alphas_cumprod).log().to(sigma.device) / 2
        asked = torch.logit(sigma.double()).clamp(table[0], table[-1])
        upper = torch.searchsorted(table, asked).clamp(1, len(table) - 1)
        below, above = table[upper - 1], table[upper]
        return (upper - 1 + (asked - below) / (above - below)).float()

    def initial_scale(self, steps: int) -> float:
        """How long the scheduler's first state is in the flow's coordinates."""
        return self.sigmas(steps)[0].item()

    def checkpoint_gradients(self, on: bool = True) -> None:
        """Keep less of this generator's rendering for its backward, which then follows the rays again. The gradient
        stays what it was. The network itself has no such way: see `shap_e_config.activation_bytes` for its share."""
        self.checkpointed = on

    def decode(self, latents: Tensor) -> Float[Tensor, "batch views 3 size size"]:
        """Views in [-1, 1] of latents without noise, on white, in the renderer's dtype, autocast or not.

        Keeps the gradient, which `ShapEPipeline` does not: that of colours and densities at the points looked up. Where
        those lie is random, but the same every time; torch's own stream is left alone. In float32 outside; latents in
        float64 give views in float64.
        """
        renderer, seen = self.pipeline.shap_e_renderer, cameras(self.views, self.height)
        rays = seen.camera_rays.to(latents.device, torch.promote_types(renderer.dtype, torch.float32))
        with torch.autocast(latents.device.type, enabled=False), _own_stream(latents.device):
            settings = {"points": self.points, "checkpointed": self.checkpointed}
            colours = [render(renderer, one[None], rays, **settings) for one in latents.to(renderer.dtype)]
        pictures = torch.cat(colours).unflatten(1, (self.views, self.height, self.width)).movedim(-1, 2)
        return (2 * pictures - 1).to(torch.promote_types(latents.dtype, torch.float32)).clamp(-1, 1)

    def generate(self, prompts: list[str], seeds: list[int], *, guidance_scale: float | None = None, **settings):
        """Views by Euler steps, as in `PipelineGenerator.generate`; guidance is ``guidance`` unless it is given."""
        guidance = self.guidance if guidance_scale is None else guidance_scale
        return super(ShapEGenerator, replace(self, guidance=guidance)).generate(prompts, seeds, **settings)


def cameras(views: int, size: int) -> Any:
    """Cameras that look at the origin from evenly round it and a little above, four units away; the first and their
    height are those of `ShapEPipeline`."""
    from diffusers.pipelines.shap_e.camera import DifferentiableProjectiveCamera

    angles = 2 * math.pi * torch.arange(views, dtype=torch.float64) / views
    nothing = torch.zeros_like(angles)
    ahead = torch.stack([angles.sin(), angles.cos(), nothing - 0.5], 1) / math.sqrt(1.25)
    right = torch.stack([angles.cos(), -angles.sin(), nothing], 1)
    down = torch.linalg.cross(ahead, right)
    return DifferentiableProjectiveCamera(
        origin=(-4 * ahead).float(), x=right.float(), y=down.float(), z=ahead.float(),
        width=size, height=size, x_fov=0.7, y_fov=0.7, shape=(1, views),
    )  # fmt: skip


def render(
    renderer: nn.Module,
    latents: Float[Tensor, "1 tokens width"],
    rays: Float[Tensor, "1 rays 2 3"],
    *,
    points: tuple[int, int] = POINTS,
    checkpointed: bool = False,
) -> Float[Tensor, "1 rays 3"]:
    """The colours in [0, 1] that rays (origin, direction) end in, with gradient to the latents of one object.

    The weights that the latents stand for are used, not written into the renderer. Checkpointed, the backward follows
    the rays again. Draws from torch's own stream, and sets it.
    """
    weights = {name.removeprefix("nerstf."): value for name, value in renderer.params_proj(latents).items()}
    names = sorted(weights)

    def colours(part: Tensor, *values: Tensor) -> Tensor:
        return _colours(renderer, dict(zip(names, values, strict=True)), part, points)

    found, values = [], [weights[name][0] for name in names]
    for part in rays.split(RAYS, 1):
        if checkpointed and torch.is_grad_enabled():
            found.append(checkpoint(colours, part, *values, use_reentrant=False))
        else:
            found.append(colours(part, *values))
    return torch.cat(found, 1)


def _colours(renderer: nn.Module, weights: dict[str, Tensor], rays: Tensor, points: tuple[int, int]) -> Tensor:
    """Some points evenly on each ray, then more where those found something; what all of them let through and add."""
    from diffusers.pipelines.shap_e.renderer import ImportanceRaySampler, StratifiedRaySampler, integrate_samples

    origin, direction = rays.unbind(-2)
    span = renderer.volume.intersect(origin, direction)

    def look(places: Tensor, level: str) -> tuple[Tensor, Tensor, Tensor]:
        position = (origin[..., None, :] + places * direction[..., None, :]).to(renderer.dtype)
        told = {"position": position, "direction": None, "ts": places}
        found = torch.func.functional_call(renderer.mlp, weights, kwargs=told | {"nerf_level": level})
        return integrate_samples(span, places, found.density, found.channels)

    with torch.no_grad():
        torch.manual_seed(0)
        coarse = StratifiedRaySampler().sample(span.t0, span.t1, points[0])
        _, shares, _ = look(coarse, "coarse")
        fine = ImportanceRaySampler(span, coarse, shares).sample(span.t0, span.t1, points[1])
        places = torch.cat([coarse, fine], -2).sort(-2).values
    colours, _, let_through = look(places, "fine")
    let_through = torch.where(span.intersected, let_through, 1.0)
    return torch.where(span.intersected, colours, 0.0) + let_through * renderer.void(origin)


@contextmanager
def _own_stream(device: torch.device) -> Iterator[None]:
    """diffusers' rays set torch's seed: let that be forgotten."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def load(
    folder_or_id: str | Path | None = None,
    *,
    height: int = 64,
    width: int = 64,
    dtype: torch.dtype | None = None,
    vae_dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
    **settings,
) -> ShapEGenerator:
    """A generator from a folder or from what was fetched of a repository (by default Shap-E); never downloads.

    On CUDA by default, in bfloat16 but for the renderer, which is in ``vae_dtype``; on the CPU in float32. ``settings``
    are fields of `ShapEGenerator`. Raises `CheckpointError` where the weights are not there: not fetched yet, not
    whole, or of a network that does not predict the clean latents.
    """
    pipeline = open_pipeline(SOURCE, folder_or_id, dtype=dtype, vae_dtype=vae_dtype, device=device)
    if (predicted := pipeline.scheduler.config.prediction_type) != "sample":
        raise CheckpointError(
            f"the network in {folder_or_id} predicts {predicted!r}; give a pipeline whose prediction_type is 'sample', "
            f"such as {SOURCE.repository!r}."
        )
    return ShapEGenerator(pipeline, height, width, **settings)


def load_for_profile(*, height: int = 64, width: int = 64, views: int = 4, **settings) -> ShapEGenerator:
    """What the profile gpu trains: Shap-E, or in a rehearsal its tiny random twin, in 2 views of 64 x 64."""
    if rehearsing():
        views, settings = TWIN_VIEWS, settings | {"points": TWIN_POINTS}
    return open_for_profile(load, twin, height=height, width=width, views=views, **settings)
