"""Group advantages against Python's statistics module, and the conventions that published code disagrees on."""

import math
import random
import statistics

import pytest
import torch

from pixelpolicy.errors import GroupError, RewardError
from pixelpolicy.rl import CONVENTIONS, group_advantages, zero_variance_groups

# Written out once more: the test must notice a changed table.
PUBLISHED = {"flow-grpo": (0, 1e-4), "nft": (0, 1e-4), "ddpo": (0, 1e-6), "dance-grpo": (1, 1e-8)}
GROUPS = torch.tensor([7, 3, 7, 3, 3, -1, 7, -1, 3, 7, -1, 7])  # unsorted, unequal sizes, any numbers


def rewards_of(seed=0) -> torch.Tensor:
    return torch.randn(len(GROUPS), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow(rewards, groups, ddof, epsilon, scale):
    values, names = rewards.double().tolist(), groups.tolist()
    spread = statistics.stdev if ddof else statistics.pstdev
    result = []
    for value, name in zip(values, names, strict=True):
        siblings = [v for v, g in zip(values, names, strict=True) if g == name]
        centred = value - statistics.fmean(siblings)
        if scale == "none":
            result.append(centred)
        else:
            result.append(centred / (spread(siblings if scale == "group" else values) + epsilon))
    return torch.tensor(result, dtype=torch.float64)


def test_conventions_are_the_published_ones():
    assert CONVENTIONS == PUBLISHED


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
@pytest.mark.parametrize("convention", PUBLISHED)
def test_values(convention, scale):
    rewards = rewards_of()
    expected = slow(rewards, GROUPS, *PUBLISHED[convention], scale)
    given = group_advantages(rewards, GROUPS, convention=convention, scale=scale)
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-10)
    single = group_advantages(rewards.float(), GROUPS, convention=convention, scale=scale)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-6)


def test_the_default_is_flow_grpo_by_group():
    rewards = rewards_of()
    torch.testing.assert_close(
        group_advantages(rewards, GROUPS), slow(rewards, GROUPS, 0, 1e-4, "group"), rtol=0, atol=1e-10
    )


def test_advantages_of_a_group_sum_to_zero():
    advantages = group_advantages(rewards_of(), GROUPS, scale="batch")
    for group in (7, 3, -1):
        assert abs(advantages[GROUPS == group].sum()) < 1e-12


def test_order_does_not_matter():
    rewards, order = rewards_of(), torch.randperm(len(GROUPS), generator=torch.Generator().manual_seed(1))
    shuffled = group_advantages(rewards[order], GROUPS[order])
    torch.testing.assert_close(shuffled, group_advantages(rewards, GROUPS)[order], rtol=0, atol=1e-12)


def test_statistics_of_a_part_are_not_those_of_the_group():
    """Trap 12: two processes that each see half of a group must gather before they normalise."""
    rewards, groups = torch.tensor([0.0, 1.0, 10.0, 11.0]), torch.zeros(4, dtype=torch.long)
    halves = torch.cat([group_advantages(r, groups[:2]) for r in rewards.split(2)])
    assert halves.sign().tolist() == [-1, 1, -1, 1]
    assert group_advantages(rewards, groups).sign().tolist() == [-1, -1, 1, 1]


