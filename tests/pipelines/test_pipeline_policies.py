"""Every kind of pipeline as a policy: ratios of 1 on replay, gradients to the adapter alone, GRPO in the loop."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from adapters import lora_of, shaken

from pixelpolicy.finetune import DDPO, GRPO, GRPOConfig, Loop, LoopConfig, RewardGradient, RewardGradientConfig, Window
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, ddim_eta, flow_sde, trajectory_kl
from pixelpolicy.rewards import jpeg_compressibility, redness
from pixelpolicy.worlds import shapes

KINDS = ["sd3", "flux2_klein", "sd15", "wan", "shap_e"]
TRANSITIONS = {
    "sd3": partial(cps, noise=0.7),
    "flux2_klein": partial(cps, noise=0.8),
    "sd15": partial(ddim_eta, noise=1.0),
    "wan": partial(dance_sde, noise=0.3),
    "shap_e": partial(ddim_eta, noise=1.0),
}
IDLE = "transformer_blocks.1.attn.add_q_proj."  # the last block of SD3 has no use for what the text asks
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TEXTS = ["a red circle", "two blue squares", "a red circle", "a green triangle above a red square", "a red circle"]


def policy_of(generator, **settings):
    transition = TRANSITIONS[type(generator).__module__.rpartition(".")[2]]
    return DenoisingPolicy(generator, **({"transition": transition, "steps": 4, "micro_batch": 3} | settings))


def ratios(policy, rollout):
    size = policy.micro_batch
    parts = [rollout.select(slice(i, i + size)) for i in range(0, len(rollout), size)]
    replayed = [torch.cat([policy.log_prob(part, step) for part in parts]) for step in policy.noisy_steps()]
    return (torch.stack(replayed, 1) - rollout.log_probs[:, policy.noisy_steps()]).exp()


@pytest.mark.parametrize(("dtype", "guidance"), [(DTYPES[0], 1.0), *((dtype, 4.5) for dtype in DTYPES)], ids=str)
def test_the_replayed_ratio_is_exactly_one(kind, folder, opened, dtype, guidance):
    """Of the base, and of a student after no update: also of what the base drew."""
    base = policy_of(opened(folder, dtype), dtype=dtype, guidance_scale=guidance)
    student = replace(base, generator=base.generator.student())
    seeds = torch.arange(len(TEXTS))
    rollout, own = base.rollout(TEXTS, seeds=seeds), student.rollout(TEXTS, seeds=seeds)
    assert rollout.states.dtype == dtype and rollout.samples.dtype == torch.float32
    assert rollout.states.shape == (5, 5, *kind.generator.latent_shape) and rollout.samples.shape == (
        5,
        *kind.sample_shape,
    )
    noisy = 4 if rollout.sigmas[-1] > 0 else 3
    assert rollout.stochastic.tolist() == [step < noisy for step in range(4)]
    assert rollout.log_probs[:, :noisy].isfinite().all() and rollout.log_probs[:, noisy:].isnan().all()
    assert torch.equal(rollout.states, own.states) and torch.equal(rollout.samples, own.samples)
    for policy, drawn in ((base, rollout), (student, own), (student, rollout)):
        assert (ratios(policy, drawn) == 1).all()


def test_an_update_moves_the_ratio_and_leaves_the_base_where_it_was(generator):
    base = policy_of(generator)
    student = replace(base, generator=generator.student())
    rollout = student.rollout(TEXTS, seeds=torch.arange(5))
    optimizer = torch.optim.AdamW([p for p in student.generator.transformer.parameters() if p.requires_grad], 1e-2)
    for _ in range(2):  # B is 0 at first: A has a gradient only from the second step on
        (-student.log_prob(rollout, 1).sum()).backward()
        optimizer.step()
    assert (ratios(student, rollout) - 1).abs().amax(1).min() > 1e-6  # of every sample, at one step at least
    assert (ratios(base, rollout) == 1).all() and (ratios(student.frozen_copy(), rollout) == 1).all()
    assert (trajectory_kl(student, base, TEXTS, torch.arange(5)) > 0).all()


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_gradients_reach_the_adapter_and_nothing_else(kind, folder, opened, dtype):
    student = opened(folder, dtype).student()
    policy = policy_of(student, dtype=dtype, guidance_scale=2.0)
    policy.log_prob(policy.rollout(TEXTS[:3], seeds=torch.arange(3)), 1).sum().backward()
    for name, parameter in student.transformer.named_parameters():
        if name.startswith(IDLE) and "lora_B" in name:
            assert not parameter.grad.any(), name
        elif "lora_B" in name:
            assert parameter.grad.dtype == torch.float32 and parameter.grad.abs().max() > 0, name
        elif "lora_A" in name:  # multiplied by a B of 0
            assert not parameter.grad.any(), name
        else:
            assert parameter.grad is None and not parameter.requires_grad, name
    for name in (kind.config.SOURCE.decoder, *student.TEXT_ENCODERS):
        assert all(p.grad is None for p in getattr(student.pipeline, name).parameters())


def test_the_gradient_of_the_adapter_is_that_of_finite_differences(generator):
    """Against central differences of the log-probability along random directions of the adapter's weights."""
    student = generator.student(rank=4, alpha=8)
    weights = [p for p in student.transformer.parameters() if p.requires_grad]
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in weights:
            weight.add_(0.1 * torch.randn(weight.shape, generator=stream))
    policy = policy_of(student)
    rollout = policy_of(generator).rollout(TEXTS[:3], seeds=torch.arange(3))
    gradients = torch.autograd.grad(policy.log_prob(rollout, 1).sum(), weights)
    for _ in range(3):
        # Near the gradient, so that the slope is well above the rounding of float32.
        noise = [0.3 * torch.randn(g.shape, generator=stream) / g.numel() ** 0.5 for g in gradients]
        directions = [g / (g.norm() + 1e-8) + n for g, n in zip(gradients, noise, strict=True)]
        values = []
        for size in (1e-2, -2e-2):
            with torch.no_grad():
                for weight, direction in zip(weights, directions, strict=True):
                    weight.add_(size * direction)
                values.append(policy.log_prob(rollout, 1).double().sum().item())
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight.add_(1e-2 * direction)
        slope = sum((g * d).sum().item() for g, d in zip(gradients, directions, strict=True))
        assert slope == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.03)


