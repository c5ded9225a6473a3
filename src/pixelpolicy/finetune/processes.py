"""Several processes that train one model together: whose part is whose, and what must be put together again.

Alone, all of it is this process's. Accelerate starts the processes; here is only what torch says of them.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor


def place() -> tuple[int, int]:
    """The number of this process, and how many there are."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def total(values: Tensor) -> Tensor:
    """The sum over all processes, on the CPU and the same on each of them."""
    if place()[1] == 1:
        return values.cpu()
    shared = values.to("cuda" if distributed.get_backend() == "nccl" else "cpu", copy=True)
    distributed.all_reduce(shared)
    return shared.cpu()


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace the gradients by their means over all processes: one message for all of them.

    Those of sharded weights (FSDP) are means already.
    """
    count = place()[1]
    grads = [p.grad for p in parameters if p.grad is not None and not isinstance(p.grad, DTensor)]
    if count == 1 or not grads:
        return
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    for grad, mean in zip(grads, (flat / count).split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))
