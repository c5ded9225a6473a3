"""Reward gradients: their samples, their gradients by hand and by differences, and what the loop makes of them."""

import copy
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from pixelpolicy.errors import TrainingError
from pixelpolicy.finetune import Loop, LoopConfig, RewardGradient, RewardGradientConfig, Window, last_steps, one_leap
from pixelpolicy.finetune.recompute import backward_by_recomputing, by_torch, recomputing
from pixelpolicy.finetune.reward_gradient import descend_reward, hinge, random_cut
from pixelpolicy.policies import DenoisingPolicy, cps, ddim_eta, ode
from pixelpolicy.rl import Reward, gaussian_kl

PROMPTS = ("a red circle", "two blue squares", "a green triangle")
ALL = Window(0, 4)
LAST = last_steps(1)


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness():
    return Reward("redness", lambda samples, _: (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2)), True)


# A generator of one small layer, in float64 ----------------------------------------------------------------------


class Bend(nn.Module):
    """A velocity that bends: ``tanh(x W) + shift``."""

    def __init__(self, size=3):
        super().__init__()
        stream = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(size, size, generator=stream, dtype=torch.float64))
        self.shift = nn.Parameter(torch.randn(size, generator=stream, dtype=torch.float64))

    def forward(self, x):
        return (x @ self.weight).tanh() + self.shift


class Line(nn.Module):
    """A velocity that is a multiple of the state."""

    def __init__(self, slope=0.4):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))

    def forward(self, x):
        return self.slope * x


@dataclass
class Toy:
    transformer: nn.Module = field(default_factory=Bend)
    latent_shape: tuple[int, ...] = (3,)
    device: torch.device = torch.device("cpu")
    calls: list[bool] = field(default_factory=list)

    def encode(self, prompts):
        return ()

    def velocity(self, latents, sigma, *conditioning):
        self.calls.append(torch.is_grad_enabled())
        return self.transformer(latents)

    def decode(self, latents):
        return latents

    def sigmas(self, steps):
        return torch.linspace(1, 0, steps + 1)

    def reference(self):
        return replace(self, transformer=copy.deepcopy(self.transformer).requires_grad_(False))


WAVE = Reward("wave", lambda x, _: (x.sin() * torch.tensor([1.0, 2.0, -1.0], dtype=x.dtype)).sum(1), True)


def toy(network=None, *, transition=ode, steps=4, batch=5, micro_batch=96, reward=WAVE, pieces=None, **settings):
    policy = DenoisingPolicy(
        Toy(network or Bend()), transition, steps=steps, dtype=torch.float64, micro_batch=micro_batch
    )
    config = RewardGradientConfig(prompts_per_iteration=batch, **settings)
    return RewardGradient(
        policy, reward, draw_prompts, config, **{"choose_window": last_steps(steps), **(pieces or {})}
    )


def gradients(algorithm, window=ALL, objective=descend_reward, kl_weight=0.0, count=5):
    """The loss and its gradients on fixed prompts and seeds."""
    samples, kl = algorithm.samples(["a"] * count, torch.arange(count), window)
    value = objective(algorithm.reward(samples, ["a"] * count)) + kl_weight * kl.mean()
    found = torch.autograd.grad(value, list(algorithm.model.parameters()), allow_unused=True)
    return value.item(), [torch.zeros(()) if g is None else g for g in found]


def by_differences(algorithm, small=1e-5, **named):
    """The same gradients by central differences."""
    found = []
    for parameter in algorithm.model.parameters():
        slopes = torch.zeros_like(parameter).flatten()
        for place in range(parameter.numel()):
            values = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[place] += sign * small
                values.append(gradients(algorithm, **named)[0])
                with torch.no_grad():
                    parameter.view(-1)[place] -= sign * small
            slopes[place] = (values[0] - values[1]) / (2 * small)
        found.append(slopes.view_as(parameter))
    return found


