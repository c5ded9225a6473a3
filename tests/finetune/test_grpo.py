"""GRPO: its gradient by hand on a toy policy, and what it does to a random twin of the generator."""

import copy
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pixelpolicy.errors import GroupError, RewardError
from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig, random_steps, window_steps
from pixelpolicy.policies import DenoisingPolicy, cps, dance_sde, ddim_eta, flow_sde
from pixelpolicy.rl import Reward, Rollout, clipped_surrogate, gaussian_kl, gaussian_log_prob, group_advantages

PROMPTS = ("a red circle", "two blue squares", "a green triangle")


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(sign=1.0):
    return Reward("redness", lambda samples, _: sign * (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2)))


def grpo(generator, *, reward=None, policy=None, pieces=None, **settings):
    defaults = {"prompts_per_iteration": 4, "group_size": 6, "trained_steps": 2, "kl_weight": 0.0, "clip_range": 1e-2}
    policy = DenoisingPolicy(generator, **{"steps": 4, "micro_batch": 8, **(policy or {})})
    return GRPO(policy, reward or redness(), draw_prompts, GRPOConfig(**{**defaults, **settings}), **(pieces or {}))


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-2, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


class Spy:
    """Calls a function, or gives a fixed answer, and remembers."""

    def __init__(self, answer):
        self.answer, self.calls, self.results = answer, [], []

    def __call__(self, *arguments, **named):
        self.calls.append(arguments)
        self.results.append(self.answer(*arguments, **named))
        return self.results[-1]


# The policy gradient, by hand ---------------------------------------------------------------------------------------


class Slopes(nn.Module):
    """The mean of each step is ``slope * x + shift``."""

    def __init__(self):
        super().__init__()
        self.slope, self.shift = (
            nn.Parameter(torch.tensor([0.9, 1.1, 0.7])),
            nn.Parameter(torch.tensor([0.1, -0.2, 0.3])),
        )


@dataclass(frozen=True)
class ToyPolicy:
    """A walk on the line in three Gaussian steps."""

    transformer: Slopes = field(default_factory=Slopes)
    micro_batch: int = 4
    std: float = 0.5
    log_prob_of = staticmethod(gaussian_log_prob)

    @property
    def generator(self):
        return SimpleNamespace(transformer=self.transformer)

    def frozen_copy(self):
        return replace(self, transformer=copy.deepcopy(self.transformer).requires_grad_(False))

    def noisy_steps(self):
        return [0, 1, 2]

    def distribution(self, rollout, step):
        x = rollout.states[:, step]
        return self.transformer.slope[step] * x + self.transformer.shift[step], torch.tensor(self.std)

    @torch.no_grad()
    def rollout(self, prompts, *, seeds):
        stream, states, log_probs = torch.Generator().manual_seed(int(seeds[0])), [], []
        states.append(torch.randn(len(prompts), 1, generator=stream))
        for step in range(3):
            mean = self.transformer.slope[step] * states[-1] + self.transformer.shift[step]
            states.append(mean + self.std * torch.randn(mean.shape, generator=stream))
            log_probs.append(gaussian_log_prob(states[-1], mean, self.std))
        return Rollout(
            list(prompts), seeds, torch.stack(states, 1), torch.tensor([1.0, 0.6, 0.3, 0.0]),
            torch.ones(3, dtype=torch.bool), torch.stack(log_probs, 1), states[-1][:, 0],
        )  # fmt: skip


