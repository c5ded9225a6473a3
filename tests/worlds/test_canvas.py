"""The canvas: strokes against counted points, rewards that add up, the environment against Gymnasium's check."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from pixelpolicy import control
from pixelpolicy.control.environments import make
from pixelpolicy.control.ppo import PPO, PPOConfig, train
from pixelpolicy.errors import ControlError, PromptError, SizeError
from pixelpolicy.rl import clipped_surrogate, gae
from pixelpolicy.worlds import canvas


@pytest.fixture(scope="module")
def wanted():
    return canvas.targets("held-out")[0][::40]


def strokes(count, seed=0):
    return np.random.default_rng(seed).uniform(-3, 3, (count, 5)).astype(np.float32)


def by_points(x, y, half_x, half_y, radius, fine=8):
    """The share of each pixel within the radius of the segment, by counting a grid of points in it."""
    side = canvas.SIZE * fine
    points = (np.indices((side, side))[::-1].reshape(2, -1).T + 0.5) / fine
    along = np.linspace(-1, 1, 101)[:, None] * [half_x, half_y] + [x, y]
    near = np.min(((points[:, None] - along[None]) ** 2).sum(-1), axis=1) <= radius**2
    return near.reshape(canvas.SIZE, fine, canvas.SIZE, fine).mean((1, 3))


class TestPainting:
    @pytest.mark.parametrize("stroke", [(12, 12, 5, 0, 2.5), (8, 14, 2, -4, 1.5), (3, 3, 0, 0, 3), (12, 12, 4, 4, 2)])
    def test_a_stroke_covers_what_is_within_its_radius(self, stroke):
        cover = canvas.line(*(np.array([number], dtype=np.float32) for number in stroke))[0]
        counted = by_points(*stroke)
        assert np.abs(cover - counted).max() < 0.25 and np.abs(cover - counted).mean() < 0.01
        assert (cover[counted == 1] > 0.75).all() and (cover[counted == 0] < 0.25).all()

    def test_actions_are_clipped_and_their_shape_is_checked(self):
        assert np.array_equal(canvas.covers(strokes(4) * 0 + 9), canvas.covers(strokes(4) * 0 + 3))
        with pytest.raises(SizeError, match="batch, 5"):
            canvas.covers(np.zeros((2, 4)))

    def test_ink_stays(self, wanted):
        once = canvas.add(np.zeros_like(wanted), strokes(len(wanted)))
        twice = canvas.add(once, strokes(len(wanted), seed=1))
        assert (twice >= once).all() and twice.max() <= 1 and once.min() >= 0

    def test_errors_are_shares_of_the_empty_canvas(self, wanted):
        empty = np.zeros_like(wanted)
        assert np.allclose(canvas.errors(empty, wanted), 1) and np.allclose(canvas.errors(wanted, wanted), 0)
        assert np.isfinite(canvas.errors(wanted, empty)).all()

    def test_rewards_sum_to_what_was_removed(self, wanted):
        states = canvas.paint(lambda seen: strokes(len(seen), seed=int(seen[0, -1] * 6 + 0.5)), wanted)
        rewards = [canvas.improvement(a, b, wanted) for a, b in zip(states[:-1], states[1:], strict=True)]
        assert len(rewards) == canvas.STROKES
        assert np.allclose(np.sum(rewards, axis=0), 1 - canvas.errors(states[-1], wanted), atol=1e-5)

    def test_what_a_painter_sees(self, wanted):
        seen = canvas.observations(0.5 * wanted, wanted, np.full(len(wanted), 3))
        assert seen.shape == (len(wanted), 289) and seen.dtype == np.float32
        assert np.allclose(seen[:, 144:288], seen[:, :144] / 2, atol=1e-6) and (seen[:, -1] == 0.5).all()
        assert seen[0, 0] == pytest.approx(wanted[0, :2, :2].mean())


class TestTargets:
    def test_they_are_read_as_the_digits_that_they_are(self):
        pictures, labels = canvas.targets("held-out")
        assert pictures.shape == (1000, 24, 24) and 0 <= pictures.min() and pictures.max() <= 1
        assert (canvas.read(pictures) == labels).mean() > 0.93
        assert (canvas.read(np.zeros((10, 24, 24))) == np.arange(10)).mean() <= 0.2

    def test_another_split(self):
        with pytest.raises(PromptError, match="held-out"):
            canvas.targets("test")


class TestEnvironment:
    @pytest.mark.parametrize("name", [canvas.ID, canvas.HELD_OUT_ID])
    def test_gymnasium_finds_nothing_to_object_to(self, name):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*symmetric and normalized")  # a deviation of 1 should mean 3 pixels
            check_env(gymnasium.make(name, render_mode="rgb_array").unwrapped)

    def test_one_and_many_paint_alike(self):
        many, index = make(canvas.ID, 3), np.array([5, 900, 3999])
        seen, _ = many.reset(options={"index": index})
        singles = [gymnasium.make(canvas.ID) for _ in index]
        alone = [env.reset(options={"index": int(i)})[0] for env, i in zip(singles, index, strict=True)]
        for stroke in range(canvas.STROKES):
            assert np.allclose(seen, np.stack(alone))
            actions = strokes(3, seed=stroke)
            seen, rewards, ended, truncated, info = many.step(actions)
            steps = [env.step(action) for env, action in zip(singles, actions, strict=True)]
            alone = [step[0] for step in steps]
            assert np.allclose(rewards, [step[1] for step in steps], atol=1e-6)
            assert ended.tolist() == [step[2] for step in steps] == [stroke == canvas.STROKES - 1] * 3
            assert not truncated.any() and np.allclose(info["error"], [step[4]["error"] for step in steps])

    def test_the_step_after_an_end_begins_anew(self):
        many = make(canvas.ID, 4)
        many.reset(seed=1)
        for stroke in range(canvas.STROKES):
            ended = many.step(strokes(4, seed=stroke))[2]
        seen, rewards, again, *_ = many.step(strokes(4))
        assert ended.all() and not again.any() and (rewards == 0).all()
        assert (seen[:, -1] == 0).all() and np.allclose(seen[:, :144], seen[:, 144:288])

    def test_a_seed_repeats_a_run(self):
        runs = []
        for _ in range(2):
            many = make(canvas.ID, 5)
            many.reset(seed=7)
            runs.append([many.step(strokes(5, seed=step))[0] for step in range(9)])
        assert np.array_equal(*runs)

    def test_a_brush_and_a_reward_of_your_own(self):
        def dot(x, y, *rest):
            return canvas.line(x, y, 0 * x, 0 * y, 0 * x + 2)

        many = canvas.CanvasVectorEnv(2, brush=dot, reward=lambda before, after, wanted: after.sum((1, 2)))
        many.reset(seed=0)
        rewards = many.step(np.zeros((2, 5)))[1]
        assert rewards == pytest.approx(dot(*np.full((2, 1), 12.0))[0].sum(), rel=1e-5)

    @pytest.mark.parametrize("index", [-1, 4000, 0.5, [1, 2]])
    def test_a_target_that_is_not_there(self, index):
        with pytest.raises(ControlError, match="0 to 3999"):
            gymnasium.make(canvas.ID).reset(options={"index": index})

    def test_no_step_without_an_episode(self):
        with pytest.raises(ControlError, match="reset"):
            canvas.CanvasEnv().step(np.zeros(5))
        with pytest.raises(ControlError, match="reset"):
            canvas.CanvasVectorEnv(2).step(np.zeros((2, 5)))


def test_the_functions_that_train_the_pole_train_the_painter():
    called = []

    def loss(*given):
        called.append("loss")
        return clipped_surrogate(*given)

    def estimator(*given):
        called.append("estimator")
        return gae(*given)

    small = PPOConfig(copies=4, steps=7, iterations=1, epochs=1, minibatches=1, hidden=(8,))
    for name in ("CartPole-v1", canvas.ID):
        called.clear()
        train(name, small, seed=0, loss=loss, estimator=estimator)
        assert called == ["estimator", "loss"]


def test_it_learns():
    settings = PPOConfig(copies=96, steps=14, iterations=30, epochs=4, learning_rate=2e-3, discount=0.5, lam=0.9)
    ppo = PPO(make(canvas.ID, 96), settings, seed=0)
    before = control.evaluate(ppo.policy.greedy, canvas.HELD_OUT_ID, episodes=200).mean()
    for _ in range(settings.iterations):
        ppo.iteration()
    after = control.evaluate(ppo.policy.greedy, canvas.HELD_OUT_ID, episodes=200).mean()
    assert torch.isfinite(after) and after > before + 0.05
