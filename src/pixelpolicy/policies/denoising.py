"""A sampler seen as a policy: the state is the noisy latent, the action is the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.errors import RolloutError
from pixelpolicy.policies.transitions import Transition, cps, ode
from pixelpolicy.rl import Rollout, gaussian_kl, gaussian_log_prob
from pixelpolicy.rl.log_probs import at_least_float32


class Denoiser(Protocol):
    """What a policy asks of a generator; the small ones of `generators` and the real ones of `pipelines` have it.

    A model whose sampling begins below sigma = 1 also has ``initial_scale(steps)``: what unit noise is multiplied with
    to be the first state. Without it that is 1.
    """

    transformer: nn.Module
    device: torch.device
    latent_shape: tuple[int, ...]

    def encode(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """What the network is told of the prompts: tensors ``[batch, ...]``; "" is the empty prompt."""
        ...

    def velocity(self, latents: Tensor, sigma: Tensor, *conditioning: Tensor) -> Tensor:
        """``x1 - x0``, noise minus picture, in float32, for latents in float32; with gradient."""
        ...

    def decode(self, latents: Tensor) -> Any:
        """Samples in the world's own units, of latents at the last of the noise levels; with gradient."""
        ...

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels of a sampler with so many steps, from 1 down to 0; or from a little below to a little above,
        where the model's own process ends there."""
        ...

    def student(self) -> Denoiser:
        """The same generator with weights to train; this one stays as it is."""
        ...

    def reference(self) -> Denoiser:
        """The same generator as it is now, or was before its training, with weights that nothing trains."""
        ...


