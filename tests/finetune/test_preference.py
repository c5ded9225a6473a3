"""Diffusion-DPO and its relatives: the losses by hand in float64, what pairs are made of, and one training each."""

import math
from functools import partial

import pytest
import torch

from pixelpolicy.errors import RolloutError, TrainingError
from pixelpolicy.finetune import (
    DiffusionDPO,
    Loop,
    LoopConfig,
    Pairs,
    PreferenceConfig,
    best_and_worst,
    d3po_loss,
    diffusion_dpo_loss,
    diffusion_kto_loss,
    displacement,
    pair_states,
)
from pixelpolicy.finetune.noising import noise_of
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rl import Reward

PROMPTS = ("a red circle", "two blue squares", "a green triangle")
REWARDS = torch.tensor([0.1, 0.9, 0.4, 0.3, 0.3, 0.3, 2.0, 1.0, 2.5])
GROUPS = torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3])


def draw_prompts(count, rng):
    return [str(text) for text in rng.choice(PROMPTS, count)]


def redness(samples, _):
    return (samples[:, 0] - samples[:, 1:].mean(1)).mean((1, 2))


def policy_of(generator):
    return DenoisingPolicy(generator, ode, steps=4, micro_batch=8)


def some_pairs(count=12, seed=0):
    stream = torch.Generator().manual_seed(seed)
    winners, losers = torch.randn(2, count, 4, 8, 8, generator=stream)
    return Pairs([PROMPTS[i % 3] for i in range(count)], winners, losers)


def offline(generator, pieces=None, pairs=None, **settings):
    config = PreferenceConfig(**{"prompts_per_iteration": 8, "noise_draws": 1, "minibatches": 1, **settings})
    return DiffusionDPO(policy_of(generator), config=config, pairs=pairs or some_pairs(), **(pieces or {}))


def online(generator, pieces=None, **settings):
    config = PreferenceConfig(**{"prompts_per_iteration": 6, "group_size": 4, "minibatches": 1, **settings})
    return DiffusionDPO(policy_of(generator), Reward("redness", redness), draw_prompts, config, **(pieces or {}))


def loop(algorithm, iterations=2, **settings):
    return Loop(algorithm, LoopConfig(iterations, **{"learning_rate": 1e-3, "progress": False, **settings}))


def weights(algorithm):
    return torch.cat([p.detach().flatten() for p in algorithm.model.parameters()])


def without_clock(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "cpu_seconds")} for row in history]


def some(count=5, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return [torch.rand(count, generator=stream, dtype=torch.float64).requires_grad_() for _ in range(4)]


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# The losses -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.5, 20.0])
@pytest.mark.parametrize("anchor", [0.0, 3.0])
def test_diffusion_dpos_loss_and_its_gradient_against_float64(beta, anchor):
    errors = some()
    winner, loser, base_winner, base_loser = errors
    loss = diffusion_dpo_loss(*errors, beta=beta, anchor=anchor)
    loss.backward()
    value, slopes = 0.0, ([], [])
    for w, lost, bw, bl in zip(*(e.tolist() for e in errors), strict=True):
        margin = -beta / 2 * ((w - bw) - (lost - bl))
        value += (math.log1p(math.exp(-margin)) + anchor * beta / 2 * max(w - bw, 0)) / 5
        slopes[0].append(beta / 2 * (sigmoid(-margin) + anchor * (w > bw)) / 5)
        slopes[1].append(-beta / 2 * sigmoid(-margin) / 5)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(winner.grad, torch.tensor(slopes[0], dtype=torch.float64), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(loser.grad, torch.tensor(slopes[1], dtype=torch.float64), rtol=1e-10, atol=1e-12)
    assert all(base.grad is None or not base.grad.any() for base in (base_winner, base_loser))
    low = diffusion_dpo_loss(*(e.detach().float() for e in errors), beta=beta, anchor=anchor)
    assert low.item() == pytest.approx(value, rel=1e-6)


def test_each_pair_has_a_sigmoid_of_its_own():
    errors = [torch.tensor(e) for e in ([0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5])]
    loss = diffusion_dpo_loss(*errors, beta=4.0).item()
    assert loss == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(2))) / 2)
    assert loss > math.log(2) + 0.3  # the sigmoid of the mean margin would give log 2


