"""Rewards that see an object from several sides: a rater, a network that learns from it, and views that agree."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import PromptError, RewardError, SizeError
from pixelpolicy.rewards import (
    MultiViewNetwork,
    Rater,
    compare,
    consistency,
    drawn_pairs,
    fit_pairs,
    held_out_agreement,
    multiview_reward,
    share_won,
    views_of,
)
from pixelpolicy.rewards.multiview import SIZE, agreement, carve, masks_of, project
from pixelpolicy.worlds import boxes as solids
from pixelpolicy.worlds import furniture


def pieces_of(count, seed=0, **kind):
    rng = np.random.default_rng(seed)
    texts = furniture.draw_prompts(count, rng)
    return texts, furniture.draw(texts, rng, **kind)


# The rater ------------------------------------------------------------------------------------------------------------


def test_the_rater_thinks_more_of_what_stands_is_true_and_has_its_colour():
    texts, sound = pieces_of(80)
    _, flawed = pieces_of(80, flawed=True)
    worth = Rater().worth
    assert worth(sound, texts).mean() > 4.4 and (worth(sound, texts) > worth(flawed, texts)).float().mean() > 0.95
    others = [f"a {'red' if t.split()[1] != 'red' else 'blue'} {t.split()[2]}" for t in texts]
    torch.testing.assert_close(worth(sound, texts) - worth(sound, others), torch.ones(80))
    slabs = np.zeros_like(sound)
    slabs[:, 0, :7] = [1, 0, 0.05, 0, 0.5, 0.05, 0.5]
    assert (worth(slabs, texts) < worth(sound, texts)).all()


def test_the_rater_errs_by_the_bradley_terry_model():
    texts, sound = pieces_of(1)
    first, second = np.repeat(sound, 4_000, 0), np.repeat(pieces_of(1, flawed=True)[1], 4_000, 0)
    rater = Rater(temperature=4.0)
    wins = rater.prefers(first, second, texts * 4_000, np.random.default_rng(0)).mean()
    gap = (rater.worth(first[:1], texts) - rater.worth(second[:1], texts)).item()
    assert 0.5 < wins < 0.95 and wins == pytest.approx(1 / (1 + np.exp(-gap / 4.0)), abs=0.025)
    again = rater.prefers(first, second, texts * 4_000, np.random.default_rng(0)).mean()
    assert again == wins


def test_comparisons_hold_both_pieces_and_even_numbers_are_asked_for():
    first, second, texts = drawn_pairs(30, np.random.default_rng(3))
    pairs = compare(first, second, texts, Rater(), np.random.default_rng(4))
    both = np.stack([first, second])
    for i in range(30):
        made = [pairs.winners[i].numpy(), pairs.losers[i].numpy()]
        assert np.array_equal(made, both[:, i]) or np.array_equal(made, both[::-1, i])
    with pytest.raises(RewardError, match="30 pieces were to be compared with 29, for 30 prompts"):
        compare(first, second[:-1], texts, Rater(), np.random.default_rng(4))


def test_the_share_that_wins_counts_ties_half():
    assert share_won(torch.tensor([1.0, 0.0, 2.0, 5.0]), torch.tensor([0.0, 1.0, 2.0, 4.0])) == 0.625


# The network ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught():
    """A network after a short fit, and comparisons it has not seen."""
    torch.manual_seed(0)
    rng, rater = np.random.default_rng(1), Rater()
    seen = compare(*drawn_pairs(400, rng), rater, rng)
    held = compare(*drawn_pairs(300, rng), rater, rng)
    network = MultiViewNetwork()
    losses = fit_pairs(network, views_of(seen.winners), views_of(seen.losers), seen.prompts, steps=120)
    return network, losses, held


def test_it_learns_what_the_rater_likes_from_comparisons(taught):
    network, losses, held = taught
    got, ceiling = held_out_agreement(network, held), share_won(
        Rater().worth(held.winners, held.prompts), Rater().worth(held.losers, held.prompts)
    )  # fmt: skip
    assert np.mean(losses[:5]) == pytest.approx(np.log(2), abs=0.03) and np.mean(losses[-20:]) < 0.55
    assert 0.68 < got < ceiling + 0.02 and ceiling > 0.8
    untaught = held_out_agreement(MultiViewNetwork(), held)
    assert got > untaught + 0.1


def test_the_order_of_views_does_not_count_and_the_prompt_does(taught):
    network, _, held = taught
    views, tokens = views_of(held.winners[:20]), network.tokens(held.prompts[:20])
    with torch.no_grad():
        torch.testing.assert_close(network(views[:, [2, 0, 3, 1]], tokens), network(views, tokens))
        assert (network(views, tokens) - network(views, tokens.flip(0))).abs().max() > 0.1


def test_the_views_meet_where_they_are_told_to():
    torch.manual_seed(0)
    by_mean = MultiViewNetwork(pool=lambda each: torch.cat([each.mean(1)] * 2, 1))
    by_default = MultiViewNetwork()
    by_default.load_state_dict(by_mean.state_dict())
    views, tokens = torch.randn(2, 4, 3, 24, 24), by_mean.tokens(["a red chair", "a blue lamp"])
    assert not torch.allclose(by_mean(views, tokens), by_default(views, tokens))
    torch.testing.assert_close(by_mean(views[:, :1], tokens), by_default(views[:, :1], tokens))


def test_the_reward_is_that_of_the_pieces_views_with_a_gradient_to_each_number(taught):
    network, _, held = taught
    reward = multiview_reward(network)
    pieces, prompts = held.winners[:6].clone().requires_grad_(), held.prompts[:6]
    values = reward(pieces, prompts)
    with torch.no_grad():
        torch.testing.assert_close(values, network(views_of(held.winners[:6]), network.tokens(prompts)))
    values.sum().backward()
    there = pieces.detach()[..., 0] > 0.5
    assert pieces.grad.isfinite().all() and (pieces.grad[there].abs().sum(0) > 0).all()
    assert not any(p.requires_grad for p in network.parameters())
    with torch.no_grad():
        step = pieces + 1e-3 * pieces.grad / pieces.grad.norm()
        assert reward(step, prompts).sum() > values.sum()


def test_what_is_no_piece_or_no_prompt_is_refused(taught):
    reward = multiview_reward(taught[0])
    with pytest.raises(RewardError, match="SizeError"):
        reward(torch.zeros(2, 3, 32, 32), ["a red chair"] * 2)
    with pytest.raises(RewardError, match="PromptError"):
        reward(torch.zeros(1, 12, 10), ["a pink chair"])
    with pytest.raises(PromptError):
        taught[0].tokens(["a pink chair"])


# Views that agree -----------------------------------------------------------------------------------------------------


def test_true_objects_have_views_that_agree_and_mixed_ones_have_not():
    texts, pieces = pieces_of(120)
    masks = torch.from_numpy(solids.silhouettes(pieces, size=SIZE))
    clean = agreement(masks)
    mixed = agreement(torch.cat([masks[:, :2], masks[:, 2:].roll(1, 0)], 1))
    assert clean.mean() > 0.98 and (clean > 0.7).all() and mixed.mean() < 0.8
    assert (clean > mixed).float().mean() > 0.95
    pictures = consistency()(views_of(pieces), texts)
    assert pictures.mean() > 0.97


def test_the_hull_of_a_cube_is_the_cube_by_hand():
    """From the front and from the side, without elevation: two squares carve a block, the views give them back."""
    masks = torch.zeros(1, 2, 8, 8)
    masks[0, 0, 2:6, 1:5] = 1
    masks[0, 1, 2:6, 3:7] = 0.75
    hull = carve(masks, (0.0, 90.0), elevation=0.0, grid=8).view(8, 8, 8)  # x, y from below, z
    wanted = torch.zeros(8, 8, 8)
    wanted[1:5, 2:6, 1:5] = 0.75  # seen from the side, z runs to the left
    assert torch.equal(hull, wanted)
    seen = project(hull.view(1, -1), 8, (0.0, 90.0), elevation=0.0, grid=8)
    assert torch.equal(seen[0, 0], masks[0, 0] * 0.75) and torch.equal(seen[0, 1], masks[0, 1])
    value = agreement(masks, (0.0, 90.0), elevation=0.0, grid=8)
    assert value.item() == pytest.approx((0.75 + 1) / 2)


def test_the_minimum_and_not_the_product_carves():
    masks = torch.full((1, 4, 8, 8), 0.9)
    assert carve(masks, grid=8).unique().tolist() == pytest.approx([0.9])


def test_agreement_has_a_gradient_empty_views_score_nothing_and_shapes_are_checked():
    masks = torch.rand(2, 4, 12, 12, generator=torch.Generator().manual_seed(0)).requires_grad_()
    agreement(masks, grid=12).sum().backward()
    assert masks.grad.isfinite().all() and masks.grad.abs().max() > 0
    assert agreement(torch.zeros(1, 4, 12, 12), grid=12).item() == 0
    with pytest.raises(SizeError, match="4 azimuths"):
        agreement(torch.zeros(1, 3, 12, 12))


def test_masks_are_the_silhouettes_of_pictures():
    texts, pieces = pieces_of(40)
    pictures = torch.from_numpy(solids.render(pieces, size=SIZE))
    true = torch.from_numpy(solids.silhouettes(pieces, size=SIZE))
    got = masks_of(pictures)
    assert (got - true).abs().mean() < 0.01 and got.shape == true.shape
    assert masks_of(torch.from_numpy(solids.render(np.zeros((1, 12, 10)), size=8))).max() == 0
