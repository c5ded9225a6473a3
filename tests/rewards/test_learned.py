"""Learned rewards: what they learn, what they refuse, and what the shipped proxy says of itself."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

from pixelpolicy.errors import CheckpointError, PromptError, RewardError
from pixelpolicy.rewards import learned as module
from pixelpolicy.rewards.learned import RewardNetwork, fit_pairs, fit_scores, learned_proxy, learned_reward
from pixelpolicy.rewards.proxy import Recipe, agreement, card, near_prompt
from pixelpolicy.worlds import shapes

COLOURS = ("red", "blue", "green")


def network():
    torch.manual_seed(0)
    return RewardNetwork(width=8, text_width=8)


def flat_pictures(count, seed):
    """Pictures of one colour with a prompt for one: they fit or they do not."""
    rng = np.random.default_rng(seed)
    shown, asked = rng.choice(COLOURS, count), rng.choice(COLOURS, count)
    tints = torch.tensor(np.stack([shapes.COLOURS[name] for name in shown])).float() * 2 - 1
    pictures = tints[:, :, None, None].expand(-1, 3, 32, 32) + 0.1 * torch.from_numpy(rng.normal(size=(count, 3, 1, 1)))
    prompts = [f"a {colour} circle" for colour in asked]
    return pictures.float(), prompts, torch.tensor(shown == asked).float()


def mean_order(network, pictures, prompts, fits):
    """How often a picture that fits its prompt is valued above one that does not."""
    values = learned_reward(network)(pictures, prompts)
    return (values[fits > 0.5][:, None] > values[fits < 0.5]).double().mean().item()


def test_scores_are_learnt_beyond_what_was_seen():
    fresh = network()
    held = flat_pictures(200, 1)
    assert mean_order(fresh, *held) < 0.8
    losses = fit_scores(fresh, *flat_pictures(400, 0), steps=150, batch=64)
    assert len(losses) == 150 and np.mean(losses[-20:]) < 0.3 * np.mean(losses[:20])
    assert mean_order(fresh, *held) > 0.97
    assert not fresh.training and not any(p.requires_grad for p in fresh.parameters())


def test_comparisons_are_learnt_beyond_what_was_seen():
    def pairs(seed):
        pictures, prompts, fits = flat_pictures(1200, seed)
        count = int(min(fits.sum(), (1 - fits).sum()))
        texts = np.array(prompts)
        good = {text: pictures[torch.from_numpy(texts == text) & (fits > 0.5)] for text in set(prompts)}
        bad = {text: pictures[torch.from_numpy(texts == text) & (fits < 0.5)] for text in set(prompts)}
        counts = {text: min(len(good[text]), len(bad[text])) for text in sorted(good)}
        assert 0 < sum(counts.values()) <= count
        return (
            torch.cat([good[text][:n] for text, n in counts.items()]),
            torch.cat([bad[text][:n] for text, n in counts.items()]),
            [text for text, n in counts.items() for _ in range(n)],
        )

    fresh, (winners, losers, prompts) = network(), pairs(1)
    losses = fit_pairs(fresh, *pairs(0), steps=150)
    assert losses[0] == pytest.approx(math.log(2), abs=0.1) and np.mean(losses[-20:]) < 0.2
    reward = learned_reward(fresh)
    assert (reward(winners, prompts) > reward(losers, prompts)).double().mean() > 0.97


def test_a_fit_follows_from_its_seed():
    fits = [network() for _ in range(3)]
    for fresh, seed in zip(fits, (0, 0, 1), strict=True):
        torch.rand(seed + 1)  # what else the process draws is of no matter
        fit_scores(fresh, *flat_pictures(50, 0), steps=3, batch=8, seed=seed)
    one, again, other = (torch.cat([p.flatten() for p in fresh.parameters()]) for fresh in fits)
    assert torch.equal(one, again) and not torch.equal(one, other)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_values_that_are_not_finite_are_refused(wrong):
    pictures, prompts, scores = flat_pictures(6, 0)
    scores[2] = wrong
    before = network()
    with pytest.raises(RewardError, match="fitted to 6 values, of which 1 are not finite"):
        fit_scores(before, pictures, prompts, scores, steps=1)
    pictures[1, 0, 3, 3] = wrong
    with pytest.raises(RewardError, match="of which 1 are not finite"):
        fit_pairs(before, pictures, pictures, prompts, steps=1)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), network().parameters(), strict=True))


def test_nothing_to_fit_is_refused():
    with pytest.raises(RewardError, match="fitted to 0 values"):
        fit_scores(network(), torch.zeros(0, 3, 32, 32), [], torch.zeros(0), steps=1)


# As a reward -----------------------------------------------------------------------------------------------------


def test_a_value_does_not_depend_on_its_company():
    pictures, prompts, _ = flat_pictures(9, 0)
    reward = learned_reward(network())
    alone = torch.cat([reward(pictures[i : i + 1], prompts[i : i + 1]) for i in range(9)])
    torch.testing.assert_close(reward(pictures, prompts), alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(reward(pictures.flip(0), prompts[::-1]).flip(0), alone, rtol=1e-5, atol=1e-6)


def test_its_gradient_reaches_the_pictures_and_not_its_weights():
    pictures, prompts, _ = flat_pictures(3, 0)
    net = network()
    reward = learned_reward(net)
    pictures.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(pictures, prompts).sum(), pictures)
    assert reward.differentiable and not any(p.requires_grad for p in net.parameters())
    row, channel, x, y, small = 1, 0, 11, 17, 1e-2
    moved = pictures.detach().double().clone()
    net.double()

    def value(shift):
        changed = moved.clone()
        changed[row, channel, x, y] += shift
        return net(changed, net.tokens(prompts)).sum()

    slope = (value(small) - value(-small)) / (2 * small)
    assert gradient[row, channel, x, y].item() == pytest.approx(slope.item(), rel=1e-3)
    other = torch.autograd.grad(reward.function(pictures[:1], prompts[:1]).sum(), pictures)[0]
    assert (other[1:] == 0).all() and other[0].abs().max() > 0


def test_it_reads_its_prompt():
    pictures, _, _ = flat_pictures(1, 0)
    reward = learned_reward(network())
    texts = ["a red circle", "a blue circle", "two red circles", "a red circle left of a blue square"]
    assert len({reward(pictures, [text]).item() for text in texts}) == 4


@pytest.mark.parametrize(
    "samples", [torch.zeros(2, 3, 64, 64), torch.zeros(2, 1, 32, 32), torch.zeros(3, 32, 32), [1, 2]], ids=lambda s: ""
)
def test_other_things_than_pictures_are_refused(samples):
    with pytest.raises(RewardError, match=r"pictures must be a tensor of shape \[batch, 3, 32, 32\]"):
        learned_reward(network())(samples, ["a red circle"] * 2)


def test_words_outside_the_vocabulary_are_refused():
    with pytest.raises((PromptError, RewardError), match="elephant"):
        learned_reward(network())(torch.zeros(1, 3, 32, 32), ["a red elephant"])


# The shipped proxy -----------------------------------------------------------------------------------------------


@pytest.fixture
def shipped():
    if not module.PROXY.exists():
        pytest.skip("the proxy's weights are not there")
    learned_proxy.cache_clear()
    yield module.PROXY
    learned_proxy.cache_clear()


@pytest.fixture
def other_place(shipped, tmp_path, monkeypatch):
    folder = shutil.copytree(shipped.parent, tmp_path / "proxy")
    monkeypatch.setattr(module, "PROXY", folder / shipped.name)
    return folder / shipped.name


def test_the_proxy_agrees_with_the_verifier_on_true_pictures(shipped):
    texts, rng = list(shapes.prompts())[::7], np.random.default_rng(0)
    pictures = torch.from_numpy(shapes.draw([shapes.scene(text, rng) for text in texts]))
    near = [near_prompt(text, rng) for text in texts]
    right, wrong = (learned_proxy()(pictures.float(), prompts) for prompts in (texts, near))
    different = torch.tensor([a != b for a, b in zip(texts, near, strict=True)])
    assert (right > wrong)[different].double().mean() > 0.9
    assert learned_proxy() is learned_proxy() and learned_proxy().name == "proxy"


def test_an_altered_proxy_is_refused(other_place):
    data = bytearray(other_place.read_bytes())
    data[-1] ^= 1
    other_place.write_bytes(data)
    with pytest.raises(CheckpointError, match="proxy.safetensors"):
        learned_proxy()


def test_a_missing_proxy_is_refused(other_place):
    other_place.unlink()
    with pytest.raises(CheckpointError, match="proxy.safetensors"):
        learned_proxy()


def test_the_card_of_the_proxy_is_in_its_folder(shipped):
    text = (shipped.parent / "README.md").read_text(encoding="utf-8")
    assert "correlation" in text and "| own prompts |" in text and "strict verifier beside it" in text
    assert json.loads((shipped.parent / f"{shipped.name}.json").read_text(encoding="utf-8"))


# How it is made --------------------------------------------------------------------------------------------------


def test_agreement_against_counting():
    net, rng = network(), np.random.default_rng(0)
    pictures, prompts, _ = flat_pictures(40, 3)
    dense, strict = torch.from_numpy(rng.random(40)).float(), torch.from_numpy(rng.random(40) > 0.6).float()
    values = learned_reward(net)(pictures, prompts).double().numpy()
    pairs = [(a > b) for a, x in zip(values, strict, strict=True) for b, y in zip(values, strict, strict=True) if x > y]
    found = agreement(net, pictures, prompts, dense, strict)
    assert found["auc"] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert found["correlation"] == pytest.approx(np.corrcoef(values, dense)[0, 1], abs=1e-4)


def test_a_near_prompt_shares_words_and_its_kind_most_often():
    rng, text = np.random.default_rng(0), "a red circle left of a blue square"
    drawn = [near_prompt(text, rng) for _ in range(200)]
    shared = [len(set(shapes.words(other)) & set(shapes.words(text))) for other in drawn]
    assert np.mean(shared) > 2 and len(set(drawn)) > 50
    assert np.mean([shapes.parse(other).kind == shapes.parse(text).kind for other in drawn]) > 0.7


def test_the_card_tells_what_was_measured():
    scores = {"own prompts": {"correlation": 0.8765, "auc": 0.9543}}
    text = card(RewardNetwork(), Recipe(pictures=7), scores)
    assert "| own prompts | 0.876 | 0.954 |" in text and "- `pictures`: 7" in text and "On 2000 fresh pictures" in text