@pytest.mark.parametrize("transition", [ode, partial(cps, noise=0.6), partial(ddim_eta, noise=1.0)])
def test_the_gradient_through_all_steps_is_that_of_differences(transition):
    algorithm = toy(transition=transition)
    _, given = gradients(algorithm)
    for one, other in zip(given, by_differences(algorithm), strict=True):
        assert other.abs().max() > 1e-2
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_the_gradient_of_a_kl_along_the_path_is_that_of_differences():
    """The base's mean depends on the state and so on the weights: its share belongs to the gradient."""
    algorithm = toy(transition=partial(cps, noise=0.6), kl_weight=0.5)
    with torch.no_grad():
        algorithm.model.weight += 0.3
    value, given = gradients(algorithm, kl_weight=0.5)
    assert value != gradients(algorithm)[0]
    for one, other in zip(given, by_differences(algorithm, kl_weight=0.5), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_linear_velocity_by_hand(count):
    """``v = w x`` and four steps of 1/4: the picture is ``x (1 - w/4)^4``; K steps with gradient see K of the four."""
    slope, reward = 0.4, Reward("sum", lambda x, _: x.sum(1), True)
    algorithm = toy(Line(slope), reward=reward)
    _, (given,) = gradients(algorithm, Window(4 - count, 4))
    start = next(algorithm.policy.draws(torch.arange(5))).double().sum(1).mean()
    expected = start * count / 4 * (1 - slope / 4) ** 3  # minus the reward, and minus for a step down
    torch.testing.assert_close(given, expected)


def test_a_leap_by_hand():
    """ReFL after two of four steps: ``x (1 - w/4)^2 (1 - w/2)``, and only the leap has gradient."""
    slope, reward = 0.4, Reward("sum", lambda x, _: x.sum(1), True)
    value, (given,) = gradients(toy(Line(slope), reward=reward), Window(2, 2))
    start = next(toy().policy.draws(torch.arange(5))).double().sum(1).mean()
    assert value == pytest.approx(-(start * (1 - slope / 4) ** 2 * (1 - slope / 2)).item())
    torch.testing.assert_close(given, start * (1 - slope / 4) ** 2 / 2)


@pytest.mark.parametrize("window", [ALL, Window(3, 4), Window(1, 4), Window(2, 2)], ids=str)
def test_only_the_windows_steps_are_taken_with_gradient(window):
    algorithm = toy(transition=partial(cps, noise=0.6))
    algorithm.samples(["a"] * 5, torch.arange(5), window)
    leap = [True] if window.last < 4 else []
    assert algorithm.policy.generator.calls == [window.first <= t for t in range(window.last)] + leap


# Checkpointing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [ALL, Window(1, 4), Window(2, 2)], ids=str)
@pytest.mark.parametrize("own", [False, True])
def test_checkpointing_gives_the_same_gradient_and_takes_each_step_again(window, own):
    plain, thrifty = (toy(transition=partial(cps, noise=0.6), checkpointing=on) for on in (False, True))
    if own:
        thrifty.recompute = recomputing(backward_by_recomputing, thrifty.model.parameters())
    wanted, given = gradients(plain, window), gradients(thrifty, window)
    assert wanted[0] == given[0]
    for one, other in zip(given[1], wanted[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    again = max(window.last - window.first, 1)
    assert len(thrifty.policy.generator.calls) == len(plain.policy.generator.calls) + again


@pytest.mark.parametrize("recompute", ["torch", "own"])
def test_checkpointing_keeps_states_and_not_what_the_network_makes(recompute):
    """What autograd saves, counted: without checkpointing it grows with the network's inner numbers."""
    inner = 500

    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = (nn.Parameter(torch.full(s, 0.01).double()) for s in ((3, inner), (inner, 3)))

        def forward(self, x):
            return (x @ self.up).tanh() @ self.down

    def kept(checkpointing):
        algorithm, seen = toy(Wide(), checkpointing=checkpointing), {}
        weights = {p.data_ptr() for p in algorithm.model.parameters()}
        if recompute == "own":
            algorithm.recompute = recomputing(backward_by_recomputing, algorithm.model.parameters())

        def pack(tensor):
            if tensor.data_ptr() not in weights:
                seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            algorithm.samples(["a"] * 5, torch.arange(5), ALL)
        return sum(seen.values())

    assert kept(False) >= 4 * 5 * inner and kept(True) < 5 * inner


def test_own_backward_is_the_chain_rule():
    network, state = Bend(), torch.randn(4, 3, dtype=torch.float64)
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    parameters, behind = [*network.parameters(), unused], torch.randn(4, 3, dtype=torch.float64)
    with torch.no_grad():
        given = backward_by_recomputing(network, state, parameters, behind)
    leaf = state.clone().requires_grad_()
    wanted = torch.autograd.grad((network(leaf) * behind).sum(), [leaf, *network.parameters()])
    for one, other in zip([given[0], *given[1]], [*wanted, torch.zeros(2).double()], strict=True):
        torch.testing.assert_close(one, other)


# On a random twin of the generator -------------------------------------------------------------------------------


def twin(generator, *, window=LAST, transition=ode, reward=None, micro_batch=8, **settings):
    policy = DenoisingPolicy(generator, transition, steps=4, micro_batch=micro_batch)
    config = RewardGradientConfig(**{"prompts_per_iteration": 12, **settings})
    return RewardGradient(policy, reward or redness(), draw_prompts, config, window)


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-3, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


@pytest.mark.parametrize("transition", [ode, partial(cps, noise=0.6), partial(ddim_eta, noise=1.0)])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_samples_are_those_of_a_rollout(make_twin, transition, guidance, dtype):
    algorithm = twin(make_twin(), transition=transition)
    algorithm.policy = replace(algorithm.policy, guidance_scale=guidance, dtype=dtype, micro_batch=6)
    prompts, seeds = list(PROMPTS) * 2, torch.arange(6) + 7
    rollout = algorithm.policy.rollout(prompts, seeds=seeds)
    for window in (ALL, Window(3, 4)):
        samples, _ = algorithm.samples(prompts, seeds, window)
        assert samples.requires_grad and torch.equal(samples.detach(), rollout.samples)


@pytest.mark.parametrize("window", [last_steps(1), last_steps(3), random_cut, one_leap(1, 3)])
def test_the_reward_rises(make_twin, window):
    algorithm = twin(make_twin(), window=window)
    prompts, seeds = list(PROMPTS) * 8, torch.arange(24) + 1_000_000

    def score():
        return algorithm.reward(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts).mean()

    before = score()
    loop(algorithm, iterations=8).run()
    assert score() > before + 0.01


def test_two_processes_divide_a_batch_and_its_gradient(make_twin, monkeypatch):
    """The weighed micro-batches of both add up to the gradient of one process."""

    def part(rank, count):
        monkeypatch.setattr("pixelpolicy.finetune.batch.place", lambda: (rank, count))
        algorithm = twin(make_twin(), micro_batch=4, prompts_per_iteration=14)
        experience, _ = algorithm.collect(0)
        (losses,) = algorithm.minibatches(experience, 0)
        (sum(loss()[0] for loss in losses) / len(losses)).backward()
        return experience, torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])

    (prompts, seeds, window), whole = part(0, 1)
    (one, other) = part(0, 2), part(1, 2)
    assert sorted([*one[0][1].tolist(), *other[0][1].tolist()]) == sorted(seeds.tolist()) and len(prompts) == 14
    assert one[0][2] == other[0][2] == window
    assert whole.abs().max() > 1e-5
    torch.testing.assert_close((one[1] + other[1]) / 2, whole, rtol=1e-4, atol=1e-7)


def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path):
    def make():
        return twin(make_twin(), window=random_cut, transition=partial(cps, noise=0.6), kl_weight=0.1)

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


