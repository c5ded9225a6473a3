"""Log-probabilities against torch.distributions, their gradients against formulas and finite differences."""

import math

import pytest
import torch
from torch.distributions import Categorical, Normal

from pixelpolicy.errors import RolloutError
from pixelpolicy.rl import categorical_log_prob, gaussian_log_prob

SHAPE = (5, 3, 4, 2)
STDS = {
    "number": 0.3,
    "scalar": torch.tensor(0.3, dtype=torch.float64),
    "one": torch.full((1,), 0.3, dtype=torch.float64),
    "batch": torch.linspace(0.1, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1),
    "full": torch.linspace(0.1, 2, math.prod(SHAPE), dtype=torch.float64).reshape(SHAPE),
}


def data(shape=SHAPE):
    generator = torch.Generator().manual_seed(0)
    x, mean = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return x, mean


def reference(x, mean, std, reduce):
    terms = Normal(mean.double(), torch.as_tensor(std, dtype=torch.float64)).log_prob(x.double()).reshape(len(x), -1)
    return terms.mean(1) if reduce == "mean" else terms.sum(1)


@pytest.mark.parametrize("std", STDS.values(), ids=STDS)
@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_gaussian_in_float64(std, reduce):
    x, mean = data()
    given = gaussian_log_prob(x, mean, std, reduce=reduce)
    torch.testing.assert_close(given, reference(x, mean, std, reduce), rtol=0, atol=1e-10)


@pytest.mark.parametrize("std", [0.05, 0.7, 2.0])
def test_gaussian_in_float32(std):
    """Inputs are rounded first; only the arithmetic is compared. 4096 dimensions: a small latent."""
    noise, mean = (t.float() for t in data((6, 4, 32, 32)))
    x, std = mean + std * noise, torch.tensor(std)
    mean_error = gaussian_log_prob(x, mean, std).double() - reference(x, mean, std, "mean")
    assert mean_error.abs().max() < 1e-6
    sums = gaussian_log_prob(x, mean, std, reduce="sum").double()
    torch.testing.assert_close(sums, reference(x, mean, std, "sum"), rtol=1e-5, atol=0)


def test_the_mean_is_the_default():
    x, mean = data()
    assert torch.equal(gaussian_log_prob(x, mean, 0.3), gaussian_log_prob(x, mean, 0.3, reduce="mean"))


