"""Boxes against plain geometry: tilt by hand, contact, mirror images, and views by direct ray tests."""

import math

import numpy as np
import pytest

from pixelpolicy.errors import SizeError
from pixelpolicy.worlds import boxes as solids
from pixelpolicy.worlds import furniture


def box(x, y, z, hx, hy, hz, present=1.0, colour=(0.5, 0.5, 0.5)):
    return [present, x, y, z, hx, hy, hz, *colour]


ABSENT = [0.0] * 10


def one(*parts):
    return np.array([parts], dtype=np.float32)


def test_the_tilt_margin_of_a_block_is_that_of_its_diagonal():
    for hx, hy, hz in [(0.2, 0.5, 0.3), (0.4, 0.1, 0.2), (0.05, 1.0, 0.05)]:
        expected = math.degrees(math.atan2(min(hx, hz), hy))
        assert solids.tilt_margin(one(box(0.3, hy, -0.1, hx, hy, hz)))[0] == pytest.approx(expected, abs=1e-4)


def test_a_load_beside_its_foot_gives_a_negative_margin():
    foot, load = box(0, 0.1, 0, 0.1, 0.1, 0.1), box(0.4, 0.3, 0, 0.4, 0.1, 0.1)
    mass = np.array([0.001, 0.004])
    x, y = (mass * [0, 0.4]).sum() / 0.005, (mass * [0.1, 0.3]).sum() / 0.005
    expected = math.degrees(math.atan2(0.1 - x, y))
    assert expected < 0
    assert solids.tilt_margin(one(foot, load))[0] == pytest.approx(expected, abs=1e-4)


def test_three_legs_tip_over_the_slanting_edge():
    top = box(0, 0.55, 0, 0.5, 0.05, 0.5)
    legs = [box(x, 0.25, z, 0.02, 0.25, 0.02) for x, z in [(-0.45, -0.45), (0.45, -0.45), (-0.45, 0.45)]]
    piece = one(top, *legs)
    centre = solids.centre_of_mass(piece)[0]
    # the edge from the outer corner of one leg to that of the next: x + z = 0.02 + 0.02 apart from the diagonal
    distance = (0.04 - centre[0] - centre[2]) / math.sqrt(2)
    assert solids.tilt_margin(piece)[0] == pytest.approx(math.degrees(math.atan2(distance, centre[1])), abs=0.02)
    whole = one(top, *legs, box(0.45, 0.25, 0.45, 0.02, 0.25, 0.02))
    assert solids.tilt_margin(whole)[0] > 30 > solids.tilt_margin(piece)[0]


def test_absent_boxes_weigh_and_bear_nothing():
    block = box(0, 0.3, 0, 0.1, 0.3, 0.1)
    ghost = box(2, 0.1, 0, 3, 0.1, 3, present=0.4)
    assert solids.tilt_margin(one(block, ghost))[0] == solids.tilt_margin(one(block, ABSENT))[0]
    nothing = one(ABSENT, ghost)
    assert solids.tilt_margin(nothing)[0] == -90
    assert solids.height(nothing)[0] == solids.symmetry(nothing)[0] == solids.reached(nothing)[0] == 0
    assert not solids.connected(nothing)[0] and not solids.grounded(nothing)[0]


def test_boxes_hang_together_across_a_chain_but_not_across_a_gap():
    chain = [box(0.2 * n, 0.1, 0, 0.1, 0.1, 0.1) for n in range(12)]
    assert solids.connected(one(*chain))[0]
    broken = [*chain]
    broken[5] = box(1.0, 0.1 + 0.2 + solids.TOUCH + 0.01, 0, 0.1, 0.1, 0.1)
    assert not solids.connected(one(*broken))[0]
    assert solids.reached(one(*broken))[0] == pytest.approx(6 / 12)
    near = [box(0, 0.1, 0, 0.1, 0.1, 0.1), box(0.2 + solids.TOUCH - 1e-4, 0.1, 0, 0.1, 0.1, 0.1)]
    assert solids.connected(one(*near))[0]
    near[1][1] += 2e-3
    assert not solids.connected(one(*near))[0]


def test_a_floating_and_a_sunken_block_are_not_grounded():
    for lift, expected in [(0, True), (0.04, True), (0.06, False), (-0.06, False)]:
        assert solids.grounded(one(box(0, 0.2 + lift, 0, 0.1, 0.2, 0.1)))[0] == expected


