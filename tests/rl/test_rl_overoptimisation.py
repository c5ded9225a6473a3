"""Over-optimisation: best-of-n against brute force, a curve against its points, shares against what was put in."""

import itertools
import math

import pytest
import torch

from pixelpolicy.rl import overoptimisation as over


def test_kl_of_the_best_of_n_is_that_of_its_rank():
    """The rank u of the best of n has density n u^(n-1) against a uniform one: its KL by the midpoint rule."""
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    for n in (1, 2, 4, 12, 64):
        density = n * u ** (n - 1)
        assert over.best_of_n_kl(n).item() == pytest.approx(torch.xlogy(density, density).mean().item(), abs=1e-4)
    assert over.best_of_n_kl(torch.tensor([1, 2])).tolist() == pytest.approx([0.0, math.log(2) - 0.5])
    with pytest.raises(ValueError):
        over.best_of_n_kl(0)


def test_expected_best_is_the_mean_over_all_choices():
    stream = torch.Generator().manual_seed(0)
    proxy, gold = torch.randn(3, 6, generator=stream).double(), torch.randn(3, 6, generator=stream).double()
    for n in range(1, 7):
        by_hand = [
            sum(gold[row, max(chosen, key=lambda i: proxy[row, i])] for chosen in itertools.combinations(range(6), n))
            / math.comb(6, n)
            for row in range(3)
        ]
        assert torch.allclose(over.expected_best(proxy, gold, n), torch.stack(by_hand))
    assert torch.allclose(over.expected_best(proxy, gold, 1), gold.mean(-1))
    assert over.expected_best(torch.zeros(300), torch.arange(300.0), 256).isfinite()
    for n in (0, 7):
        with pytest.raises(ValueError):
            over.expected_best(proxy, gold, n)


@pytest.mark.parametrize("form", ["rl", "best-of-n"])
def test_a_curve_is_found_from_its_points_and_peaks_where_its_slope_is_zero(form):
    distance = torch.tensor([0.0, 0.5, 1.0, 3.0, 8.0], dtype=torch.float64)
    gain = over.goodhart_curve(distance, 0.4, 0.15, form)
    assert over.fit_goodhart(distance, gain, form) == pytest.approx((0.4, 0.15))
    peak = over.goodhart_peak(0.4, 0.15, form)
    at = torch.tensor(peak.distance, dtype=torch.float64, requires_grad=True)
    value = over.goodhart_curve(at, 0.4, 0.15, form)
    assert peak.gain == pytest.approx(value.item())
    assert torch.autograd.grad(value, at)[0].item() == pytest.approx(0.0, abs=1e-9)


def test_a_curve_without_a_turn_and_too_few_points():
    assert over.goodhart_peak(0.3, 0.0) == (math.inf, math.inf)
    assert over.goodhart_peak(-1.0, 0.5, "best-of-n") == (0.0, 0.0)
    with pytest.raises(ValueError):
        over.fit_goodhart(torch.tensor([0.0, 2.0, 2.0]), torch.zeros(3))
    with pytest.raises(ValueError):
        over.goodhart_curve(torch.ones(1), 1.0, 1.0, "ppo")


@pytest.mark.parametrize(
    ("golds", "patience", "wanted"),
    [
        ([0.5, 0.6, 0.7, 0.6, 0.6, 0.9], 2, (2, 5)),
        ([0.5, 0.6, 0.7, 0.6, 0.6, 0.9], 3, (5, 6)),
        ([0.5, 0.5, 0.5], 2, (0, 3)),
        ([0.5], 1, (0, 1)),
        ([0.9, 0.1, 0.2], 1, (0, 2)),
    ],
)
def test_early_stop(golds, patience, wanted):
    assert over.early_stop(golds, patience) == wanted


def test_early_stop_refuses_nothing():
    for golds, patience in (([], 1), ([0.1], 0)):
        with pytest.raises(ValueError):
            over.early_stop(golds, patience)


def test_the_explained_share_is_what_was_put_in():
    stream = torch.Generator().manual_seed(1)
    states = torch.randn(4000, 1, generator=stream)
    for share in (0.0, 0.25, 0.8):
        rewards = share**0.5 * states + (1 - share) ** 0.5 * torch.randn(4000, 3, generator=stream)
        assert over.explained_share(rewards) == pytest.approx(share, abs=0.04)
    assert over.explained_share(torch.randn(5, 1).expand(5, 4)) == pytest.approx(1.0)
    assert over.explained_share(torch.ones(3, 3)) == 0.0
    with pytest.raises(ValueError):
        over.explained_share(torch.ones(1, 4))
