"""Preferences over denoising steps: SPO's loss in float64, which steps make pairs, and one training each."""

import math
from functools import partial

import pytest
import torch

from pixelpolicy.finetune import (
    D3PO,
    GRPO,
    SPO,
    GRPOConfig,
    Loop,
    LoopConfig,
    StepPreferenceConfig,
    best_and_worst_candidates,
    judge_by_leap,
    spo_loss,
)
from pixelpolicy.finetune.preference import d3po_loss
from pixelpolicy.policies import DenoisingPolicy, cps, ddim_eta
from pixelpolicy.rl import Reward

PROMPTS = ("a red circle", "two blue squares", "a green triangle")


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


def make(kind, generator, reward=redness, pieces=None, **settings):
    policy = DenoisingPolicy(generator, partial(ddim_eta, noise=1.0), steps=4, micro_batch=8)
    config = StepPreferenceConfig(**{"prompts_per_iteration": 6, "group_size": 4, "minibatches": 2, **settings})
    return kind(policy, Reward("redness", reward), draw_prompts, config, **(pieces or {}))


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-3, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def test_spos_loss_and_its_gradient_against_float64():
    stream = torch.Generator().manual_seed(0)
    won, lost, base_won, base_lost = (0.1 * torch.randn(9, generator=stream, dtype=torch.float64) for _ in range(4))
    won.requires_grad_(), lost.requires_grad_()
    loss = spo_loss(won, lost, base_won, base_lost)
    loss.backward()
    value, slopes, bounds = 0.0, ([], []), (math.log(0.9), math.log(1.1))
    for w, worse, bw, bl in zip(*(t.tolist() for t in (won, lost, base_won, base_lost)), strict=True):
        up, down = (min(max(x, bounds[0]), bounds[1]) for x in (w - bw, worse - bl))
        margin = 10 * (up - down)
        value += math.log1p(math.exp(-margin)) / 9
        steep = 10 / (1 + math.exp(margin)) / 9
        slopes[0].append(-steep if up == w - bw else 0.0)
        slopes[1].append(steep if down == worse - bl else 0.0)
    assert any(slope == 0 for slope in slopes[0]) and any(slope != 0 for slope in slopes[0])
    assert loss.item() == pytest.approx(value, rel=1e-10)
    for got, wanted in zip((won, lost), slopes, strict=True):
        torch.testing.assert_close(got.grad, torch.tensor(wanted, dtype=torch.float64), rtol=1e-10, atol=1e-12)
    low = spo_loss(*(t.detach().float() for t in (won, lost, base_won, base_lost)))
    assert low.item() == pytest.approx(value, rel=1e-6)


def test_candidates_are_chosen_row_by_row_and_equal_ones_make_a_pair_that_teaches_nothing():
    scores = torch.tensor([[0.2, 0.9, 0.1], [3.0, 1.0, 2.0], [0.5, 0.5, 0.5]])
    best, worst = best_and_worst_candidates(scores)
    assert best[:2].tolist() == [1, 0] and worst[:2].tolist() == [2, 1] and best[2] == worst[2]


def test_d3pos_pairs_are_the_steps_of_the_best_and_the_worst(make_twin):
    algorithm = make(D3PO, make_twin())
    experience, metrics = algorithm.collect(0)
    noisy = algorithm.policy.noisy_steps()
    assert [pairs.step for pairs in experience] == noisy and metrics["pairs"] == 6
    first, last = experience[0], experience[-1]
    assert first.starts.shape[:2] == (6, 2) and torch.equal(first.winners, experience[1].starts[:, 0])
    assert torch.equal(first.losers, experience[1].starts[:, 1])
    generator, policy = algorithm.policy.generator, algorithm.policy
    with torch.no_grad():  # the last step is the ODE's
        told = policy.conditioning(last.prompts)
        ends = [
            policy.gaussian(states, told, generator.sigmas(4), 3, False)[0] for states in (last.winners, last.losers)
        ]
        won, lost = (redness(generator.decode(x), None) for x in ends)
    assert (won > lost).all()


