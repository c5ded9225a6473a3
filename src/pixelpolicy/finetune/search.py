"""Search without training: best-of-N, importance resampling, Feynman-Kac steering (Singhal et al. 2025, arXiv
2501.06848) and noise optimisation (ReNO, Eyring et al. 2024, arXiv 2406.04312; DNO, Tang et al. 2024, arXiv
2405.18881).

The weights stay as they are; each picture is paid for anew. `Found.evaluations` says with how many evaluations of the
network, the currency in which search and training can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pixelpolicy.errors import RolloutError, TrainingError
from pixelpolicy.finetune.recompute import by_torch
from pixelpolicy.policies.denoising import DenoisingPolicy
from pixelpolicy.policies.transitions import endpoints, ode
from pixelpolicy.rl import Reward
from pixelpolicy.rl.log_probs import at_least_float32

Kind = Literal["difference", "max", "sum"]
BACKWARD = 2  # what a backward pass costs, in evaluations of the network


def importance_weights(rewards: Float[Tensor, "... draws"], beta: float) -> Float[Tensor, "... draws"]:
    """Draws of the base stand for draws of ``p_base exp(r / beta)`` if each counts so much; a row adds up to 1."""
    return torch.softmax(rewards / beta, dim=-1)


def effective_draws(weights: Float[Tensor, "... draws"]) -> Float[Tensor, "..."]:
    """How many equal draws weights ``[..., draws]`` that add up to 1 are worth: ``1 / sum w^2``."""
    return 1 / weights.square().sum(-1)


def systematic_resample(
    weights: Float[Tensor, "rows draws"], offsets: Float[Tensor, "rows"], count: int
) -> Int[Tensor, "rows count"]:
    """Numbers of the draws to go on with, in order: a comb of ``count`` equal teeth, moved by ``offsets`` in [0, 1).

    A draw of weight w is taken ``floor(count w)`` times or once more, and ``count w`` times on average over offsets.
    """
    teeth = (torch.arange(count, device=weights.device) + offsets[:, None]) / count
    ends = weights.cumsum(-1)
    chosen = torch.searchsorted(ends / ends[:, -1:], teeth.to(ends.dtype), right=True)
    return chosen.clamp_max(weights.shape[-1] - 1)  # where rounding leaves the last end below 1


def log_potential(history: Float[Tensor, "looks ..."], kind: Kind, strength: float, last: bool) -> Float[Tensor, "..."]:
    """The logarithm of the Feynman-Kac potential at the latest look, given the rewards of all looks so far.

    ``difference`` asks what was gained since the look before (the first is compared with 0), ``max`` for the best
    look, ``sum`` for all together, each times ``strength``. At the ``last`` look the potentials of a particle's
    history are made to multiply to ``exp(strength * last reward)``, so that every kind has the same target.
    """
    if kind == "difference":
        return strength * (history[-1] - history[-2] if len(history) > 1 else history[-1])
    running = history.cummax(0).values if kind == "max" else history.cumsum(0)
    return strength * (history[-1] - running[:-1].sum(0) if last else running[-1])


def noise_log_density(noise: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch"]:
    """The log-density of the noise's length under a standard normal, up to a constant, per dimension (ReNO, eq. 8):
    ``((d - 1) log |z| - |z|^2 / 2) / d``, greatest at length ``sqrt(d - 1)``."""
    rows = noise.flatten(1)
    squares, size = rows.square().sum(1), rows.shape[1]
    return ((size - 1) * squares.log() / 2 - squares / 2) / size


@dataclass(frozen=True)
class Found:
    """What a search delivers: a sample a prompt, its reward, and the network evaluations that each has cost.

    ``noise`` is the initial noise of each, where the sampler that made it draws no other.
    """

    samples: Tensor
    rewards: Float[Tensor, "prompts"]
    evaluations: int
    noise: Tensor | None = None


@dataclass(frozen=True)
class Pool:
    """Draws of several samples a prompt, with their rewards: what best-of-N and importance resampling choose from."""

    samples: Float[Tensor, "prompts draws ..."]
    rewards: Float[Tensor, "prompts draws"]
    steps: int

    def best(self, count: int) -> Found:
        """Best-of-N: of the first ``count`` draws the one with the highest reward."""
        return self._chosen(self.rewards[:, :count].argmax(1), count)

    def resampled(self, count: int, beta: float, seed: int = 0) -> Found:
        """One of the first ``count`` draws, with a probability in proportion to ``exp(reward / beta)``."""
        offsets = torch.rand(len(self.rewards), generator=torch.Generator().manual_seed(seed))
        return self._chosen(
            systematic_resample(importance_weights(self.rewards[:, :count], beta), offsets, 1)[:, 0], count
        )

    def _chosen(self, draws: Int[Tensor, "prompts"], count: int) -> Found:
        rows = torch.arange(len(draws))
        return Found(self.samples[rows, draws], self.rewards[rows, draws], self.steps * count)


def draw_pool(
    policy: DenoisingPolicy, reward: Reward, prompts: list[str], *, seeds: Int[Tensor, "prompts"], draws: int
) -> Pool:
    """``draws`` samples of each prompt, judged. The first has the prompt's own seed."""
    rollout = policy.rollout(repeat(prompts, draws), seeds=seeds_of(seeds, draws))
    shape = (len(prompts), draws)
    return Pool(
        rollout.samples.unflatten(0, shape), reward(rollout.samples, rollout.prompts).view(shape).cpu(), cost(policy)
    )


