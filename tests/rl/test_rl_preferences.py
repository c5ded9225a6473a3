"""Losses of comparisons against plain Python, their gradients by hand, and the reward that DPO's optimum implies."""

import math

import pytest
import torch

from pixelpolicy.errors import RewardError, RolloutError
from pixelpolicy.rl import bradley_terry_loss, dpo_loss, tilted


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("shape", [(6,), (3, 4), (1,)], ids=str)
def test_bradley_terry_is_the_surprise_and_its_gradient_the_chance_of_being_wrong(scale, shape):
    winner, loser = scale * random(*shape), scale * random(*shape, seed=1)
    gaps = (winner - loser).flatten().tolist()
    expected = math.fsum(-math.log(sigmoid(gap)) for gap in gaps) / len(gaps)
    slopes = torch.tensor([-sigmoid(-gap) / len(gaps) for gap in gaps], dtype=torch.float64).reshape(shape)
    winner.requires_grad_(), loser.requires_grad_()
    loss = bradley_terry_loss(winner, loser)
    loss.backward()
    assert loss.shape == () and loss.item() == pytest.approx(expected, abs=1e-10)
    torch.testing.assert_close(winner.grad, slopes, rtol=0, atol=1e-10)
    torch.testing.assert_close(loser.grad, -slopes, rtol=0, atol=1e-10)
    single = bradley_terry_loss(winner.detach().float(), loser.detach().float())
    assert single.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_bradley_terry_neither_overflows_nor_gives_up():
    far = torch.tensor([800.0], dtype=torch.float64, requires_grad=True)
    assert bradley_terry_loss(far, -far).item() == 0
    loss = bradley_terry_loss(-far, far)
    loss.backward()
    assert loss.item() == 1600 and far.grad.item() == 2


@pytest.mark.parametrize("beta", [0.05, 1.0, 10.0])
def test_dpo_value_and_gradient(beta):
    winner, loser, ref_w, ref_l = (random(7, seed=s) - 3 for s in range(4))
    margins = [
        beta * ((win - rw) - (lose - rl))
        for win, lose, rw, rl in zip(*(t.tolist() for t in (winner, loser, ref_w, ref_l)), strict=True)
    ]
    expected = math.fsum(math.log1p(math.exp(-m)) for m in margins) / 7
    slopes = torch.tensor([-beta * sigmoid(-m) / 7 for m in margins], dtype=torch.float64)
    for part in (winner, loser, ref_w, ref_l):
        part.requires_grad_()
    loss = dpo_loss(winner, loser, ref_w, ref_l, beta)
    loss.backward()
    assert loss.item() == pytest.approx(expected, abs=1e-10)
    torch.testing.assert_close(winner.grad, slopes, rtol=0, atol=1e-10)
    torch.testing.assert_close(loser.grad, -slopes, rtol=0, atol=1e-10)
    assert ref_w.grad is None and ref_l.grad is None, "the reference is frozen"


def test_dpo_takes_the_mean_of_the_sigmoids_not_the_sigmoid_of_the_mean():
    """Trap 11: two pairs that cancel on average are still a loss of more than log 2."""
    zero = torch.zeros(2, dtype=torch.float64)
    loss = dpo_loss(torch.tensor([3.0, -3.0], dtype=torch.float64), zero, zero, zero, 1.0)
    assert loss.item() == pytest.approx((math.log1p(math.exp(-3)) + math.log1p(math.exp(3))) / 2, abs=1e-12)
    assert loss.item() > math.log(2) + 0.5


def test_the_untrained_policy_is_undecided():
    same = random(5)
    assert dpo_loss(same, same.flip(0), same, same.flip(0), 0.3).item() == pytest.approx(math.log(2), abs=1e-12)


def test_the_tilted_distribution_is_where_dpo_comes_to_rest():
    """With all comparisons in their expected share, the gradient in the logits vanishes at p e^(r/beta)/Z alone."""
    p, rewards, beta = random(4).softmax(0), random(4, seed=1), 0.4

    def gradient(q):
        logits = q.log().requires_grad_()
        log_probs, total = logits.log_softmax(0), 0.0
        for i in range(4):
            for j in range(4):
                pair = (log_probs[i : i + 1], log_probs[j : j + 1], p[i : i + 1].log(), p[j : j + 1].log())
                total = total + p[i] * p[j] * torch.sigmoid(rewards[i] - rewards[j]) * dpo_loss(*pair, beta)
        return torch.autograd.grad(total, logits)[0]

    assert gradient(tilted(p, rewards, beta)).abs().max() < 1e-10
    assert gradient(p).abs().max() > 1e-3 and gradient(tilted(p, rewards, 2 * beta)).abs().max() > 1e-3


@pytest.mark.parametrize("beta", [0, -0.1, float("nan")])
def test_a_beta_that_is_not_positive(beta):
    with pytest.raises(ValueError, match="beta is .*positive number"):
        dpo_loss(*[torch.zeros(2)] * 4, beta)


def test_shapes_that_would_broadcast_and_empty_batches():
    column, row = torch.zeros(3, 1), torch.zeros(3)
    with pytest.raises(RolloutError, match=r"reward_winner \[3, 1\], reward_loser \[3\].*same pairs"):
        bradley_terry_loss(column, row)
    with pytest.raises(RolloutError, match=r"ref_loser \[3, 1\]"):
        dpo_loss(row, row, row, column, 0.1)
    for loss in (lambda e: bradley_terry_loss(e, e), lambda e: dpo_loss(e, e, e, e, 0.1)):
        with pytest.raises(RolloutError, match="at least one"):
            loss(torch.zeros(0))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_rewards_that_are_not_finite(bad):
    with pytest.raises(RewardError, match="not finite"):
        bradley_terry_loss(torch.tensor([0.0, bad]), torch.zeros(2))
