"""RWR and RAFT: their weights and their loss by hand, and what they do to a random twin of the generator."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from pixelpolicy.finetune import Loop, LoopConfig, RewardWeighted, RewardWeightedConfig
from pixelpolicy.finetune.noising import noise_of, pictures_of
from pixelpolicy.finetune.reward_weighted import best_of_group, exponential, weighted_matching
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rl import Reward, Rollout

PROMPTS = ("a red circle", "two blue squares", "a green triangle")
REWARDS = torch.tensor([0.1, 0.9, 0.4, 2.0, 2.5, 1.0, 0.3, 0.3, 0.3])
GROUPS = torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3])


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


def weighted(generator, pieces=None, **settings):
    defaults = {"prompts_per_iteration": 4, "group_size": 6, "noise_draws": 2}
    policy = DenoisingPolicy(generator, ode, steps=4, micro_batch=8)
    config = RewardWeightedConfig(**{**defaults, **settings})
    return RewardWeighted(policy, Reward("redness", redness), draw_prompts, config, **(pieces or {}))


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-3, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.05, 0.1, 1.0, 100.0])
def test_rwr_weighs_by_the_exponential_within_each_group(beta):
    got = exponential(REWARDS, GROUPS, beta=beta).double()
    for group in (0, 7, 3):
        mine = [math.exp((r - 2.5) / beta) for r in REWARDS[group == GROUPS].double().tolist()]
        wanted = [w * len(mine) / math.fsum(mine) for w in mine]
        torch.testing.assert_close(got[group == GROUPS], torch.tensor(wanted).double(), rtol=1e-4, atol=1e-6)
        assert got[group == GROUPS].mean().item() == pytest.approx(1, abs=1e-6)


def test_rwr_between_all_alike_and_the_best_alone():
    torch.testing.assert_close(exponential(REWARDS, GROUPS, beta=1e6), torch.ones(9), rtol=1e-4, atol=1e-4)
    best = torch.tensor([0.0, 3, 0, 0, 3, 0, 1, 1, 1])
    torch.testing.assert_close(exponential(REWARDS, GROUPS, beta=1e-3), best)
    huge = exponential(REWARDS * 1e4 + 1e6, GROUPS, beta=0.1)
    assert huge.isfinite().all()


def test_raft_keeps_the_best_of_each_group():
    assert best_of_group(REWARDS, GROUPS).tolist() == [0, 3, 0, 0, 3, 0, 0, 0, 0]
    assert best_of_group(REWARDS, GROUPS, keep=2).tolist() == [0, 1.5, 1.5, 1.5, 1.5, 0, 0, 0, 0]
    shuffled = torch.tensor([4, 0, 8, 2, 6, 1, 5, 3, 7])
    assert torch.equal(
        best_of_group(REWARDS[shuffled], GROUPS[shuffled], keep=2), best_of_group(REWARDS, GROUPS, keep=2)[shuffled]
    )
    assert best_of_group(REWARDS, GROUPS, keep=5).tolist() == [1] * 6 + [0] * 3  # all of a group, were it so small
    ties = torch.tensor([0.5, 1.0, 1.0])
    assert best_of_group(ties, torch.zeros(3).long()).tolist() == [0, 3, 0]  # the first of equals


def test_a_flat_group_teaches_nothing(make_twin):
    flat = replace(
        weighted(make_twin(), {"weights_of": best_of_group}),
        reward=Reward("flat", lambda samples, prompts: torch.full((len(prompts),), 0.3)),
    )
    before = weights(flat)
    history = loop(flat).run()
    assert [row["kept"] for row in history] == [0, 0] and [row["grad_norm"] for row in history] == [0, 0]
    assert torch.equal(weights(flat), before)


# The loss -------------------------------------------------------------------------------------------------------------


def test_the_matching_loss_and_its_gradient_against_float64():
    stream = torch.Generator().manual_seed(0)
    velocity, x0, x1 = (torch.randn(3, 2, 4, 4, generator=stream, dtype=torch.float64) for _ in range(3))
    weight, velocity = torch.tensor([2.0, 0.0, 1.0]).double(), velocity.requires_grad_()
    loss = weighted_matching(velocity, x0, x1, weight)
    gaps = (velocity.detach() - x1 + x0).flatten(1)
    by_hand = sum(w * math.fsum(g * g for g in row) / 32 for w, row in zip(weight.tolist(), gaps.tolist(), strict=True))
    assert loss.item() == pytest.approx(by_hand / 3, rel=1e-12)
    loss.backward()
    wanted = 2 * weight[:, None] * gaps / 32 / 3
    torch.testing.assert_close(velocity.grad.flatten(1), wanted, rtol=1e-10, atol=1e-12)


def test_the_algorithms_loss_is_that_of_its_own_pictures(make_twin):
    """The whole gradient of one optimiser step, worked out anew: noise, levels, weights, uneven micro-batches."""
    algorithm = weighted(make_twin(), minibatches=1, noise_draws=1, prompts_per_iteration=3)  # 8, 8 and 2 rows
    (rollout, weight), _ = algorithm.collect(0)
    (losses,) = algorithm.minibatches((rollout, weight), 0)
    algorithm.model.zero_grad()
    (sum(one()[0] for one in losses) / len(losses)).backward()
    got = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])

    generator, x0 = algorithm.policy.generator, rollout.states[:, -1]
    sigma, x1 = noise_of(rollout.seeds, 0, x0.shape[1:])
    level = sigma[:, None, None, None]
    velocity = generator.velocity(x0 + level * (x1 - x0), sigma, *generator.encode(rollout.prompts))
    own = torch.exp(redness(rollout.samples, None).view(3, 6) / 0.1)
    own = (own / own.mean(1, keepdim=True)).flatten()
    torch.testing.assert_close(weight, own, rtol=1e-4, atol=1e-5)
    algorithm.model.zero_grad()
    (own * (velocity - x1 + x0).pow(2).mean((1, 2, 3))).mean().backward()
    wanted = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])
    assert wanted.norm() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)


def test_noise_is_a_samples_own_and_new_at_every_draw():
    seeds = torch.tensor([3, 2**61, 17])
    sigma, noise = noise_of(seeds, 0, (4, 8, 8))
    assert sigma.shape == (3,) and ((sigma > 0) & (sigma < 1)).all() and noise.shape == (3, 4, 8, 8)
    alone = noise_of(seeds[1:2], 0, (4, 8, 8))
    assert torch.equal(alone[1][0], noise[1]) and torch.equal(alone[0][0], sigma[1])
    assert not torch.equal(noise_of(seeds, 1, (4, 8, 8))[1], noise)
    many, _ = noise_of(torch.arange(4000), 0, ())
    assert many.logit().mean().abs() < 0.06 and abs(many.logit().std().item() - 1) < 0.05


# On the generator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weights_of", [partial(exponential, beta=0.003), partial(best_of_group, keep=2)], ids=["rwr", "raft"]
)
def test_the_reward_rises(make_twin, weights_of):
    algorithm = weighted(make_twin(), {"weights_of": weights_of}, group_size=8)
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return redness(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    loop(algorithm, iterations=15, learning_rate=3e-3).run()
    gain = score() - before
    assert gain.mean() > 5 * gain.std() / math.sqrt(48)


def test_every_sample_is_used_once_a_draw(make_twin):
    asked = []

    def own(velocity, x0, x1, weight):
        asked.append((x0, x1, weight))
        return weighted_matching(velocity, x0, x1, weight)

    algorithm = weighted(make_twin(), {"matching": own}, noise_draws=3)
    experience, metrics = algorithm.collect(0)
    assert metrics["kept"] == 1
    parts = list(algorithm.minibatches(experience, 0))
    assert len(parts) == 3 * 2
    for part in parts:
        for one in part:
            one()
    assert sum(len(x0) for x0, _, _ in asked) == 3 * 24
    told = torch.cat([weight for _, _, weight in asked]).sort().values
    assert torch.equal(told, experience[1].repeat(3).sort().values)


def test_a_users_weights_are_what_trains(make_twin):
    calls = []

    def own(rewards, groups):
        calls.append((rewards, groups))
        return torch.zeros_like(rewards)

    algorithm = weighted(make_twin(), {"weights_of": own})
    before = weights(algorithm)
    loop(algorithm, iterations=1).run()
    ((rewards, groups),) = calls
    assert rewards.shape == (24,) and groups.tolist() == [g for g in range(4) for _ in range(6)]
    assert torch.equal(weights(algorithm), before)


def test_an_anchor_holds_it_near_the_base(make_twin):
    def moved(anchor_weight):
        algorithm = weighted(make_twin(), anchor_weight=anchor_weight)
        before, history = weights(algorithm), loop(algorithm, iterations=4).run()
        return (weights(algorithm) - before).norm().item(), history

    (free, _), (held, history) = moved(0.0), moved(1000.0)
    assert held < free and "drift" in history[0]


def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path):
    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = weighted(make_twin())
    history = loop(whole, iterations=5).run()
    with pytest.raises(KeyboardInterrupt):
        loop(weighted(make_twin()), iterations=5, folder=tmp_path, save_every=2).run([stop])
    resumed = weighted(make_twin())
    going_on = loop(resumed, iterations=5, folder=tmp_path)
    assert going_on.iteration == 2
    assert without_clock(going_on.run()) == without_clock(history)
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("last", [0.0, 0.03])
def test_the_pictures_are_those_that_were_decoded(last):
    """Where sampling ends above 0, they are the latents of the variance-preserving process."""
    states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    sigmas, stochastic = torch.tensor([1.0, 0.5, last]), torch.tensor([True, False])
    rollout = Rollout(["a", "b"], torch.arange(2), states, sigmas, stochastic, torch.zeros(2, 2), states)
    torch.testing.assert_close(pictures_of(rollout), states[:, 2] / math.hypot(1 - last, last))