@torch.no_grad()
def steer(
    policy: DenoisingPolicy,
    reward: Reward,
    prompts: list[str],
    *,
    seeds: Int[Tensor, "prompts"],
    particles: int = 4,
    strength: float = 10.0,
    kind: Kind = "difference",
    looks: Sequence[int] | None = None,
    deliver: Literal["best", "drawn"] = "best",
    potential: Callable[[Tensor, Kind, float, bool], Tensor] = log_potential,
    resample: Callable[[Tensor, Tensor, int], Tensor] = systematic_resample,
) -> Found:
    """Feynman-Kac steering: particles of one prompt go side by side; at each look those whose picture, as the network
    guesses it there, promises most are doubled and others given up. In the end the particle with the highest reward
    is kept, or one ``drawn`` with its potential, which stands for a draw from ``p_base exp(strength * reward)``.

    A look costs no evaluation of the network, since the velocity that guesses the picture also makes the step; it costs
    a decoding and a reward. ``looks`` are the steps before which to look: by default all stochastic ones but the
    first, where there is only noise. Raises `RolloutError` where one is not stochastic: equal particles stay equal.
    """
    noisy = policy.noisy_steps()
    looks = noisy[1:] if looks is None else list(looks)
    if not looks or set(looks) - set(noisy):
        raise RolloutError(
            f"looks {looks} were asked for; the steps that draw noise are {noisy}, and particles that are doubled "
            "part at no other. Take a transition with noise, and looks among its steps."
        )
    group = max(1, policy.micro_batch // particles)
    samples, rewards = [], []
    for start in range(0, len(prompts), group):
        rows = slice(start, start + group)
        texts, own = prompts[rows], seeds[rows]
        shape, repeated = (len(texts), particles), repeat(texts, particles)
        offsets = torch.Generator().manual_seed(int(own[0]))
        noises, sigmas = policy.draws(seeds_of(own, particles)), policy.generator.sigmas(policy.steps)
        state, conditioning = policy.first_state(next(noises)), policy.conditioning(repeated)
        sigmas, history = sigmas.to(state.device), torch.zeros(0, *shape)
        for step in range(policy.steps):
            state = at_least_float32(state)
            velocity = policy.velocity(state, sigmas[step], conditioning)
            if step in looks:
                guess = endpoints(state, velocity, sigmas[step] - sigmas[-1])[0]
                seen = reward(policy.generator.decode(guess).float(), repeated).view(1, *shape).cpu()
                history = torch.cat([history, seen])
                weights = torch.softmax(potential(history, kind, strength, False), -1)
                chosen = resample(weights, torch.rand(len(texts), generator=offsets), particles)
                history = history.gather(2, chosen.expand(len(history), -1, -1))
                flat = (chosen + particles * torch.arange(len(texts))[:, None]).flatten().to(state.device)
                state, velocity = state[flat], velocity[flat]
            levels = sigmas[step], sigmas[step + 1]
            mean, std = (policy.transition if step in noisy else ode)(state, velocity, *levels)
            state = (mean + std * next(noises) if step in noisy else mean).to(policy.dtype)
        found = policy.generator.decode(at_least_float32(state)).float().cpu()
        judged = reward(found, repeated).view(shape).cpu()
        kept = judged.argmax(1)
        if deliver == "drawn":
            weights = torch.softmax(potential(torch.cat([history, judged[None]]), kind, strength, True), -1)
            kept = resample(weights, torch.rand(len(texts), generator=offsets), 1)[:, 0]
        own_rows = torch.arange(len(texts))
        samples.append(found.unflatten(0, shape)[own_rows, kept])
        rewards.append(judged[own_rows, kept])
    return Found(torch.cat(samples), torch.cat(rewards), cost(policy) * particles)


def optimise_noise(
    policy: DenoisingPolicy,
    reward: Reward,
    prompts: list[str],
    *,
    seeds: Int[Tensor, "prompts"],
    iterations: int = 10,
    learning_rate: float = 40.0,
    gaussian_weight: float = 3.0,
    most: float = 0.1,
    log_density: Callable[[Tensor], Tensor] = noise_log_density,
) -> Found:
    """Climb the reward from the initial noise, through the ODE of all steps, each prompt by itself.

    What is climbed is ``reward + gaussian_weight * log_density(noise)``, by plain gradient ascent with the gradient of
    a sample no longer than ``most``. The noise of the highest reward on the way is kept; the first is the seed's own.
    Each step is taken again for its gradient, so that memory does not grow with the steps. Raises `TrainingError` for
    a reward without gradient.
    """
    if not reward.differentiable:
        raise TrainingError(
            f"reward '{reward.name}' has no gradient. Take a differentiable one, such as a learned proxy of it, or a "
            "search that needs none: best-of-N, steering."
        )
    parts = []
    for start in range(0, len(prompts), policy.micro_batch):
        rows = slice(start, start + policy.micro_batch)
        parts.append(_climb(policy, reward, prompts[rows], seeds[rows], iterations,
                            learning_rate, gaussian_weight, most, log_density))  # fmt: skip
    samples, rewards, noise = (torch.cat(part) for part in zip(*parts, strict=True))
    # a gradient takes the way forward twice and back once; the outcome of the last step is looked at, too
    return Found(samples, rewards, cost(policy) * ((2 + BACKWARD) * iterations + 1), noise)


def _climb(policy, reward, prompts, seeds, iterations, learning_rate, gaussian_weight, most, log_density):
    with torch.no_grad():
        noise, conditioning = next(policy.draws(seeds)), policy.conditioning(prompts)
    best = (torch.empty(0), torch.full((len(prompts),), -torch.inf), noise)
    for iteration in range(iterations + 1):
        noise = noise.detach().requires_grad_()
        last = iteration == iterations
        with torch.set_grad_enabled(not last):
            pictures = picture_of_noise(policy, noise, conditioning)
            rewards = reward(pictures, prompts)
        better = rewards.detach().cpu() > best[1]
        now = pictures.detach().float().cpu(), rewards.detach().cpu(), noise.detach()
        best = now if iteration == 0 else tuple(
            torch.where(better.view(-1, *[1] * (new.ndim - 1)).to(new.device), new, old)
            for new, old in zip(now, best, strict=True)
        )  # fmt: skip
        if not last:
            climbed = rewards.sum() + gaussian_weight * log_density(noise).sum()
            (gradient,) = torch.autograd.grad(climbed, noise)
            lengths = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (noise.ndim - 1))
            noise = noise.detach() + learning_rate * gradient * (most / lengths.clamp_min(most))
    return best[0], best[1], best[2].cpu()


