"""DDPO's memory of rewards and DPOK's critic, each by hand; both on a random twin of the generator."""

import math
import statistics
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from pixelpolicy.errors import RolloutError
from pixelpolicy.finetune import DDPO, DPOK, GRPOConfig, Loop, LoopConfig, PromptStatistics
from pixelpolicy.finetune.ddpo import Critic, critic_loss, surprise
from pixelpolicy.policies import DenoisingPolicy, ddim_eta
from pixelpolicy.rl import Reward, clipped_surrogate

PROMPTS = ("a red circle", "two blue squares", "a green triangle")


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


def algorithm(kind, generator, pieces=None, **settings):
    defaults = {"prompts_per_iteration": 24, "group_size": 1, "trained_steps": 9, "clip_range": 1e-2, "kl_weight": 0.0}
    policy = DenoisingPolicy(generator, partial(ddim_eta, noise=1.0), steps=4, micro_batch=8)
    return kind(
        policy, Reward("redness", redness), draw_prompts, GRPOConfig(**{**defaults, **settings}), **(pieces or {})
    )


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-2, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


# Per-prompt statistics ------------------------------------------------------------------------------------------------


def test_statistics_against_a_list_kept_by_hand():
    """Batches of several prompts; a prompt's list is the latest of all it ever got, this batch's included."""
    remembered, compare, rng = {}, PromptStatistics(memory=6, least=4), np.random.default_rng(0)
    used = set()
    for _ in range(12):
        prompts = draw_prompts(5, rng)
        rewards = torch.from_numpy(rng.normal(size=5))
        got = compare(rewards, prompts)
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            remembered[prompt] = [*remembered.get(prompt, []), reward][-6:]
        for prompt, reward, advantage in zip(prompts, rewards.tolist(), got.tolist(), strict=True):
            own = len(remembered[prompt]) >= 4
            values = remembered[prompt] if own else rewards.tolist()
            wanted = (reward - statistics.fmean(values)) / (statistics.pstdev(values) + 1e-6)
            assert advantage == pytest.approx(wanted, abs=1e-9)
            used.add((own, len(remembered[prompt])))
    assert {(False, 1), (True, 4), (True, 6)} <= used  # the batch's, the first of its own, a full memory


def test_a_hard_prompt_is_no_bad_sample():
    """The same reward is a failure where one expects more and a feat where one expects less."""
    compare = PromptStatistics(memory=8, least=2)
    compare(torch.tensor([0.8, 1.0, 0.8, 1.0, 0.0, 0.2, 0.0, 0.2]), ["easy"] * 4 + ["hard"] * 4)
    easy, hard = compare(torch.tensor([0.5, 0.5]), ["easy", "hard"])
    assert easy < -1 and hard > 1


@pytest.mark.parametrize("least, expected", [(1, 0.0), (2, -0.5 / (0.5 + 1e-6))])
def test_the_least_number_decides_whose_mean_it_is(least, expected):
    got = PromptStatistics(least=least)(torch.tensor([1.0, 2.0]), ["one", "two"])
    assert got[0].item() == pytest.approx(expected, abs=1e-6)


def test_statistics_let_no_gradient_pass_and_keep_the_dtype():
    rewards = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    got = PromptStatistics()(rewards, ["a", "a", "b"])
    assert not got.requires_grad and got.dtype == torch.float64
    with pytest.raises(ValueError):
        PromptStatistics()(torch.ones(3), ["a", "b"])


def test_statistics_come_back_from_plain_data():
    first = PromptStatistics(memory=3)
    first(torch.arange(5.0), ["a", "a", "a", "a", "b"])
    second = PromptStatistics(memory=3)
    second.load_state(first.state())
    more = torch.tensor([7.0, 1.0]), ["a", "b"]
    assert torch.equal(first(*more), second(*more)) and second.seen["a"].maxlen == 3
    assert first.state() == second.state() == {"seen": {"a": [2.0, 3.0, 7.0], "b": [4.0, 1.0]}}


# DDPO -----------------------------------------------------------------------------------------------------------------


def test_ddpo_trains_every_noisy_step_with_one_advantage_a_picture(make_twin):
    calls = []

    def objective(new, old, advantages, clip_range):
        calls.append((new.detach().clone(), advantages))
        return clipped_surrogate(new, old, advantages, clip_range)

    ddpo = algorithm(DDPO, make_twin(), {"objective": objective}, minibatches=1)
    (rollout, advantages, steps), _ = ddpo.collect(0)
    assert steps == [0, 1, 2] and rollout.stochastic.tolist() == [True, True, True, False]
    rewards = redness(rollout.samples, None)
    torch.testing.assert_close(advantages, PromptStatistics()(rewards, rollout.prompts))
    (losses,) = ddpo.minibatches((rollout, advantages, steps), 0)
    for one in losses:
        one()
    # 24 pictures in micro-batches of 8, three steps each; at ratio 1 the replayed densities are those written down.
    assert len(calls) == 9
    assert sorted(torch.cat([new for new, _ in calls]).tolist()) == sorted(rollout.log_probs[:, :3].flatten().tolist())
    assert sorted(torch.cat([a for _, a in calls]).tolist()) == sorted(advantages.repeat(3).tolist())


