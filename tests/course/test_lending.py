"""What an answer writes into its inputs reaches no check, and is refused where it would make a caller go wrong."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import start_forked

from pixelpolicy.course.checking import Exercise, Property, examine, same, seeded
from pixelpolicy.course.exercises import IN_PLACE, exercises_of
from pixelpolicy.course.grading import Limits, sandbox
from pixelpolicy.course.grading.examine import examine_piece
from pixelpolicy.course.grading.submissions import Piece
from pixelpolicy.course.lending import Lender
from pixelpolicy.course.source import sources

ROOT = Path(__file__).parents[2]
REWARDS = torch.tensor([1.0, 2.0, 6.0])


def centred(rewards):
    return rewards - rewards.mean()


def centred_in_place(rewards):
    rewards -= rewards.mean()
    return rewards


def zeroed_in_place(rewards):  # wrong, and what is expected afterwards is worked out of the wrong numbers
    rewards.zero_()
    return rewards


def _expected_after(f):
    rewards = REWARDS.clone()
    same(f(rewards), rewards - rewards.mean())


def _of_a_constant(f):
    same(f(REWARDS), torch.tensor([-2.0, -1.0, 3.0]))


def exercise(*functions, **more):
    properties = [Property(function.__name__, function) for function in functions]
    return Exercise("99.3", "centred", 1, properties, lambda rewards: rewards - rewards.mean(), **more)


def test_a_wrong_answer_cannot_change_what_is_expected():
    rewards = REWARDS.clone()
    got = zeroed_in_place(rewards)
    same(got, rewards - rewards.mean())  # without a lender this would have passed
    result = examine(exercise(_expected_after), zeroed_in_place)
    assert not result.passed and "it also changed what it was given: rewards" in result.message


def test_a_right_answer_in_place_passes_where_no_caller_is_misled():
    for _ in range(2):  # what one check has written must not be there for the next
        assert examine(exercise(_of_a_constant), centred_in_place).passed
    assert torch.equal(REWARDS, torch.tensor([1.0, 2.0, 6.0]))
    assert examine(exercise(_expected_after, _of_a_constant), centred).passed


def test_it_is_refused_where_the_caller_goes_on_with_its_input():
    def goes_on(f):
        rewards = REWARDS.clone()
        same(f(rewards) + rewards, torch.tensor([-1.0, 1.0, 9.0]))

    result = examine(exercise(goes_on), centred_in_place)
    assert not result.passed and "changes what it was given, rewards: work on a copy" in result.message
    assert examine(exercise(goes_on), centred).passed


def test_arguments_that_an_answer_is_to_change_are_changed():
    def remembers(f):
        memory = {"a": [1.0]}
        f(memory, torch.ones(2))
        same(memory, {"a": [1.0, 2.0], "b": [3.0]})

    def remember(memory, rewards):
        memory["a"].append(2.0)
        memory["b"] = [3.0]

    assert examine(exercise(remembers, changes=(0,)), remember).passed
    assert not examine(exercise(remembers), remember).passed


@dataclass
class Batch:
    rewards: torch.Tensor
    names: list


def inputs():
    leaf = torch.tensor([1.0, 2.0], requires_grad=True)
    return {
        "tensor": torch.ones(2), "numbers with nan": torch.tensor([float("nan"), 1.0]), "truths": torch.tensor([True]),
        "array": np.ones(2), "list": [torch.ones(2), 1.0], "pair": (torch.ones(2), np.ones(1)), "set": {1, 2},
        "dictionary": {"a": [1.0]}, "record": Batch(torch.ones(2), ["a"]), "names": SimpleNamespace(x=torch.ones(1)),
        "leaf": leaf, "later": leaf * 2, "leaves": [leaf],
    }  # fmt: skip


def spoil(x):
    """Write into a value, however it is made."""
    if isinstance(x, torch.Tensor):
        x.data.fill_(False) if x.dtype == torch.bool else x.data.fill_(7)
    elif isinstance(x, np.ndarray):
        x[0] = 7
    elif isinstance(x, list):
        spoil(x[0]) if isinstance(x[0], torch.Tensor) else x.append(0)
    elif isinstance(x, tuple):
        spoil(x[1])
    elif isinstance(x, set):
        x.add(7)
    elif isinstance(x, dict):
        x["a"].append(0)
    else:
        spoil(next(iter(vars(x).values())))


@pytest.mark.parametrize("kind", inputs())
@pytest.mark.parametrize("by_name", [False, True])
def test_whatever_is_handed_over_stays_as_it_was(kind, by_name):
    value, untouched = inputs()[kind], repr(inputs()[kind])
    given, place = ([], {"x": value}) if by_name else ([value], {})
    for through in (False, True):
        lender = Lender(through=through)
        lender(lambda x: None, given, place)
        assert lender.wrote == [] and repr(value) == untouched
        lender(spoil, given, place)
        assert lender.wrote == (["x"] if by_name else [0])
        assert (repr(value) != untouched) == through
        lender.put_back()
        assert repr(value) == untouched


def test_shapes_are_put_back_as_well():
    x = torch.arange(6.0).reshape(2, 3)
    for change in (lambda x: x.t_(), lambda x: x.unsqueeze_(0), lambda x: x.resize_(1)):
        lender = Lender(through=True)
        lender(change, (x,), {})
        assert lender.wrote == [0] and x.shape != (2, 3)
        lender.put_back()
        assert torch.equal(x, torch.arange(6.0).reshape(2, 3))


def test_what_is_replaced_in_a_list_is_put_back_and_a_spread_tensor_too():
    pairs, spread = [(1, 2), (3, 4)], torch.ones(1).expand(3)

    def replace(pairs, x):
        pairs[0] = (5, 6)
        x[0] = 7

    lender = Lender(through=True)
    lender(replace, (pairs, spread), {})
    assert pairs == [(5, 6), (3, 4)] and spread.tolist() == [7, 1, 1] and lender.wrote == [0, 1]
    lender.put_back()
    assert pairs == [(1, 2), (3, 4)] and spread.tolist() == [1, 1, 1]


def test_gradients_pass_and_land_where_they_are_looked_for():
    leaf, free = torch.ones(2, requires_grad=True), torch.full((2,), 3.0)
    lend = Lender()
    out = lend(lambda a, b: (a * b).sum(), (leaf, free), {})
    assert torch.equal(torch.autograd.grad(out, leaf)[0], free)
    lend(lambda a, b: (a * b).sum().backward(), (leaf, free), {})
    assert torch.equal(leaf.grad, free)
    assert lend(lambda ps: ps[0] is leaf, ([leaf],), {}) and lend(lambda a, b: a is b, (free, free), {})
    assert not lend.wrote
    lend(lambda x: x.requires_grad_(), (free,), {})
    assert lend.wrote == [0] and not free.requires_grad, "an input that was asked for its gradient"
    lend = Lender(through=True)
    lend(lambda x: x.requires_grad_(), (free,), {})
    assert free.requires_grad
    lend.put_back()
    assert not free.requires_grad


def test_an_advantage_that_is_centred_in_place_keeps_its_gradient():
    """Its numbers stand in the graph until the way back: they must not be taken away by then."""
    log_probs, advantages = torch.zeros(3, requires_grad=True), REWARDS.clone()

    def loss(log_probs, advantages):
        advantages -= advantages.mean()
        return -(log_probs.exp() * advantages).sum()

    out = Lender()(loss, (log_probs, advantages), {})
    assert torch.equal(torch.autograd.grad(out, log_probs)[0], -(REWARDS - REWARDS.mean()))
    assert torch.equal(advantages, REWARDS)


def test_functions_generators_and_objects_are_themselves():
    stream, rng, network = torch.Generator().manual_seed(0), np.random.default_rng(0), torch.nn.Linear(1, 1)
    for value in (stream, rng, network, len, [stream], {"a": rng}):
        lender = Lender()
        inside = lender(lambda x: x[0] if type(x) is list else x["a"] if type(x) is dict else x, (value,), {})
        assert any(inside is one for one in (stream, rng, network, len)) and not lender.wrote


@pytest.mark.parametrize("lab", sorted(int(path.stem[:2]) for path in sources(ROOT)))
def test_the_courses_own_answers_change_what_they_are_said_to_change(lab):
    for id, exercise in exercises_of(lab).items():
        answer, lender = exercise.answer(), Lender(through=True)  # what is to be changed may be asked for
        for property in exercise.properties:
            with seeded():
                property.function(lambda *args, **kwargs: lender(answer, args, kwargs))  # noqa: B023
        assert set(lender.wrote) == set(exercise.changes), id


TO_GO = """def reward_to_go(rewards, dones, discount):
    out = {own}
    following = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        following = {value} + discount * ~dones[t] * following
        out[t] = following
    return out
