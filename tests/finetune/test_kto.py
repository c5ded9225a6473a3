"""Diffusion-KTO: which samples get which label, the loss of an optimiser step worked out anew, and a training."""

import math
from functools import partial

import pytest
import torch

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune import (
    DiffusionKTO,
    Labelled,
    Loop,
    LoopConfig,
    Pairs,
    PreferenceConfig,
    above_the_group,
    diffusion_kto_loss,
)
from pixelpolicy.finetune.noising import noise_of
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rl import Reward

PROMPTS = ("a red circle", "two blue squares", "a green triangle")


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


def policy_of(generator):
    return DenoisingPolicy(generator, ode, steps=4, micro_batch=8)


def some_labelled(count=24):
    latents = torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    return Labelled([PROMPTS[i % 3] for i in range(count)], latents, torch.arange(count) % 2 == 0)


def config(**settings):
    return PreferenceConfig(
        **{"prompts_per_iteration": 3, "group_size": 4, "minibatches": 1, "noise_draws": 1, **settings}
    )


def online(generator, reward=redness, **settings):
    loss_of = partial(diffusion_kto_loss, beta=20.0)
    return DiffusionKTO(policy_of(generator), Reward("it", reward), draw_prompts, config(**settings), loss_of=loss_of)


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-3, "progress": False, **settings}))


def test_wanted_is_what_lies_above_its_groups_mean_and_a_flat_group_gets_no_label():
    rewards = torch.tensor([0.1, 0.9, 0.4, 0.3, 0.3, 0.3, 2.0, 1.0, 2.5])
    rows, wanted = above_the_group(rewards, torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3]))
    assert rows.tolist() == [0, 1, 2, 6, 7, 8] and wanted.tolist() == [False, True, False, True, False, True]


def test_labels_of_pairs_forget_who_was_compared_with_whom():
    winners, losers = torch.randn(2, 3, 4, 8, 8)
    labelled = Labelled.of_pairs(Pairs(list(PROMPTS), winners, losers))
    assert len(labelled) == 6 and labelled.wanted.tolist() == [True] * 3 + [False] * 3
    assert torch.equal(labelled.latents[4], losers[1]) and labelled.prompts[4] == PROMPTS[1]
    with pytest.raises(TrainingError, match="one of each a sample"):
        Labelled(["a red circle"], winners, torch.ones(3).bool())


def test_without_samples_or_a_way_to_make_them_it_says_so(make_twin):
    with pytest.raises(TrainingError, match="give labelled samples"):
        DiffusionKTO(policy_of(make_twin()))
    with pytest.raises(TrainingError, match="empty"):
        DiffusionKTO(policy_of(make_twin()), labelled=some_labelled(0))


def test_the_algorithms_loss_is_that_of_its_samples_each_with_noise_of_its_own(make_twin):
    policy = policy_of(make_twin())
    loss_of, settings = partial(diffusion_kto_loss, beta=5.0), config(prompts_per_iteration=2)
    algorithm = DiffusionKTO(policy, config=settings, labelled=some_labelled(), loss_of=loss_of)
    with torch.no_grad():
        for p in algorithm.model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    labelled, seeds = algorithm.collect(0)[0]
    assert len(seeds.unique()) == len(labelled) == 8
    (losses,) = algorithm.minibatches((labelled, seeds), 0)
    algorithm.model.zero_grad()
    (sum(one()[0] for one in losses) / len(losses)).backward()
    got = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])
    sigma, x1 = noise_of(seeds, 0, (4, 8, 8))
    level = sigma[:, None, None, None]

    def error(generator):
        x0 = labelled.latents
        velocity = generator.velocity(x0 + level * (x1 - x0), sigma, *generator.encode(labelled.prompts))
        return (velocity - x1 + x0).pow(2).mean((1, 2, 3))

    gain = error(algorithm.reference.generator).detach() - error(policy.generator)
    z = gain.detach().mean().clamp_min(0)
    algorithm.model.zero_grad()
    (1 - torch.sigmoid(5 * torch.where(labelled.wanted, gain - z, z - gain))).mean().backward()
    wanted = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])
    assert wanted.norm() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)


def test_a_flat_reward_trains_nothing_and_one_group_fills_the_batch(make_twin):
    flat = online(make_twin(), lambda samples, prompts: torch.full((len(prompts),), 0.3))
    before, history = weights(flat), loop(flat).run()
    assert [row["labelled"] for row in history] == [0, 0] and torch.equal(weights(flat), before)
    lone = online(make_twin(), lambda samples, prompts: torch.arange(12) * (torch.arange(12) < 4.0))
    (labelled, seeds), metrics = lone.collect(0)
    assert metrics["labelled"] == 4 and len(labelled) == len(seeds.unique()) == 12


def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path):
    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = online(make_twin())
    loop(whole, iterations=4).run()
    with pytest.raises(KeyboardInterrupt):
        loop(online(make_twin()), iterations=4, folder=tmp_path, save_every=2).run([stop])
    resumed = online(make_twin())
    loop(resumed, iterations=4, folder=tmp_path).run()
    assert torch.equal(weights(resumed), weights(whole))


def test_the_reward_rises_online(make_twin):
    algorithm = online(make_twin(), prompts_per_iteration=8, noise_draws=2)
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return redness(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    history = loop(algorithm, iterations=15, learning_rate=3e-3).run()
    gain = score() - before
    assert gain.mean() > 5 * gain.std() / math.sqrt(48)
    assert history[-1]["wanted_change"] < history[-1]["unwanted_change"]