def test_a_users_statistics_are_what_trains(make_twin):
    asked = []

    def own(rewards, prompts):
        asked.append((rewards, prompts))
        return torch.zeros_like(rewards)

    ddpo = algorithm(DDPO, make_twin(), {"statistics": own})
    before = weights(ddpo)
    history = loop(ddpo).run()
    assert [len(prompts) for _, prompts in asked] == [24, 24] and asked[0][1] != asked[1][1]
    assert [row["grad_norm"] for row in history] == [0, 0] and torch.equal(weights(ddpo), before)
    assert ddpo.state() == {}
    ddpo.load_state({})


def test_the_first_optimiser_step_has_ratio_one(make_twin):
    history = loop(algorithm(DDPO, make_twin(), minibatches=1)).run()
    assert [row["clip_fraction"] for row in history] == [0, 0]


@pytest.mark.parametrize("kind", [DDPO, DPOK])
def test_the_reward_rises(make_twin, kind):
    trained = algorithm(kind, make_twin(), prompts_per_iteration=32)
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return redness(trained.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    loop(trained, iterations=15).run()
    gain = score() - before
    assert gain.mean() > before.std() and gain.mean() > 5 * gain.std() / math.sqrt(48)


@pytest.mark.parametrize("kind", [DDPO, DPOK])
def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path, kind):
    """What the algorithm itself remembers, rewards or a critic, is in the checkpoint too."""

    def make():
        made = algorithm(kind, make_twin(), kl_weight=0.02)
        if kind is DDPO:
            made.statistics = PromptStatistics(memory=30, least=12)  # matters from the second iteration on
        return made

    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = make()
    history = loop(whole, iterations=5).run()
    with pytest.raises(KeyboardInterrupt):
        loop(make(), iterations=5, folder=tmp_path, save_every=2).run([stop])
    resumed = make()
    going_on = loop(resumed, iterations=5, folder=tmp_path)
    assert going_on.iteration == 2
    assert without_clock(going_on.run()) == without_clock(history)
    assert torch.equal(weights(resumed), weights(whole))
    forgetful = make()
    half = Loop(forgetful, LoopConfig(5, learning_rate=1e-2, progress=False, folder=tmp_path / "none"))
    state = torch.load(tmp_path / "checkpoint-000005" / "state.pt", weights_only=True)
    assert state["algorithm"] and half.iteration == 0


# DPOK -----------------------------------------------------------------------------------------------------------------


def test_surprise_against_plain_numbers():
    rewards, expected = torch.tensor([1.0, 0.2]), torch.tensor([[0.5, 1.0, 1.5], [0.2, 0.0, -0.8]], requires_grad=True)
    got = surprise(rewards, expected, torch.tensor(0.4))
    wanted = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.2, 1.0]]) / 0.4
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert not got.requires_grad


def test_critic_loss_and_its_gradient_against_float64():
    stream = torch.Generator().manual_seed(0)
    expected = torch.randn(4, 3, generator=stream, dtype=torch.float64).requires_grad_()
    rewards = torch.randn(4, generator=stream, dtype=torch.float64).requires_grad_()
    errors = [[e - r for e in row] for row, r in zip(expected.tolist(), rewards.tolist(), strict=True)]
    loss = critic_loss(expected, rewards)
    assert loss.item() == pytest.approx(math.fsum(e * e for row in errors for e in row) / 12, abs=1e-12)
    loss.backward()
    torch.testing.assert_close(expected.grad, torch.tensor(errors).double() / 6, rtol=1e-6, atol=1e-6)
    assert rewards.grad is None


def test_the_critic_learns_what_to_expect_of_a_prompt(make_twin):
    """A reward of the prompt alone: the critic comes to know it, and then nothing surprises."""
    worth = dict(zip(PROMPTS, (0.0, 1.0, 3.0), strict=True))

    def judge(samples, prompts):
        return torch.tensor([worth[prompt] for prompt in prompts])

    dpok = algorithm(DPOK, make_twin(), prompts_per_iteration=96)
    dpok = replace(dpok, reward=Reward("the prompt's", judge), critic_steps=20)
    surprises = [dpok.collect(i)[0][1].square().mean().item() for i in range(8)]
    assert surprises[-1] < 0.3 * surprises[0]


