"""REINFORCE (Williams 1992): play whole episodes, judge each step by what came after it, take one step, play anew.

There is no critic. A step is compared with the other episodes of the batch at the same moment; what was played is
used once. So each iteration needs fresh episodes: chapter 04 says how to get more out of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pixelpolicy.control.environments import evaluate, make
from pixelpolicy.control.mdp import check_discount
from pixelpolicy.control.networks import CategoricalPolicy, GaussianPolicy, policy_for
from pixelpolicy.control.trajectory import Collector
from pixelpolicy.errors import ControlError, TrainingError
from pixelpolicy.rl import discounted_returns, policy_gradient_loss


@dataclass(frozen=True)
class ReinforceConfig:
    """Settings. An iteration plays ``episodes`` whole episodes and takes one step of the optimizer."""

    episodes: int = 32
    iterations: int = 60
    learning_rate: float = 1e-2
    anneal: bool = True  # the learning rate falls to 0 along a line
    discount: float = 0.99
    normalise_advantages: bool = True  # divided by their deviation over the batch
    most_norm: float = 0.5  # of the gradient
    hidden: tuple[int, ...] = (32, 32)
    validate_every: int = 5  # iterations; the best policy by greedy episodes is kept; 0: the last one is
    validation_episodes: int = 50

    def __post_init__(self):
        for name in ("episodes", "iterations", "validation_episodes"):
            if getattr(self, name) < 1:
                raise ControlError(f"{name} is {getattr(self, name)}; give 1 at least")
        if self.episodes < 2:
            raise ControlError("a single episode has no others to be compared with; give 2 at least")
        check_discount(self.discount)


@dataclass
class ReinforceResult:
    """What training leaves: the policy, its mean return on the validation episodes, and a row an iteration."""

    policy: CategoricalPolicy | GaussianPolicy
    validation: float = -math.inf
    log: list[dict[str, float]] = field(default_factory=list)


def mean_at_each_step(
    returns: Float[Tensor, "time batch"], valid: Bool[Tensor, "time batch"]
) -> Float[Tensor, "time batch"]:
    """Baseline: the mean return to go of the episodes that are still played at that step; 0 where none is."""
    playing = valid.to(returns.dtype)
    mean = (returns * playing).sum(1, keepdim=True) / playing.sum(1, keepdim=True).clamp_min(1)
    return mean.expand_as(returns)


def train(
    name: str = "CartPole-v1",
    config: ReinforceConfig = ReinforceConfig(),
    *,
    seed: int,
    loss: Callable[..., Tensor] = policy_gradient_loss,
    returns: Callable[..., Tensor] = discounted_returns,
    baseline: Callable[..., Tensor] = mean_at_each_step,
    report: Callable[[dict[str, float]], None] | None = None,
) -> ReinforceResult:
    """Train on the environment ``name``; ``report`` gets the figures of each iteration.

    ``loss``, ``returns`` and ``baseline`` take what `policy_gradient_loss`, `discounted_returns` and
    `mean_at_each_step` take. Raises `ControlError` for an environment whose spaces fit no policy, `RewardError` for a
    reward that is not finite, `TrainingError` for such a gradient.
    """
    envs = make(name, config.episodes)
    policy = policy_for(envs, seed=seed, hidden=config.hidden)
    optimizer = torch.optim.Adam(policy.parameters(), config.learning_rate)
    collector, result = Collector(envs, seed=seed), ReinforceResult(policy)
    best = policy.state_dict()
    for iteration in range(config.iterations):
        if config.anneal:
            optimizer.param_groups[0]["lr"] = config.learning_rate * (1 - iteration / config.iterations)
        trajectory = collector.episodes(policy.act)
        ends = trajectory.terminated | trajectory.truncated
        to_go = returns(trajectory.rewards, ends, config.discount)
        batch = trajectory.flat(advantages=to_go - baseline(to_go, trajectory.valid))
        if config.normalise_advantages:
            batch["advantages"] = batch["advantages"] / (batch["advantages"].std() + 1e-8)
        norm = improve(policy, optimizer, loss, batch, config.most_norm)
        if not math.isfinite(norm):
            raise TrainingError(
                f"the gradient of iteration {iteration + 1} is {norm}; look at the loss and the returns"
            )
        row = {"iteration": iteration + 1, "steps": len(batch["actions"]), "gradient": norm}
        row["return"] = sum(collector.finished[-config.episodes :]) / config.episodes
        last = iteration + 1 == config.iterations
        if config.validate_every and ((iteration + 1) % config.validate_every == 0 or last):
            # other first states than those of training, and than those of a test with a seed below a million
            played = evaluate(policy.greedy, name, episodes=config.validation_episodes, seed=1_000_000 + seed)
            row["validation"] = played.mean().item()
            if row["validation"] >= result.validation:  # of equals the later, which has seen more
                result.validation, best = row["validation"], copy.deepcopy(policy.state_dict())
        result.log.append(row)
        if report:
            report(row)
    if config.validate_every:
        policy.load_state_dict(best)
    envs.close()
    return result


def improve(policy: nn.Module, optimizer, loss: Callable[..., Tensor], batch: dict[str, Tensor], most: float) -> float:
    """One step along the loss of a batch; the norm of its gradient, of which at most ``most`` is used."""
    log_probs = policy.log_prob(batch["observations"], batch["actions"])
    optimizer.zero_grad()
    loss(log_probs, batch["advantages"]).backward()
    norm = nn.utils.clip_grad_norm_(policy.parameters(), most).item()
    if math.isfinite(norm):
        optimizer.step()
    return norm