def toy(rows, micro_batch=4, **settings):
    """GRPO on the toy, its experience, and the advantages worked out anew."""
    settings = {"prompts_per_iteration": rows // 5, "group_size": 5, "trained_steps": 3, "minibatches": 1, **settings}
    algorithm = GRPO(
        ToyPolicy(micro_batch=micro_batch),
        Reward("near 1", lambda x, _: -((x - 1) ** 2)),
        draw_prompts,
        GRPOConfig(**{"kl_weight": 0.0, "clip_range": 0.2, **settings}),
    )
    experience, _ = algorithm.collect(0)
    rewards = (-((experience[0].states[:, 3, 0] - 1) ** 2)).double().view(-1, 5)
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = (centred / ((centred**2).mean(1, keepdim=True).sqrt() + 1e-4)).flatten()
    return algorithm, experience, advantages


def gradient_of(algorithm, losses):
    algorithm.model.zero_grad()
    (sum(loss()[0] for loss in losses) / len(losses)).backward()
    return algorithm.model.slope.grad.clone(), algorithm.model.shift.grad.clone()


def by_hand(algorithm, rollout, advantages, clip_range=None, steps=(0, 1, 2)):
    """Minus the mean over samples and steps of ``A rho grad log p``, zero where PPO clips."""
    slope, shift = (p.detach().double() for p in (algorithm.model.slope, algorithm.model.shift))
    of_slope, of_shift = torch.zeros(3).double(), torch.zeros(3).double()
    for step in steps:
        x, action = rollout.states[:, step, 0].double(), rollout.states[:, step + 1, 0].double()
        error = action - slope[step] * x - shift[step]
        log_prob = -(error**2) / 0.5 - math.log(0.5 * math.sqrt(2 * math.pi))  # std 0.5
        rho = (log_prob - rollout.log_probs[:, step].double()).exp()
        coefficient = advantages * rho
        if clip_range is not None:
            clipped = ((advantages > 0) & (rho > 1 + clip_range)) | ((advantages < 0) & (rho < 1 - clip_range))
            assert 0.1 < clipped.double().mean() < 0.9
            coefficient = coefficient * ~clipped
        score = coefficient * error / 0.25
        of_slope[step], of_shift[step] = -(score * x).mean() / len(steps), -score.mean() / len(steps)
    return of_slope.float(), of_shift.float()


def test_at_ratio_one_the_gradient_is_the_policy_gradient():
    algorithm, (rollout, advantages, steps), expected = toy(40)
    torch.testing.assert_close(advantages.double(), expected, rtol=1e-4, atol=1e-5)
    (losses,) = algorithm.minibatches((rollout, advantages, steps), 0)
    assert len(losses) == 10 * 3  # micro-batches of 4, every step
    for given, wanted in zip(gradient_of(algorithm, losses), by_hand(algorithm, rollout, expected), strict=True):
        assert wanted.abs().min() > 1e-3
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-6)


def test_away_from_it_the_clipped_samples_are_silent():
    algorithm, experience, expected = toy(40)
    with torch.no_grad():
        algorithm.model.shift += torch.tensor([0.3, -0.2, 0.25])
    (losses,) = algorithm.minibatches(experience, 0)
    hand = by_hand(algorithm, experience[0], expected, clip_range=0.2)
    for given, wanted in zip(gradient_of(algorithm, losses), hand, strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-6)


def test_only_the_chosen_steps_are_trained():
    algorithm, (rollout, advantages, _), expected = toy(20)
    (losses,) = algorithm.minibatches((rollout, advantages, [0, 2]), 0)
    for given, wanted in zip(
        gradient_of(algorithm, losses), by_hand(algorithm, rollout, expected, steps=(0, 2)), strict=True
    ):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-6)
        assert given[1] == 0


def test_every_sample_weighs_the_same_where_the_last_micro_batch_is_smaller():
    """Trap 10: 10 samples in micro-batches of 4, 4 and 2."""
    algorithm, experience, expected = toy(10)
    (losses,) = algorithm.minibatches(experience, 0)
    for given, wanted in zip(gradient_of(algorithm, losses), by_hand(algorithm, experience[0], expected), strict=True):
        torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-6)


