"""Policy gradients before groups: DDPO (Black et al. 2023, arXiv 2305.13301), DPOK (Fan et al. 2023, arXiv 2305.16381).

Both are the clipped policy gradient of `grpo`, and so of CartPole. They differ in what a reward is compared with: DDPO
remembers the rewards of each prompt; DPOK trains a second network to expect them, and adds a KL to the base.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from pixelpolicy.finetune.grpo import GRPO, GRPOConfig, Judged
from pixelpolicy.finetune.processes import average_gradients
from pixelpolicy.rl import Rollout


class PromptStatistics:
    """Compares a reward with the latest rewards of the same prompt, as DDPO does: ``(r - mean) / (std + 1e-6)``.

    A prompt with fewer than ``least`` remembered rewards is compared with the whole batch.
    """

    def __init__(self, memory: int = 32, least: int = 8):
        self.memory, self.least = memory, least
        self.seen: dict[str, deque[float]] = {}

    def __call__(self, rewards: Float[Tensor, "batch"], prompts: Iterable[str]) -> Float[Tensor, "batch"]:
        """Remember a batch, then the advantages of its samples; no gradient passes."""
        prompts, rewards = list(prompts), rewards.detach()
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            self.seen.setdefault(prompt, deque(maxlen=self.memory)).append(reward)
        batch = rewards.mean().item(), rewards.std(correction=0).item()
        moments = {prompt: self._moments(prompt) or batch for prompt in prompts}
        mean, std = torch.tensor([moments[prompt] for prompt in prompts], dtype=rewards.dtype).unbind(1)
        return (rewards - mean) / (std + 1e-6)

    def _moments(self, prompt: str) -> tuple[float, float] | None:
        values = torch.tensor(list(self.seen[prompt]), dtype=torch.float64)
        return (values.mean().item(), values.std(correction=0).item()) if len(values) >= self.least else None

    def state(self) -> dict[str, Any]:
        """What is remembered, as plain data."""
        return {"seen": {prompt: list(values) for prompt, values in self.seen.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.seen = {prompt: deque(values, self.memory) for prompt, values in state["seen"].items()}


@dataclass
class DDPO(GRPO):
    """DDPO: every stochastic step trained, no KL, rewards compared within a prompt over time.

    ``statistics`` takes the rewards and prompts of a batch and gives its advantages. One that remembers is kept in
    checkpoints if it has ``state`` and ``load_state``, as `PromptStatistics` has.
    """

    config: GRPOConfig = GRPOConfig(trained_steps=1000, kl_weight=0.0)
    statistics: Callable[[Tensor, list[str]], Tensor] = field(default_factory=PromptStatistics)

    def compare(self, judged: Judged) -> Float[Tensor, "rows"]:
        return self.statistics(judged.rewards, judged.prompts)[judged.mine]

    def state(self) -> dict[str, Any]:
        return self.statistics.state() if hasattr(self.statistics, "state") else {}

    def load_state(self, state: dict[str, Any]) -> None:
        if hasattr(self.statistics, "load_state"):
            self.statistics.load_state(state)


class Critic(nn.Module):
    """What reward to expect of a state: latents, their noise level and their prompt to one number each.

    Its network answers in deviations from the mean of the first batch's rewards. One that began at 0 would be
    surprised alike by all rewards, whatever their unit, and its surprise would drown their differences.
    """

    def __init__(self, latent_size: int, prompt_size: int, width: int = 128):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(latent_size + prompt_size + 1, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
            nn.Linear(width, 1),
        )  # fmt: skip
        self.register_buffer("moments", torch.zeros(2))

    def meet(self, rewards: Float[Tensor, "batch"]) -> None:
        """Take mean and standard deviation from the first batch that has some spread."""
        if self.moments[1] == 0:
            self.moments.copy_(torch.stack([rewards.mean(), rewards.std(correction=0)]))

    def forward(
        self, states: Float[Tensor, "batch ..."], sigma: Tensor, prompts: Float[Tensor, "batch width"]
    ) -> Float[Tensor, "batch"]:
        level = sigma.reshape(-1, 1).expand(len(states), 1)
        inputs = torch.cat([states.flatten(1).float(), prompts.flatten(1).float(), level], 1)
        mean, spread = self.moments
        return mean + spread * self.layers(inputs).squeeze(1)


def surprise(
    rewards: Float[Tensor, "batch"], expected: Float[Tensor, "batch steps"], spread: Float[Tensor, ""]
) -> Float[Tensor, "batch steps"]:
    """How much better a picture became than expected at each of its states, in units of ``spread``; no gradient."""
    return ((rewards[:, None] - expected) / (spread + 1e-6)).detach()


def critic_loss(expected: Float[Tensor, "batch steps"], rewards: Float[Tensor, "batch"]) -> Float[Tensor, ""]:
    """Mean squared error of what was expected at each state to the reward that came; gradient to ``expected``."""
    return F.mse_loss(expected, rewards.detach()[:, None].expand_as(expected))


@dataclass
class DPOK(GRPO):
    """DPOK: a critic expects the reward of each state, and the KL to the base is part of the loss.

    ``spread`` in `surprise` is the standard deviation of the whole batch's rewards.
    """

    config: GRPOConfig = GRPOConfig(trained_steps=1000, kl_weight=0.02)
    critic_steps: int = 5
    critic_lr: float = 1e-3
    surprise_of: Callable[[Tensor, Tensor, Tensor], Tensor] = surprise
    critic_loss_of: Callable[[Tensor, Tensor], Tensor] = critic_loss

    def __post_init__(self) -> None:
        super().__post_init__()
        generator = self.policy.generator
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            latent_size, prompt_size = math.prod(generator.latent_shape), generator.encode([""])[-1][0].numel()
            self.critic = Critic(latent_size, prompt_size)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), self.critic_lr)

    def compare(self, judged: Judged) -> Float[Tensor, "rows steps"]:
        """The critic is surprised by the rewards, state by state; then it learns from them."""
        rewards = judged.rewards[judged.mine]
        self.critic.meet(judged.rewards)
        with torch.no_grad():
            advantages = self.surprise_of(rewards, self._expected(judged.rollout), judged.rewards.std(correction=0))
        for _ in range(self.critic_steps):
            self.critic_optimizer.zero_grad()
            self.critic_loss_of(self._expected(judged.rollout), rewards).backward()
            average_gradients(self.critic.parameters())
            self.critic_optimizer.step()
        return advantages

    def _expected(self, rollout: Rollout) -> Float[Tensor, "rows steps"]:
        """The critic's word on the states that the steps begin at."""
        with torch.no_grad():
            prompts = self.policy.generator.encode(rollout.prompts)[-1].cpu()
        levels = zip(rollout.states[:, :-1].unbind(1), rollout.sigmas[:-1], strict=True)
        return torch.stack([self.critic(states, sigma, prompts) for states, sigma in levels], 1)

    def state(self) -> dict[str, Any]:
        return {"critic": self.critic.state_dict(), "optimizer": self.critic_optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"])
        self.critic_optimizer.load_state_dict(state["optimizer"])
