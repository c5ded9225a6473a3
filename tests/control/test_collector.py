"""The collector against stepping by hand, and the step at which Gymnasium resets."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from pixelpolicy import control
from pixelpolicy.control.environments import action_count, action_size, check_playable, observation_size
from pixelpolicy.errors import ControlError, RewardError
from pixelpolicy.rl import gae


class Counter(gymnasium.Env):
    """Counts its steps; ends after `end` of them, or by the clock after `clock`; reward 10 + step."""

    observation_space = spaces.Box(-1000, 1000, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, end=None, clock=None, rewards=None):
        self.end, self.clock, self.rewards, self.start = end, clock, rewards, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start += 100  # tells the episodes apart
        self.t = 0
        return np.array([self.start], np.float32), {}

    def step(self, action):
        self.t += 1
        reward = 10 + self.t if self.rewards is None else self.rewards
        observation = np.array([self.start + self.t], np.float32)
        return observation, reward, self.t == self.end, self.t == self.clock, {}


def counters(*made, mode=AutoresetMode.NEXT_STEP):
    return gymnasium.vector.SyncVectorEnv([lambda kept=kept: Counter(**kept) for kept in made], autoreset_mode=mode)


def pushing(observations):
    return torch.ones(len(observations), dtype=torch.long), torch.zeros(len(observations))


def test_the_autoreset_step_is_no_transition():
    trajectory = control.Collector(counters({"end": 2}, {"clock": 3}), seed=0).collect(pushing, 5)
    assert trajectory.valid.T.tolist() == [[True, True, False, True, True], [True, True, True, False, True]]
    assert trajectory.rewards.T.tolist() == [[11, 12, 0, 11, 12], [11, 12, 13, 0, 11]]
    assert trajectory.terminated[:, 0].tolist() == [False, True, False, False, True]
    assert trajectory.truncated[:, 1].tolist() == [False, False, True, False, False]
    assert trajectory.observations[:, 0, 0].tolist() == [100, 101, 102, 200, 201, 202]
    flat = trajectory.flat(doubled=2 * trajectory.rewards)
    assert flat["observations"][:, 0].tolist() == [100, 100, 101, 101, 102, 200, 201, 200]
    assert torch.equal(flat["doubled"], 2 * flat["rewards"])


def test_a_reset_at_the_seam_of_two_collections_is_masked():
    collector = control.Collector(counters({"end": 2}), seed=0)
    collector.collect(pushing, 2)
    assert collector.collect(pushing, 3).valid[:, 0].tolist() == [False, True, True]
    assert collector.finished == [23.0, 23.0]


def test_advantages_are_those_of_each_episode_alone():
    """Each episode by itself through `gae`: a terminated one is worth 0 after its end, a truncated one its value."""
    trajectory = control.Collector(counters({"end": 3}, {"clock": 3}), seed=0).collect(pushing, 6)
    values = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    found = control.advantages(trajectory, values, 0.9, 0.8)
    for copy, worth in ((0, 0.0), (1, values[3, 1].item())):
        for first, last in ((0, 3), (4, 6)):
            end = worth if last == 3 else values[6, copy].item()
            alone = gae(
                trajectory.rewards[first:last, copy, None],
                values[first:last, copy, None],
                torch.zeros(last - first, 1, dtype=torch.bool),
                torch.tensor([end]),
                0.9,
                0.8,
            )
            assert torch.allclose(found[first:last, copy], alone[:, 0], atol=1e-6)
    assert (found[3] == 0).all()


def test_episodes_are_whole_and_begin_anew():
    collector = control.Collector(counters({"end": 2}, {"clock": 4}), seed=0)
    collector.collect(pushing, 3)
    trajectory = collector.episodes(pushing)
    assert trajectory.valid.T.tolist() == [[True, True, False, False], [True] * 4]
    assert trajectory.rewards.sum(0).tolist() == [23, 50]
    assert collector.finished[-2:] == [23, 50]
    # the short copy played on, unseen, and is one step into its next episode: nothing is to be masked
    assert collector.collect(pushing, 1).valid.tolist() == [[True, False]]


def test_cartpole_and_pendulum_can_be_collected():
    for name in ("CartPole-v1", "Pendulum-v1"):
        envs = control.make(name, 3)
        policy = control.policy_for(envs, seed=0)
        trajectory = control.Collector(envs, seed=0).collect(policy.act, 30)
        flat = trajectory.flat()
        assert torch.equal(policy.log_prob(flat["observations"], flat["actions"]), flat["log_probs"]) or torch.allclose(
            policy.log_prob(flat["observations"], flat["actions"]), flat["log_probs"], atol=1e-6
        )
        again = control.Collector(envs, seed=0).collect(control.policy_for(envs, seed=0).act, 30)
        assert torch.equal(trajectory.actions, again.actions) and torch.equal(trajectory.rewards, again.rewards)
    assert (trajectory.actions.abs() > 2).any(), "actions are kept as drawn; only the environment sees them clipped"


def test_evaluate_counts_each_episode_once():
    returns = control.evaluate(lambda o: (o[:, 2] > 0).long(), "CartPole-v1", episodes=20, seed=3)
    one = gymnasium.make("CartPole-v1")
    assert returns.shape == (20,) and 20 < returns.mean() < 60
    observation, total, over = one.reset(seed=0)[0], 0, False
    while not over:
        observation, reward, terminated, truncated, _ = one.step(int(observation[2] > 0))
        total, over = total + reward, terminated or truncated
    assert abs(returns.mean().item() - total) < 40


def test_a_closed_environment_is_refused():
    for name in ("CartPole-v1", "Pendulum-v1"):
        envs = control.make(name, 2)
        collector = control.Collector(envs, seed=0)
        envs.close()
        with pytest.raises(ControlError, match="closed"):
            collector.collect(control.policy_for(envs, seed=0).act, 1)


@pytest.mark.parametrize("ask", [action_count, observation_size])
def test_wrong_spaces_are_refused(ask):
    with pytest.raises(ControlError, match="Box"):
        ask(control.make("Pendulum-v1", 1) if ask is action_count else control.make("CliffWalking-v1", 1))
    with pytest.raises(ControlError, match="Gaussian"):
        action_size(control.make("CartPole-v1", 1))


def test_what_is_no_vector_environment_is_refused():
    with pytest.raises(ControlError, match="no vector environment"):
        check_playable(gymnasium.make("CartPole-v1"))
    with pytest.raises(ControlError, match="last state is lost"):
        check_playable(counters({"end": 2}, mode=AutoresetMode.SAME_STEP))
    with pytest.raises(ControlError, match="no environment 'Pole-v9'"):
        control.make("Pole-v9", 2)
    with pytest.raises(ControlError, match="give one at least"):
        control.make("CartPole-v1", 0)


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(RewardError, match="environment 1 gave a reward of nan"):
        control.Collector(counters({}, {"rewards": float("nan")}), seed=0).collect(pushing, 1)


def test_an_episode_that_never_ends_is_refused():
    with pytest.raises(ControlError, match="not ended after 50 steps"):
        control.Collector(counters({}), seed=0).episodes(pushing, most_steps=50)
    with pytest.raises(ControlError, match="not ended after 5 steps"):
        control.evaluate(lambda o: (o[:, 2] > 0).long(), "CartPole-v1", episodes=2, most_steps=5)