def test_the_kl_term_pulls_towards_the_reference():
    algorithm, (rollout, advantages, steps), _ = toy(20, kl_weight=0.3)
    moved = torch.tensor([0.3, -0.2, 0.25])
    with torch.no_grad():
        algorithm.model.shift += moved
    (losses,) = algorithm.minibatches((rollout, torch.zeros_like(advantages), steps), 0)
    # KL of a step is moved^2 / (2 * 0.25): gradient moved / 0.25, a third of it a step.
    of_slope, of_shift = gradient_of(algorithm, losses)
    torch.testing.assert_close(of_shift, 0.3 * moved / 0.25 / 3, rtol=1e-4, atol=1e-6)
    x = rollout.states[:, :3, 0].mean(0)
    torch.testing.assert_close(of_slope, 0.3 * moved * x / 0.25 / 3, rtol=1e-4, atol=1e-6)
    assert np.mean([loss()[1]["kl"] for loss in losses]) == pytest.approx((moved**2).mean().item() / 0.5, rel=1e-4)


def test_minibatches_hold_every_sample_and_step_once():
    algorithm, experience, _ = toy(40, minibatches=3, trained_steps=2)
    objective = Spy(lambda new, old, advantages, clip_range: new.sum())
    algorithm.objective = objective
    parts = list(algorithm.minibatches(experience, 0))
    assert [len(part) for part in parts] == [4 * 2, 3 * 2, 3 * 2]
    for part in parts:
        for loss in part:
            loss()
    old = Counter(value for _, old, _, _ in objective.calls for value in old.tolist())
    assert old == Counter(experience[0].log_probs[:, experience[2]].flatten().tolist())
    seen = Counter(value for _, _, advantages, _ in objective.calls for value in advantages.tolist())
    assert seen == Counter(value for value in experience[1].tolist() for _ in range(2))
    assert len(list(toy(40, minibatches=50)[0].minibatches(experience, 0))) == 10  # no more parts than micro-batches
    first = {i: next(algorithm.minibatches(experience, i))[0]()[0].item() for i in range(4)}
    assert len(set(first.values())) > 1  # another order in another iteration


# Which steps to train -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choose", [random_steps, window_steps])
def test_chosen_steps_are_some_of_the_available_in_order(choose):
    for seed in range(50):
        rng = np.random.default_rng(seed)
        available = sorted(rng.choice(30, rng.integers(1, 12), replace=False).tolist())
        count = int(rng.integers(1, 14))
        steps = choose(available, count, rng)
        assert len(steps) == min(count, len(available))
        assert steps == sorted(set(steps)) and set(steps) <= set(available)
        assert all(type(step) is int for step in steps)
        assert choose(available, count, np.random.default_rng(seed)) == choose(
            available, count, np.random.default_rng(seed)
        )


def test_random_steps_choose_each_step_equally_often():
    rng = np.random.default_rng(0)
    counts = Counter(step for _ in range(3000) for step in random_steps([0, 2, 3, 5, 8], 2, rng))
    assert all(abs(n - 1200) < 5 * math.sqrt(3000 * 0.4 * 0.6) for n in counts.values()) and len(counts) == 5
    together = {tuple(random_steps([0, 2, 3, 5, 8], 2, rng)) for _ in range(300)}
    assert len(together) == 10  # not only neighbours


def test_window_steps_are_neighbours_at_every_place():
    rng = np.random.default_rng(0)
    windows = Counter(tuple(window_steps([0, 2, 3, 5, 8], 3, rng)) for _ in range(900))
    assert windows.keys() == {(0, 2, 3), (2, 3, 5), (3, 5, 8)}
    assert all(abs(n - 300) < 5 * math.sqrt(900 / 3 * 2 / 3) for n in windows.values())