def test_the_loop_trains_the_adapter_and_not_the_base(kind, folder, opened):
    base = opened(folder, template="a drawing of {prompt}")
    texts = list(shapes.prompts("single"))
    base.remember(texts)
    base.forget_text_encoders()
    before = {name: p.clone() for name, p in base.transformer.named_parameters()}
    student = base.student(rank=4, alpha=8)
    policy = policy_of(student, transition=partial(flow_sde, noise=0.7), guidance_scale=2.0)
    drawn = policy.rollout(TEXTS[:3:2], seeds=torch.arange(2))
    algorithm = GRPO(
        policy,
        kind.judged_by(jpeg_compressibility()),  # a random twin draws nothing that the verifier would reward
        lambda count, rng: [texts[i] for i in rng.integers(len(texts), size=count)],
        GRPOConfig(prompts_per_iteration=2, group_size=3, trained_steps=2, clip_range=1e-4, kl_weight=0.04),
    )
    assert algorithm.reference.generator is base
    loop = Loop(algorithm, LoopConfig(iterations=2, learning_rate=1e-2, progress=False))
    history = loop.run()
    assert [row["kl"] > 0 for row in history] == [True, True] and history[0]["grad_norm"] > 0
    assert len(loop.parameters) == len(lora_of(student)) and all(p.dtype == torch.float32 for p in loop.parameters)
    assert all(torch.equal(p, before[name]) for name, p in base.transformer.named_parameters())
    with loop.averaged_weights():
        assert (ratios(policy, drawn) != 1).any()
    assert (ratios(replace(policy, generator=base), drawn) == 1).all()


def test_ddpo_trains_the_adapter_with_guidance(kind, generator):
    reward = kind.judged_by(redness())
    policy = policy_of(generator.student(), guidance_scale=5.0)
    prompts = lambda count, rng: [TEXTS[i] for i in rng.integers(len(TEXTS), size=count)]  # noqa: E731
    algorithm = DDPO(policy, reward, prompts, GRPOConfig(prompts_per_iteration=4, group_size=1, trained_steps=1000))
    loop = Loop(algorithm, LoopConfig(iterations=1, learning_rate=1e-2, progress=False))
    assert loop.run()[0]["grad_norm"] > 0
    assert all(parameter.grad is None for parameter in generator.transformer.parameters())


@pytest.mark.parametrize("count", [1, 2])
def test_a_reward_gradient_passes_the_last_steps_of_the_rollout(kind, generator, count):
    """DRaFT-K: the samples are the rollout's; all checkpointing, of steps and within them, leaves the gradient."""
    judge = kind.judged_by(redness())
    student = shaken(generator.student())
    policy = policy_of(student, guidance_scale=2.0)
    seeds, window = torch.arange(2), Window(4 - count, 4)
    expected, gradients = policy.rollout(TEXTS[:2], seeds=seeds).samples, []
    for checkpointing in (False, True):
        student.checkpoint_gradients(checkpointing)
        algorithm = RewardGradient(policy, judge, list, RewardGradientConfig(checkpointing=checkpointing))
        samples, _ = algorithm.samples(TEXTS[:2], seeds, window)
        torch.testing.assert_close(samples.detach(), expected, rtol=0, atol=1e-5)
        reward = judge(samples, TEXTS[:2]).mean()
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(reward, [*lora_of(student).values()])]))
    student.checkpoint_gradients(False)  # of the autoencoder, which other tests use
    assert gradients[0].norm() > 1e-6
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[0].norm()
