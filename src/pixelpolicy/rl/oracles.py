"""Closed forms that training should reach: the tilted optimum, exact policy gradients, exact divergences.

A *chain* has ``steps`` steps over ``states`` states and starts in state 0; ``logits [steps, states, states]`` hold, for
each step and present state, the logits of the next state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MOST_SEQUENCES = 1_000_000


def tilted(p: Float[Tensor, "*batch states"], rewards: Float[Tensor, "*batch states"], beta: float) -> Tensor:
    """``p e^(r / beta) / Z``: what maximises ``E[r] - beta KL(. || p)``, ``[*batch states]``.

    Raises `ValueError` if ``p`` is no distribution or ``beta <= 0``.
    """
    _distribution("p", p)
    return (p.log() + rewards / _positive("beta", beta)).softmax(-1)


def tilted_mixture(
    weights: Float[Tensor, "components"],
    means: Float[Tensor, "components"],
    stds: Float[Tensor, "components"],
    slope: float,
    beta: float,
) -> tuple[Float[Tensor, "components"], Float[Tensor, "components"]]:
    """Weights and means of a 1-D Gaussian mixture tilted by the linear reward ``r(x) = slope x``; its stds stay.

    With ``a = slope / beta`` each mean moves by ``a std^2`` and each weight grows by ``e^(a mean + a^2 std^2 / 2)``.
    Raises `ValueError` if the weights are no distribution, or a std or ``beta`` is not positive.
    """
    _distribution("weights", weights)
    if not (stds > 0).all():
        raise ValueError(f"stds are {stds.tolist()}; every component needs a positive one")
    a = slope / _positive("beta", beta)
    log_weights = weights.log() + a * means + 0.5 * a**2 * stds.square()
    return log_weights.softmax(-1), means + a * stds.square()


def chain_distribution(
    logits: Float[Tensor, "steps states states"],
) -> tuple[Int[Tensor, "sequences steps"], Float[Tensor, "sequences"]]:
    """All sequences of a chain and their probabilities, differentiable in ``logits``.

    Raises `ValueError` if the logits are no chain or it has more than a million sequences.
    """
    sequences = _sequences(logits)
    steps = torch.arange(len(logits), device=logits.device)
    log_probs = logits.log_softmax(-1)[steps, _present(sequences), sequences]
    return sequences, log_probs.sum(-1).exp()


def exact_policy_gradient(
    logits: Float[Tensor, "steps states states"], reward_fn: Callable[[Int[Tensor, "sequences steps"]], Tensor]
) -> Float[Tensor, "steps states states"]:
    """Gradient of the expected reward of a chain in its logits: ``sum p(s) r(s) grad log p(s)`` over all sequences.

    ``reward_fn`` maps sequences ``[sequences, steps]`` to ``[sequences]``. The score of a step is the chosen state's
    one-hot vector minus the softmax (Williams 1992). Raises `ValueError` as `chain_distribution` does.
    """
    logits = logits.detach()
    sequences, probabilities = chain_distribution(logits)
    mass = probabilities * reward_fn(sequences).to(logits.dtype)
    present, gradient = _present(sequences), torch.zeros_like(logits)
    for t, conditional in enumerate(logits.softmax(-1)):
        score = F.one_hot(sequences[:, t], logits.shape[-1]) - conditional[present[:, t]]
        gradient[t].index_add_(0, present[:, t], mass[:, None] * score)
    return gradient


def exact_kl(p: Float[Tensor, "*batch states"], q: Float[Tensor, "*batch states"]) -> Float[Tensor, "*batch"]:
    """``KL(p || q) = sum p log(p / q)`` in nats; infinite where q forbids what p does.

    Raises `ValueError` if ``p`` or ``q`` is no distribution.
    """
    _distribution("p", p)
    _distribution("q", q)
    return (torch.xlogy(p, p) - torch.xlogy(p, q)).sum(-1)


def _sequences(logits: Tensor) -> Int[Tensor, "sequences steps"]:
    if logits.ndim != 3 or logits.shape[1] != logits.shape[2]:
        raise ValueError(f"logits have shape {list(logits.shape)}; a chain needs [steps, states, states]")
    steps, states = logits.shape[:2]
    if states**steps > MOST_SEQUENCES:
        raise ValueError(f"{states} states over {steps} steps make {states**steps} sequences; take a shorter chain")
    return torch.cartesian_prod(*[torch.arange(states, device=logits.device)] * steps).reshape(-1, steps)


def _present(sequences: Int[Tensor, "sequences steps"]) -> Int[Tensor, "sequences steps"]:
    return F.pad(sequences[:, :-1], (1, 0))


def _distribution(name: str, p: Tensor) -> None:
    tolerance = 1e-4 if torch.finfo(p.dtype).eps > 1e-10 else 1e-8
    if not ((p >= 0).all() and ((p.sum(-1) - 1).abs() < tolerance).all()):
        raise ValueError(
            f"{name} is no distribution: its entries must not be negative and must sum to 1 along the last axis"
        )


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} is {value}; give a positive number")
    return value