def test_degrees_of_freedom_move_an_advantage_by_up_to_0_195_at_group_size_6():
    """Trap 7. One winner among six is the extreme case: sqrt(5) against 5 / sqrt(6)."""
    groups = torch.zeros(6, dtype=torch.long)

    def difference(rewards):
        pair = [group_advantages(rewards, groups, convention=name) for name in ("ddpo", "dance-grpo")]
        return (pair[0] - pair[1]).abs().max().item()

    winner = torch.tensor([1, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert difference(winner) == pytest.approx(math.sqrt(5) - 5 / math.sqrt(6), abs=1e-5)
    assert difference(winner) == pytest.approx(0.195, abs=5e-4)
    generator = torch.Generator().manual_seed(0)
    assert all(difference(torch.randn(6, generator=generator, dtype=torch.float64)) < 0.195 for _ in range(200))


def test_a_tiny_epsilon_makes_an_advantage_of_1_3_out_of_a_jitter_of_1e_7():
    """Trap 7: what rounding left is taught as if it were skill."""
    groups, draw = torch.zeros(6, dtype=torch.long), random.Random(0)
    largest = {"dance-grpo": [], "flow-grpo": []}
    for _ in range(300):
        rewards = torch.tensor([0.5 + draw.gauss(0, 1e-7) for _ in range(6)], dtype=torch.float64)
        for convention, values in largest.items():
            values.append(group_advantages(rewards, groups, convention=convention).max().item())
    assert statistics.fmean(largest["dance-grpo"]) == pytest.approx(1.3, abs=0.15)
    assert max(largest["flow-grpo"]) < 0.005


def test_zero_variance_groups_get_exactly_zero_where_the_bare_formula_does_not():
    """Trap 7: the mean of six equal float32 numbers is not always that number."""
    groups, fooled = torch.zeros(6, dtype=torch.long), 0
    for value in torch.linspace(0.01, 0.99, 99):
        rewards = value.repeat(6)
        bare = (rewards - rewards.sum() / 6) / (rewards.std() + 1e-8)
        fooled += bool((bare != 0).any())
        for scale in ("group", "batch", "none"):
            given = group_advantages(rewards, groups, convention="dance-grpo", scale=scale)
            assert (given == 0).all()
    assert fooled > 0


def test_a_flat_group_stays_zero_beside_a_lively_one():
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.0, 1.0, 0.5])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    for scale in ("group", "batch", "none"):
        advantages = group_advantages(rewards, groups, scale=scale)
        assert (advantages[:3] == 0).all() and (advantages[3:5] != 0).all()


def test_zero_variance_groups_are_counted():
    rewards = torch.tensor([1.0, 1.0, 0.3, 0.3, 0.0, 1.0])
    assert zero_variance_groups(rewards, torch.tensor([0, 0, 1, 1, 2, 2])) == 2
    assert zero_variance_groups(rewards, torch.tensor([0, 1, 1, 2, 0, 2])) == 0
    assert zero_variance_groups(torch.ones(4), torch.tensor([5, 5, 5, 5])) == 1


def test_counts_and_truths_are_rewards_too():
    expected = group_advantages(torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3))
    assert torch.equal(group_advantages(torch.tensor([True, False, True]), torch.zeros(3)), expected)
    assert torch.equal(group_advantages(torch.tensor([1, 0, 1]), torch.zeros(3)), expected)


def test_no_gradient_passes():
    assert not group_advantages(rewards_of().requires_grad_(), GROUPS).requires_grad


def test_a_group_of_one_is_named():
    with pytest.raises(GroupError, match="group 9 has one sample.*at least 2"):
        group_advantages(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4, 9, 4]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite(bad):
    with pytest.raises(RewardError, match="reward 1 is not finite"):
        group_advantages(torch.tensor([1.0, bad]), torch.zeros(2))
    with pytest.raises(RewardError, match="reward 1 is not finite"):
        zero_variance_groups(torch.tensor([1.0, bad]), torch.zeros(2))


@pytest.mark.parametrize("shapes", [((4, 1), (4,)), ((4, 1), (4, 1)), ((4,), (3,))], ids=str)
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(GroupError, match=r"both \[batch\]"):
        group_advantages(torch.ones(shapes[0]), torch.zeros(shapes[1]))


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="'grpo'.*flow-grpo, nft, ddpo, dance-grpo"):
        group_advantages(rewards_of(), GROUPS, convention="grpo")
    with pytest.raises(ValueError, match="'prompt'.*group, batch, none"):
        group_advantages(rewards_of(), GROUPS, scale="prompt")
