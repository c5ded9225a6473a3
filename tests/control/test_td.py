"""Tables of values against closed forms: a random walk whose values are known, a cliff whose best path is known."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from pixelpolicy.control import td
from pixelpolicy.errors import ControlError, RewardError


class Circle(gymnasium.Env):
    """Two states, each leading to the other, without an end."""

    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

    def __init__(self, reward=0.0, observation_space=None):
        self.reward, self.state = reward, 0
        self.observation_space = observation_space or self.observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        self.state = 1 - self.state
        return self.state, self.reward, False, False, {}


@pytest.fixture(autouse=True)
def circles():
    for name, options in {
        "Circle-v0": {},
        "BrokenCircle-v0": {"reward": float("nan")},
        "BoxCircle-v0": {"observation_space": spaces.Box(-1, 1, (2,), np.float32)},
    }.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, Circle, kwargs=options, disable_env_checker=True, order_enforce=False)


def walks(count, seed, places=5):
    """A walk on a line from its middle, off either end; reward 1 on the right. The value of place k is (k+1)/6."""
    stream, episodes = torch.Generator().manual_seed(seed), []
    for _ in range(count):
        place, visited = places // 2, []
        while 0 <= place < places:
            visited.append(place)
            place += 2 * int(torch.randint(2, (), generator=stream)) - 1
        rewards = torch.zeros(len(visited))
        rewards[-1] = float(place == places)
        episodes.append((torch.tensor(visited), rewards))
    return episodes


WORTH = torch.arange(1, 6, dtype=torch.float64) / 6


def test_monte_carlo_and_td0_find_the_values_of_a_random_walk():
    episodes = walks(500, seed=0)
    assert torch.allclose(td.monte_carlo(episodes, 5, 1.0), WORTH, atol=0.08)
    values = torch.full((5,), 0.5, dtype=torch.float64)
    for step_size in (0.1, 0.02):
        values = td.td0(episodes, values, step_size, 1.0)
    assert torch.allclose(values, WORTH, atol=0.08)


def test_monte_carlo_by_hand():
    episodes = [(torch.tensor([0, 1, 0]), torch.tensor([1.0, 2.0, 4.0])), (torch.tensor([1]), torch.tensor([8.0]))]
    # returns with discount 1/2: 3, 4, 4 and 8
    assert td.monte_carlo(episodes, 3, 0.5).tolist() == [3.5, 6.0, 0.0]


def test_a_clock_that_runs_out_ends_no_world():
    yes, no = torch.tensor([True]), torch.tensor([False])
    given = torch.tensor([1.0]), torch.tensor([10.0])
    assert td.td_target(*given, no, no, 0.9).item() == td.td_target(*given, no, yes, 0.9).item() == 10.0
    assert td.td_target(*given, yes, no, 0.9).item() == td.td_target(*given, yes, yes, 0.9).item() == 1.0


def test_epsilon_greedy_is_a_distribution():
    values = torch.tensor([[1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0], [5.0, 1.0, 1.0, 1.0]])
    want = [[0.05, 0.45, 0.05, 0.45], [0.25] * 4, [0.85, 0.05, 0.05, 0.05]]
    assert torch.allclose(td.epsilon_greedy(values, 0.2), torch.tensor(want))
    assert torch.allclose(td.epsilon_greedy(values[2], 0.2), torch.tensor(want[2]))


def test_updates_by_hand():
    q = torch.tensor([[1.0, 2.0], [5.0, 3.0]], dtype=torch.float64)
    common = dict(state=0, action=1, reward=-1.0, next_state=1, step_size=0.5, discount=0.5)
    assert td.q_learning_update(q, **common, terminated=False).tolist() == [[1, 1.75], [5, 3]]
    assert td.q_learning_update(q, **common, terminated=True).tolist() == [[1, 0.5], [5, 3]]
    assert td.sarsa_update(q, **common, next_action=1, terminated=False).tolist() == [[1, 1.25], [5, 3]]
    assert td.sarsa_update(q, **common, next_action=1, terminated=True).tolist() == [[1, 0.5], [5, 3]]
    assert q.tolist() == [[1, 2], [5, 3]], "the given table is left alone"


@pytest.mark.slow
def test_q_learning_finds_the_path_along_the_cliff_and_sarsa_keeps_away():
    config = td.TableConfig(episodes=300)
    result = td.q_learning("CliffWalking-v1", config, seed=7)
    path, total = td.greedy_path(result.q, "CliffWalking-v1")
    assert total == -13 and path == [36, *range(24, 36), 47]
    # where the best policy is known, so are its values: one less for each step further from the goal
    assert [round(result.q[s].max().item(), 6) for s in path[:-1]] == list(range(-13, 0))
    careful = td.sarsa("CliffWalking-v1", td.TableConfig(episodes=500, step_size=0.2), seed=7)
    assert careful.returns[-200:].mean() > result.returns[-200:].mean() + 5
    assert not set(td.greedy_path(careful.q, "CliffWalking-v1")[0]) & set(range(26, 34)), "it walks beside the cliff"


def test_a_given_update_is_what_learns():
    seen = []

    def update(q, *step):
        seen.append(step)
        return q + 1

    result = td.q_learning("FrozenLake-v1", td.TableConfig(episodes=2, step_size=0.3), seed=0, update=update)
    assert (result.q == len(seen)).all() and seen[0][-2:] == (0.3, 1.0) and len(seen[0]) == 7
    assert len(td.sarsa("FrozenLake-v1", td.TableConfig(episodes=2), seed=0).returns) == 2


def test_bad_input_is_refused():
    for discount in (-0.1, 1.5, float("nan")):
        with pytest.raises(ControlError, match="the discount is"):
            td.sarsa("CliffWalking-v1", td.TableConfig(discount=discount), seed=0)
        with pytest.raises(ControlError, match="the discount is"):
            td.monte_carlo([], 3, discount)
    with pytest.raises(ControlError, match="not ended after 50 steps"):
        td.q_learning("Circle-v0", td.TableConfig(most_steps=50), seed=0)
    with pytest.raises(RewardError, match="reward of nan"):
        td.q_learning("BrokenCircle-v0", seed=0)
    with pytest.raises(ControlError, match="a table needs a Discrete space"):
        td.q_learning("BoxCircle-v0", seed=0)
    with pytest.raises(ControlError, match="no environment 'Cliff-v9'"):
        td.q_learning("Cliff-v9", seed=0)
    with pytest.raises(ControlError, match="actions of Pendulum-v1|observations of Pendulum-v1"):
        td.greedy_path(torch.zeros(1, 1), "Pendulum-v1")


def test_a_path_in_a_circle_is_cut():
    path, total = td.greedy_path(torch.zeros(2, 2), "Circle-v0", most_steps=9)
    assert len(path) == 10 and total == 0