def test_a_batch_of_plain_numbers():
    x, mean = data((5,))
    torch.testing.assert_close(gaussian_log_prob(x, mean, 0.3), Normal(mean, 0.3).log_prob(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_gaussian_gradients(reduce):
    x, mean = (t.requires_grad_() for t in data())
    std = STDS["batch"].clone().requires_grad_()
    weights = torch.arange(1.0, 6, dtype=torch.float64)
    (weights * gaussian_log_prob(x, mean, std, reduce=reduce)).sum().backward()
    dimensions = 24 if reduce == "mean" else 1
    share = weights.reshape(5, 1, 1, 1) / dimensions
    with torch.no_grad():
        towards_mean = share * (x - mean) / std**2
        towards_std = (share * ((x - mean) ** 2 / std**3 - 1 / std)).sum((1, 2, 3), keepdim=True)
    torch.testing.assert_close(mean.grad, towards_mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(x.grad, -towards_mean, rtol=0, atol=1e-10)
    torch.testing.assert_close(std.grad, towards_std, rtol=0, atol=1e-10)


def test_gaussian_gradient_in_float32():
    x, mean = (t.float() for t in data())
    mean.requires_grad_()
    gaussian_log_prob(x, mean, 0.7).sum().backward()
    exact = (x.double() - mean.detach().double()) / 0.7**2 / 24
    torch.testing.assert_close(mean.grad.double(), exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """Trap 1: a log-probability in bfloat16 would be off by far more than a clip range of 1e-4."""
    x, mean = (t.to(dtype) for t in data())
    given = gaussian_log_prob(x, mean, 0.7)
    assert given.dtype == torch.float32
    assert (given.double() - reference(x, mean, 0.7, "mean")).abs().max() < 1e-6
    logits = x[:, 0, 0]
    chosen = categorical_log_prob(logits, torch.zeros(5, dtype=torch.long)).double()
    assert (chosen - logits.double().log_softmax(-1)[:, 0]).abs().max() < 1e-6


def test_a_stored_action_must_be_cast_before_it_is_judged():
    """Trap 1: the density of the unrounded action is another one; that of the stored action replays exactly."""
    mean, noise = (t.float() for t in data((4, 16, 16, 16)))
    action = mean + 0.05 * noise
    stored = action.to(torch.bfloat16)
    first, replayed = (gaussian_log_prob(stored, mean, 0.05) for _ in range(2))
    assert torch.equal((replayed - first).exp(), torch.ones(4))
    assert ((replayed - gaussian_log_prob(action, mean, 0.05)).exp() - 1).abs().min() > 1e-4


def test_the_same_clip_range_is_6_6_nats_of_a_large_latent():
    """Trap of the mean: a ratio of 1 + 1e-4 per dimension, over 65,536 dimensions."""
    x = torch.zeros(1, 65536, dtype=torch.float64)
    shift = math.sqrt(2 * math.log(1 + 1e-4))
    per_dimension, joint = (
        gaussian_log_prob(x, x, 1.0, reduce=r) - gaussian_log_prob(x, x + shift, 1.0, reduce=r) for r in ("mean", "sum")
    )
    assert per_dimension.exp().item() == pytest.approx(1 + 1e-4, abs=1e-10)
    assert joint.item() == pytest.approx(6.55, abs=0.01)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), torch.tensor([1.0, 1, 0, 1, 1]).reshape(5, 1, 1, 1)], ids=str)
def test_a_deterministic_step_has_no_density(std):
    x, mean = data()
    with pytest.raises(
        RolloutError, match="std must be positive.*deterministic step has no density.*Leave such steps out"
    ):
        gaussian_log_prob(x, mean, std)


@pytest.mark.parametrize("shape", [(5,), (2,), (3, 4, 2), (5, 1, 1, 3), (1, 5, 3, 4, 2)], ids=str)
def test_a_std_that_could_align_with_the_wrong_axis(shape):
    x, mean = data()
    with pytest.raises(RolloutError, match=r"std has shape .*\[batch, 1, 1, 1\]"):
        gaussian_log_prob(x, mean, torch.ones(shape))


def test_a_mean_that_would_broadcast():
    x, mean = data()
    with pytest.raises(RolloutError, match="mean has shape .*same shape"):
        gaussian_log_prob(x, mean[:1], 1.0)


def test_an_unknown_reduction():
    x, mean = data()
    with pytest.raises(ValueError, match="'average'.*'mean'.*'sum'"):
        gaussian_log_prob(x, mean, 1.0, reduce="average")


@pytest.mark.parametrize("shape", [(), (7,), (2, 3)], ids=str)
def test_categorical(shape):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(*shape, 6, generator=generator, dtype=torch.float64)
    actions = torch.randint(6, shape, generator=generator)
    expected = Categorical(logits=logits).log_prob(actions)
    torch.testing.assert_close(categorical_log_prob(logits, actions), expected, rtol=0, atol=1e-10)
    single = categorical_log_prob(logits.float(), actions)
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-6)


def test_categorical_gradient_is_one_hot_minus_softmax():
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    actions = torch.tensor([0, 2, 1, 2])
    categorical_log_prob(logits, actions).sum().backward()
    expected = torch.eye(3, dtype=torch.float64)[actions] - logits.detach().softmax(-1)
    torch.testing.assert_close(logits.grad, expected, rtol=0, atol=1e-10)


def test_a_forbidden_choice_takes_no_share():
    logits = torch.tensor([[0.0, -math.inf, 0.0]])
    assert categorical_log_prob(logits, torch.tensor([2])).item() == pytest.approx(-math.log(2), abs=1e-6)
    assert categorical_log_prob(logits, torch.tensor([1])).item() == -math.inf


@pytest.mark.parametrize("actions", [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor([0.0, 1.0])], ids=str)
def test_an_action_that_is_no_choice(actions):
    with pytest.raises(RolloutError, match="from 0 to 2"):
        categorical_log_prob(torch.zeros(2, 3), actions)


def test_actions_of_another_shape():
    with pytest.raises(RolloutError, match=r"actions have shape \[2, 1\], logits \[2, 3\]"):
        categorical_log_prob(torch.zeros(2, 3), torch.zeros(2, 1, dtype=torch.long))
