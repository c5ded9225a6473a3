"""Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): keep a step's input, and take the step again for its
gradient. What is kept grows with the states, not with what a network makes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Step = Callable[[Tensor], Tensor]
Recompute = Callable[[Step, Tensor], Tensor]
Backward = Callable[[Step, Tensor, Sequence[Tensor], Tensor], tuple[Tensor, Sequence[Tensor]]]


def by_torch(step: Step, state: Tensor) -> Tensor:
    """``step(state)`` by torch's own checkpointing, which minds autocast and random numbers too."""
    return checkpoint(step, state, use_reentrant=False)


def backward_by_recomputing(
    step: Step, state: Tensor, parameters: Sequence[Tensor], gradient: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of a step in its state and its parameters, from the ``gradient`` in its outcome: the chain rule.

    Nothing is needed of the way forward but ``state``. A parameter that the step does not use has gradient 0.
    """
    with torch.enable_grad():
        state = state.detach().requires_grad_()
        outcome = step(state)
    found = torch.autograd.grad(outcome, [state, *parameters], gradient, allow_unused=True, materialize_grads=True)
    return found[0], list(found[1:])


def recomputing(backward: Backward, parameters: Iterable[nn.Parameter]) -> Recompute:
    """Checkpointing by a rule of one's own, for steps that depend on these parameters: use it as `by_torch`."""
    parameters = [p for p in parameters if p.requires_grad]
    return lambda step, state: _Recomputed.apply(step, backward, state, *parameters)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, step: Step, backward: Backward, state: Tensor, *parameters: Tensor) -> Tensor:
        ctx.step, ctx.rule = step, backward
        ctx.save_for_backward(state, *parameters)
        return step(state)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        state, *parameters = ctx.saved_tensors
        of_state, of_parameters = ctx.rule(ctx.step, state, parameters, gradient)
        return None, None, of_state, *of_parameters