# The KL brake ----------------------------------------------------------------------------------------------------


def test_the_kl_is_that_of_the_replayed_steps(make_twin):
    algorithm = twin(make_twin(), transition=partial(cps, noise=0.6), window=last_steps(4), kl_weight=1.0)
    with torch.no_grad():
        for parameter in algorithm.model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    prompts, seeds = list(PROMPTS), torch.arange(3)
    rollout = algorithm.policy.rollout(prompts, seeds=seeds)
    with torch.no_grad():
        steps = [
            gaussian_kl(mean, algorithm.reference.distribution(rollout, step)[0], std)
            for step in (0, 1, 2)
            for mean, std in [algorithm.policy.distribution(rollout, step)]
        ]
    for window, counted in ((ALL, steps), (Window(1, 4), steps[1:]), (Window(3, 4), [])):
        _, kl = algorithm.samples(prompts, seeds, window)
        torch.testing.assert_close(kl.detach(), sum(counted, torch.zeros(3)), rtol=1e-4, atol=1e-7)


def test_its_weight_holds_the_policy_back(make_twin):
    def drift(kl_weight):
        algorithm = twin(make_twin(), transition=partial(cps, noise=0.6), window=last_steps(3), kl_weight=kl_weight)
        kl = [row["kl"] for row in loop(algorithm, iterations=6).run()]
        assert kl[0] == 0 and kl[1] > 0
        return kl[-1]

    assert drift(100.0) < 0.5 * drift(1e-6)
    assert "kl" not in loop(twin(make_twin()), iterations=1).run()[0]


