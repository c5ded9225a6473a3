"""PPO: that it learns, that each part of an iteration is what it is called, and what it refuses."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from pixelpolicy import control
from pixelpolicy.control import CategoricalPolicy, GaussianPolicy, ppo
from pixelpolicy.control.ppo import CARTPOLE, PENDULUM, PPOConfig
from pixelpolicy.errors import ControlError, RewardError, TrainingError
from pixelpolicy.rl import clipped_surrogate, gae

SMALL = PPOConfig(copies=4, steps=8, iterations=2, epochs=2, minibatches=2, hidden=(8,))


class Guess(gymnasium.Env):
    """One step an episode: the observation says which of two actions, or which number, is right."""

    observation_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, discrete=True, reward=None):
        self.action_space = spaces.Discrete(2) if discrete else spaces.Box(-9, 9, (1,), np.float32)  # clips no draw
        self.discrete, self.reward = discrete, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.side = float(self.np_random.choice([-1.0, 1.0]))
        return np.array([self.side], np.float32), {}

    def step(self, action):
        reward = float((action == 1) == (self.side > 0)) if self.discrete else -float((action[0] - self.side / 2) ** 2)
        return np.zeros(1, np.float32), reward if self.reward is None else self.reward, True, False, {}


def guesses(count=4, **options):
    return gymnasium.vector.SyncVectorEnv([lambda: Guess(**options)] * count)


def agent(config=SMALL, envs=None, **options):
    return ppo.PPO(envs or control.make("CartPole-v1", config.copies), config, seed=0, **options)


def test_a_discrete_and_a_gaussian_policy_learn_the_right_answer():
    config = PPOConfig(copies=16, steps=32, iterations=25, epochs=4, learning_rate=3e-3, hidden=(16,))
    sides = torch.tensor([[-1.0], [1.0]])
    chooser, drawer = agent(config, guesses(16)), agent(config, guesses(16, discrete=False))
    assert isinstance(chooser.policy, CategoricalPolicy) and isinstance(drawer.policy, GaussianPolicy)
    before = drawer.policy.entropy(sides)[0].item()
    for _ in range(config.iterations):
        chosen, drawn = chooser.iteration(), drawer.iteration()
    assert chooser.policy.greedy(sides).tolist() == [0, 1] and chosen["return"] > 0.9
    assert torch.allclose(drawer.policy.greedy(sides), sides / 2, atol=0.15)
    assert drawn["entropy"] < before - 0.3


def test_a_batch_holds_advantages_by_gae_and_the_returns_that_belong_to_them():
    config = PPOConfig(copies=3, steps=40, reward_scale=0.5, normalise_advantages=False, discount=0.9, lam=0.7)
    taken, given = agent(config), agent(config)
    batch = taken.play()
    trajectory = given.collector.collect(given.policy.act, 40)
    trajectory.rewards = trajectory.rewards / 2
    values = given.critic(trajectory.observations)[..., 0].detach()
    expected = control.advantages(trajectory, values, 0.9, 0.7)
    assert not trajectory.valid.all(), "there must be a reset in it"
    assert torch.allclose(batch["advantages"], expected[trajectory.valid], atol=1e-6)
    assert torch.allclose(batch["returns"], (expected + values[:-1])[trajectory.valid], atol=1e-6)
    assert len(batch["returns"]) == trajectory.valid.sum() == len(batch["observations"])


def test_normalised_advantages_have_mean_0_and_deviation_1():
    found = agent(PPOConfig(copies=8, steps=32)).play()["advantages"]
    assert abs(found.mean()) < 1e-5 and abs(found.std() - 1) < 1e-4


def test_each_epoch_sees_every_step_once():
    seen = []

    def watching(log_probs, old_log_probs, advantages, clip_range):
        seen.append(old_log_probs)
        return clipped_surrogate(log_probs, old_log_probs, advantages, clip_range)

    config = PPOConfig(copies=4, steps=8, epochs=3, minibatches=2, hidden=(8,))
    watched, alike = agent(config, loss=watching), agent(config)
    everything = alike.play()["log_probs"].sort().values
    watched.iteration()
    assert len(seen) == 6
    epochs = [torch.cat(seen[2 * i : 2 * i + 2]) for i in range(3)]
    assert all(torch.equal(epoch.sort().values, everything) for epoch in epochs)
    assert not torch.equal(epochs[0], epochs[1]), "minibatches are drawn anew in each epoch"


def test_the_first_step_is_the_one_of_the_written_out_loss():
    """One minibatch, one epoch: the gradient is that of surrogate + value error - entropy bonus, by hand."""
    config = PPOConfig(copies=4, steps=16, value_weight=0.3, entropy_weight=0.1, most_norm=1e9, hidden=(8,))
    taken, given = agent(config), agent(config)
    batch = given.play()
    log_probs = given.policy.network(batch["observations"]).log_softmax(-1)
    chosen = log_probs[torch.arange(len(log_probs)), batch["actions"]]
    ratio = (chosen - batch["log_probs"]).exp()
    surrogate = -torch.minimum(ratio * batch["advantages"], ratio.clamp(0.8, 1.2) * batch["advantages"]).mean()
    errors = ((given.critic(batch["observations"])[:, 0] - batch["returns"]) ** 2).mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    (surrogate + 0.3 * errors - 0.1 * entropy).backward()
    taken.improve(taken.play())
    for mine, expected in zip(taken.parameters, given.parameters, strict=True):
        assert torch.allclose(mine.grad, expected.grad, atol=1e-6)


def test_the_gradient_is_cut_to_its_norm():
    taken = agent(PPOConfig(copies=4, steps=16, most_norm=1e-3))
    taken.improve(taken.play())
    assert torch.stack([p.grad.square().sum() for p in taken.parameters]).sum().sqrt().item() <= 1.001e-3


def test_the_rate_falls_to_0_along_a_line():
    config = PPOConfig(copies=2, steps=4, iterations=4, epochs=1, minibatches=1, learning_rate=1.0, hidden=(4,))
    taken, rates = agent(config), []
    for _ in range(4):
        taken.iteration()
        rates.append(taken.optimizer.param_groups[0]["lr"])
    assert rates == [1.0, 0.75, 0.5, 0.25]


def test_both_networks_see_observations_divided_by_their_scale():
    plain, scaled = agent(SMALL), agent(replace(SMALL, observation_scale=(2.0, 1.0, 0.5, 4.0)))
    observations = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    divided = observations / torch.tensor([2.0, 1.0, 0.5, 4.0])
    assert torch.equal(scaled.policy.network(observations), plain.policy.network(divided))
    assert torch.equal(scaled.critic(observations), plain.critic(divided))
    with pytest.raises(ControlError, match="has 2 numbers, an observation 4"):
        agent(replace(SMALL, observation_scale=(1.0, 1.0)))


def test_train_uses_the_loss_and_the_estimator_it_is_given_and_reports():
    calls, reports = {"loss": 0, "estimator": 0}, []

    def loss(*given):
        calls["loss"] += 1
        return clipped_surrogate(*given)

    def estimator(*given):
        calls["estimator"] += 1
        return gae(*given)

    found = ppo.train("CartPole-v1", SMALL, seed=3, loss=loss, estimator=estimator, report=reports.append)
    assert calls == {"loss": 8, "estimator": 2} and found.log == reports
    assert [row["steps"] for row in reports] == [32, 64]
    assert all(set(row) == {"iteration", "steps", "return", "kl", "clip_fraction", "entropy"} for row in reports)
    assert found.critic(torch.zeros(5, 4)).shape == (5, 1)


def test_the_library_losses_are_the_very_objects_of_rl():
    from pixelpolicy import finetune
    from pixelpolicy.finetune import grpo

    assert finetune and grpo.clipped_surrogate is clipped_surrogate is ppo.clipped_surrogate
    assert ppo.train.__kwdefaults__["loss"] is clipped_surrogate and ppo.train.__kwdefaults__["estimator"] is gae


def test_the_same_seed_gives_the_same_weights():
    first, again, other = (ppo.train("CartPole-v1", SMALL, seed=seed) for seed in (1, 1, 2))
    for mine, same in zip(first.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(mine, same)
    assert not torch.equal(next(first.policy.parameters()), next(other.policy.parameters()))
    assert first.log == again.log or str(first.log) == str(again.log)  # NaN is unequal to itself


def test_a_closed_environment_is_refused():
    envs = control.make("CartPole-v1", 4)
    taken = agent(SMALL, envs)
    envs.close()
    with pytest.raises(ControlError, match="closed"):
        taken.iteration()
    with pytest.raises(ControlError, match="closed"):
        agent(SMALL, envs)


def test_wrong_spaces_are_refused():
    with pytest.raises(ControlError, match="flat Box"):
        ppo.train("CliffWalking-v1", SMALL, seed=0)
    with pytest.raises(ControlError, match="no environment"):
        ppo.train("Pole-v7", SMALL, seed=0)
    with pytest.raises(ControlError, match="no vector environment"):
        agent(SMALL, gymnasium.make("CartPole-v1"))


def test_a_reward_that_is_no_number_is_refused():
    with pytest.raises(RewardError, match="reward of nan"):
        agent(SMALL, guesses(reward=float("nan"))).iteration()


def test_a_gradient_that_is_no_number_is_refused_and_leaves_the_weights():
    taken = agent(SMALL, loss=lambda log_probs, *rest: (log_probs * float("nan")).mean())
    before = [p.detach().clone() for p in taken.parameters]
    with pytest.raises(TrainingError, match="gradient of iteration 0 is nan"):
        taken.iteration()
    assert all(torch.equal(p, kept) for p, kept in zip(taken.parameters, before, strict=True))


@pytest.mark.parametrize(
    "wrong", [{"discount": 1.5}, {"lam": -0.1}, {"discount": float("nan")}, {"copies": 0}, {"minibatches": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ControlError, match=next(iter(wrong))):
        PPOConfig(**wrong)


@pytest.mark.slow
def test_cartpole_is_balanced():
    found = ppo.train("CartPole-v1", CARTPOLE, seed=7)
    assert control.evaluate(found.policy.greedy, "CartPole-v1", episodes=100, seed=5).mean() >= 475


@pytest.mark.slow
def test_the_pendulum_swings_up():
    """In the median of three seeds: one alone follows the rounding of the machine."""
    returns = []
    for seed in (7, 8, 9):
        found = ppo.train("Pendulum-v1", PENDULUM, seed=seed)
        returns.append(control.evaluate(found.policy.greedy, "Pendulum-v1", episodes=100, seed=5).mean().item())
    assert sorted(returns)[1] >= -200