@pytest.mark.parametrize("kind", [D3PO, SPO])
def test_before_training_all_ratios_are_one_and_the_loss_is_log_two(make_twin, kind):
    algorithm = make(kind, make_twin())
    for losses in algorithm.minibatches(algorithm.collect(0)[0], 0):
        value = sum(one()[0] for one in losses) / len(losses)
        assert value.item() == pytest.approx(math.log(2), abs=1e-6)
        for one in losses:
            details = one()[1]
            assert details == {"winner_ratio": 1.0, "loser_ratio": 1.0, "told_apart": 0.0}


@pytest.mark.parametrize("kind", [D3PO, SPO])
def test_the_gradient_is_that_of_the_pairs_in_uneven_micro_batches(make_twin, kind):
    loss_of = partial(d3po_loss, beta=3.0, clip_range=0.5)
    algorithm = make(kind, make_twin(), pieces={"loss_of": loss_of}, minibatches=1)  # 4 pairs and 2
    experience = algorithm.collect(0)[0]
    with torch.no_grad():
        for p in algorithm.model.parameters():
            p += 0.003 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    (losses,) = algorithm.minibatches(experience, 0)
    algorithm.model.zero_grad()
    (sum(one()[0] for one in losses) / len(losses)).backward()
    got = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])

    def log_prob(policy, states, following, pairs):
        sigmas, told = policy.generator.sigmas(policy.steps), policy.generator.encode(pairs.prompts)
        velocity = policy.generator.velocity(states, sigmas[pairs.step], *told)
        mean, std = ddim_eta(states, velocity, *sigmas[pairs.step : pairs.step + 2], noise=1.0)
        return torch.distributions.Normal(mean, std).log_prob(following).mean((1, 2, 3))

    value = 0.0
    for pairs in experience:
        states = [(pairs.starts[:, 0], pairs.winners), (pairs.starts[:, -1], pairs.losers)]
        gains = [log_prob(algorithm.policy, *s, pairs) - log_prob(algorithm.reference, *s, pairs) for s in states]
        assert max(gain.abs().max() for gain in gains) < math.log(1.5)
        value = value + torch.log1p(torch.exp(-3 * (gains[0] - gains[1]))).mean() / len(experience)
    algorithm.model.zero_grad()
    value.backward()
    wanted = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])
    assert wanted.norm() > 1e-4
    torch.testing.assert_close(got, wanted, rtol=2e-3, atol=1e-5 * wanted.abs().max().item())


def test_spos_pairs_leave_from_one_state_and_one_of_the_candidates_is_the_next(make_twin):
    judged = []

    def judge(policy, reward, states, sigma, prompts):
        assert policy is algorithm.reference
        judged.append((states, sigma, prompts))
        return states.flatten(1).mean(1)

    algorithm = make(SPO, make_twin(), pieces={"judge": judge}, prompts_per_iteration=3)
    experience, metrics = algorithm.collect(0)
    assert len(judged) == len(experience) == len(algorithm.policy.noisy_steps()) and metrics["spread"] > 0
    for pairs, (states, sigma, prompts) in zip(experience, judged, strict=True):
        candidates = states.unflatten(0, (3, 4))
        means = candidates.flatten(2).mean(2)
        assert sigma == algorithm.policy.generator.sigmas(4)[pairs.step + 1]
        assert prompts == [text for text in pairs.prompts for _ in range(4)] and pairs.starts.shape[1] == 1
        for row in range(3):
            assert torch.equal(pairs.winners[row], candidates[row, means[row].argmax()])
            assert torch.equal(pairs.losers[row], candidates[row, means[row].argmin()])
    for pairs, (states, _, _) in zip(experience[1:], judged, strict=False):
        same = (states.unflatten(0, (3, 4)) == pairs.starts).flatten(2).all(2)
        assert (same.sum(1) == 1).all()