def picture_of_noise(
    policy: DenoisingPolicy, noise: Float[Tensor, "batch ..."], conditioning: tuple[Tensor, ...]
) -> Tensor:
    """The sample that the ODE makes of initial noise, as a function of it; every step is recomputed for its gradient.

    The transition of the policy does not count.
    """
    sigmas = policy.generator.sigmas(policy.steps).to(noise.device)
    state = policy.first_state(noise)
    for step in range(policy.steps):
        state = at_least_float32(state)

        def velocity(at: Tensor, sigma=sigmas[step]) -> Tensor:
            return policy.velocity(at, sigma, conditioning)

        v = by_torch(velocity, state) if torch.is_grad_enabled() else velocity(state)
        state = ode(state, v, sigmas[step], sigmas[step + 1])[0].to(policy.dtype)
    return policy.generator.decode(at_least_float32(state))


def amortised(training: float, picture: float, asked: Float[Tensor, "counts"]) -> Float[Tensor, "counts"]:
    """Evaluations a picture where ``asked`` pictures share those of a training, each costing ``picture`` besides."""
    return picture + training / asked


def worth_training(training: float, searched: float, trained: float) -> float:
    """From how many pictures on training is cheaper than search, where both deliver what is wanted: a picture costs
    ``searched`` evaluations without training and ``trained`` after it. Infinite where training saves nothing."""
    return training / (searched - trained) if searched > trained else float("inf")


def cost(policy: DenoisingPolicy) -> int:
    """Network evaluations a trajectory: guidance asks twice."""
    return policy.steps * (1 if policy.guidance_scale == 1 else 2)


def repeat(prompts: list[str], times: int) -> list[str]:
    return [prompt for prompt in prompts for _ in range(times)]


def seeds_of(seeds: Int[Tensor, "prompts"], draws: int) -> Int[Tensor, "rows"]:
    """A seed for each draw of each prompt, as `generators.best_of` has them; the first is the prompt's own."""
    return (torch.as_tensor(seeds)[:, None] + 10_000_000 * torch.arange(draws)).flatten()
