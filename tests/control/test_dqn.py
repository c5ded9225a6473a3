"""DQN: what the replay keeps, what it looks ahead to, what its targets are, and whether it balances a pole."""

import pytest
import torch

from pixelpolicy import control
from pixelpolicy.control import dqn
from pixelpolicy.control.replay import Replay, look_ahead
from pixelpolicy.control.trajectory import Trajectory
from pixelpolicy.errors import ControlError, TrainingError

YES, NO = True, False


def one_copy(rewards, terminated=(), truncated=(), invalid=()):
    """A trajectory of one copy that observes the number of its step."""
    steps = torch.arange(len(rewards))
    flags = [torch.isin(steps, torch.tensor(where, dtype=torch.long))[:, None] for where in (terminated, truncated)]
    valid = ~torch.isin(steps, torch.tensor(invalid, dtype=torch.long))[:, None]
    rewards = torch.tensor(rewards)[:, None]
    observations = torch.arange(len(rewards) + 1.0)[:, None, None]
    actions = torch.zeros(len(rewards), 1, dtype=torch.long)
    return Trajectory(observations, actions, torch.zeros(len(rewards), 1), rewards, *flags, valid)


def blind(observations):
    actions = torch.randint(2, (len(observations),), generator=STREAM)
    return actions, torch.zeros(len(observations))


STREAM = torch.Generator().manual_seed(0)


def test_the_replay_leaves_out_autoreset_steps():
    """No transition leads from the end of an episode to the start of the next: CartPole moves a little at a time."""
    trajectory = control.Collector(control.make("CartPole-v1", 8), seed=0).collect(blind, 100)
    resets = int((~trajectory.valid).sum())
    assert resets > 10
    jumps = (trajectory.observations[1:] - trajectory.observations[:-1])[..., 2].abs()
    assert jumps[~trajectory.valid].max() > 0.15, "a reset throws the angle"
    for ahead in (1, 5):
        replay = Replay(10_000, ahead=ahead, discount=0.99, seed=0)
        replay.add(trajectory)
        assert len(replay) == 800 - resets
        batch = replay.sample(5_000)
        moved = (batch["arrivals"] - batch["observations"])[:, 2].abs()
        assert moved.max() < 0.1 * ahead
        assert (batch["rewards"] == 1).all(), "a reset earns nothing"
        fallen = batch["arrivals"][:, 2].abs() > 0.20944
        assert torch.equal(fallen, batch["ended"]), "a step ends the world where the pole has fallen, and only there"


def test_looking_ahead_by_hand():
    """Steps 0 to 2 end the world, step 3 is a reset, steps 4 and 5 end by the clock, 6 is a reset, 7 is under way."""
    seen = one_copy([1.0, 2.0, 4.0, 0.0, 8.0, 16.0, 0.0, 32.0], terminated=[2], truncated=[5], invalid=[3, 6])
    found = {name: tensor[:, 0][seen.valid[:, 0]] for name, tensor in look_ahead(seen, 2, 0.5).items()}
    assert found["returns"].tolist() == [2.0, 4.0, 4.0, 16.0, 16.0, 32.0]
    assert found["arrivals"][:, 0].tolist() == [2, 3, 3, 6, 6, 8]
    assert found["ended"].tolist() == [NO, YES, YES, NO, NO, NO]
    assert found["discounts"].tolist() == [0.25, 0.25, 0.5, 0.25, 0.5, 0.5]


def test_looking_one_ahead_is_the_step_itself():
    trajectory = control.Collector(control.make("CartPole-v1", 4), seed=1).collect(blind, 60)
    found = look_ahead(trajectory, 1, 0.9)
    assert torch.equal(found["arrivals"], trajectory.observations[1:])
    assert torch.equal(found["returns"], trajectory.rewards)
    assert torch.equal(found["ended"], trajectory.terminated)
    assert torch.allclose(found["discounts"], torch.tensor(0.9))