@dataclass(frozen=True)
class DenoisingPolicy:
    """The denoising steps of a generator as a stochastic policy (Black et al. 2023, arXiv 2305.13301, section 4).

    ``stochastic_steps`` names the steps that draw noise (by default all whose transition has some); the others follow
    the ODE. States are stored in ``dtype``, and a step's density is that of the *stored* next state, so that a replay
    at equal ``micro_batch`` repeats the log-probabilities to the bit.
    """

    generator: Denoiser
    transition: Transition = partial(cps, noise=0.7)
    steps: int = 8
    stochastic_steps: Sequence[int] | None = None
    guidance_scale: float = 1.0
    micro_batch: int = 96
    dtype: torch.dtype = torch.float32
    log_prob_of: Callable[[Tensor, Tensor, Tensor], Tensor] = gaussian_log_prob

    def frozen_copy(self) -> DenoisingPolicy:
        """The same policy on weights that nothing trains: the reference of a KL."""
        return replace(self, generator=self.generator.reference())

    def conditioning(self, prompts: list[str]) -> tuple[Tensor, ...]:
        """What the network is told; with guidance, first of nothing and then of the prompts, in one batch."""
        guided = self.guidance_scale != 1
        return self.generator.encode([""] * len(prompts) + prompts if guided else prompts)

    def velocity(self, latents: Tensor, sigma: Tensor, conditioning: tuple[Tensor, ...]) -> Tensor:
        """The generator's velocity, with guidance where there is some: ``conditioning`` is then of both kinds."""
        if self.guidance_scale == 1:
            return self.generator.velocity(latents, sigma, *conditioning)
        both = self.generator.velocity(torch.cat([latents, latents]), sigma, *conditioning)
        unconditional, conditional = both.chunk(2)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def first_state(self, noise: Tensor) -> Tensor:
        """The first state of a trajectory from unit noise ``[batch, ...]``, on the generator's device, as stored."""
        scale = getattr(self.generator, "initial_scale", lambda steps: 1.0)(self.steps)
        return (scale * noise).to(self.generator.device, self.dtype)

    def gaussian(self, states: Tensor, conditioning: tuple[Tensor, ...], sigmas: Tensor, step: int, stochastic: bool):
        """``(mean, std)`` of the next state by the transition, or by the ODE where the step is not stochastic."""
        transition = self.transition if stochastic else ode
        states = at_least_float32(states.to(self.generator.device))
        sigma, sigma_next = sigmas[step].to(states.device), sigmas[step + 1].to(states.device)
        return transition(states, self.velocity(states, sigma, conditioning), sigma, sigma_next)

    def noisy_steps(self) -> list[int]:
        """The steps that draw noise. Raises `RolloutError` where one was asked for that its transition has none at."""
        sigmas = self.generator.sigmas(self.steps)
        probe = torch.zeros(1)
        able = [
            t
            for t in range(self.steps)
            if sigmas[t + 1] > 0 and self.transition(probe, probe, *sigmas[t : t + 2])[1] > 0
        ]
        wanted = able if self.stochastic_steps is None else sorted(self.stochastic_steps)
        if set(wanted) - set(able):
            raise RolloutError(
                f"steps {sorted(set(wanted) - set(able))} cannot be stochastic: of {self.steps} steps only {able} draw "
                f"noise (one that ends at sigma = 0 never does: its density would be a spike). Choose stochastic_steps "
                f"among them."
            )
        return wanted

    @torch.no_grad()
    def rollout(self, prompts: list[str], *, seeds: Int[Tensor, "batch"]) -> Rollout:
        """Sample one trajectory a prompt, each from its own random stream."""
        if len(prompts) != len(seeds):
            raise RolloutError(f"{len(prompts)} prompts came with {len(seeds)} seeds; give one seed a prompt")
        noisy, sigmas = self.noisy_steps(), self.generator.sigmas(self.steps)
        states, log_probs, samples = [], [], []
        for start in range(0, len(prompts), self.micro_batch):
            rows = slice(start, start + self.micro_batch)
            part = self._trajectories(prompts[rows], seeds[rows], noisy)
            for kept, value in zip((states, log_probs, samples), part, strict=True):
                kept.append(value)
        stochastic = torch.zeros(self.steps, dtype=torch.bool)
        stochastic[noisy] = True
        return Rollout(
            prompts=list(prompts),
            seeds=torch.as_tensor(seeds),
            states=torch.cat(states),
            sigmas=sigmas,
            stochastic=stochastic,
            log_probs=torch.cat(log_probs),
            samples=torch.cat(samples),
        )

    def _trajectories(self, prompts: list[str], seeds: Tensor, noisy: list[int]):
        states, log_probs = [], torch.full((len(prompts), self.steps), float("nan"))
        for step, state, mean, std in self.walk(prompts, seeds=seeds, noisy=noisy):
            if step in noisy:
                log_probs[:, step] = self.log_prob_of(state.float(), mean, std).cpu()
            states.append(state)
        return torch.stack(states, 1).cpu(), log_probs, self.generator.decode(state.float()).float().cpu()

    def draws(self, seeds: Int[Tensor, "batch"]) -> Iterator[Tensor]:
        """Standard normal latents ``[batch, ...]`` without end, one random stream a sample: the first is where a
        trajectory starts, the others are the noise of its stochastic steps in order."""
        streams = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        shape, device = self.generator.latent_shape, self.generator.device
        while True:
            yield torch.stack([torch.randn(shape, generator=stream) for stream in streams]).to(device)

    def walk(
        self, prompts: list[str], *, seeds: Int[Tensor, "batch"], noisy: Sequence[int]
    ) -> Iterator[tuple[int, Tensor, Tensor | None, Tensor | None]]:
        """The states of trajectories one after another: ``(step, state, mean, std)``; ``state`` came of that step.

        The first has step -1 and comes of nothing but noise.
        """
        sigmas, draws = self.generator.sigmas(self.steps), self.draws(seeds)
        state, conditioning = self.first_state(next(draws)), self.conditioning(prompts)
        yield -1, state, None, None
        for step in range(self.steps):
            mean, std = self.gaussian(state, conditioning, sigmas, step, step in noisy)
            state = (mean + std * next(draws) if step in noisy else mean).to(self.dtype)
            yield step, state, mean, std

    def distribution(self, rollout: Rollout, step: int) -> tuple[Tensor, Tensor]:
        """``(mean, std)`` of the next state at one step, with gradient."""
        rollout.log_prob_at(step)  # raises where the step is deterministic
        conditioning = self.conditioning(rollout.prompts)
        return self.gaussian(rollout.states[:, step], conditioning, rollout.sigmas, step, True)

    def log_prob(self, rollout: Rollout, step: int) -> Float[Tensor, "batch"]:
        """Log-probability of the stored next state at one step, with gradient.

        Raises `RolloutError` at a deterministic step, which has no density.
        """
        mean, std = self.distribution(rollout, step)
        return self.log_prob_of(rollout.states[:, step + 1].to(mean.device, torch.float32), mean, std)


@torch.no_grad()
def trajectory_kl(
    policy: DenoisingPolicy, reference: DenoisingPolicy, prompts: list[str], seeds: Int[Tensor, "batch"]
) -> Float[Tensor, "batch"]:
    """KL from ``policy`` to ``reference`` in nats along the policy's own trajectories: exact at every step."""
    rollout, total = policy.rollout(prompts, seeds=seeds), torch.zeros(len(prompts))
    for start in range(0, len(prompts), policy.micro_batch):
        rows = slice(start, start + policy.micro_batch)
        part = rollout.select(rows)
        for step in rollout.stochastic.nonzero().flatten().tolist():
            mean, std = policy.distribution(part, step)
            total[rows] += gaussian_kl(mean, reference.distribution(part, step)[0], std, reduce="sum").cpu()
    return total
