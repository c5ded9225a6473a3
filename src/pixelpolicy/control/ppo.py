"""Proximal policy optimisation (Schulman et al. 2017): an actor, a critic, and several passes over each batch.

Play a little with many copies; judge each step by generalised advantages; take many small steps that the clipped
surrogate holds near the policy that played. Actions may be discrete or Gaussian.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from gymnasium.vector import VectorEnv
from jaxtyping import Float
from torch import Tensor, nn

from pixelpolicy.control.environments import make, observation_size
from pixelpolicy.control.networks import CategoricalPolicy, GaussianPolicy, Scaled, mlp, policy_for
from pixelpolicy.control.trajectory import Collector, advantages
from pixelpolicy.errors import ControlError, TrainingError
from pixelpolicy.rl import clip_fraction, clipped_surrogate, gae


@dataclass(frozen=True)
class PPOConfig:
    """Settings. An iteration plays ``copies * steps`` steps, then passes over them ``epochs`` times."""

    copies: int = 32
    steps: int = 32
    iterations: int = 60
    epochs: int = 10
    minibatches: int = 4
    learning_rate: float = 1e-3
    anneal: bool = True  # the learning rate falls to 0 along a line
    discount: float = 0.98
    lam: float = 0.8
    clip_range: float = 0.2
    entropy_weight: float = 0.0
    value_weight: float = 0.5
    normalise_advantages: bool = True
    reward_scale: float = 1.0  # what the critic sees; returns are reported as the environment pays them
    observation_scale: tuple[float, ...] = ()  # what the networks divide observations by; nothing unless given
    most_norm: float = 0.5  # of the gradient of actor and critic together
    hidden: tuple[int, ...] = (64, 64)

    def __post_init__(self):
        for name, number in vars(self).items():
            if name in ("copies", "steps", "iterations", "epochs", "minibatches") and number < 1:
                raise ControlError(f"{name} is {number}; give 1 at least")
            if name in ("discount", "lam") and not 0 <= number <= 1:
                raise ControlError(f"{name} is {number}; give a number from 0 to 1, such as 0.99")


CARTPOLE = PPOConfig(copies=16, iterations=120, epochs=6, learning_rate=2e-3, entropy_weight=0.001)
PENDULUM = PPOConfig(
    copies=16, steps=64, iterations=120, learning_rate=2e-3, discount=0.95, lam=0.95, reward_scale=0.05,
    observation_scale=(1.0, 1.0, 8.0),
)  # fmt: skip


@dataclass
class PPOResult:
    """What training leaves: the actor, the critic (of scaled rewards), and a row of figures an iteration."""

    policy: CategoricalPolicy | GaussianPolicy
    critic: nn.Sequential
    log: list[dict[str, float]] = field(default_factory=list)


class PPO:
    """The state of training; `iteration` is the whole algorithm.

    ``loss`` and ``estimator`` take what `clipped_surrogate` and `gae` take. Raises `ControlError` for an environment
    that is closed or whose spaces fit neither policy.
    """

    def __init__(self, envs: VectorEnv, config: PPOConfig, *, seed: int, loss=clipped_surrogate, estimator=gae):
        self.config, self.loss, self.estimator = config, loss, estimator
        self.collector = Collector(envs, seed=seed)
        self.policy = policy_for(envs, seed=seed, hidden=config.hidden)
        self.critic = mlp(observation_size(envs), *config.hidden, 1, stream=self.policy.stream)
        if config.observation_scale:
            for network in (self.policy.network, self.critic):
                network.insert(0, Scaled(config.observation_scale, observation_size(envs)))
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, config.learning_rate, eps=1e-5, fused=True)
        self.done = 0

    @property
    def steps(self) -> int:
        """Steps of the environment so far, all copies together."""
        return self.done * self.config.copies * self.config.steps

    def iteration(self) -> dict[str, float]:
        """Play, judge, improve; the figures of this iteration.

        Raises `RewardError` for a reward that is not finite, `TrainingError` for such a gradient.
        """
        config = self.config
        if config.anneal:
            self.optimizer.param_groups[0]["lr"] = config.learning_rate * max(0, 1 - self.done / config.iterations)
        batch = self.play()
        for _ in range(config.epochs):
            order = torch.randperm(len(batch["actions"]), generator=self.policy.stream)
            for rows in order.chunk(config.minibatches):
                self.improve({name: tensor[rows] for name, tensor in batch.items()})
        self.done += 1
        return self.figures(batch)

    @torch.no_grad()
    def play(self) -> dict[str, Tensor]:
        """A batch of steps, each with its advantage and the return that the critic should have foreseen."""
        config = self.config
        trajectory = self.collector.collect(self.policy.act, config.steps)
        values = self.critic(trajectory.observations).squeeze(-1)
        scaled = replace(trajectory, rewards=config.reward_scale * trajectory.rewards)
        judged = advantages(scaled, values, config.discount, config.lam, self.estimator)
        flat = scaled.flat(advantages=judged, returns=judged + values[:-1])
        batch = {name: flat[name] for name in ("observations", "actions", "log_probs", "advantages", "returns")}
        if config.normalise_advantages:
            spread, mean = torch.std_mean(batch["advantages"])
            batch["advantages"] = (batch["advantages"] - mean) / (spread + 1e-8)
        return batch

    def improve(self, batch: dict[str, Tensor]) -> None:
        """One step of the optimizer on the actor's loss, the critic's squared error and the entropy."""
        config, observations = self.config, batch["observations"]
        log_probs, entropy = self.policy.log_prob_and_entropy(observations, batch["actions"])
        loss = self.loss(log_probs, batch["log_probs"], batch["advantages"], config.clip_range)
        errors = self.critic(observations).squeeze(-1) - batch["returns"]
        loss = loss + config.value_weight * errors.square().mean() - config.entropy_weight * entropy.mean()
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, config.most_norm)
        if not math.isfinite(norm):
            raise TrainingError(
                f"the gradient of iteration {self.done} is {norm}; the weights are as they were. "
                "Look at the loss and at the advantages given to it"
            )
        self.optimizer.step()

    @torch.no_grad()
    def figures(self, batch: dict[str, Float[Tensor, "batch"]]) -> dict[str, float]:
        """How far the policy moved, and ``return``: the mean of the last 100 episodes, not a number before any."""
        log_probs, entropy = self.policy.log_prob_and_entropy(batch["observations"], batch["actions"])
        shift = log_probs - batch["log_probs"]
        last = self.collector.finished[-100:]
        return {
            "iteration": self.done,
            "steps": self.steps,
            "return": sum(last) / len(last) if last else math.nan,
            "kl": (shift.exp() - 1 - shift).mean().item(),
            "clip_fraction": clip_fraction(log_probs, batch["log_probs"], self.config.clip_range).item(),
            "entropy": entropy.mean().item(),
        }


def train(
    name: str, config: PPOConfig = CARTPOLE, *, seed: int, loss=clipped_surrogate, estimator=gae,
    report: Callable[[dict[str, float]], None] | None = None,
) -> PPOResult:  # fmt: skip
    """Train on the environment ``name``; ``report`` gets the figures of each iteration. Raises what `PPO` raises."""
    envs = make(name, config.copies)
    ppo = PPO(envs, config, seed=seed, loss=loss, estimator=estimator)
    result = PPOResult(ppo.policy, ppo.critic)
    for _ in range(config.iterations):
        result.log.append(ppo.iteration())
        if report:
            report(result.log[-1])
    envs.close()
    return result
