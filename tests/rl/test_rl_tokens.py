"""Sequences of tokens: against formulas written out in float64, gradients too."""

import pytest
import torch

from pixelpolicy.errors import RolloutError
from pixelpolicy.rl import clipped_surrogate, token_advantages, token_kl, token_log_probs

INF = float("inf")


@pytest.fixture
def logits():
    return torch.randn(3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_log_probabilities_are_of_the_next_token(logits):
    states = torch.randint(7, (3, 5), generator=torch.Generator().manual_seed(2))
    states[:, 0] = -1
    given = token_log_probs(logits, states)
    for row in range(3):
        for step in range(4):
            p = torch.exp(logits[row, step, states[row, step + 1]]) / torch.exp(logits[row, step]).sum()
            assert given[row, step].item() == pytest.approx(p.log().item(), abs=1e-12)


def test_a_token_that_is_no_choice_is_refused(logits):
    with pytest.raises(RolloutError, match="from 0 to 6"):
        token_log_probs(logits, torch.full((3, 5), 7))


def test_kl_is_the_sum_over_all_choices_and_so_is_its_gradient(logits):
    logits.requires_grad_()
    reference = logits.detach().flip(0)
    p, q = logits.softmax(-1), reference.softmax(-1)
    expected = (p * (p / q).log()).sum(-1)
    given = token_kl(logits, reference)
    assert torch.allclose(given, expected, atol=1e-12)
    grads = [torch.autograd.grad(value.sum(), logits, retain_graph=True)[0] for value in (given, expected)]
    assert torch.allclose(*grads, atol=1e-12)


def test_what_is_forbidden_adds_nothing_to_kl_nor_to_its_gradient(logits):
    logits = logits.clone()
    logits[..., 3:] = -INF
    logits.requires_grad_()
    reference = logits.detach().flip(0)
    value = token_kl(logits, reference)
    assert torch.allclose(value, token_kl(logits[..., :3], reference[..., :3]), atol=1e-12)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert gradient.isfinite().all()
    assert (gradient[..., 3:] == 0).all()


def test_kl_is_infinite_where_the_reference_forbids_what_is_done():
    assert token_kl(torch.zeros(2), torch.tensor([0.0, -INF])).isinf()


def test_kl_of_different_shapes_is_refused(logits):
    with pytest.raises(RolloutError, match="give the same"):
        token_kl(logits, logits[:1])


def test_samples_count_alike_however_many_tokens_they_chose():
    generator = torch.Generator().manual_seed(3)
    chosen = torch.tensor([[True, True, True, True], [True, False, False, False], [True, True, False, True]])
    advantages = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    new, old = torch.randn(2, 3, 4, dtype=torch.float64, generator=generator) / 5
    new, old = (torch.where(chosen, x, 0) for x in (new, old))
    ratio = (new - old).exp()
    per_token = torch.maximum(-advantages[:, None] * ratio, -advantages[:, None] * ratio.clamp(0.8, 1.2))
    per_sample = [per_token[row][chosen[row]].mean() for row in range(3)]
    given = clipped_surrogate(new, old, token_advantages(advantages, chosen), 0.2)
    assert given.item() == pytest.approx((sum(per_sample) / 3).item(), abs=1e-12)


def test_a_sample_that_chose_nothing_is_refused():
    with pytest.raises(RolloutError, match="chose nothing"):
        token_advantages(torch.ones(2), torch.tensor([[True], [False]]))