def test_the_resampler_takes_any_candidate(make_twin):
    algorithm = make(SPO, make_twin(), prompts_per_iteration=24, minibatches=1)
    chosen = []
    for iteration in range(2):
        pairs = algorithm.collect(iteration)[0]
        start = pairs[1].starts[:, 0]
        chosen += [(start[i].equal(pairs[0].winners[i]), start[i].equal(pairs[0].losers[i])) for i in range(24)]
    shares = torch.tensor(chosen).float().mean(0)  # one in four each
    assert ((shares > 0.08) & (shares < 0.45)).all()


def test_the_judge_sees_the_picture_that_a_state_promises(make_twin):
    policy = make(SPO, make_twin()).policy
    states, sigma, prompts = torch.randn(10, 4, 8, 8), torch.tensor(0.4), [PROMPTS[i % 3] for i in range(10)]
    scores = judge_by_leap(policy, Reward("redness", redness), states, sigma, prompts)
    with torch.no_grad():
        velocity = policy.generator.velocity(states, sigma, *policy.generator.encode(prompts))
        wanted = redness(policy.generator.decode(states - 0.4 * velocity), None)
    torch.testing.assert_close(scores, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [D3PO, SPO])
def test_a_flat_reward_trains_nothing(make_twin, kind):
    algorithm = make(kind, make_twin(), lambda samples, prompts: torch.full((len(prompts),), 0.3))
    before = weights(algorithm)
    loop(algorithm).run()
    assert torch.equal(weights(algorithm), before)


@pytest.mark.parametrize("kind", [D3PO, SPO])
def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path, kind):
    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = make(kind, make_twin())
    loop(whole, iterations=4).run()
    with pytest.raises(KeyboardInterrupt):
        loop(make(kind, make_twin()), iterations=4, folder=tmp_path, save_every=2).run([stop])
    resumed = make(kind, make_twin())
    loop(resumed, iterations=4, folder=tmp_path).run()
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("kind", [D3PO, SPO])
def test_the_reward_rises(make_twin, kind):
    algorithm = make(kind, make_twin(), prompts_per_iteration=8, minibatches=1)
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return redness(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    loop(algorithm, iterations=12, learning_rate=3e-3).run()
    gain = score() - before
    assert gain.mean() > 5 * gain.std() / math.sqrt(48)


def test_d3po_takes_any_sampler_with_noise(make_twin):
    algorithm = make(D3PO, make_twin(), trained_steps=2)
    algorithm.policy = DenoisingPolicy(algorithm.policy.generator, partial(cps, noise=0.5), steps=4, micro_batch=8)
    algorithm.reference = algorithm.policy.frozen_copy()
    experience, _ = algorithm.collect(0)
    assert len(experience) == 2 and all(pairs.step in algorithm.policy.noisy_steps() for pairs in experience)


def test_d3pos_first_gradient_points_where_grpos_does(make_twin):
    """From the same trajectories: both raise what was better than its siblings and lower what was worse."""

    def gradient(kind, config):
        policy = DenoisingPolicy(make_twin(), partial(ddim_eta, noise=1.0), steps=4, micro_batch=8)
        algorithm = kind(policy, Reward("redness", redness), draw_prompts, config)
        experience, metrics = algorithm.collect(0)
        for losses in algorithm.minibatches(experience, 0):
            for one in losses:
                (one()[0] / len(losses)).backward()
        return torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None]), metrics

    ours, metrics = gradient(D3PO, StepPreferenceConfig(8, 4, 1))
    grpos, same = gradient(GRPO, GRPOConfig(8, 4, 1, trained_steps=1000, kl_weight=0.0))
    assert metrics["reward"] == same["reward"]
    assert torch.cosine_similarity(ours, grpos, dim=0) > 0.7