@pytest.mark.parametrize("window", [last_steps(1), one_leap(1, 3)])
def test_a_kl_where_no_step_with_gradient_draws_noise_is_refused(make_twin, window):
    with pytest.raises(TrainingError, match=r"no step with gradient draws noise \(of 4 steps, \[0, 1, 2\] do\)"):
        twin(make_twin(), transition=partial(cps, noise=0.6), window=window, kl_weight=0.1)


@pytest.mark.parametrize("window", [last_steps(4), random_cut])
def test_a_kl_on_the_ode_is_refused(make_twin, window):
    with pytest.raises(TrainingError, match="no step with gradient draws noise"):
        twin(make_twin(), window=window, kl_weight=0.1)


# Windows, losses, and the pieces that a student replaces ---------------------------------------------------------


def test_the_windows_of_three_methods():
    rng = np.random.default_rng(0)
    assert last_steps(1)(6, rng) == (5, 6) and last_steps(4)(6, rng) == (2, 6) and last_steps(9)(6, rng) == (0, 6)
    cuts = Counter(random_cut(5, rng) for _ in range(2000))
    assert cuts.keys() == {Window(first, 5) for first in range(5)}
    assert all(abs(count - 400) < 5 * (2000 * 0.2 * 0.8) ** 0.5 for count in cuts.values())
    leaps = Counter(one_leap(2, 4)(6, rng) for _ in range(900))
    assert leaps.keys() == {(2, 2), (3, 3), (4, 4)} and min(leaps.values()) > 240
    assert [random_cut(9, np.random.default_rng(3)) for _ in range(2)] == [random_cut(9, np.random.default_rng(3))] * 2


def test_the_hinge_lets_go_of_what_is_good_enough():
    rewards = torch.tensor([0.0, 1.5, 2.5], requires_grad=True)
    loss = hinge(rewards)
    loss.backward()
    assert loss.item() == pytest.approx((2 + 0.5 + 0) / 3)
    torch.testing.assert_close(rewards.grad, torch.tensor([-1 / 3, -1 / 3, 0.0]))


def test_a_reward_without_gradient_is_refused(make_twin):
    with pytest.raises(TrainingError, match="reward 'verdict' has no gradient.*DDPO, GRPO, RAFT"):
        twin(make_twin(), reward=Reward("verdict", lambda samples, _: samples.mean((1, 2, 3))))


def test_the_users_own_functions_are_what_trains():
    seen = Counter()

    def spy(name, function):
        def called(*arguments):
            seen[name] += 1
            return function(*arguments)

        return called

    pieces = {
        "choose_window": spy("choose_window", lambda steps, rng: (1, 3)),
        "objective": spy("objective", lambda rewards: rewards.mean() * 0 + 7),
        "draw_state": spy("draw_state", lambda mean, std, noise: mean * 0 + 2),
        "unroll": spy("unroll", lambda state, steps, first: steps[-1](state)),
        "guess_picture": spy("guess_picture", lambda state, velocity, sigma: state + velocity),
        "kl_of": spy("kl_of", lambda mean, base, std: mean.sum(1) * 0 + 3),
        "recompute": spy("recompute", by_torch),
    }
    algorithm = toy(transition=partial(cps, noise=0.6), pieces=pieces, kl_weight=0.5, checkpointing=True, micro_batch=5)
    checked = seen.pop("choose_window")
    (row,) = loop(algorithm, iterations=1).run()
    assert checked >= 1 and seen == {
        "choose_window": 1, "objective": 1, "draw_state": 1, "unroll": 1, "guess_picture": 1, "kl_of": 1,
        "recompute": 2,
    }  # fmt: skip
    assert row["kl"] == 3 and row["loss"] == pytest.approx(7 + 0.5 * 3)
    samples, _ = algorithm.samples(["a"], torch.arange(1), (1, 3))
    twos = torch.full((1, 3), 2.0, dtype=torch.float64)
    torch.testing.assert_close(samples, twos + algorithm.model(twos))
