"""What a published model weighs, counted on the meta device: no weight is made, and nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pixelpolicy.pipelines.lora import with_lora


@dataclass(frozen=True)
class Footprint:
    """Gigabytes (10^9 bytes), by counting: on disk, while the model loads, while a LoRA trains, and a sample's share.

    ``training`` holds weights, gradients and the optimiser's state; ``sample`` comes on top of it for each sample of a
    micro-batch, and twice with guidance. Temporary buffers are not counted.
    """

    disk: float
    loading: float
    training: float
    sample: float


def parameter_counts(
    modules: Callable[[], dict[str, nn.Module]], network: str, targets: Sequence[str], rank: int
) -> dict[str, int]:
    """Parameters of each of a pipeline's networks, and of a ``lora`` of that rank in the one that denoises.

    Tensors that are kept but not trained, such as a table of positions, count too: they are on disk.
    """
    with torch.device("meta"):
        parts = modules()
    counts = {name: _stored(part) for name, part in parts.items()}
    adapted = student(parts[network], targets, rank)
    return counts | {"lora": sum(p.numel() for p in adapted.parameters() if p.requires_grad)}


def footprint(counts: dict[str, int], network: str, sample: int, *, stored: int, decoder: str = "vae") -> Footprint:
    """From `parameter_counts` and the bytes that one sample keeps; files hold ``stored`` bytes a weight.

    Loaded, a weight takes 2 bytes (bfloat16), the decoder's 4. A LoRA takes five float32 values for each of its
    weights: the weight, its gradient, Adam's two moments and the moving average. The text encoders are dropped before
    training.
    """
    weights = {name: count for name, count in counts.items() if name != "lora"}
    loading = 2 * sum(weights.values()) + 2 * counts[decoder]
    training = 2 * counts[network] + 4 * counts[decoder] + 20 * counts["lora"]
    return Footprint(stored * sum(weights.values()) / 1e9, loading / 1e9, training / 1e9, sample / 1e9)


def student(network: nn.Module, targets: Sequence[str], rank: int, dtype: torch.dtype | None = None) -> nn.Module:
    """A network on the meta device, frozen and in ``dtype``, with a LoRA in float32."""
    for parameter in network.parameters():
        parameter.requires_grad_(False).data = parameter.data.to(dtype)
    with torch.device("meta"):
        return with_lora(network, targets, rank=rank, alpha=2 * rank)


def kept_bytes(forward: Callable[[], Tensor], attention: Callable[[torch.Size], bool]) -> int:
    """Bytes of what a forward made and did not let go: what its backward needs. ``attention`` tells by its shape (of
    more than two dimensions) what does not count, because the kernels for CUDA do not keep it."""
    watch = _Watch(attention)
    with watch:
        output = forward()
    assert output.requires_grad
    return sum(size for made, size in watch.made.values() if not made.expired())


class _Watch(TorchDispatchMode):
    """Takes down the storages that are made while it looks on, by their address, which a weak reference keeps taken."""

    def __init__(self, attention: Callable[[torch.Size], bool]):
        super().__init__()
        self.attention = attention
        self.made: dict[int, tuple[StorageWeakRef, int]] = {}
        self.given: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        for tensor in _tensors((args, kwargs)):
            if (place := tensor.untyped_storage()._cdata) not in self.made:
                self.given.add(place)  # a weight or an input, which was there before
        results = function(*args, **(kwargs or {}))
        for tensor in _tensors(results):
            storage = StorageWeakRef(tensor.untyped_storage())
            counts = not (tensor.ndim > 2 and self.attention(tensor.shape))
            if storage.cdata not in self.given and (storage.cdata not in self.made or not counts):
                self.made[storage.cdata] = storage, tensor.untyped_storage().nbytes() if counts else 0
        return results


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _stored(module: nn.Module) -> int:
    """Numbers in a module's state, those that two names share counted once."""
    return sum(value.numel() for value in {id(v): v for v in module.state_dict(keep_vars=True).values()}.values())
