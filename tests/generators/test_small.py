"""Small networks: their shapes, and that `fit` descends, averages and stops at what is no number."""

import pytest
import torch
from torch import nn

from pixelpolicy.errors import TrainingError
from pixelpolicy.generators.small import NO_LABEL, DigitNet, PointNet, WaistNet, fit, level_features


def test_networks_answer_in_the_shape_of_the_state():
    level = torch.rand(5)
    assert PointNet()(torch.randn(5, 2), level).shape == (5, 2)
    labels = torch.tensor([0, 3, 9, NO_LABEL, NO_LABEL])
    for network in (DigitNet(), WaistNet()):
        assert network(torch.randn(5, 1, 16, 16), level, labels).shape == (5, 1, 16, 16)
        assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_digits_depend_on_level_and_label_and_not_on_their_neighbours():
    torch.manual_seed(0)
    network, x = DigitNet(), torch.randn(1, 1, 16, 16).expand(3, -1, -1, -1)
    for part in network.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.2)
    one, other_label, other_level = network(x, torch.tensor([0.3, 0.3, 0.6]), torch.tensor([1, 2, 1]))
    assert not torch.allclose(one, other_label) and not torch.allclose(one, other_level)
    alone = network(x[:1], torch.tensor([0.3]), torch.tensor([1]))[0]
    assert torch.allclose(alone, one, atol=1e-6)


def test_nothing_passes_by_the_waist():
    network, x = WaistNet(waist=3), torch.randn(1, 1, 16, 16)
    rows = torch.autograd.functional.jacobian(
        lambda x: network(x, torch.tensor([0.5]), torch.tensor([4])).flatten(), x
    ).view(256, 256)
    assert torch.linalg.matrix_rank(rows) == 3


def test_levels_are_told_apart():
    features = level_features(torch.linspace(0, 1, 1001))
    assert torch.pdist(features).min() > 1e-3


def test_fit_finds_the_least_squares_answer():
    torch.manual_seed(0)
    network, x = nn.Linear(3, 1), torch.randn(256, 3)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3
    seen = []
    values = fit(network, lambda: (network(x) - y).square().mean(), 400, rate=0.05, report=lambda *a: seen.append(a))
    assert values[-1] < 1e-3 < values[0] and len(values) == 400
    assert torch.allclose(network.weight, torch.tensor([[1.0, -2.0, 0.5]]), atol=0.02)
    assert seen == list(enumerate(values))


def test_the_weights_kept_are_an_average():
    weights, network = [], nn.Linear(1, 1, bias=False)

    def loss():
        weights.append(network.weight.item())
        return (network.weight - 3).square().sum()

    fit(network, loss, 12, rate=0.1, warmup=1, decay=0.5)
    assert weights[0] < network.weight.item() < weights[-1]


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "is nan"), (float("inf"), "is inf")])
def test_fit_stops_at_what_is_no_number(value, words):
    network = nn.Linear(1, 1)
    before = network.weight.clone()
    with pytest.raises(TrainingError, match=words):
        fit(network, lambda: network.weight.abs().sum() * value, 3)
    assert torch.equal(network.weight, before)


def test_fit_refuses_a_loss_without_a_gradient():
    with pytest.raises(TrainingError, match="has no gradient"):
        fit(nn.Linear(1, 1), lambda: torch.tensor(1.0), 3)