def test_looking_further_than_the_trajectory_takes_what_there_is():
    found = look_ahead(one_copy([1.0, 1.0, 1.0]), 9, 0.5)
    assert found["returns"][:, 0].tolist() == [1.75, 1.5, 1.0]
    assert found["arrivals"][:, 0, 0].tolist() == [3, 3, 3]
    assert found["discounts"][:, 0].tolist() == [0.125, 0.25, 0.5]


def test_a_full_replay_forgets_the_oldest():
    replay = Replay(4, ahead=1, discount=0.9, seed=0)
    replay.add(one_copy([0.0, 1.0, 2.0]))
    assert len(replay) == 3
    replay.add(one_copy([3.0, 4.0, 5.0]))
    assert len(replay) == 4 and set(replay.sample(200)["rewards"].tolist()) == {2, 3, 4, 5}
    replay.add(one_copy([float(r) for r in range(10, 20)]))
    assert set(replay.sample(200)["rewards"].tolist()) == {16, 17, 18, 19}


def test_targets_by_hand():
    online, target = torch.tensor([[1.0, 3.0], [5.0, 2.0]]), torch.tensor([[10.0, 20.0], [30.0, 40.0]])
    given = torch.tensor([1.0, 2.0]), online.requires_grad_(), target.requires_grad_()
    discounts = torch.tensor([0.5, 0.1])
    both = dqn.dqn_targets(*given, torch.tensor([NO, NO]), discounts)
    assert both.tolist() == [11.0, 5.0] and not both.requires_grad
    assert dqn.dqn_targets(*given, torch.tensor([NO, YES]), discounts).tolist() == [11.0, 2.0]


def test_the_given_targets_train_the_network():
    """With targets of 7 whatever happens, every value comes to 7."""
    config = dqn.DQNConfig(iterations=8, validation_episodes=2, hidden=(32,), learning_rate=1e-2)
    asked = []

    def sevens(returns, next_online, next_target, terminated, discounts):
        asked.append(terminated.any().item())
        assert next_online.shape == next_target.shape == (128, 2)
        assert (returns == 1).all() and torch.allclose(discounts, torch.tensor(0.97))
        return torch.full_like(returns, 7.0)

    rows = []
    result = dqn.train(config=config, seed=0, targets=sevens, report=rows.append)
    assert any(asked) and rows == result.log and abs(rows[-1]["value"] - 7) < 0.7
    again = dqn.train(config=config, seed=0, targets=sevens)
    assert again.log == result.log, "the same seed gives the same run"


@pytest.mark.slow
def test_it_balances_a_pole():
    result = dqn.train(seed=7)
    assert control.evaluate(result.greedy, "CartPole-v1", episodes=100, seed=5).mean() >= 475


def test_bad_input_is_refused():
    with pytest.raises(ControlError, match="the discount is 1.2"):
        dqn.train(config=dqn.DQNConfig(discount=1.2), seed=0)
    with pytest.raises(ControlError, match="give one each"):
        dqn.train(config=dqn.DQNConfig(observation_scale=(1.0,)), seed=0)
    with pytest.raises(ControlError, match="chooses one of a Discrete space"):
        dqn.train("Pendulum-v1", dqn.DQNConfig(observation_scale=(1.0, 1.0, 1.0)), seed=0)
    with pytest.raises(ControlError, match="flat Box"):
        dqn.train("CliffWalking-v1", seed=0)
    with pytest.raises(ControlError, match="give 1 at least of both"):
        Replay(0, ahead=1, discount=0.9, seed=0)
    with pytest.raises(ControlError, match="the replay is empty"):
        Replay(5, ahead=1, discount=0.9, seed=0).sample(2)


def test_targets_that_are_no_number_end_the_training():
    def broken(returns, *rest):
        return returns * float("nan")

    with pytest.raises(TrainingError, match="look at the targets"):
        dqn.train(config=dqn.DQNConfig(warm_up=64), seed=0, targets=broken)
