"""Predictions and roads: conversions agree with the mixtures they were made from, and with diffusers' schedulers."""

import pytest
import torch

from pixelpolicy.errors import TrainingError
from pixelpolicy.generators.prediction import FLOOR, KINDS, endpoints, flow_to_vp, vp_to_flow

ROADS = {
    "flow": lambda level: (1 - level, level),
    "vp": lambda level: (torch.sqrt(1 - level), torch.sqrt(level)),
}


def mixture(level: float, road: str, dtype=torch.float64):
    random = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(3, 2, 4, dtype=dtype, generator=random) for _ in range(2))
    a, b = ROADS[road](torch.tensor(level, dtype=dtype))
    return x0, x1, a, b, a * x0 + b * x1


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_a_true_prediction_gives_the_ends_back(road, kind, level):
    x0, x1, a, b, z = mixture(level, road)
    truth = {"picture": x0, "noise": x1, "velocity": x1 - x0}[kind]
    got = endpoints(truth, kind, z, a, b)
    assert torch.allclose(got[0], x0, atol=1e-12) and torch.allclose(got[1], x1, atol=1e-12)


@pytest.mark.parametrize("kind", ["picture", "noise"])
def test_where_a_weight_vanishes_nothing_is_infinite(kind):
    level = 0.0 if kind == "picture" else 1.0
    x0, x1, a, b, z = mixture(level, "flow")
    wrong = torch.ones_like(z)
    got = endpoints(wrong, kind, z, a, b)
    assert torch.allclose(got[1 if kind == "picture" else 0], (z - wrong) / FLOOR)


def test_another_kind_is_named():
    with pytest.raises(TrainingError, match="picture, noise, velocity"):
        endpoints(torch.zeros(1), "score", torch.zeros(1), torch.tensor(0.5), torch.tensor(0.5))


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.7, 1.0])
def test_roads_lead_there_and_back(sigma):
    x0, x1, a, b, x = mixture(sigma, "flow")
    y, alpha_bar = flow_to_vp(x, b)
    assert torch.allclose(y, alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * x1, atol=1e-12)
    back, again = vp_to_flow(y, alpha_bar)
    assert torch.allclose(back, x, atol=1e-12) and torch.allclose(again, b, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "theirs"), [("picture", "sample"), ("noise", "epsilon"), ("velocity", "v_prediction")]
)
def test_the_picture_is_that_of_diffusers(kind, theirs):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(prediction_type=theirs, clip_sample=False)
    scheduler.set_timesteps(10)
    alpha_bar = scheduler.alphas_cumprod[501]
    x0, x1, a, b, y = mixture(1 - alpha_bar.item(), "vp", torch.float32)
    guess = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    if kind == "velocity":  # theirs is the velocity along the circle, a x1 - b x0; ours is x1 - x0
        along = guess
        want = scheduler.step(along, 501, y).pred_original_sample
        picture, noise = a * y - b * along, b * y + a * along
        got = endpoints(noise - picture, kind, y, a, b)[0]
    else:
        want = scheduler.step(guess, 501, y).pred_original_sample
        got = endpoints(guess, kind, y, a, b)[0]
    assert torch.allclose(got, want, atol=1e-4)
