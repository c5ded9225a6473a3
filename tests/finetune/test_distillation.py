"""Score distillation on a generator whose velocity is known: one Gaussian, where the answer can be worked out."""

import pytest
import torch

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune.distillation import (
    DistillationConfig,
    best_gradient,
    distill,
    distillation_gradient,
    falling,
    surrogate,
)
from pixelpolicy.finetune.noising import noised
from pixelpolicy.rl import Reward

SPREAD = 0.5


class Gaussian:
    """Objects ``N(mean, SPREAD^2)``: the exact flow."""

    mean = torch.tensor([1.0, -2.0, 0.5])

    def encode(self, prompts):
        return (torch.tensor([[0.0 if p == "" else 1.0] for p in prompts]),)

    def velocity(self, x, sigma, told):
        level, mean = sigma[:, None].to(x), self.mean.to(x) * told.to(x)
        gain = (1 - level) * SPREAD**2 / ((1 - level) ** 2 * SPREAD**2 + level**2)
        return (x - mean - gain * (x - (1 - level) * mean)) / level

    def decode(self, x):
        return x


def test_the_gradient_against_its_closed_form_over_antithetic_noise():
    stream = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(4, 3, generator=stream, dtype=torch.float64) for _ in range(2))
    sigma, world = torch.tensor([0.1, 0.4, 0.9, 1.0]).double(), Gaussian()
    told = world.encode(["a"] * 4)
    got = [distillation_gradient(x0, s, sigma, world.velocity(noised(x0, s, sigma), sigma, *told)) for s in (x1, -x1)]
    level = sigma[:, None]
    wanted = level**2 / ((1 - level) ** 2 * SPREAD**2 + level**2) * (x0 - world.mean.double())
    torch.testing.assert_close(sum(got) / 2, wanted, rtol=1e-10, atol=1e-12)


def test_the_surrogate_has_the_gradient_that_was_given_and_no_other():
    x0, gradient = torch.randn(2, 3).requires_grad_(), torch.randn(2, 3).requires_grad_()
    surrogate(x0, gradient).backward()
    assert torch.equal(x0.grad, gradient.detach()) and gradient.grad is None


def test_noise_falls_from_high_to_low():
    assert falling(0, 10) == 0.95 and falling(9, 10) == pytest.approx(0.05) and falling(0, 1) == 0.95


def test_an_object_comes_to_the_mode_and_a_reward_moves_it_on():
    start = torch.zeros(8, 3)
    config = DistillationConfig(steps=300)
    plain, history = distill(Gaussian(), ["a"] * 8, start, config=config)
    assert (plain - Gaussian.mean).abs().mean() < 0.15 and not start.any() and history[0]["pull"] > 1
    first = Reward("first", lambda samples, prompts: samples[:, 0], differentiable=True)
    pulled, rows = distill(
        Gaussian(), ["a"] * 8, start, reward=first, config=DistillationConfig(steps=300, reward_weight=0.3)
    )
    assert (pulled[:, 0] - plain[:, 0]).mean() > 0.15 and rows[-1]["reward"] > rows[0]["reward"]
    assert (pulled[:, 1:] - plain[:, 1:]).abs().mean() < 0.05


def test_guidance_goes_beyond_the_prompts_mean_and_parameters_may_be_fewer():
    guided, _ = distill(Gaussian(), ["a"], torch.zeros(1, 3), config=DistillationConfig(steps=300, guidance_scale=1.5))
    assert guided[0, 1] < -2.3
    one, _ = distill(
        Gaussian(), ["a"], torch.zeros(1, 1), represent=lambda p: p.expand(1, 3), config=DistillationConfig(steps=300)
    )
    assert one.unique().numel() == 1 and one.mean().item() == pytest.approx(-1 / 6, abs=0.25)


def test_a_reward_without_gradient_is_refused():
    with pytest.raises(TrainingError, match="'hard' has no gradient"):
        distill(Gaussian(), ["a"], torch.zeros(1, 3), reward=Reward("hard", lambda s, p: s[:, 0]))


def test_the_best_of_several_noises_pulls_each_object_its_own():
    stream = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(3, 2, 2, generator=stream), torch.randn(4, 3, 2, 2, generator=stream)
    velocity, sigma = torch.randn(4, 3, 2, 2, generator=stream), torch.tensor([0.2, 0.5, 0.9])
    values = torch.tensor([[0.0, 5.0, 1.0], [9.0, 5.0, 1.0], [1.0, 0.0, 2.0], [2.0, -1.0, 1.0]])
    got = best_gradient(x0, x1, sigma, velocity, values)
    for row, best in enumerate((1, 0, 2)):
        torch.testing.assert_close(got[row], sigma[row] * (velocity[best, row] - (x1[best, row] - x0[row])))


def test_a_reward_without_gradient_picks_among_noises_and_moves_the_object_within_what_the_generator_guesses():
    hard = Reward("hard", lambda samples, prompts: (samples[:, 0] > 1.2).float() + samples[:, 0].clamp(max=1.2))
    start, prompts = torch.zeros(8, 3), ["a"] * 8
    plain, _ = distill(Gaussian(), prompts, start, config=DistillationConfig(steps=150))
    one, _ = distill(Gaussian(), prompts, start, config=DistillationConfig(steps=150), gradient_of=best_gradient)
    picked, rows = distill(Gaussian(), prompts, start, reward=hard, config=DistillationConfig(steps=150, tries=4))
    assert torch.equal(plain, one) and {"pull", "reward"} == set(rows[0])
    assert 0.1 < (picked[:, 0] - plain[:, 0]).mean() < 2 * SPREAD and (picked[:, 1:] - plain[:, 1:]).abs().mean() < 0.2
    assert rows[-1]["reward"] > rows[0]["reward"]


def test_tries_ask_for_a_reward_and_a_weight_for_a_gradient():
    hard = Reward("hard", lambda samples, prompts: samples[:, 0])
    with pytest.raises(TrainingError, match="tries=3 without a reward"):
        distill(Gaussian(), ["a"], torch.zeros(1, 3), config=DistillationConfig(tries=3))
    with pytest.raises(TrainingError, match="'hard' has no gradient.*pick among noises"):
        config = DistillationConfig(tries=3, reward_weight=0.1)
        distill(Gaussian(), ["a"], torch.zeros(1, 3), reward=hard, config=config)