def test_before_any_training_the_loss_is_log_two_and_the_winner_is_pulled():
    winner, loser = torch.full((3,), 0.7).requires_grad_(), torch.full((3,), 0.4).requires_grad_()
    loss = diffusion_dpo_loss(winner, loser, winner.detach(), loser.detach(), beta=10.0, anchor=5.0)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2)) and (winner.grad > 0).all() and (loser.grad < 0).all()


def test_the_anchor_pulls_a_displaced_winner_even_where_the_pair_is_told_apart():
    winner, base = torch.tensor([0.6, 0.4]).requires_grad_(), torch.full((2,), 0.5)
    spoilt = torch.full((2,), 3.0)
    plain = torch.autograd.grad(diffusion_dpo_loss(winner, spoilt, base, base, beta=100.0), winner)[0]
    mended = torch.autograd.grad(diffusion_dpo_loss(winner, spoilt, base, base, beta=100.0, anchor=1.0), winner)[0]
    assert plain.abs().max() < 1e-6
    torch.testing.assert_close(mended, torch.tensor([25.0, 0.0]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bad", ["shapes", "none", "beta"])
def test_diffusion_dpo_refuses_what_is_no_pair(bad):
    errors = [e.detach() for e in some()]
    if bad == "beta":
        with pytest.raises(ValueError, match="beta is 0"):
            diffusion_dpo_loss(*errors, beta=0)
        return
    errors = [*errors[:3], errors[3][:4]] if bad == "shapes" else [e[:0] for e in errors]
    with pytest.raises(RolloutError, match="same pairs"):
        diffusion_dpo_loss(*errors)


def test_d3pos_loss_is_bound_and_outside_it_there_is_no_gradient():
    log_probs = [torch.tensor(x).double() for x in ([0.05, 9.0, -9.0, 0.0], [-0.02, -9.0, 9.0, 9.0])]
    won, lost = (x.requires_grad_() for x in log_probs)
    zeros = torch.zeros(4).double()
    each = [d3po_loss(won[i : i + 1], lost[i : i + 1], zeros[:1], zeros[:1]).item() for i in range(4)]
    bounds = (math.log(0.9), math.log(1.1))
    for i, value in enumerate(each):
        up, down = (min(max(x[i].item(), bounds[0]), bounds[1]) for x in (won, lost))
        assert value == pytest.approx(math.log1p(math.exp(-0.1 * (up - down))), rel=1e-10)
    assert (round(min(each), 4), round(max(each), 4)) == (0.6832, 0.7032)
    loss = d3po_loss(won, lost, zeros, zeros)
    assert loss.item() == pytest.approx(sum(each) / 4)
    loss.backward()
    share = 0.1 * sigmoid(-0.1 * 0.07) / 4
    torch.testing.assert_close(
        won.grad[[0, 1, 2]], torch.tensor([-share, 0, 0], dtype=torch.float64), rtol=1e-9, atol=1e-12
    )
    torch.testing.assert_close(lost.grad, torch.tensor([share, 0, 0, 0], dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert won.grad[3] < 0
    old = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()
    assert d3po_loss(won + old, lost + old, old, old).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_diffusion_ktos_loss_and_its_gradient_against_float64(shift):
    errors, base = some()[:2]
    errors, base = (errors.detach() - shift).requires_grad_(), base.detach()  # a batch that has gained, or lost
    wanted = torch.tensor([True, False, True, True, False])
    loss = diffusion_kto_loss(errors, base, wanted, beta=5.0, weight_wanted=2.0, weight_unwanted=0.5)
    loss.backward()
    gains = (base - errors.detach()).tolist()
    expected = max(0.0, math.fsum(gains) / 5)
    value, slope = 0.0, []
    for gain, good in zip(gains, wanted.tolist(), strict=True):
        sign, weight = (1, 2.0) if good else (-1, 0.5)
        s = sigmoid(sign * 5 * (gain - expected))
        value += weight * (1 - s) / 5
        slope.append(weight * s * (1 - s) * sign * 5 / 5)
    assert loss.item() == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(errors.grad, torch.tensor(slope, dtype=torch.float64), rtol=1e-10, atol=1e-12)


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_the_best_and_the_worst_of_each_group_and_none_of_a_flat_one():
    best, worst = best_and_worst(REWARDS, GROUPS)
    assert best.tolist() == [1, 8] and worst.tolist() == [0, 7]
    none = best_and_worst(torch.ones(4), torch.tensor([0, 0, 1, 1]))
    assert [rows.tolist() for rows in none] == [[], []]


def test_a_pair_is_noised_with_one_draw():
    winners, losers = torch.randn(2, 3, 4, 8, 8)
    drawn = iter([(torch.tensor([0.0, 0.3, 1.0]), torch.randn(3, 4, 8, 8))])  # a second draw would raise
    won, lost, sigma, noise = pair_states(winners, losers, lambda: next(drawn))
    assert torch.equal(won[0], winners[0]) and torch.equal(lost[2], noise[2])
    torch.testing.assert_close(won[1], 0.7 * winners[1] + 0.3 * noise[1])
    torch.testing.assert_close(won - lost, (1 - sigma)[:, None, None, None] * (winners - losers), atol=1e-6, rtol=1e-5)


def test_displacement_is_counted_among_the_pairs_that_are_told_apart():
    errors = [torch.tensor(e) for e in ([0.3, 0.1, 0.5, 0.2], [0.9, 0.5, 0.2, 0.2], [0.2, 0.2, 0.2, 0.2], [0.2] * 4)]
    won, lost, share = displacement(*errors)
    assert won.item() == pytest.approx(0.075) and lost.item() == pytest.approx(0.25) and share == 0.5
    assert displacement(*[torch.ones(3)] * 4)[2] == 0


def test_pairs_of_pictures_are_what_the_autoencoder_makes_of_them(make_twin):
    generator, stream = make_twin(), torch.Generator().manual_seed(0)
    winners, losers = torch.rand(2, 5, 3, 32, 32, generator=stream) * 2 - 1

    def to_latents(pictures):
        return generator.vae.encode(pictures).latent_dist.mean

    pairs = Pairs.of_samples(list(PROMPTS[:1]) * 5, winners, losers, to_latents, batch_size=2)
    assert len(pairs) == 5 and pairs.winners.shape == (5, *generator.latent_shape)
    torch.testing.assert_close(pairs.losers, to_latents(losers), rtol=1e-4, atol=1e-5)
    chosen = pairs.select(torch.tensor([4, 0]))
    assert len(chosen) == 2 and torch.equal(chosen.winners[0], pairs.winners[4])
    with pytest.raises(TrainingError, match="one winner and one loser a prompt"):
        Pairs(["a red circle"], winners[:1], losers[:2])


def test_without_pairs_or_a_way_to_make_them_it_says_so(make_twin):
    policy = policy_of(make_twin())
    with pytest.raises(TrainingError, match="give pairs, or a reward"):
        DiffusionDPO(policy)
    with pytest.raises(TrainingError, match="empty"):
        DiffusionDPO(policy, pairs=some_pairs(0))


# The algorithm --------------------------------------------------------------------------------------------------------


def test_winner_and_loser_share_their_noise_and_its_level(make_twin):
    """Trap 11: what the network is shown of the two differs by the pictures alone."""
    zeros = torch.zeros(8, 4, 8, 8)
    algorithm, shown = offline(make_twin(), pairs=Pairs(list(PROMPTS[:2]) * 4, zeros, zeros + 1)), []
    generator = algorithm.policy.generator
    velocity = generator.velocity

    def spied(state, sigma, *conditioning):
        shown.append((state.detach(), sigma, conditioning[0]))
        return velocity(state, sigma, *conditioning)

    generator.velocity = spied
    for one in next(algorithm.minibatches(algorithm.collect(0)[0], 0)):
        one()
    assert sum(len(state) for state, _, _ in shown) == 16
    for state, sigma, words in shown:
        (won, lost), (level, same), (told, also) = state.chunk(2), sigma.chunk(2), words.chunk(2)
        assert torch.equal(level, same) and torch.equal(told, also)
        assert level.unique().numel() == len(level)  # each pair has noise of its own
        torch.testing.assert_close(lost - won, (1 - level)[:, None, None, None].expand_as(won))


def test_the_algorithms_loss_is_that_of_its_pairs(make_twin):
    """The whole gradient of one optimiser step, worked out anew, in uneven micro-batches of pairs."""
    loss_of = partial(diffusion_dpo_loss, beta=3.0, anchor=2.0)
    algorithm = offline(make_twin(), {"loss_of": loss_of}, prompts_per_iteration=6)  # 4 and 2 pairs
    with torch.no_grad():
        for p in algorithm.model.parameters():
            p += 0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    (pairs, seeds), metrics = algorithm.collect(0)
    assert metrics == {} and len(pairs) == 6
    (losses,) = algorithm.minibatches((pairs, seeds), 0)
    algorithm.model.zero_grad()
    outcomes = [one() for one in losses]
    (sum(value for value, _ in outcomes) / len(outcomes)).backward()
    got = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])

    sigma, x1 = noise_of(seeds, 0, pairs.winners.shape[1:])
    level = sigma[:, None, None, None]

    def error(generator, x0):
        velocity = generator.velocity(x0 + level * (x1 - x0), sigma, *generator.encode(pairs.prompts))
        return (velocity - x1 + x0).pow(2).mean((1, 2, 3))

    mine = [error(algorithm.policy.generator, x0) for x0 in (pairs.winners, pairs.losers)]
    base = [error(algorithm.reference.generator, x0).detach() for x0 in (pairs.winners, pairs.losers)]
    margin = -1.5 * ((mine[0] - base[0]) - (mine[1] - base[1]))
    algorithm.model.zero_grad()
    ((1 + (-margin).exp()).log() + 3.0 * (mine[0] - base[0]).relu()).mean().backward()
    wanted = torch.cat([p.grad.flatten() for p in algorithm.model.parameters() if p.grad is not None])
    assert wanted.norm() > 1e-3
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-6)
    told = {key: sum(d[key] * n for (_, d), n in zip(outcomes, (4, 2), strict=True)) / 6 for key in outcomes[0][1]}
    sizes = [len(part) for part in ((0, 1, 2, 3), (4, 5))]
    if outcomes[0][1]["winner"] != pytest.approx(mine[0][:4].mean().item(), rel=1e-4):  # the other part came first
        told = {k: sum(d[k] * n for (_, d), n in zip(outcomes, sizes[::-1], strict=True)) / 6 for k in outcomes[0][1]}
    assert told["winner"] == pytest.approx(mine[0].mean().item(), rel=1e-4)
    assert told["loser_change"] == pytest.approx((mine[1] - base[1]).mean().item(), rel=1e-3, abs=1e-5)


def test_online_pairs_are_the_best_and_worst_that_it_drew(make_twin):
    algorithm = online(make_twin(), prompts_per_iteration=3)
    (pairs, _), metrics = algorithm.collect(0)
    assert metrics["pairs"] == 3 and len(pairs) == 3 and metrics["reward"] == metrics["reward/redness"]
    generator = algorithm.policy.generator
    with torch.no_grad():
        won, lost = (redness(generator.decode(x), None) for x in (pairs.winners, pairs.losers))
    assert (won > lost).all()


def test_where_groups_tie_the_others_take_their_place_and_all_tied_trains_nothing(make_twin):
    def first_pair(rewards, groups):
        best, worst = best_and_worst(rewards, groups)
        return best[:1], worst[:1]

    (pairs, seeds), metrics = online(make_twin(), {"choose": first_pair}).collect(0)
    assert metrics["pairs"] == 1 and len(pairs) == 6 and len(seeds.unique()) == 6
    assert torch.equal(pairs.winners, pairs.winners[:1].expand_as(pairs.winners))
    flat = online(make_twin())
    flat.reward = Reward("flat", lambda samples, prompts: torch.full((len(prompts),), 0.3))
    before, history = weights(flat), loop(flat).run()
    assert [row["pairs"] for row in history] == [0, 0] and torch.equal(weights(flat), before)


def test_two_processes_put_their_samples_together_before_they_choose(make_twin, monkeypatch):
    """Each gives its rows of the latents and of the rewards; the sums are what one process has."""
    tables = {}

    def as_process(rank, count):
        given = []

        def total(values):
            given.append(values.clone())
            return tables["alone"][len(given) - 1] if count > 1 else values

        for module in ("batch", "preference"):
            monkeypatch.setattr(f"pixelpolicy.finetune.{module}.total", total)
        monkeypatch.setattr("pixelpolicy.finetune.batch.place", lambda: (rank, count))
        algorithm = online(make_twin(), prompts_per_iteration=8, group_size=4)
        tables["alone" if count == 1 else rank] = given
        return algorithm.collect(0)[0]

    whole, seeds = as_process(0, 1)
    halves = [as_process(rank, 2) for rank in (0, 1)]
    for alone, first, second in zip(tables["alone"], tables[0], tables[1], strict=True):
        torch.testing.assert_close(first + second, alone, rtol=1e-4, atol=1e-5)
    assert sorted(torch.cat([s for _, s in halves]).tolist()) == sorted(seeds.tolist())
    assert [len(pairs) for pairs, _ in halves] == [4, 4] and len(whole) == 8


def test_the_metrics_show_winner_and_loser_apart(make_twin):
    history = loop(offline(make_twin(), {"loss_of": partial(diffusion_dpo_loss, beta=10.0)}), iterations=8).run()
    first, last = history[0], history[-1]
    assert first["winner_change"] == first["loser_change"] == 0 and first["told_apart"] == 0
    assert last["told_apart"] > 0.5 and last["loser_change"] > last["winner_change"]
    assert last["winner"] > 0 and last["loser"] > 0


def displaced(make_twin, anchor):
    loss_of = partial(diffusion_dpo_loss, beta=50.0, anchor=anchor)
    stream = torch.Generator().manual_seed(0)
    winners = torch.randn(16, 4, 8, 8, generator=stream)
    losers = winners + 0.5 * torch.randn(16, 4, 8, 8, generator=stream)  # near the winners: they share their fate
    pairs = Pairs([PROMPTS[i % 3] for i in range(16)], winners, losers)
    algorithm = offline(make_twin(), {"loss_of": loss_of}, pairs, prompts_per_iteration=16, noise_draws=2)
    last = loop(algorithm, iterations=40, learning_rate=3e-3).run()[-5:]
    return (sum(row[key] for row in last) / 5 for key in ("winner_change", "told_apart"))


def test_likelihood_displacement_and_the_anchor_that_mends_it(make_twin):
    """DPO alone lets the winners be matched worse than by the base; with the anchor they are not."""
    (plain, apart), (mended, still) = displaced(make_twin, 0.0), displaced(make_twin, 5.0)
    assert apart > 0.7 and still > 0.55
    assert plain > 0.02 and mended < 0.3 * plain


@pytest.mark.parametrize("make", [online, offline], ids=["online", "offline"])
def test_an_interrupted_training_ends_as_if_it_had_not_been(make_twin, tmp_path, make):
    def stop(loop, metrics):
        if loop.iteration == 3:
            raise KeyboardInterrupt

    whole = make(make_twin())
    history = loop(whole, iterations=4).run()
    with pytest.raises(KeyboardInterrupt):
        loop(make(make_twin()), iterations=4, folder=tmp_path, save_every=2).run([stop])
    resumed = make(make_twin())
    going_on = loop(resumed, iterations=4, folder=tmp_path)
    assert going_on.iteration == 2
    assert without_clock(going_on.run()) == without_clock(history)
    assert torch.equal(weights(resumed), weights(whole))


def test_the_reward_rises_with_online_pairs(make_twin):
    loss_of = partial(diffusion_dpo_loss, beta=20.0)
    algorithm = online(make_twin(), {"loss_of": loss_of}, prompts_per_iteration=8)
    prompts, seeds = list(PROMPTS) * 16, torch.arange(48) + 1_000_000

    def score():
        return redness(algorithm.policy.rollout(prompts, seeds=seeds).samples, prompts)

    before = score()
    loop(algorithm, iterations=15, learning_rate=3e-3).run()
    gain = score() - before
    assert gain.mean() > 5 * gain.std() / math.sqrt(48)
