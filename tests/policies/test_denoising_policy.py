"""A sampler as a policy: rollouts written anew, replayed log-probabilities to the bit, gradients, KL."""

import copy
import inspect
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from pixelpolicy.errors import PromptError, RolloutError
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, ddim_eta, flow_sde, trajectory_kl
from pixelpolicy.rl import Policy, Rollout

PROMPTS = ["a red circle", "two blue squares", "a green triangle above a red square", "a red circle and a red square"]
TRANSITIONS = {
    "flow_sde": partial(flow_sde, noise=0.7),
    "dance_sde": partial(dance_sde, noise=0.3),
    "cps": partial(cps, noise=0.7),
    "ddim_eta": partial(ddim_eta, noise=1.0),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def texts(count):
    return [PROMPTS[i % len(PROMPTS)] for i in range(count)]


def seeds(count, first=100):
    return torch.arange(first, first + count)


def small(generator, **settings):
    return DenoisingPolicy(generator, **{"steps": 5, "micro_batch": 4, **settings})


def perturbed(generator, scale=0.02, seed=0):
    """The same generator with other weights in its transformer."""
    transformer, stream = copy.deepcopy(generator.transformer), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in transformer.parameters():
            p.add_(scale * torch.randn(p.shape, generator=stream))
    return replace(generator, transformer=transformer)


def replayed(policy, rollout, step):
    """Log-probabilities of all samples, in the micro-batches of the rollout."""
    size = policy.micro_batch
    parts = [rollout.select(slice(i, i + size)) for i in range(0, len(rollout), size)]
    return torch.cat([policy.log_prob(part, step) for part in parts])


def stochastic_steps(rollout):
    return rollout.stochastic.nonzero().flatten().tolist()


def written_anew(policy, prompts, numbers):
    """A CPS rollout in plain loops: states, and log-probabilities before and after the cast to storage."""
    generator, angle = policy.generator, 0.7 * math.pi / 2
    streams = [torch.Generator().manual_seed(int(n)) for n in numbers]
    draw = lambda: torch.stack([torch.randn(4, 8, 8, generator=s) for s in streams])  # noqa: E731
    sigmas = torch.linspace(1, 0, policy.steps + 1)
    states, before, after = [draw().to(policy.dtype)], [], []
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = states[-1].float()
        with torch.no_grad():
            v = generator.velocity(x, sigma, *generator.encode(prompts))
        x0, x1 = x - sigma * v, x + (1 - sigma) * v
        if following == 0:
            states.append((x + (following - sigma) * v).to(policy.dtype))
            break
        mean, std = (1 - following) * x0 + following * math.cos(angle) * x1, following * math.sin(angle)
        fresh = mean + std * draw()
        states.append(fresh.to(policy.dtype))
        for kept, action in ((before, fresh), (after, states[-1].float())):
            density = torch.distributions.Normal(mean, std).log_prob(action)
            kept.append(density.flatten(1).mean(1))
    return torch.stack(states, 1), torch.stack(before, 1), torch.stack(after, 1)


# Rollouts ---------------------------------------------------------------------------------------------------------


def test_it_is_a_policy_and_gives_a_rollout(generator):
    for name in ("rollout", "log_prob"):
        asked = inspect.signature(getattr(Policy, name)).parameters
        given = inspect.signature(getattr(DenoisingPolicy, name)).parameters
        assert [(p.name, p.kind) for p in given.values()] == [(p.name, p.kind) for p in asked.values()]
    rollout = small(generator).rollout(texts(6), seeds=seeds(6))
    assert isinstance(rollout, Rollout) and len(rollout) == 6
    assert rollout.prompts == texts(6) and rollout.seeds.tolist() == seeds(6).tolist()
    assert rollout.states.shape == (6, 6, 4, 8, 8) and rollout.log_probs.shape == (6, 5)
    assert rollout.stochastic.tolist() == [True] * 4 + [False]
    assert rollout.log_probs[:, :4].isfinite().all() and rollout.log_probs[:, 4].isnan().all()
    assert rollout.sigmas.tolist() == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    assert rollout.samples.shape == (6, 3, 32, 32) and rollout.samples.abs().max() <= 1
    assert not rollout.samples.requires_grad and not rollout.log_probs.requires_grad
    torch.testing.assert_close(rollout.samples, generator.decode(rollout.states[:, -1]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rollout_is_the_loop_one_would_write(generator, dtype):
    policy = small(generator, transition=TRANSITIONS["cps"], dtype=dtype)
    rollout = policy.rollout(texts(4), seeds=seeds(4))
    states, _, log_probs = written_anew(policy, texts(4), seeds(4))
    assert rollout.states.dtype == dtype
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    torch.testing.assert_close(rollout.states.float(), states.float(), rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(rollout.log_probs[:, :4], log_probs, rtol=0, atol=max(1e-6, tolerance / 10))


@pytest.mark.parametrize("how", [{"stochastic_steps": []}, {"transition": partial(cps, noise=0.0)}])
def test_without_noise_it_is_the_generators_own_sampler(generator, how):
    rollout = small(generator, **how).rollout(texts(5), seeds=seeds(5))
    assert not rollout.stochastic.any()
    pictures = generator.generate(texts(5), seeds(5).tolist(), steps=5)
    torch.testing.assert_close(rollout.samples, pictures, rtol=0, atol=1e-5)


def test_the_same_seeds_give_the_same_bits_and_others_do_not(generator):
    policy = small(generator)
    first, again = (policy.rollout(texts(6), seeds=seeds(6)) for _ in range(2))
    other = policy.rollout(texts(6), seeds=seeds(6, first=200))
    for name in ("states", "samples"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
    assert torch.equal(first.log_probs[:, :4], again.log_probs[:, :4])
    # A rollout leaves torch's own stream alone and does not draw from it.
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    policy.rollout(texts(2), seeds=seeds(2))
    assert torch.equal(torch.rand(3), expected)


def test_a_sample_does_not_depend_on_its_companions(generator):
    policy = small(generator, micro_batch=3)
    together = policy.rollout(texts(8), seeds=seeds(8))
    order = torch.tensor([5, 2, 7])
    apart = policy.rollout([together.prompts[i] for i in order], seeds=together.seeds[order])
    torch.testing.assert_close(apart.states, together.states[order], rtol=0, atol=2e-5)
    torch.testing.assert_close(apart.log_probs[:, :4], together.log_probs[order, :4], rtol=0, atol=6e-6)
    alone = replace(policy, micro_batch=1).rollout([together.prompts[6]], seeds=together.seeds[6:7])
    torch.testing.assert_close(alone.states[0], together.states[6], rtol=0, atol=2e-5)
    # Were the noise drawn for a batch at a time, samples of one seed at two places would differ.
    twice = policy.rollout([PROMPTS[0]] * 5, seeds=torch.tensor([7, 8, 9, 10, 7]))
    torch.testing.assert_close(twice.states[0], twice.states[4], rtol=0, atol=2e-5)


def test_every_step_draws_noise_of_its_own(generator):
    policy = small(generator)
    rollout = policy.rollout(texts(4), seeds=seeds(4))
    drawn = []
    for step in stochastic_steps(rollout):
        mean, std = policy.distribution(rollout, step)
        drawn.append(((rollout.states[:, step + 1] - mean) / std).detach().flatten())
    correlations = torch.corrcoef(torch.stack([rollout.states[:, 0].flatten(), *drawn]))
    assert (correlations - torch.eye(5)).abs().max() < 4 / math.sqrt(4 * 256)
    assert torch.stack(drawn).std(1).sub(1).abs().max() < 0.1


def test_noise_in_a_window_leaves_the_other_steps_to_the_ode(generator):
    policy = small(generator, steps=6, stochastic_steps=[2, 3])  # MixGRPO
    rollout = policy.rollout(texts(4), seeds=seeds(4))
    assert rollout.stochastic.tolist() == [False, False, True, True, False, False]
    for step in range(6):
        x, (sigma, following) = rollout.states[:, step], rollout.sigmas[step : step + 2]
        with torch.no_grad():
            moved = x + (following - sigma) * generator.velocity(x, sigma, *generator.encode(rollout.prompts))
        assert torch.equal(rollout.states[:, step + 1], moved) == (step not in (2, 3))
    everywhere = small(generator, steps=6).rollout(texts(4), seeds=seeds(4))
    assert not torch.equal(everywhere.states[:, 1], rollout.states[:, 1])


# What has no density ----------------------------------------------------------------------------------------------


def test_a_deterministic_step_has_no_density(generator):
    policy = small(generator, stochastic_steps=[1, 2])
    rollout = policy.rollout(texts(2), seeds=seeds(2))
    for step in (0, 3, 4):
        for ask in (policy.log_prob, policy.distribution):
            with pytest.raises(RolloutError, match=rf"step {step} is deterministic.*\[1, 2\]"):
                ask(rollout, step)
    with pytest.raises(RolloutError, match="0 to 4"):
        policy.log_prob(rollout, 5)
    assert policy.log_prob(rollout, 1).isfinite().all()


@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
def test_the_last_step_is_never_stochastic(generator, transition):
    policy = small(generator, transition=transition)
    assert policy.noisy_steps() == [0, 1, 2, 3]
    for wanted in ([3, 4], [4], [9], [-1]):
        with pytest.raises(RolloutError, match=r"cannot be stochastic.*\[0, 1, 2, 3\]"):
            replace(policy, stochastic_steps=wanted).rollout(texts(2), seeds=seeds(2))
    with pytest.raises(RolloutError, match="cannot be stochastic"):
        replace(policy, transition=partial(transition.func, noise=0.0), stochastic_steps=[0]).noisy_steps()
    assert replace(policy, stochastic_steps=[2, 0]).noisy_steps() == [0, 2]


def test_prompts_and_seeds_must_pair_up(generator):
    with pytest.raises(RolloutError, match="3 prompts came with 2 seeds"):
        small(generator).rollout(texts(3), seeds=seeds(2))
    with pytest.raises(PromptError, match="purple"):
        small(generator).rollout(["a purple circle"], seeds=seeds(1))


# Replay -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("transition", TRANSITIONS.values(), ids=TRANSITIONS)
def test_the_replayed_ratio_is_exactly_one(generator, transition, dtype):
    policy = small(generator, transition=transition, dtype=dtype)
    rollout = policy.rollout(texts(10), seeds=seeds(10))  # micro-batches of 4, 4 and 2
    assert rollout.states.dtype == dtype
    for step in stochastic_steps(rollout):
        log_probs = replayed(policy, rollout, step)
        assert log_probs.requires_grad and log_probs.dtype == torch.float32
        assert torch.equal(log_probs, rollout.log_probs[:, step])
        assert ((log_probs - rollout.log_probs[:, step]).exp() == 1).all()


def test_a_density_taken_before_the_cast_breaks_the_ratio(generator):
    """Trap 1: the stored state is not the one whose density was written down."""
    worst = {}
    for dtype in DTYPES:
        policy = small(generator, transition=TRANSITIONS["cps"], dtype=dtype, steps=10)
        states, before, after = written_anew(policy, texts(4), seeds(4))
        stored = Rollout(
            prompts=texts(4),
            seeds=seeds(4),
            states=states,
            sigmas=generator.sigmas(10),
            stochastic=torch.tensor([True] * 9 + [False]),
            log_probs=torch.nn.functional.pad(before, (0, 1)),
            samples=None,
        )
        log_probs = torch.stack([policy.log_prob(stored, step) for step in range(9)], 1).detach()
        torch.testing.assert_close(log_probs, after, rtol=0, atol=2e-6)
        worst[dtype] = (log_probs - before).exp().sub(1).abs().max()
    assert worst[torch.float32] < 2e-6
    assert worst[torch.bfloat16] > 1e-3  # against a clip range of 1e-4
    assert 1e-5 < worst[torch.float16] < worst[torch.bfloat16]


def test_the_replayed_ratio_is_exactly_one_under_autocast_too(generator):
    policy = small(generator, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        rollout = policy.rollout(texts(6), seeds=seeds(6))
        for step in stochastic_steps(rollout):
            assert torch.equal(replayed(policy, rollout, step), rollout.log_probs[:, step])
    assert rollout.samples.dtype == rollout.log_probs.dtype == torch.float32  # what a reward judges
    assert not torch.equal(replayed(policy, rollout, 2), rollout.log_probs[:, 2])  # in another precision it is not


def test_another_micro_batch_moves_the_ratio_by_rounding_alone(generator):
    """Trap 2."""
    policy = small(generator, micro_batch=8)
    rollout = policy.rollout(texts(16), seeds=seeds(16))
    for size in (1, 3, 16):
        for step in stochastic_steps(rollout):
            log_probs = replayed(replace(policy, micro_batch=size), rollout, step)
            torch.testing.assert_close(log_probs, rollout.log_probs[:, step], rtol=0, atol=6e-6)


def test_guidance_must_stand_on_both_sides(generator):
    """Trap 9."""
    plain, guided = small(generator), small(generator, guidance_scale=3.0)
    for rolled, other in ((plain, guided), (guided, plain)):
        rollout = rolled.rollout(texts(4), seeds=seeds(4))
        assert torch.equal(rolled.log_prob(rollout, 2), rollout.log_probs[:, 2])
        assert (other.log_prob(rollout, 2) - rollout.log_probs[:, 2]).exp().sub(1).abs().min() > 1e-4
    rollout, sigma = guided.rollout(texts(4), seeds=seeds(4)), torch.tensor(0.2)
    x = rollout.states[:, 4]
    with torch.no_grad():
        towards = generator.velocity(x, sigma, *generator.encode(texts(4)))
        away = generator.velocity(x, sigma, *generator.encode([""] * 4))
    torch.testing.assert_close(rollout.states[:, 5], x - 0.2 * (3 * towards - 2 * away), rtol=0, atol=1e-5)


def test_an_update_moves_the_ratio(generator):
    rollout = small(generator).rollout(texts(4), seeds=seeds(4))
    ratio = (small(perturbed(generator)).log_prob(rollout, 1) - rollout.log_probs[:, 1]).exp()
    assert ratio.sub(1).abs().min() > 1e-5


def test_a_users_own_log_prob_is_what_is_called(generator):
    calls = []

    def own(x, mean, std):
        calls.append(x.dtype)
        return -((x - mean) ** 2).flatten(1).mean(1)  # CPS as published, without scale or constants

    policy = small(generator, log_prob_of=own, dtype=torch.bfloat16)
    rollout = policy.rollout(texts(4), seeds=seeds(4))
    assert len(calls) == 4
    log_probs = policy.log_prob(rollout, 2)
    assert len(calls) == 5 and set(calls) == {torch.float32}
    mean, std = policy.distribution(rollout, 2)
    expected = -((rollout.states[:, 3].float() - mean) ** 2).flatten(1).mean(1)
    assert torch.equal(log_probs, expected) and torch.equal(log_probs, rollout.log_probs[:, 2])


def test_the_gradient_of_log_prob_is_that_of_finite_differences(generator):
    """Central differences of a density written anew in float64, along random directions of all weights."""
    policy, step, batch = small(generator, transition=TRANSITIONS["cps"]), 2, 3
    rollout = policy.rollout(texts(batch), seeds=seeds(batch))
    weights = torch.tensor([0.5, -2.0, 1.0])
    parameters = dict(generator.transformer.named_parameters())
    gradients = torch.autograd.grad(
        (weights * policy.log_prob(rollout, step)).sum(), list(parameters.values()), allow_unused=True
    )
    assert sum(g is not None and g.abs().max() > 0 for g in gradients) > 0.8 * len(gradients)

    exact = copy.deepcopy(generator).to(torch.float64)
    sigma, following, angle = rollout.sigmas[step].item(), rollout.sigmas[step + 1].item(), 0.7 * math.pi / 2
    x, action = rollout.states[:, step].double(), rollout.states[:, step + 1].double()
    embeds = exact.encode(rollout.prompts)
    base = {name: p.detach().clone() for name, p in exact.transformer.named_parameters()}

    def objective(direction, size):
        with torch.no_grad():
            for name, p in exact.transformer.named_parameters():
                p.copy_(base[name] + size * direction[name])
            v = exact.velocity(x, sigma, *embeds)
            mean = (1 - following) * (x - sigma * v) + following * math.cos(angle) * (x + (1 - sigma) * v)
            std = following * math.sin(angle)
            terms = -((action - mean) ** 2) / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))
            return (weights.double() * terms.flatten(1).mean(1)).sum().item()

    for seed in range(3):
        stream = torch.Generator().manual_seed(seed)
        direction = {n: torch.randn(p.shape, generator=stream, dtype=torch.float64) for n, p in base.items()}
        pairs = zip(direction.values(), gradients, strict=True)
        slope = sum((g.double() * d).sum().item() for d, g in pairs if g is not None)
        difference = (objective(direction, 1e-5) - objective(direction, -1e-5)) / 2e-5
        assert slope == pytest.approx(difference, rel=1e-4)
        assert abs(slope) > 1e-3


# The reference and the KL -----------------------------------------------------------------------------------------


def test_a_frozen_copy_stands_still_while_the_policy_learns(generator):
    policy = small(copy.deepcopy(generator))
    reference = policy.frozen_copy()
    rollout = policy.rollout(texts(4), seeds=seeds(4))
    assert torch.equal(reference.log_prob(rollout, 1), rollout.log_probs[:, 1])
    assert not reference.log_prob(rollout, 1).requires_grad
    policy.log_prob(rollout, 1).sum().backward()
    with torch.no_grad():
        for p in policy.generator.transformer.parameters():
            if p.grad is not None:
                p.add_(p.grad, alpha=1e-2)
    assert not torch.equal(policy.log_prob(rollout, 1), rollout.log_probs[:, 1])
    assert torch.equal(reference.log_prob(rollout, 1), rollout.log_probs[:, 1])


@pytest.mark.parametrize("name", TRANSITIONS)
def test_kl_is_the_sum_of_the_steps_written_anew(generator, name):
    policy = small(perturbed(generator), transition=TRANSITIONS[name])
    reference = small(generator, transition=TRANSITIONS[name])
    kl = trajectory_kl(policy, reference, texts(6), seeds(6))
    rollout, expected = policy.rollout(texts(6), seeds=seeds(6)), torch.zeros(6)
    for step in range(4):
        s, f = (rollout.sigmas[i].item() for i in (step, step + 1))
        x = rollout.states[:, step]
        with torch.no_grad():
            moved = policy.generator.velocity(x, s, *generator.encode(texts(6))) - generator.velocity(
                x, s, *generator.encode(texts(6))
            )
        # How far a difference in velocity moves the mean, and the spread.
        if name in ("flow_sde", "dance_sde"):
            g2 = 0.09 if name == "dance_sde" else 0.49 * s / (1 - (f if s == 1 else s))
            factor, variance = (1 + g2 * (1 - s) / (2 * s)) * (f - s), g2 * (s - f)
        else:
            share = (s * (1 - f)) ** 2
            variance = (f * math.sin(0.35 * math.pi)) ** 2 if name == "cps" else f**2 * (1 - (f * (1 - s)) ** 2 / share)
            factor = -(1 - f) * s + math.sqrt(f**2 - variance) * (1 - s)
        expected += (factor * moved).square().flatten(1).sum(1) / (2 * variance)
    torch.testing.assert_close(kl, expected, rtol=1e-4, atol=1e-5)
    assert (kl > 0.01).all()
    assert torch.equal(trajectory_kl(reference, reference.frozen_copy(), texts(6), seeds(6)), torch.zeros(6))


def test_kl_is_the_mean_log_ratio_of_own_trajectories(generator):
    policy = small(perturbed(generator, scale=0.01), steps=4, micro_batch=128)
    reference = small(generator, steps=4, micro_batch=128)
    rollout = policy.rollout(texts(128), seeds=seeds(128))
    with torch.no_grad():
        ratios = sum(policy.log_prob(rollout, t) - reference.log_prob(rollout, t) for t in range(3)) * 256  # of means
    kl = trajectory_kl(policy, reference, rollout.prompts, rollout.seeds)
    gap = ratios - kl
    assert gap.mean().abs() < 4 * gap.std() / math.sqrt(128)
    assert kl.mean() > 8 * gap.std() / math.sqrt(128)  # so that a wrong factor would show