# On the generator ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transition, sign",
    [(cps, 1), (cps, -1), (flow_sde, 1), (dance_sde, 1), (ddim_eta, 1)],
    ids=["cps", "cps-away", "flow_sde", "dance_sde", "ddim_eta"],
)
def test_the_reward_rises(make_twin, transition, sign):
    algorithm = grpo(
        make_twin(),
        reward=redness(sign),
        policy={"transition": partial(transition, noise={dance_sde: 0.8}.get(transition, 0.7)), "micro_batch": 16},
        group_size=8,
        trained_steps=3,
    )
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return algorithm.reward(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    loop(algorithm, iterations=15).run()
    gain = score() - before
    # Over other seeds the gain is 2 to 8 spreads of a batch, and 9 to 60 standard errors.
    assert gain.mean() > before.std()
    assert gain.mean() > 5 * gain.std() / math.sqrt(48)


def test_the_same_seed_gives_the_same_digits(make_twin):
    def train(seed):
        algorithm = grpo(make_twin(), seed=seed, kl_weight=0.02)
        torch.manual_seed(int(torch.seed()) % 1000)  # what else the process draws is of no matter
        history = loop(algorithm, iterations=3).run()
        return without_clock(history), weights(algorithm)

    first, again, other = train(0), train(0), train(1)
    assert first[0] == again[0] and torch.equal(first[1], again[1])
    assert first[0] != other[0] and not torch.equal(first[1], other[1])


def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path):
    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = grpo(make_twin(), kl_weight=0.02)
    history = loop(whole, iterations=5).run()
    with pytest.raises(KeyboardInterrupt):
        loop(grpo(make_twin(), kl_weight=0.02), iterations=5, folder=tmp_path, save_every=2).run([stop])
    resumed = grpo(make_twin(), kl_weight=0.02)
    going_on = loop(resumed, iterations=5, folder=tmp_path)
    assert going_on.iteration == 2
    assert without_clock(going_on.run()) == without_clock(history)
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize(
    "dtype, precision",
    [(torch.float32, "no"), (torch.bfloat16, "no"), (torch.float16, "no"), (torch.bfloat16, "bf16")],
    ids=str,
)
def test_the_first_minibatch_of_an_iteration_has_ratio_one(make_twin, fresh_accelerate, dtype, precision):
    objective = Spy(clipped_surrogate)
    algorithm = grpo(make_twin(), policy={"dtype": dtype}, pieces={"objective": objective}, minibatches=3)
    history = loop(algorithm, iterations=2, mixed_precision=precision).run()
    assert len(objective.calls) == 2 * 3 * 2  # iterations, minibatches of one micro-batch each, steps
    for number, (new, old, _, _) in enumerate(objective.calls):
        assert new.requires_grad and not old.requires_grad
        assert torch.equal(new, old) == (number % 6 < 2)
    assert all(row["clip_fraction"] > 0 for row in history)  # of the later minibatches
    single = grpo(make_twin(), policy={"dtype": dtype}, minibatches=1)
    assert [row["clip_fraction"] for row in loop(single, mixed_precision=precision).run()] == [0, 0]


def test_equal_rewards_teach_nothing_and_are_counted(make_twin):
    algorithm = grpo(make_twin(), reward=Reward("flat", lambda samples, prompts: torch.full((len(prompts),), 0.3)))
    before = weights(algorithm)
    history = loop(algorithm).run()
    assert [row["zero_variance_groups"] for row in history] == [4, 4]
    assert [row["grad_norm"] for row in history] == [0, 0] and [row["loss"] for row in history] == [0, 0]
    assert torch.equal(weights(algorithm), before)


def test_one_flat_group_is_left_out_of_the_gradient(make_twin):
    flat = PROMPTS[0]

    def judge(samples, prompts):
        red = redness()(samples, prompts)
        return torch.where(torch.tensor([text == flat for text in prompts]), torch.tensor(5.0), red)

    algorithm = grpo(make_twin(), reward=Reward("partly flat", judge), prompts_per_iteration=6)
    (rollout, advantages, _), metrics = algorithm.collect(0)
    is_flat = torch.tensor([text == flat for text in rollout.prompts])
    assert 0 < is_flat.sum() < len(is_flat)
    assert metrics["zero_variance_groups"] == is_flat.sum() / 6
    assert (advantages[is_flat] == 0).all() and (advantages[~is_flat] != 0).all()


