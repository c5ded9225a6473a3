"""Rewards for furniture: high on true pieces, lower on flawed ones, and blind only where they say so."""

import numpy as np
import pytest
import torch

from pixelpolicy.rewards import stability
from pixelpolicy.worlds import boxes, furniture

TEXTS, _ = furniture.evaluation_pairs(per_kind=25)
SOUND = torch.from_numpy(furniture.draw(TEXTS, np.random.default_rng(0)))
FLAWED = torch.from_numpy(furniture.draw(TEXTS, np.random.default_rng(1), flawed=True))


def test_true_pieces_get_full_marks_and_flawed_ones_do_not():
    reward = stability.standing()
    sound, parts = reward.evaluate(SOUND, TEXTS)
    assert (sound >= 1.9).float().mean() >= 0.97 and sound.max() <= 2
    assert set(parts) == {"tilt", "connection", "height"}
    flawed = reward(FLAWED, TEXTS)
    assert (flawed < 1.85).float().mean() >= 0.97
    assert stability.stands()(SOUND, TEXTS).mean() >= 0.97
    assert stability.stands()(FLAWED, TEXTS).mean() <= 0.03


def test_tilt_saturates_and_raw_tilt_does_not():
    assert stability.saturating_tilt(np.array([-90, -4.5, 0, 4.5, 9, 60])).tolist() == [-1, -0.5, 0, 0.5, 1, 1]
    flat = SOUND.clone()
    flat[..., [2, 5]] *= 0.4
    assert (stability.raw_tilt()(flat, TEXTS) > stability.raw_tilt()(SOUND, TEXTS)).all()
    assert stability.tilt()(flat, TEXTS).mean() <= stability.tilt()(SOUND, TEXTS).mean() + 0.01
    assert (stability.standing()(flat, TEXTS) < stability.standing()(SOUND, TEXTS)).all()


def test_height_in_range_by_hand():
    true = furniture.true_height("lamp")
    shares = np.array([0.4, 0.5, 0.625, 0.75, 1.0, 1.25, 1.375, 1.5, 2.0])
    expected = [0, 0, 0.5, 1, 1, 1, 0.5, 0, 0]
    assert stability.height_in_range(shares * true, ["lamp"] * 9).tolist() == pytest.approx(expected, abs=1e-9)


def test_symmetry_sees_a_moved_leg():
    crooked = SOUND[:25].clone()
    crooked[:, 1, 1] -= 0.1
    assert stability.symmetry()(SOUND, TEXTS).mean() > 0.99
    assert (stability.symmetry()(crooked, TEXTS[:25]) < 0.95).all()


def test_a_piece_that_is_no_number_has_the_lowest_score():
    broken = SOUND[:2].clone()
    broken[0, 0, 0] = torch.nan
    for reward, lowest in [(stability.standing(), -0.5), (stability.raw_tilt(), -1), (stability.symmetry(), 0)]:
        values = reward(broken, TEXTS[:2])
        assert values[0] == lowest < values[1]
    assert not stability.standing().differentiable


def test_bearing_is_what_the_tilt_margin_is_made_of():
    foot, centre = stability.bearing(FLAWED)
    edge, offset = foot.roll(-1, 1) - foot, centre[:, None, [0, 2]] - foot
    length = edge.norm(dim=-1)
    inside = (edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]) / length.clamp_min(1e-6)
    least = torch.where(length > 1e-6, inside, torch.inf).amin(1)
    margins = torch.rad2deg(torch.atan2(least, centre[:, 1]))
    assert torch.allclose(margins, torch.from_numpy(boxes.tilt_margin(FLAWED.numpy())).float(), atol=0.05)
    empty = torch.zeros(1, 12, 10)
    assert all(part.isfinite().all() for part in stability.bearing(empty))
