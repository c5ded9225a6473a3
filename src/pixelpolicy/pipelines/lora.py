"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft, on a copy that shares its frozen weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of a module that holds the *same* frozen tensors and has its own of those that are trained."""
    frozen = {id(t): t for t in chain(module.parameters(), module.buffers()) if not t.requires_grad}
    return copy.deepcopy(module, frozen)


def with_lora(module: nn.Module, targets: Sequence[str], *, rank: int, alpha: float, seed: int = 0) -> nn.Module:
    """A copy of a frozen diffusers model with a LoRA in its linear layers whose names end in ``targets``.

    The copy shares the model's weights and costs no memory but the adapter's. The adapter is in float32, whatever the
    model's dtype, and begins as nothing: A is Gaussian from ``seed``, B is 0. Nothing but the adapter is trained.
    """
    from peft import LoraConfig

    adapted = sharing_copy(module)
    # Of layers alone: elsewhere a name may be that of a list of them, which can have no adapter.
    ends = tuple(f".{target}" for target in targets)
    parts = adapted.named_modules()
    layers = [name for name, part in parts if isinstance(part, nn.Linear) and f".{name}".endswith(ends)]
    config = LoraConfig(r=rank, lora_alpha=alpha, init_lora_weights="gaussian", target_modules=layers)
    with torch.random.fork_rng(devices=[]):  # torch's own stream goes on as if nothing had been drawn
        torch.manual_seed(seed)
        adapted.add_adapter(config)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted
