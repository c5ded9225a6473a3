"""Inputs that follow from the secret: the same for the same, others for another, and of the structure they had."""

import ast
import random

import pytest
import torch

from pixelpolicy.course.grading import varied
from pixelpolicy.course.grading.varied import derived, varied_exercises

ONE, OTHER = b"a secret of the tests", b"another secret of them"
TEXT = """
import torch
REWARDS = torch.tensor([0.0, 1.0, 0.3, 0.3, -0.5, 2.5, 7.0, 0.1])
COUNTS, NAMES = [1, 2, 3], ("a", "b")
TOLERANCE = 0.25
BELOW = -0.5
GRID = torch.linspace(0.0, 0.9, 4)
CASES = [(0.2, torch.tensor([3]), dict(atol=0.01)), (torch.full((2,), 0.4, dtype=torch.float64), "x")]
small = 0.7
DRAWN = torch.rand(3, generator=torch.Generator().manual_seed(4))
def drawn():
    return torch.rand(2, generator=torch.Generator().manual_seed(4)) + 0.5
"""


def ran(secret=ONE, power=1.1):
    tree = ast.fix_missing_locations(varied._Vary(power).visit(ast.parse(TEXT)))
    space = {"_of_the_secret": lambda seed: derived(secret, 99, "seed", seed)}
    exec(compile(tree, "<varied>", "exec"), space)
    return space


def test_fractions_are_bent_and_keep_order_ties_signs_and_ends():
    space, rewards = ran(), torch.tensor([0.0, 1.0, 0.3, 0.3, -0.5, 2.5, 7.0, 0.1])
    got = space["REWARDS"]
    assert torch.allclose(got, rewards.sign() * rewards.abs() ** 1.1)
    assert torch.equal(got.sign(), rewards.sign())
    assert torch.equal(got.argsort(stable=True), rewards.argsort(stable=True))
    assert got[0] == 0 and got[1] == 1 and got[2] == got[3] != rewards[2]
    first, second = space["CASES"]
    assert first[0] == pytest.approx(0.2**1.1) and second[0][0].item() == pytest.approx(0.4**1.1)


def test_settings_counts_names_and_types_are_left_alone():
    space = ran()
    assert (space["COUNTS"], space["NAMES"], space["TOLERANCE"], space["BELOW"]) == ([1, 2, 3], ("a", "b"), 0.25, -0.5)
    assert space["small"] == 0.7 and torch.equal(space["GRID"], torch.linspace(0.0, 0.9, 4))
    first, second = space["CASES"]
    assert first[1].tolist() == [3] and first[2] == {"atol": 0.01}
    assert second[0].dtype == torch.float64 and len(second[0]) == 2


def test_every_seed_goes_through_the_secret():
    one, again, other = ran(), ran(), ran(OTHER)
    for name in ("DRAWN", "drawn"):
        a, b, c = (space[name]() if callable(space[name]) else space[name] for space in (one, again, other))
        assert torch.equal(a, b) and not torch.equal(a, c)
    plain = torch.rand(3, generator=torch.Generator().manual_seed(4))
    assert not torch.equal(one["DRAWN"], plain)


def test_what_is_derived_follows_from_all_that_is_said_and_fits_a_seed():
    numbers = {derived(secret, *words) for secret in (ONE, OTHER)
               for words in ((), (1,), (2,), (1, "a"), ("1a",), ("1", "", "a"))}  # fmt: skip
    assert len(numbers) == 12 and all(0 <= n < 1 << 31 for n in numbers)
    assert derived(ONE, 1, "a") == derived(ONE, 1, "a")


def test_a_lab_is_the_same_for_the_same_secret_and_another_for_another():
    def given(secret):
        varied._varied_module.cache_clear()
        module = varied._varied_module(12, secret)
        return module.REWARDS, module.GROUPS

    one, again, other = given(ONE), given(ONE), given(OTHER)
    assert torch.equal(one[0], again[0]) and not torch.equal(one[0], other[0])
    straight = varied.importlib.import_module("pixelpolicy.course.checks.lab12")
    for rewards, groups in (one, other):
        assert not torch.equal(rewards, straight.REWARDS) and torch.equal(groups, straight.GROUPS)
        assert len(rewards.unique()) == len(straight.REWARDS.unique())  # three that are equal stay equal
        assert torch.equal(rewards.argsort(stable=True), straight.REWARDS.argsort(stable=True))
    assert {e.id: [p.name for p in e.properties] for e in varied_exercises(12, ONE).values()} == {
        e.id: [p.name for p in e.properties] for e in straight.EXERCISES
    }


def distance(one, other):
    """How many letters must be put in, left out or exchanged."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        last, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
    return row[-1]


def test_texts_in_other_letters_are_as_far_apart_as_before():
    pairs = [("Kitten", "sitting"), ("", "abc"), ("same", "same"), ("OPEN 24", "0PEN 24")]
    made = varied._other_letters(pairs, random.Random(3))
    assert [distance(*pair) for pair in made] == [distance(*pair) for pair in pairs] and made[0] != pairs[0]
    assert made[2][0] == made[2][1] and made[3][0].endswith(" 24") and made[1][0] == ""


def test_graphs_and_flags_under_other_names_are_the_same_ones():
    links = torch.tensor([[[0, 1, 0], [1, 0, 0], [0, 0, 0]]], dtype=torch.bool)
    there = torch.tensor([[True, True, False]])
    ((moved, still),) = varied._other_nodes([(links, there)], random.Random(1))
    assert moved.sum() == 2 and torch.equal(moved, moved.transpose(1, 2)) and still.sum() == 2
    ends = moved[0].nonzero()[:, 0].unique()
    assert still[0][ends].all()  # links still end where something is
    flags, groups = torch.tensor([True, False, True]), torch.tensor([0, 0, 1])
    ((other, renamed),) = varied._other_rows([(flags, groups)], random.Random(1))
    count = lambda f, g: sorted(int(f[g == n].sum()) for n in g.unique())  # noqa: E731
    assert count(other, renamed) == count(flags, groups)
    (planned, wanted, rest), = varied._other_things([([("red", "cube"), ("red", "ball")], [("red", "cube")], 7)],
                                                    random.Random(1))  # fmt: skip
    assert rest == 7 and len({colour for colour, _ in planned}) == 1 and wanted[0] in planned
    assert not {"red", "cube", "ball"} & {word for thing in planned for word in thing}
