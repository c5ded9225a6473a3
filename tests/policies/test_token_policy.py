"""Tokens as actions: what is replayed is what was drawn, whatever narrows the distribution."""

from dataclasses import replace

import pytest
import torch

from pixelpolicy.errors import RolloutError
from pixelpolicy.generators.picture_tokens import build
from pixelpolicy.policies import TokenPolicy, sequence_kl
from pixelpolicy.policies.tokens import chosen
from pixelpolicy.worlds import layouts, shapes

PROMPTS = [*shapes.trained_prompts("single")[:3], *shapes.trained_prompts("two")[:3]]
SEEDS = torch.arange(6)


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    generator = build(width=32, layers=2, codes=16)
    for module in generator.modules.values():
        module.eval().requires_grad_(False)
    return TokenPolicy(generator, micro_batch=4)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.3, 0.8)])
def test_a_replay_repeats_the_log_probabilities_to_the_bit(policy, temperature, top_p):
    policy = replace(policy, generator=policy.generator.student(), temperature=temperature, top_p=top_p)
    rollout = policy.rollout(PROMPTS, seeds=SEEDS)
    for rows in (slice(0, 4), slice(4, 6)):
        part = rollout.select(rows)
        replayed = policy.log_probs(part)
        assert torch.equal(replayed.detach(), part.log_probs)
        assert replayed.requires_grad
        assert torch.equal(policy.log_prob(part, 5).detach(), part.log_prob_at(5))
        replayed.sum().backward()
        assert all(p.grad.isfinite().all() for p in policy.generator.transformer.parameters() if p.grad is not None)


def test_nothing_that_was_drawn_is_impossible(policy):
    rollout = replace(policy, top_p=0.5).rollout(PROMPTS, seeds=SEEDS)
    assert rollout.log_probs.isfinite().all()
    wide = policy.log_probs(rollout)
    assert (rollout.log_probs >= wide - 1e-5).all()  # a narrower distribution gives its choices more
    assert (rollout.log_probs > wide + 0.1).any()


def test_the_shape_of_a_rollout(policy):
    rollout = policy.rollout(PROMPTS, seeds=SEEDS)
    steps = layouts.LENGTH + 64
    assert rollout.states.shape == (6, steps + 1)
    assert (rollout.states[:, 0] == -1).all()
    assert rollout.stochastic.all()
    assert [layouts.written(d.layout) for d in rollout.samples] == rollout.states[:, 1:17].tolist()
    with pytest.raises(RolloutError, match="80 steps"):
        policy.log_prob(rollout, steps)


def test_samples_do_not_depend_on_the_micro_batch(policy):
    one, other = (replace(policy, micro_batch=size).rollout(PROMPTS, seeds=SEEDS) for size in (6, 1))
    assert torch.equal(one.states, other.states)


def test_what_nobody_chose_has_probability_1_and_no_gradient(policy):
    policy = replace(policy, generator=policy.generator.student())
    rollout = policy.rollout(PROMPTS, seeds=SEEDS)
    free = chosen(policy.logits(rollout))
    lengths = torch.tensor([len(d.layout) for d in rollout.samples])
    assert torch.equal(free.sum(1), 64 + (4 * lengths + 1).clamp(max=16))
    log_probs = policy.log_probs(rollout)
    assert (log_probs[~free] == 0).all()
    gradients = torch.autograd.grad(log_probs[~free].sum(), list(policy.generator.transformer.parameters()))
    assert all((g == 0).all() for g in gradients)


def test_kl_to_itself_is_0_and_to_another_is_what_sampling_estimates(policy):
    reference = policy.frozen_copy()
    torch.manual_seed(1)
    other = replace(policy, generator=policy.generator.student())
    for parameter in other.generator.transformer.parameters():
        parameter.data += 0.03 * torch.randn_like(parameter)
    prompts, seeds = PROMPTS * 40, torch.arange(240)
    assert (sequence_kl(policy, reference, PROMPTS, SEEDS) == 0).all()
    rollout = other.rollout(prompts, seeds=seeds)
    with torch.no_grad():
        gaps = (rollout.log_probs - reference.log_probs(rollout)).sum(1)
    exact = sequence_kl(other, reference, prompts, seeds)
    assert (exact.mean() - gaps.mean()).abs() < 4 * (gaps - exact).std() / len(gaps) ** 0.5


def test_prompts_and_seeds_come_in_pairs(policy):
    with pytest.raises(RolloutError, match="one seed a prompt"):
        policy.rollout(PROMPTS, seeds=SEEDS[:2])