"""
ANSWERS = {
    "right": TO_GO.format(own="torch.zeros_like(rewards)", value="rewards[t]"),
    "right, in a copy": TO_GO.format(own="rewards.clone()", value="out[t]"),
    "right, in place": TO_GO.format(own="rewards", value="rewards[t]"),
    "wrong, in place": TO_GO.format(own="rewards", value="2 * rewards[t]"),
    "nothing, in place": "def reward_to_go(rewards, dones, discount):\n    return rewards.zero_()",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_notebook_and_the_grader_say_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.Answer, "_start", start_forked)
    monkeypatch.setattr(sandbox, "backend_of", lambda name: None)
    space = {"torch": torch}
    exec(ANSWERS[name], space)
    said = examine(exercises_of(3)["3.4"], space["reward_to_go"])
    piece = Piece("reward_to_go", ("import torch", ANSWERS[name]), (True, False), ANSWERS[name])
    limits = Limits(seconds=120)
    verdict = examine_piece(piece, 3, "3.4", b"a secret of the tests", tmp_path, limits=limits)
    assert said.passed == (verdict.state == "passed") == (name in ("right", "right, in a copy"))
    if name == "right, in place":
        for told in (said.message, "\n".join(verdict.explained)):
            assert IN_PLACE in told and "expected" not in told
