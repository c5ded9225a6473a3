"""DiffusionNFT and AWM: their losses by hand in float64, the old weights, and what they do to a random twin."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from pixelpolicy.errors import CheckpointError
from pixelpolicy.finetune import AWM, DiffusionNFT, ForwardProcessConfig, Loop, LoopConfig, awm_loss, nft_loss
from pixelpolicy.finetune.noising import matching_errors, noise_of, noised
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rl import Reward, group_advantages

PROMPTS = ("a red circle", "two blue squares", "a green triangle")
ADVANTAGES = torch.tensor([2.5, -1.0, 0.0, 7.0, -9.0])


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


def forward(generator, kind=DiffusionNFT, pieces=None, **settings):
    defaults = {"prompts_per_iteration": 4, "group_size": 6, "noise_draws": 2}
    policy = DenoisingPolicy(generator, ode, steps=4, micro_batch=8)
    config = ForwardProcessConfig(**{**defaults, **settings})
    return kind(policy, Reward("redness", redness), draw_prompts, config, **(pieces or {}))


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-3, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def old(algorithm):
    with algorithm.old_weights():
        return weights(algorithm)


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


def gradient(algorithm):
    return torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])


def some(dtype=torch.float64, seed=0):
    stream = torch.Generator().manual_seed(seed)
    velocity, behind, x0, x1 = (torch.randn(5, 2, 4, 4, generator=stream, dtype=dtype) for _ in range(4))
    return velocity.requires_grad_(), behind, x0, x1, torch.tensor([0.1, 0.9, 0.5, 1.0, 0.01], dtype=dtype)


# The losses -----------------------------------------------------------------------------------------------------------


def nft_by_hand(velocity, behind, x0, x1, sigma, advantages, beta, clip):
    """Value and gradient in the velocity, number by number: a guess misses by ``sigma (x1 - x0 - v)``."""
    value, slope = 0.0, torch.zeros_like(x0)
    for i, (s, a) in enumerate(zip(sigma.tolist(), advantages.tolist(), strict=True)):
        good = min(max(a / clip, -1), 1) / 2 + 0.5
        for share, mix, sign in ((good, 1 - beta, 1), (1 - good, 1 + beta, -1)):
            v = sign * beta * velocity[i].detach() + mix * behind[i]
            miss = s * (x1[i] - x0[i] - v)
            weight = 1 / max(miss.abs().mean().item(), 1e-5)
            value += clip * share * weight * miss.square().mean().item() / beta / len(x0)
            slope[i] += clip * share * weight * 2 * miss * -s * sign / miss.numel() / len(x0)
    return value, slope


@pytest.mark.parametrize("beta", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("clip", [5.0, 1.0])
def test_nfts_loss_and_its_gradient_against_float64(beta, clip):
    velocity, *others = some()
    wanted, slope = nft_by_hand(velocity, *others, ADVANTAGES, beta, clip)
    loss = nft_loss(velocity, *others, ADVANTAGES.double(), beta=beta, advantage_clip=clip)
    assert loss.item() == pytest.approx(wanted, rel=1e-10)
    loss.backward()
    torch.testing.assert_close(velocity.grad, slope, rtol=1e-10, atol=1e-12)
    single = [t.detach().float() for t in (velocity, *others)]
    single[0].requires_grad_()
    low = nft_loss(*single, ADVANTAGES, beta=beta, advantage_clip=clip)
    low.backward()
    assert low.item() == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(single[0].grad.double(), slope, rtol=1e-5, atol=1e-6)


def test_nft_pulls_towards_the_good_and_away_from_the_bad():
    """At ``v = old`` the two guesses are one: what remains is a pull in proportion to the clipped advantage."""
    velocity, _, x0, x1, sigma = some()
    behind = velocity.detach().clone()
    nft_loss(velocity, behind, x0, x1, sigma, ADVANTAGES.double()).backward()
    miss = sigma[:, None, None, None] * (x1 - x0 - behind)
    size = miss.abs().mean((1, 2, 3), keepdim=True)
    pull = -2 * ADVANTAGES.clamp(-5, 5)[:, None, None, None] * sigma[:, None, None, None] * miss / size / 32 / 5
    torch.testing.assert_close(velocity.grad, pull, rtol=1e-10, atol=1e-12)
    assert velocity.grad[2].abs().max() < 1e-15 and velocity.grad[4].abs().max() > 0


def test_nft_where_a_guess_is_exact_and_no_gradient_to_the_old():
    velocity, behind, x0, x1, sigma = some()
    exact = (x1 - x0).requires_grad_()
    loss = nft_loss(exact, exact.detach(), x0, x1, sigma, torch.full((5,), 9.0).double())
    loss.backward()
    assert loss.item() < 1e-25 and exact.grad.isfinite().all()
    nft_loss(velocity, behind.requires_grad_(), x0, x1, sigma, ADVANTAGES.double()).backward()
    assert behind.grad is None or not behind.grad.any()


@pytest.mark.parametrize("clip", [5.0, 1.0])
def test_awms_loss_and_its_gradient_against_float64(clip):
    velocity, behind, x0, x1, sigma = some()
    advantages = [min(max(a, -clip), clip) for a in ADVANTAGES.tolist()]
    gaps = velocity.detach() - x1 + x0
    wanted = math.fsum(a * math.fsum((g * g).flatten().tolist()) / 32 for a, g in zip(advantages, gaps, strict=True))
    loss = awm_loss(velocity, behind, x0, x1, sigma, ADVANTAGES.double(), advantage_clip=clip)
    assert loss.item() == pytest.approx(wanted / 5, rel=1e-10)
    loss.backward()
    slope = 2 * torch.tensor(advantages).double()[:, None, None, None] * gaps / 32 / 5
    torch.testing.assert_close(velocity.grad, slope, rtol=1e-10, atol=1e-12)
    single = [t.detach().float() for t in (velocity, behind, x0, x1, sigma)]
    low = awm_loss(*single, ADVANTAGES, advantage_clip=clip)
    assert low.item() == pytest.approx(wanted / 5, rel=1e-6)


def test_awm_bounded_begins_with_the_same_gradient_and_ends_where_the_error_has_moved():
    velocity, _, x0, x1, sigma = some()
    plain = torch.autograd.grad(awm_loss(velocity, velocity, x0, x1, sigma, ADVANTAGES.double()), velocity)[0]
    bounded = partial(awm_loss, clip_range=0.1)
    at_old = bounded(velocity, velocity.detach(), x0, x1, sigma, ADVANTAGES.double())
    torch.testing.assert_close(torch.autograd.grad(at_old, velocity)[0], plain, rtol=1e-10, atol=1e-12)
    nearer, farther = ((1 - s) * velocity.detach() + s * (x1 - x0) for s in (0.5, -0.5))
    moved = torch.stack([nearer[0], farther[1], farther[2], nearer[3], farther[4]]).requires_grad_()
    gain = torch.autograd.grad(bounded(moved, velocity.detach(), x0, x1, sigma, ADVANTAGES.double()), moved)[0]
    assert not gain.any()  # each has moved the way its advantage points, and far enough
    wrong = torch.stack([farther[0], nearer[1], nearer[2], farther[3], nearer[4]]).requires_grad_()
    back = torch.autograd.grad(bounded(wrong, velocity.detach(), x0, x1, sigma, ADVANTAGES.double()), wrong)[0]
    assert [bool(row.any()) for row in back] == [True, True, False, True, True]


def test_the_forward_process_and_its_errors():
    velocity, _, x0, x1, sigma = some()
    state = noised(x0, x1, sigma)
    torch.testing.assert_close(state[3], x1[3])
    torch.testing.assert_close(state[1], 0.1 * x0[1] + 0.9 * x1[1])
    torch.testing.assert_close(matching_errors(velocity, x0, x1), (velocity - x1 + x0).pow(2).mean((1, 2, 3)))


# The algorithm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DiffusionNFT, AWM])
def test_the_algorithms_loss_is_that_of_its_own_samples(make_twin, kind):
    """The whole gradient of one optimiser step, worked out anew; the old weights are others than the trained."""
    algorithm = forward(make_twin(), kind, minibatches=1, noise_draws=1, prompts_per_iteration=3, kl_weight=0.3)
    with algorithm.old_weights():
        pass
    with torch.no_grad():  # trained, old and base all differ
        for p in algorithm.model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    drawn, _ = algorithm.collect(0)
    losses = next(algorithm.minibatches(drawn, 0))  # not to the end, where the old weights would follow
    algorithm.model.zero_grad()
    for one in losses:
        (one()[0] / len(losses)).backward()
    got = gradient(algorithm)

    generator, base = algorithm.policy.generator, algorithm.reference.generator
    sigma, x1 = noise_of(drawn.seeds, 0, drawn.x0.shape[1:])
    state, words = noised(drawn.x0, x1, sigma), generator.encode(drawn.prompts)
    with torch.no_grad():
        behind, anchor = base.velocity(state, sigma, *words), base.velocity(state, sigma, *words)
        samples = base.decode(drawn.x0)
    advantages = group_advantages(redness(samples, None), torch.arange(18) // 6)
    torch.testing.assert_close(drawn.advantages, advantages, rtol=1e-3, atol=1e-3)
    algorithm.model.zero_grad()
    velocity = generator.velocity(state, sigma, *words)
    loss = {DiffusionNFT: nft_loss, AWM: awm_loss}[kind](velocity, behind, drawn.x0, x1, sigma, drawn.advantages)
    (loss + 0.3 * (velocity - anchor).square().mean()).backward()
    assert gradient(algorithm).norm() > 1e-3
    torch.testing.assert_close(got, gradient(algorithm), rtol=1e-3, atol=1e-6)


def test_no_trajectory_is_kept(make_twin):
    drawn, metrics = forward(make_twin()).collect(0)
    assert drawn.x0.shape == (24, *make_twin().latent_shape) and not hasattr(drawn, "states")
    assert metrics["zero_variance_groups"] == 0 and metrics["reward"] == metrics["reward/redness"]


def test_the_old_weights_follow_after_each_iteration_and_sample(make_twin):
    algorithm = forward(make_twin(), old_decay=0.75)
    base = weights(algorithm)
    training = loop(algorithm, iterations=3)
    assert torch.equal(old(algorithm), base)
    sampled = []
    rollout = DenoisingPolicy.rollout

    def spied(policy, prompts, *, seeds):
        sampled.append(weights(algorithm))
        return rollout(policy, prompts, seeds=seeds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DenoisingPolicy, "rollout", spied)
        for _ in range(2):
            before = old(algorithm)
            training.iterate()
            torch.testing.assert_close(old(algorithm), 0.75 * before + 0.25 * weights(algorithm))
            assert torch.equal(sampled[-1], before)
    assert not torch.equal(old(algorithm), weights(algorithm)) and not torch.equal(weights(algorithm), base)


def test_the_trained_weights_come_back_even_after_an_error(make_twin):
    algorithm = forward(make_twin())
    loop(algorithm, iterations=1).run()
    before = weights(algorithm)
    with pytest.raises(RuntimeError, match="in between"), algorithm.old_weights():
        raise RuntimeError("in between")
    assert torch.equal(weights(algorithm), before)


@pytest.mark.parametrize("kind", [DiffusionNFT, AWM])
def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path, kind):
    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = forward(make_twin(), kind)
    history = loop(whole, iterations=5).run()
    with pytest.raises(KeyboardInterrupt):
        loop(forward(make_twin(), kind), iterations=5, folder=tmp_path, save_every=2).run([stop])
    resumed = forward(make_twin(), kind)
    going_on = loop(resumed, iterations=5, folder=tmp_path)
    assert going_on.iteration == 2 and not torch.equal(old(resumed), weights(resumed))
    assert without_clock(going_on.run()) == without_clock(history)
    assert torch.equal(weights(resumed), weights(whole)) and torch.equal(old(resumed), old(whole))


def test_a_checkpoint_of_another_algorithm_is_refused(make_twin, tmp_path):
    algorithm = forward(make_twin())
    training = loop(algorithm, iterations=1, folder=tmp_path)
    training.run()
    path = training.checkpoints()[-1] / "state.pt"
    torch.save(torch.load(path, weights_only=True) | {"algorithm": {}}, path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        loop(forward(make_twin()), iterations=2, folder=tmp_path)


def test_the_kl_weight_holds_it_near_the_base(make_twin):
    def moved(kl_weight):
        algorithm = forward(make_twin(), kl_weight=kl_weight)
        before, history = weights(algorithm), loop(algorithm, iterations=4).run()
        return (weights(algorithm) - before).norm().item(), history, algorithm.reference

    (free, without, none), (held, history, _) = moved(0.0), moved(1000.0)
    assert held < free and "kl" in history[0] and "kl" not in without[0] and none is None


def test_a_flat_group_teaches_nothing(make_twin):
    flat = Reward("flat", lambda samples, prompts: torch.full((len(prompts),), 0.3))
    algorithm = replace(forward(make_twin(), AWM, kl_weight=0.0), reward=flat)
    before, history = weights(algorithm), loop(algorithm).run()
    assert [row["zero_variance_groups"] for row in history] == [4, 4] and torch.equal(weights(algorithm), before)


def test_a_users_loss_is_what_trains(make_twin):
    calls = []

    def own(velocity, behind, x0, x1, sigma, advantages):
        calls.append(advantages)
        return nft_loss(velocity, behind, x0, x1, sigma, advantages, beta=0.5)

    algorithm = forward(make_twin(), pieces={"loss_of": own}, noise_draws=3)
    loop(algorithm, iterations=1).run()
    assert len(calls) == 3 * 3 and sum(len(a) for a in calls) == 3 * 24


@pytest.mark.parametrize(
    ("kind", "loss_of"), [(DiffusionNFT, partial(nft_loss, beta=0.5)), (AWM, partial(awm_loss, clip_range=0.05))]
)
def test_the_reward_rises(make_twin, kind, loss_of):
    algorithm = forward(make_twin(), kind, pieces={"loss_of": loss_of}, group_size=8, kl_weight=0.0)
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return redness(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    loop(algorithm, iterations=12, learning_rate=3e-3).run()
    gain = score() - before
    assert gain.mean() > 5 * gain.std() / math.sqrt(48)
