"""Small policies of control: one chooses among actions, one draws them from a Gaussian. Both know their density.

A policy of control answers four questions about observations ``[batch, size]``: ``act`` (draw actions, with their
log-probabilities), ``log_prob`` (of given actions, with gradient), ``entropy`` and ``greedy``.
"""

from __future__ import annotations

import math

import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.control.environments import action_count, action_size, observation_size
from pixelpolicy.errors import ControlError
from pixelpolicy.rl import categorical_log_prob, gaussian_log_prob


def mlp(*sizes: int, last_gain: float = 1.0, stream: torch.Generator | None = None) -> nn.Sequential:
    """Linear layers of these sizes with tanh between them: orthogonal weights, biases of 0.

    ``last_gain`` scales the last layer: 0.01 makes a policy that begins almost undecided (Andrychowicz et al. 2021).
    """
    layers: list[nn.Module] = []
    for number, (size, following) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        last = number == len(sizes) - 2
        linear = nn.Linear(size, following)
        nn.init.orthogonal_(linear.weight, last_gain if last else math.sqrt(2), generator=stream)
        nn.init.zeros_(linear.bias)
        layers += [linear] if last else [linear, nn.Tanh()]
    return nn.Sequential(*layers)


class Scaled(nn.Module):
    """Divides observations by ``scale``, so that a speed of 8 does not drown a cosine."""

    def __init__(self, scale: tuple[float, ...], size: int):
        super().__init__()
        if len(scale) != size:
            raise ControlError(f"observation_scale has {len(scale)} numbers, an observation {size}; give one each")
        self.register_buffer("scale", torch.tensor(scale))

    def forward(self, observations: Float[Tensor, "*batch size"]) -> Float[Tensor, "*batch size"]:
        return observations / self.scale


def _entropy(logits: Float[Tensor, "batch choices"]) -> Float[Tensor, "batch"]:
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)


class CategoricalPolicy(nn.Module):
    """Chooses one of ``actions`` by ``softmax(network(observation))``."""

    def __init__(self, size: int, actions: int, hidden: tuple[int, ...] = (64, 64), *, seed: int):
        super().__init__()
        self.stream = torch.Generator().manual_seed(seed)
        self.network = mlp(size, *hidden, actions, last_gain=0.01, stream=self.stream)

    def act(self, observations: Float[Tensor, "batch size"]) -> tuple[Int[Tensor, "batch"], Float[Tensor, "batch"]]:
        logits = self.network(observations)
        actions = torch.multinomial(logits.softmax(-1), 1, generator=self.stream).squeeze(-1)
        return actions, categorical_log_prob(logits, actions)

    def log_prob(self, observations: Float[Tensor, "batch size"], actions: Int[Tensor, "batch"]) -> Tensor:
        return categorical_log_prob(self.network(observations), actions)

    def entropy(self, observations: Float[Tensor, "batch size"]) -> Float[Tensor, "batch"]:
        """In nats."""
        return _entropy(self.network(observations))

    def log_prob_and_entropy(self, observations: Float[Tensor, "batch size"], actions: Int[Tensor, "batch"]):
        """Both, ``[batch]`` each, for one pass through the network."""
        logits = self.network(observations)
        return categorical_log_prob(logits, actions), _entropy(logits)

    @torch.no_grad()
    def greedy(self, observations: Float[Tensor, "batch size"]) -> Int[Tensor, "batch"]:
        return self.network(observations).argmax(-1)


class GaussianPolicy(nn.Module):
    """Draws actions from ``N(network(observation), std^2)``; the deviation is learnt, the same for every state."""

    def __init__(self, size: int, actions: int, hidden: tuple[int, ...] = (64, 64), *, seed: int, std: float = 1.0):
        super().__init__()
        self.stream = torch.Generator().manual_seed(seed)
        self.network = mlp(size, *hidden, actions, last_gain=0.01, stream=self.stream)
        self.log_std = nn.Parameter(torch.full((actions,), math.log(std)))

    def act(self, observations: Float[Tensor, "batch size"]) -> tuple[Tensor, Float[Tensor, "batch"]]:
        mean = self.network(observations)
        actions = mean + self.log_std.exp() * torch.randn(mean.shape, generator=self.stream)
        return actions, self._density(actions, mean)

    def log_prob(self, observations: Float[Tensor, "batch size"], actions: Float[Tensor, "batch actions"]) -> Tensor:
        return self._density(actions, self.network(observations))

    def entropy(self, observations: Float[Tensor, "batch size"]) -> Float[Tensor, "batch"]:
        """In nats; of the Gaussian, not of the clipped action."""
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum().expand(len(observations))

    def log_prob_and_entropy(self, observations: Float[Tensor, "batch size"], actions: Float[Tensor, "batch actions"]):
        """Both, ``[batch]`` each."""
        return self.log_prob(observations, actions), self.entropy(observations)

    @torch.no_grad()
    def greedy(self, observations: Float[Tensor, "batch size"]) -> Float[Tensor, "batch actions"]:
        return self.network(observations)

    def _density(self, actions: Tensor, mean: Tensor) -> Float[Tensor, "batch"]:
        return gaussian_log_prob(actions, mean, self.log_std.exp().expand_as(mean), reduce="sum")


def policy_for(envs: VectorEnv, *, seed: int, hidden: tuple[int, ...] = (64, 64)) -> CategoricalPolicy | GaussianPolicy:
    """The policy that fits the actions of ``envs``. Raises `ControlError` for spaces that neither fits."""
    size = observation_size(envs)
    if isinstance(envs.single_action_space, spaces.Discrete):
        return CategoricalPolicy(size, action_count(envs), hidden, seed=seed)
    return GaussianPolicy(size, action_size(envs), hidden, seed=seed)