def test_a_batch_is_groups_of_one_prompt_with_seeds_of_their_own(make_twin):
    draw = Spy(draw_prompts)
    algorithm = replace(grpo(make_twin(), prompts_per_iteration=5), draw_prompts=draw)
    (rollout, advantages, steps), metrics = algorithm.collect(3)
    assert draw.calls[0][0] == 5
    assert rollout.prompts == [text for text in draw.results[0] for _ in range(6)]
    assert len(set(rollout.seeds.tolist())) == 30 and len(steps) == 2
    (other, _, _), _ = algorithm.collect(4)
    assert not set(rollout.seeds.tolist()) & set(other.seeds.tolist())
    rewards = redness()(rollout.samples, rollout.prompts)
    assert metrics["reward"] == pytest.approx(rewards.mean().item())
    # Compared within groups: the mean of each is 0, the order is that of the rewards.
    torch.testing.assert_close(advantages.view(5, 6).mean(1), torch.zeros(5), rtol=0, atol=1e-5)
    assert torch.equal(advantages.view(5, 6).argsort(1), rewards.view(5, 6).argsort(1))


def test_components_of_a_reward_are_logged_apart(make_twin):
    bright = Reward("brightness", lambda samples, _: samples.mean((1, 2, 3)))
    _, metrics = grpo(make_twin(), reward=0.7 * redness() + 0.3 * bright).collect(0)
    parts = metrics["reward/redness"], metrics["reward/brightness"]
    assert metrics["reward"] == pytest.approx(0.7 * parts[0] + 0.3 * parts[1]) and parts[0] != parts[1]


def test_noise_only_where_trained(make_twin):
    """MixGRPO: the ODE outside the window."""
    pieces = {"choose_steps": window_steps}
    (rollout, _, steps), _ = grpo(make_twin(), pieces=pieces, noise_only_where_trained=True).collect(1)
    assert rollout.stochastic.nonzero().flatten().tolist() == steps and len(steps) == 2
    algorithm = grpo(make_twin(), pieces=pieces)
    assert algorithm.collect(1)[0][0].stochastic.tolist() == [True, True, True, False]
    history = loop(grpo(make_twin(), pieces=pieces, noise_only_where_trained=True, minibatches=1)).run()
    assert [row["clip_fraction"] for row in history] == [0, 0]


def test_the_kl_to_the_reference_starts_at_zero_and_its_weight_holds_the_policy_back(make_twin):
    def drift(kl_weight):
        algorithm = grpo(make_twin(), kl_weight=kl_weight, minibatches=1)
        kl = [row["kl"] for row in loop(algorithm, iterations=6).run()]
        assert kl[0] == 0 and kl[1] > 0
        return kl[-1]

    assert drift(100.0) < 0.5 * drift(1e-6)
    assert "kl" not in loop(grpo(make_twin(), kl_weight=0.0), iterations=1).run()[0]


# The pieces that a student replaces ---------------------------------------------------------------------------------