def test_advantages_come_from_the_critic_before_it_has_seen_them(make_twin):
    dpok = algorithm(DPOK, make_twin())
    blank = {name: value.clone() for name, value in dpok.critic.state_dict().items()}
    (rollout, advantages, steps), _ = dpok.collect(0)
    assert advantages.shape == (24, 4) and steps == [0, 1, 2]
    critic = Critic(math.prod(dpok.policy.generator.latent_shape), rollout_prompts(dpok, rollout).shape[1])
    critic.load_state_dict(blank)
    rewards = redness(rollout.samples, None)
    critic.meet(rewards)
    for step in range(4):
        with torch.no_grad():
            expected = critic(rollout.states[:, step], rollout.sigmas[step], rollout_prompts(dpok, rollout))
        wanted = (rewards - expected) / (rewards.std(correction=0) + 1e-6)
        torch.testing.assert_close(advantages[:, step], wanted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(dpok.critic.state_dict()["layers.0.weight"], blank["layers.0.weight"])


def test_a_critic_expects_the_usual_before_it_has_learnt_anything():
    critic = Critic(6, 2)
    states, sigma, prompts = torch.randn(5, 6), torch.tensor(0.5), torch.randn(5, 2)
    critic.meet(torch.full((4,), 3.0))  # no spread: the next batch decides
    critic.meet(torch.tensor([1000.0, 1002.0]))
    critic.meet(torch.tensor([5.0, 9.0]))  # too late
    assert critic.moments.tolist() == [1001.0, 1.0]
    assert (critic(states, sigma, prompts) - 1001).abs().max() < 2


def rollout_prompts(dpok, rollout):
    return dpok.policy.generator.encode(rollout.prompts)[-1]


def test_each_step_is_trained_with_the_surprise_at_its_own_state(make_twin):
    told = []

    def objective(new, old, advantages, clip_range):
        told.append(advantages)
        return clipped_surrogate(new, old, advantages, clip_range)

    marks = torch.arange(24.0)[:, None] * 10 + torch.arange(4.0)
    pieces = {"objective": objective, "surprise_of": lambda rewards, expected, spread: marks}
    dpok = algorithm(DPOK, make_twin(), pieces, minibatches=1)
    experience, _ = dpok.collect(0)
    (losses,) = dpok.minibatches(experience, 0)
    for one in losses:
        one()
    assert sorted(torch.cat(told).tolist()) == sorted(marks[:, :3].flatten().tolist())


def test_a_users_critic_loss_is_what_the_critic_descends(make_twin):
    asked = []

    def own(expected, rewards):
        asked.append((expected.shape, rewards.shape, expected.requires_grad))
        return (expected - 100.0).square().mean()

    dpok = replace(algorithm(DPOK, make_twin(), {"critic_loss_of": own}), critic_steps=3)
    before = dpok._expected(dpok.collect(0)[0][0]).mean().item()
    assert asked == [((24, 4), (24,), True)] * 3
    after = dpok._expected(dpok.collect(1)[0][0]).mean().item()
    assert after > before


def test_the_critic_is_the_same_for_the_same_seed_and_leaves_chance_alone(make_twin):
    torch.manual_seed(5)
    first = algorithm(DPOK, make_twin(), seed=1).critic.state_dict()
    torch.manual_seed(6)
    second = algorithm(DPOK, make_twin(), seed=1).critic.state_dict()
    other = algorithm(DPOK, make_twin(), seed=2).critic.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["layers.0.weight"], other["layers.0.weight"])


def test_the_kl_is_part_of_dpoks_loss(make_twin):
    """A heavy weight holds the policy near the base; DDPO has no leash unless it is given one."""

    def drift(kl_weight):
        dpok = algorithm(DPOK, make_twin(), kl_weight=kl_weight, minibatches=1)
        return [row["kl"] for row in loop(dpok, iterations=6).run()]

    light, heavy = drift(1e-6), drift(100.0)
    assert light[0] == heavy[0] == 0 and heavy[-1] < 0.5 * light[-1]
    assert DPOK.__dataclass_fields__["config"].default.kl_weight > 0
    assert "kl" not in loop(algorithm(DDPO, make_twin()), iterations=1).run()[0]


def test_a_policy_without_noise_is_refused(make_twin):
    ddpo = algorithm(DDPO, make_twin())
    ddpo.policy = replace(ddpo.policy, transition=partial(ddim_eta, noise=0.0), stochastic_steps=[0])
    with pytest.raises(RolloutError, match="cannot be stochastic"):
        ddpo.collect(0)
