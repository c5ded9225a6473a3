"""Group-relative advantages: how much better a sample is than its siblings of the same prompt."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from pixelpolicy.errors import GroupError, RewardError

# Published code differs in the standard deviation: (ddof, epsilon).
CONVENTIONS: dict[str, tuple[int, float]] = {
    "flow-grpo": (0, 1e-4),
    "nft": (0, 1e-4),
    "ddpo": (0, 1e-6),
    "dance-grpo": (1, 1e-8),
}
SCALES = ("group", "batch", "none")


def group_advantages(
    rewards: Float[Tensor, "batch"],
    groups: Int[Tensor, "batch"],
    *,
    convention: str = "flow-grpo",
    scale: str = "group",
) -> Float[Tensor, "batch"]:
    """``(r - mean of its group) / (std + epsilon)``, as in GRPO (Shao et al. 2024) and Flow-GRPO (Liu et al. 2025).

    ``groups`` numbers the prompt of each sample. ``convention`` fixes the degrees of freedom and epsilon
    (`CONVENTIONS`). ``scale`` takes the standard deviation over the "group", over all rewards of the "batch", or
    leaves it out ("none"). Where all rewards of a group are equal its advantages are exactly 0. No gradient passes.

    Raises `GroupError` for a group of one, `RewardError` for a reward that is not finite, `ValueError` for an
    unknown convention or scale.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"unknown convention '{convention}'; choose one of {', '.join(CONVENTIONS)}")
    if scale not in SCALES:
        raise ValueError(f"unknown scale '{scale}'; choose one of {', '.join(SCALES)}")
    ddof, epsilon = CONVENTIONS[convention]
    rewards, index, sizes = number_groups(rewards, groups)
    if (sizes < 2).any():
        lonely = groups[(sizes < 2)[index]][0].item()
        raise GroupError(
            f"group {lonely} has one sample, nothing to compare it with; sample at least 2 for each prompt"
        )
    centred = rewards - group_sums(rewards, index, len(sizes))[index] / sizes[index]
    if scale == "group":
        variance = group_sums(centred.square(), index, len(sizes)) / (sizes - ddof)
        centred = centred / (variance.sqrt()[index] + epsilon)
    elif scale == "batch":
        centred = centred / (rewards.std(correction=ddof) + epsilon)
    # Rounding leaves a flat group a spread of its own, which a small epsilon would blow up.
    return centred.masked_fill(_flat(rewards, index, len(sizes))[index], 0.0)


def zero_variance_groups(rewards: Float[Tensor, "batch"], groups: Int[Tensor, "batch"]) -> int:
    """How many groups have equal rewards throughout, and so teach nothing."""
    rewards, index, sizes = number_groups(rewards, groups)
    return int(_flat(rewards, index, len(sizes)).sum())


def group_sums(values: Float[Tensor, "batch"], index: Int[Tensor, "batch"], count: int) -> Float[Tensor, "groups"]:
    """Sum of values by group, where ``index`` numbers the groups 0 to count - 1."""
    return values.new_zeros(count).index_add(0, index, values)


def number_groups(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Checked rewards, the number 0, 1, ... of each sample's group, and the sizes of the groups."""
    if rewards.ndim != 1 or groups.shape != rewards.shape:
        raise GroupError(
            f"rewards of shape {list(rewards.shape)} met groups of shape {list(groups.shape)}; "
            "give one reward and one group number a sample, both [batch]"
        )
    if not rewards.isfinite().all():
        raise RewardError(f"reward {int((~rewards.isfinite()).nonzero()[0])} is not finite; mend the reward first")
    rewards = rewards.detach() if rewards.is_floating_point() else rewards.float()
    _, index, sizes = groups.to(rewards.device).unique(return_inverse=True, return_counts=True)
    return rewards, index, sizes


def _flat(rewards: Tensor, index: Tensor, count: int) -> Tensor:
    empty = rewards.new_zeros(count)
    highest = empty.scatter_reduce(0, index, rewards, "amax", include_self=False)
    return highest == empty.scatter_reduce(0, index, rewards, "amin", include_self=False)