def test_the_users_own_functions_are_what_trains(make_twin):
    """Each is called with what it is told to be called with, and its answer is what is used."""
    pieces = {
        "advantages_of": Spy(lambda rewards, groups: rewards * 0 + torch.arange(24.0)),
        "objective": Spy(lambda new, old, advantages, clip_range: (new * advantages).mean() * 0 + 7.0),
        "kl_of": Spy(lambda mean, reference, std: (mean - reference).flatten(1).sum(1) * 0 + 4.0),
        "choose_steps": Spy(lambda available, count, rng: [1, 2]),
    }
    own_density = Spy(lambda x, mean, std: -((x - mean) ** 2).flatten(1).mean(1))
    algorithm = grpo(make_twin(), policy={"log_prob_of": own_density}, pieces=pieces, kl_weight=0.5, minibatches=2)
    (row,) = loop(algorithm, iterations=1).run()

    ((rewards, groups),) = pieces["advantages_of"].calls
    assert rewards.shape == (24,) and groups.tolist() == [g for g in range(4) for _ in range(6)]
    ((available, count, rng),) = pieces["choose_steps"].calls
    assert available == [0, 1, 2] and count == 2 and isinstance(rng, np.random.Generator)
    assert len(own_density.calls) == 3 * 3 + 3 * 2  # rollout: micro-batches, noisy steps; training: those chosen
    assert len(pieces["objective"].calls) == len(pieces["kl_of"].calls) == 3 * 2
    told = [old for old in own_density.results[:9]]
    for (new, old, advantages, clip_range), density in zip(
        pieces["objective"].calls, own_density.results[9:], strict=True
    ):
        assert new is density and clip_range == 1e-2
        start = int(advantages[0])
        assert advantages.tolist() == list(range(start, start + 8))
        assert any(torch.equal(old, one) for one in told)
    for mean, reference, std in pieces["kl_of"].calls:
        assert mean.requires_grad and not reference.requires_grad and std > 0
    assert row["kl"] == 4.0 and row["loss"] == pytest.approx(7.0 + 0.5 * 4.0) and row["grad_norm"] == 0


@pytest.mark.parametrize("piece", ["advantages_of", "objective", "log_prob_of"])
def test_a_wrong_sign_in_a_users_function_turns_the_training_round(make_twin, piece):
    """The gradient of the first update is that of the library's function, reversed."""
    wrong = {
        "advantages_of": lambda rewards, groups: -group_advantages(rewards, groups),
        "objective": lambda *arguments: -clipped_surrogate(*arguments),
        "log_prob_of": lambda *arguments: -gaussian_log_prob(*arguments),
    }

    def first_gradient(pieces, policy):
        algorithm = grpo(make_twin(), pieces=pieces, policy=policy, minibatches=1)
        loop(algorithm, iterations=1, max_grad_norm=1e9).run()
        return torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])

    replaced = {piece: wrong[piece]}
    right = first_gradient({}, {})
    turned = first_gradient({}, replaced) if piece == "log_prob_of" else first_gradient(replaced, {})
    assert right.norm() > 1e-3
    torch.testing.assert_close(turned, -right, rtol=1e-4, atol=1e-6)


def test_without_a_replacement_the_librarys_functions_serve(make_twin):
    algorithm = grpo(make_twin())
    assert algorithm.advantages_of is group_advantages and algorithm.objective is clipped_surrogate
    assert algorithm.kl_of is gaussian_kl and algorithm.choose_steps is random_steps
    assert algorithm.policy.log_prob_of is gaussian_log_prob


# Bad input ----------------------------------------------------------------------------------------------------------


def test_a_group_of_one_is_refused(make_twin):
    with pytest.raises(GroupError, match="at least 2"):
        loop(grpo(make_twin(), group_size=1)).run()


def bad(kind):
    def judge(samples, prompts):
        values = torch.zeros(len(prompts))
        if kind == "raises":
            raise ZeroDivisionError("division by zero")
        values[3] = {"nan": math.nan, "inf": math.inf}.get(kind, 0.0)
        return values[:-1] if kind == "shape" else values

    return Reward("broken", judge)


@pytest.mark.parametrize("kind", ["nan", "inf", "shape", "raises"])
def test_a_broken_reward_stops_the_training_before_any_update(make_twin, kind, tmp_path):
    algorithm = grpo(make_twin(), reward=bad(kind))
    before = weights(algorithm)
    with pytest.raises(RewardError, match="reward 'broken'"):
        loop(algorithm, folder=tmp_path).run()
    assert torch.equal(weights(algorithm), before)
    assert list(tmp_path.iterdir()) == []