def test_symmetry_is_one_of_a_mirror_image_and_falls_with_the_mismatch():
    pair = [box(-0.3, 0.2, 0, 0.1, 0.2, 0.1), box(0.3, 0.2, 0, 0.1, 0.2, 0.1)]
    assert solids.symmetry(one(*pair))[0] == pytest.approx(1)
    moved = [pair[0], box(0.3, 0.25, 0, 0.1, 0.2, 0.1)]
    assert solids.symmetry(one(*moved))[0] == pytest.approx(math.exp(-1), abs=1e-6)


def test_thin_and_negative_sizes_count_as_the_thinnest_box():
    assert solids.tilt_margin(one(box(0, 0.5, 0, -0.2, 0.5, 0.2)))[0] == pytest.approx(
        math.degrees(math.atan2(solids.LEAST_HALF, 0.5)), abs=1e-6
    )


@pytest.mark.parametrize("shape", [(12, 10), (2, 12, 9), (2, 3, 12, 10)])
def test_another_shape_is_refused(shape):
    with pytest.raises(SizeError, match="batch, boxes, 10"):
        solids.tilt_margin(np.zeros(shape))


def test_a_view_agrees_with_points_inside_the_boxes():
    piece = furniture.draw(["a red chair", "a blue lamp", "a green shelf"], np.random.default_rng(0))
    views = solids.silhouettes(piece, (0.0, 30.0, 200.0), elevation=20, size=24)
    starts, directions = solids.rays((0.0, 30.0, 200.0), 20, 24)
    along = np.linspace(3, 7, 2001)
    for i, solid in enumerate(piece):
        there = solid[solid[:, 0] > 0.5]
        low, high = there[:, 1:4] - there[:, 4:7], there[:, 1:4] + there[:, 4:7]
        for v in range(3):
            for row, column in [(4, 11), (8, 12), (12, 12), (18, 9), (20, 14)]:
                points = starts[v, row, column] + along[:, None] * directions[v]
                inside = ((points[:, None] > low) & (points[:, None] < high)).all(-1)
                assert bool(inside.any()) == bool(views[i, v, row, column])


def test_the_nearest_face_is_seen_in_its_own_colour():
    front = box(0, 0.75, 0.5, 0.3, 0.3, 0.1, colour=(1, 0, 0))
    behind = box(0, 0.75, -0.5, 0.3, 0.3, 0.1, colour=(0, 0, 1))
    views = (solids.render(one(front, behind), (0.0, 180.0), elevation=0, size=8) + 1) / 2
    assert views[0, 0, 0, 4, 4] > 0.4 and views[0, 0, 2, 4, 4] == 0
    assert views[0, 1, 2, 4, 4] > 0.4 and views[0, 1, 0, 4, 4] == 0
    assert views[0, 0, :, 0, 0] == pytest.approx(solids.BACKGROUND)
    assert np.isfinite(views).all() and views.min() >= 0 and views.max() <= 1


def test_right_is_right_and_up_is_up():
    corner = solids.silhouettes(one(box(0.5, 1.2, 0, 0.2, 0.2, 0.2)), (0.0,), elevation=0, size=16)[0, 0]
    rows, columns = np.nonzero(corner)
    assert rows.mean() < 6 and columns.mean() > 9


def test_the_foot_of_a_table_is_the_outer_corners_of_its_legs_anticlockwise():
    legs = [box(x, 0.25, z, 0.02, 0.25, 0.02) for x, z in [(-0.4, -0.3), (0.4, -0.3), (-0.4, 0.3), (0.4, 0.3)]]
    corners = solids.foot(one(box(0, 0.55, 0, 0.5, 0.05, 0.5), *legs))[0]
    ring = [tuple(np.round(c, 3)) for c, n in zip(corners, np.roll(corners, -1, 0), strict=True) if (c != n).any()]
    assert sorted(ring) == [(-0.42, -0.32), (-0.42, 0.32), (0.42, -0.32), (0.42, 0.32)]
    x, z = np.array(ring).T
    assert (x * np.roll(z, -1) - z * np.roll(x, -1)).sum() / 2 == pytest.approx(0.84 * 0.64)
    assert (solids.foot(one(ABSENT)) == 0).all()


def test_points_of_the_grid_fall_where_a_small_box_is_seen():
    where = solids.pixels_of_grid((0.0, 90.0), elevation=0, size=8, side=8)
    assert where.shape == (2, 512) and where.min() == 0 and where.max() == 63
    axis = (np.arange(8) + 0.5) / 8 * 2 * solids.WINDOW - solids.WINDOW
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    for number in (0, 100, 300, 511):
        x, y, z = points[number] + solids.FOCUS
        seen = solids.silhouettes(one(box(x, y, z, 0.05, 0.05, 0.05)), (0.0, 90.0), elevation=0, size=8)[0]
        assert [int(view.argmax()) for view in seen.reshape(2, -1)] == where[:, number].tolist()
