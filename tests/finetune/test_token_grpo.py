"""GRPO on tokens: its gradient by hand, and that it learns what a reward of layout or picture asks."""

from dataclasses import replace

import pytest
import torch

from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig, TokenGRPO
from pixelpolicy.generators.picture_tokens import build
from pixelpolicy.policies import TokenPolicy
from pixelpolicy.rewards import layout_agreement, of_pictures, shapes_dense
from pixelpolicy.rl import Reward, clipped_surrogate, group_advantages, token_kl
from pixelpolicy.worlds import shapes


@pytest.fixture
def policy():
    torch.manual_seed(0)
    generator = build(width=32, layers=1, codes=16)
    for module in generator.modules.values():
        module.eval().requires_grad_(False)
    return TokenPolicy(generator.student(), micro_batch=6)


def settings(**changes):
    return GRPOConfig(
        **{"prompts_per_iteration": 3, "group_size": 4, "trained_steps": 1000, "clip_range": 0.2} | changes
    )


SHORT = Reward("short", lambda drawings, prompts: torch.tensor([-float(len(d.layout)) for d in drawings]))


def test_it_is_grpo_with_the_objective_of_rl():
    assert issubclass(TokenGRPO, GRPO)
    fields = TokenGRPO.__dataclass_fields__
    assert fields["objective"].default is clipped_surrogate
    assert fields["advantages_of"].default is group_advantages


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_the_loss_is_the_mean_over_samples_of_the_mean_over_their_tokens(policy, weight):
    algorithm = TokenGRPO(policy, SHORT, shapes.draw_prompts, settings(minibatches=1, kl_weight=weight))
    for parameter in policy.generator.transformer.parameters():  # away from the reference and from ratio 1
        parameter.data += 0.05 * torch.randn_like(parameter)
    experience, _ = algorithm.collect(0)
    for parameter in policy.generator.transformer.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    rollout, advantages, _ = experience
    (losses,) = algorithm.minibatches(experience, 0)
    given = sum(loss()[0] for loss in losses) / len(losses)

    logits = policy.logits(rollout)
    free = (logits[:, :-1] > -torch.inf).sum(-1) > 1
    ratio = (policy.log_probs(rollout) - rollout.log_probs).exp()
    gains = advantages[:, None]
    per_token = torch.maximum(-gains * ratio, -gains * ratio.clamp(0.8, 1.2))
    expected = torch.stack([row[mine].mean() for row, mine in zip(per_token, free, strict=True)]).mean()
    with torch.no_grad():
        others = algorithm.reference.logits(rollout)
    expected = expected + weight * token_kl(logits[:, :-1], others[:, :-1]).mean()
    assert given.item() == pytest.approx(expected.item(), abs=1e-6)
    parameters = list(policy.generator.transformer.parameters())
    for one, other in zip(*(torch.autograd.grad(v, parameters) for v in (given, expected)), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_only_the_steps_that_were_drawn_are_trained(policy):
    algorithm = TokenGRPO(policy, SHORT, shapes.draw_prompts, settings(trained_steps=3, kl_weight=0.0))
    (rollout, _, steps), _ = algorithm.collect(0)
    assert len(steps) == 3
    spread = []
    watched = replace(algorithm, spread=lambda a, c: spread.append(c.shape) or torch.ones(c.shape))
    (rollout, advantages, steps), _ = watched.collect(0)
    for losses in watched.minibatches((rollout, advantages, steps), 0):
        [loss() for loss in losses]
    assert set(spread) == {(6, 3)}


def test_it_learns_to_plan_less(policy):
    algorithm = TokenGRPO(policy, SHORT, shapes.draw_prompts, settings(group_size=12, kl_weight=0.0))
    history = Loop(algorithm, LoopConfig(12, 3e-3, progress=False)).run()
    assert history[-1]["reward"] > history[0]["reward"] + 0.8


def test_components_of_the_reward_are_logged(policy):
    reward = 0.5 * layout_agreement() + of_pictures(shapes_dense())
    algorithm = TokenGRPO(policy, reward, shapes.draw_prompts, settings())
    _, metrics = algorithm.collect(0)
    assert metrics["reward"] == pytest.approx(0.5 * metrics["reward/layout"] + metrics["reward/dense"], abs=1e-6)
