"""Planners against linear solves, closed forms, simulation and published tables; tables that are none are refused."""

import itertools

import gymnasium
import pytest
import torch

from pixelpolicy.control.planning import (
    MDP,
    Gridworld,
    action_values,
    greedy_actions,
    mdp_of,
    policy_iteration,
    policy_values,
    solve,
    value_iteration,
)
from pixelpolicy.errors import ControlError, RewardError

LAKES = {"4x4": 16, "8x8": 64}


def lake(name, slippery=True):
    return mdp_of(gymnasium.make("FrozenLake-v1", map_name=name, is_slippery=slippery))


def random_mdp(seed, states=12, actions=3):
    stream = torch.Generator().manual_seed(seed)
    transitions = torch.rand(states, actions, states, generator=stream, dtype=torch.float64) ** 4
    rewards = torch.randn(states, actions, generator=stream, dtype=torch.float64)
    terminal = torch.arange(states) == states - 1
    return MDP(transitions / transitions.sum(-1, keepdim=True), rewards, terminal)


def random_policy(mdp, seed):
    logits = torch.randn(mdp.states, mdp.actions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return logits.softmax(-1)


def corridor(length, prize=1.0, **more):
    """One row of cells with a prize at the right end."""
    return Gridworld([], {(0, length - 1): prize}, width=length, height=1, **more)


@pytest.mark.parametrize("discount", [0.0, 0.5, 0.95, 0.999, 1.0])
def test_evaluation_by_sweeps_is_the_linear_solve(discount):
    for mdp in (lake("4x4"), lake("8x8"), *map(random_mdp, range(5))):
        for policy in (mdp.uniform(), random_policy(mdp, 1)):
            gap = (policy_values(mdp, policy, discount) - solve(mdp, policy, discount)).abs().max()
            assert gap <= (1e-10 if discount < 1 else 1e-8)


@pytest.mark.parametrize("discount", [0.5, 0.95, 0.999, 1.0])
def test_both_planners_find_the_same_values(discount):
    for mdp in (lake("4x4"), lake("8x8"), *map(random_mdp, range(5))):
        if discount == 1 and mdp.states == 12:
            continue  # with rewards of either sign, to go on for ever may be best
        by_values, by_policies = value_iteration(mdp, discount), policy_iteration(mdp, discount)
        assert (by_values.values - by_policies.values).abs().max() <= 1e-8
        best = action_values(mdp, by_policies.values, discount).max(-1).values
        assert (best - by_policies.values).abs().max() <= 1e-8, "Bellman's optimality equation"
        if discount < 1:
            assert (solve(mdp, by_values.policy, discount) - by_values.values).abs().max() <= 1e-8


def test_no_policy_is_better():
    """All 81 deterministic policies of a small process, each solved."""
    mdp = random_mdp(7, states=5)
    best = torch.stack(
        [
            solve(mdp, torch.nn.functional.one_hot(torch.tensor([*choice, 0]), 3).double(), 0.9)
            for choice in itertools.product(range(3), repeat=4)
        ]
    ).amax(0)
    assert (value_iteration(mdp, 0.9).values - best).abs().max() <= 1e-9


def test_values_are_what_episodes_return():
    """Played in Gymnasium itself, with its own dice: the mean discounted return from the start."""
    env, mdp = gymnasium.make("FrozenLake-v1", map_name="4x4"), lake("4x4")
    plan = policy_iteration(mdp, 0.95)
    moves, returns = plan.policy.argmax(-1).tolist(), []
    state, _ = env.reset(seed=0)
    for _ in range(2000):
        total, weight, over = 0.0, 1.0, False
        state, _ = env.reset()
        while not over:
            state, reward, over, clock, _ = env.step(moves[state])
            total, weight, over = total + weight * reward, weight * 0.95, over or clock
        returns.append(total)
    returns = torch.tensor(returns)
    assert abs(returns.mean() - plan.values[0]) < 3.5 * returns.std() / len(returns) ** 0.5


def test_the_lake_without_ice_is_a_shortest_path():
    assert value_iteration(lake("4x4", slippery=False), 0.9).values[0].item() == pytest.approx(0.9**5)
    assert value_iteration(lake("8x8", slippery=False), 0.9).values[0].item() == pytest.approx(0.9**13)


def test_the_world_of_four_by_three():
    """Berkeley's CS188 prints this world's values; a prize is earned there one step later, hence the factor 0.9."""
    world = Gridworld({(1, 1)}, {(0, 3): 1, (1, 3): -1}, slip=0.2, width=4, height=3)
    found = 0.9 * value_iteration(world.mdp(), 0.9).values.view(3, 4)
    printed = [[0.64, 0.74, 0.85], [0.57, 0.00, 0.57], [0.49, 0.43, 0.48]]
    assert (found[:, :3] - torch.tensor(printed)).abs().max() < 0.0051
    assert found[2, 3].item() == pytest.approx(0.28, abs=0.0051)


def test_a_corridor_is_a_power_of_the_discount():
    plan = value_iteration(corridor(6).mdp(), 0.8)
    assert plan.values.tolist() == pytest.approx([0.8**4, 0.8**3, 0.8**2, 0.8, 1.0, 0.0])
    assert plan.policy[:5].argmax(-1).tolist() == [2] * 5


def test_a_slippery_corridor():
    """A move to the right slips up or down, into the edge, and stays: v = (1 - slip)(1 or 0.9 v') + slip 0.9 v."""
    values = value_iteration(corridor(4, slip=0.3).mdp(), 0.9).values
    last = 0.7 / (1 - 0.27)
    assert values.tolist() == pytest.approx([last * (0.63 / 0.73) ** 2, last * 0.63 / 0.73, last, 0.0])


def test_moves_of_the_gridworld():
    world = Gridworld({(0, 1)}, {(2, 2): 5.0}, slip=0.2, width=3, height=3)
    mdp = world.mdp()
    assert mdp.states == 9 and world.state((1, 2)) == 5
    straight = Gridworld({(0, 1)}, {(2, 2): 5.0}, width=3, height=3).mdp().transitions[4].argmax(-1)
    assert straight.tolist() == [3, 7, 5, 4], "left, down, right, and up into the wall"
    right = mdp.transitions[4, 2]
    assert right[[5, 7, 4]].tolist() == pytest.approx([0.8, 0.1, 0.1])
    assert mdp.rewards[5, 1].item() == pytest.approx(4.0) and mdp.rewards[5, 2].item() == pytest.approx(0.5)
    assert mdp.terminal.nonzero().flatten().tolist() == [1, 8]


def test_all_ties_are_greedy():
    world = Gridworld([], {(1, 1): 1.0}, width=2, height=2).mdp()
    greedy = greedy_actions(world, value_iteration(world, 0.9).values, 0.9)
    assert greedy.tolist() == [[False, True, True, False], [False, True, False, False], [False, False, True, False],
                               [False] * 4]  # fmt: skip


def test_the_table_of_the_lake():
    mdp = lake("4x4")
    assert mdp.terminal.nonzero().flatten().tolist() == [5, 7, 11, 12, 15]
    assert mdp.transitions[0, 0, [0, 4]].tolist() == pytest.approx([2 / 3, 1 / 3]), "two outcomes that stay add up"
    assert mdp.rewards[14, 2].item() == pytest.approx(1 / 3)
    assert (mdp.transitions[5, :, 5] == 1).all() and (mdp.rewards[mdp.terminal] == 0).all()
    cliff = mdp_of(gymnasium.make("CliffWalking-v1"))
    assert cliff.terminal.nonzero().flatten().tolist() == [47]
    assert value_iteration(cliff, 1.0).values[36].item() == pytest.approx(-13.0)


@pytest.mark.parametrize("discount", [-0.1, 1.01, float("nan")])
def test_a_discount_outside_0_to_1_is_refused(discount):
    mdp = corridor(3).mdp()
    for ask in (
        lambda: policy_values(mdp, mdp.uniform(), discount),
        lambda: solve(mdp, mdp.uniform(), discount),
        lambda: value_iteration(mdp, discount),
        lambda: policy_iteration(mdp, discount),
        lambda: action_values(mdp, torch.zeros(3).double(), discount),
    ):
        with pytest.raises(ControlError, match=f"discount is {discount}"):
            ask()


def test_a_policy_that_never_ends_has_no_undiscounted_values():
    mdp = corridor(4).mdp()
    left = torch.eye(4).double()[[0, 0, 0, 0]]
    for ask in (policy_values, solve):
        with pytest.raises(ControlError, match="from state 0 this policy never ends"):
            ask(mdp, left, 1.0)
    assert policy_values(mdp, left, 0.9).tolist() == [0, 0, 0, 0]


def test_a_reward_for_ever_is_refused_without_a_discount():
    mdp = MDP(torch.ones(1, 1, 1), torch.ones(1, 1), torch.tensor([False]))
    with pytest.raises(ControlError, match="still change after 500 sweeps"):
        value_iteration(mdp, 1.0, most_sweeps=500)
    assert value_iteration(mdp, 0.9).values.item() == pytest.approx(10.0)
    with pytest.raises(ControlError, match="tolerance"):
        value_iteration(mdp, 0.9, tolerance=0.0)


def test_transitions_that_are_no_distribution_are_refused():
    good = corridor(3).mdp()
    for spoil in (
        lambda p: p.mul_(0.9),
        lambda p: p[1, 2].copy_(torch.tensor([-0.5, 0.5, 1.0])),
        lambda p: p.fill_(torch.nan),
    ):
        transitions = good.transitions.clone()
        spoil(transitions)
        with pytest.raises(ControlError, match="no distribution"):
            MDP(transitions, good.rewards, good.terminal)
    with pytest.raises(ControlError, match="they must be"):
        MDP(good.transitions[:, :, :2], good.rewards, good.terminal)
    with pytest.raises(ControlError, match="one for each"):
        MDP(good.transitions, good.rewards[0], good.terminal)
    with pytest.raises(RewardError, match="action 1 in state 0 is nan"):
        MDP(good.transitions, good.rewards.index_fill(1, torch.tensor([1]), torch.nan), good.terminal)


def test_a_policy_that_is_none_is_refused():
    mdp = corridor(3).mdp()
    with pytest.raises(ControlError, match="states, actions"):
        solve(mdp, mdp.uniform()[:2], 0.9)
    with pytest.raises(ControlError, match="in state 0 the policy is"):
        solve(mdp, 2 * mdp.uniform(), 0.9)


def test_an_environment_without_a_table_is_refused():
    with pytest.raises(ControlError, match="has no table"):
        mdp_of(gymnasium.make("CartPole-v1"))


def test_walls_around_everything():
    cells = [(row, column) for row in range(2) for column in range(3)]
    with pytest.raises(ControlError, match="every cell is a wall"):
        Gridworld(cells, {}, width=3, height=2)
    shut = Gridworld({(0, 1), (1, 0), (1, 1)}, {(0, 2): 1.0}, slip=0.5, width=3, height=2).mdp()
    values = value_iteration(shut, 0.9).values
    assert values[:5].tolist() == [0.0] * 5
    # up reaches the prize half the time, and slips into wall or edge half the time
    assert values[5].item() == pytest.approx(0.5 / (1 - 0.45))
    with pytest.raises(ControlError, match="from state 0 this policy never ends"):
        policy_values(shut, shut.uniform(), 1.0)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"walls": [(3, 0)]}, "off the grid"),
        ({"prizes": {(0, 4): 1.0}}, "off the grid"),
        ({"walls": [(0, 0)], "prizes": {(0, 0): 1.0}}, "wall and has a prize"),
        ({"slip": 1.5}, "slip is 1.5"),
        ({"slip": float("nan")}, "slip is nan"),
        ({"width": 0}, "no cells"),
    ],
)
def test_a_world_that_cannot_be_is_refused(given, message):
    with pytest.raises(ControlError, match=message):
        Gridworld(**({"walls": [], "prizes": {}, "width": 4, "height": 3} | given))


def test_a_prize_that_is_no_number_is_refused():
    with pytest.raises(RewardError, match="prize in cell"):
        Gridworld([], {(0, 0): float("inf")})
