"""What a student sees of a check: what holds, what does not, the hint that fits, and what is forbidden."""

import functools
import sys
import types

import pytest
import torch
import torch.nn.functional
from torch.nn import functional as F

from pixelpolicy.course import catch_up, check, progress
from pixelpolicy.course.checking import (
    CheckFailed,
    Exercise,
    Mismatch,
    Mistake,
    Property,
    examine,
    raises,
    same,
    same_gradient,
)
from pixelpolicy.course.comparing import fingerprint, gradients
from pixelpolicy.course.exercises import exercise_of, mistake_in
from pixelpolicy.course.forbidden import handed_out, offence
from pixelpolicy.errors import GroupError, LabError

loss = F.mse_loss


def own(estimate, truth):
    return ((estimate - truth) ** 2).mean()


@pytest.fixture(autouse=True)
def nothing_handed_out():
    yield
    handed_out.clear()


def failure(id, function):
    with pytest.raises(CheckFailed) as error:
        check(id, function)
    return str(error.value)


def test_right(capsys):
    check("99.2", own)
    shown = capsys.readouterr().out
    assert shown.splitlines() == [
        "✓ the value",
        "✓ the gradient",
        "99.2 squared_error: all 2 properties hold, 1.5 of 1.5 points.",
    ]
    assert progress.load()["99.2"].passed


def test_blank():
    def blank(estimate, truth):
        raise NotImplementedError("Exercise 99.2: write squared_error")

    assert failure("99.2", blank) == "99.2 squared_error is not written yet: fill in the cell above and run it."
    assert progress.load()["99.2"].points == 0


def test_wrong_says_what_was_given_what_came_and_what_should(capsys):
    message = failure("99.2", lambda estimate, truth: own(estimate, truth) / 2)
    assert message.splitlines() == [
        "99.2 squared_error: 0 of 2 properties hold.",
        "✗ the value",
        "    given     estimate = tensor([1., 3.])",
        "    given     truth = tensor([0., 0.])",
        "    came out  tensor(2.5000)",
        "    expected  tensor(5.)",
        "    largest difference  2.5",
        "✗ the gradient",
        "Hint: There is a factor of one half too many.",
    ]
    assert capsys.readouterr().out == ""


def test_right_values_and_wrong_gradients_earn_their_share():
    message = failure("99.1", lambda r, g: r - (r - exercise_of("99.1").answer()(r, g)).detach())
    assert message.startswith("99.1 centred: 2 of 3 properties hold.") and "cut off from the gradient" in message
    assert "the gradient with respect to rewards" in message
    entry = progress.load()["99.1"]
    assert entry.points == 1.33 and not entry.passed


def test_an_error_of_the_student_is_told_with_its_line():
    def faulty(estimate, truth):
        return estimate.no_such_thing()

    message = failure("99.2", faulty)
    assert "your function raised AttributeError" in message and "no_such_thing()" in message


@pytest.mark.parametrize("answer", [None, "text", [1.0, 2.0], torch.zeros(3)], ids=["None", "text", "list", "shape"])
def test_answers_of_the_wrong_kind(answer):
    assert "expected  " in failure("99.2", lambda a, b: answer)


def test_what_is_no_function():
    assert "hand over the function itself" in failure("99.2", own(torch.ones(2), torch.zeros(2)))


def test_what_was_given_is_shown_as_it_was():
    def writes(estimate, truth):
        return estimate.mul_(0).sum()

    assert "given     estimate = tensor([1., 3.])" in failure("99.2", writes)


def test_unknown_exercise():
    for id, message in {
        "99.9": "lab 99 has 99.1, 99.2",
        "98.1": "lab98.py",
        "x": "in quotes",
        99.1: "in quotes",
    }.items():
        with pytest.raises(LabError, match=message):
            check(id, own)


def test_failure_is_an_assertion_and_renders_as_its_message():
    error = CheckFailed("two\nlines")
    assert isinstance(error, AssertionError) and error._render_traceback_() == ["two", "lines"]


def test_random_numbers_are_the_same_each_time_and_left_alone():
    drawn = []
    exercise = Exercise("99.3", "f", 1, reference=own, properties=[Property("p", lambda f: drawn.append(f()))])
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    examine(exercise, lambda: torch.rand(()).item())
    torch.manual_seed(6)
    examine(exercise, lambda: torch.rand(()).item())
    assert drawn[0] == drawn[1]
    torch.manual_seed(5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_hint_of_the_property_where_no_mistake_fits():
    def never(f):
        raise Mismatch("no")

    exercise = Exercise("99.3", "f", 1, reference=own, properties=[Property("p", never, hint="Look again.")])
    assert examine(exercise, lambda: 1).message.endswith("Hint: Look again.")


def test_a_mistake_is_known_by_values_and_by_gradients():
    mistakes = [
        Mistake("twice", "t", wrong=lambda x: 2 * x),
        Mistake("detached", "d", wrong=lambda x: x.detach()),
        Mistake("raises", "r", wrong=lambda x: x.nothing),
        Mistake("negative", "n", when=lambda f: bool((f(torch.ones(2)) < 0).all())),
    ]
    exercise = Exercise(
        "99.3", "f", 1, reference=own, properties=[], mistakes=mistakes, probes=lambda: [(torch.tensor([1.0, 2.0]),)]
    )
    for function, name in [
        (lambda x: x + x, "twice"),
        (lambda x: x.detach() + 0, "detached"),
        (lambda x: -3 * x, "negative"),
        (lambda x: x.absent, "raises"),
        (lambda x: x, None),
        (lambda x: x[:1], None),
    ]:
        found = mistake_in(exercise, function)
        assert (found.name if found else None) == name


# catching up


def test_catch_up(capsys):
    answer = catch_up("99.2")
    assert answer is F.mse_loss and "counts no points" in capsys.readouterr().out
    check("99.2", answer)
    assert "nothing to check" in capsys.readouterr().out
    entry = progress.load()["99.2"]
    assert entry.caught_up and entry.points == 0 and not entry.passed


def test_caught_up_lets_the_lab_go_on_and_can_still_be_earned(capsys):
    catch_up("99.2")
    handed_out.clear()  # a kernel started anew
    check("99.2", lambda a, b: a)
    assert "You caught up on 99.2" in capsys.readouterr().out
    check("99.2", own)
    entry = progress.load()["99.2"]
    assert entry.passed and not entry.caught_up and entry.points == 1.5
    catch_up("99.2")
    assert "your points stay" in capsys.readouterr().out and progress.load()["99.2"].points == 1.5


def test_a_disk_that_is_full_does_not_stop_a_check(monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.warns(UserWarning, match="not kept.*No space left"):
        check("99.2", own)
    assert "all 2 properties hold" in capsys.readouterr().out


# what is forbidden


def helper(a, b):
    return F.mse_loss(a, b)


def nested(a, b):
    def inside():
        return torch.nn.functional.mse_loss(a, b)

    return inside()


def imports(a, b):
    from torch.nn.functional import mse_loss

    return mse_loss(a, b)


def imports_by_name(a, b):
    import importlib

    return getattr(importlib.import_module("torch.nn.functional"), "mse_loss")(a, b)  # noqa: B009


class Callable_:
    def __call__(self, a, b):
        return loss(a, b)


def wrapped(function):
    @functools.wraps(function)
    def call(*args):
        return function(*args)

    return call


CHEATS = {
    "the object": F.mse_loss,
    "a global": lambda a, b: loss(a, b),
    "off a module": lambda a, b: torch.nn.functional.mse_loss(a, b),
    "in a helper": lambda a, b: helper(a, b),
    "nested": nested,
    "imported": imports,
    "a partial": functools.partial(F.mse_loss, reduction="mean"),
    "a default": lambda a, b, f=F.mse_loss: f(a, b),
    "wrapped": wrapped(F.mse_loss),
}


@pytest.mark.parametrize("cheat", CHEATS.values(), ids=CHEATS)
def test_the_librarys_own_answer_is_refused(cheat):
    message = failure("99.2", cheat)
    assert "not your own answer" in message
    assert not progress.load()["99.2"].points


def test_forbidden_modules():
    forbid = functools.partial(offence, exercise="1.1")
    assert forbid(imports, ["torch.nn"]) is not None
    assert forbid(imports_by_name, ["torch.nn.functional"]) is not None
    assert forbid(lambda a: torch.nn.Linear(1, 1), ["torch.nn.modules"]) is not None
    assert forbid(lambda a: a.nn, ["torch.nn"]) is None
    assert forbid(lambda a: a.loss.mse_loss, ["torch.nn.functional"]) is None, "attributes are no globals"
    assert forbid(own, ["torch.nn", "no.such.module"]) is None


def test_forbidden_modules_cannot_be_imported_while_a_check_runs():
    module = types.ModuleType("answers_of_the_course")
    sys.modules["answers_of_the_course"] = module
    try:
        exercise = Exercise(
            "99.3",
            "f",
            1,
            reference=own,
            forbidden=["answers_of_the_course"],
            properties=[Property("p", lambda f: f())],
        )
        message = examine(exercise, lambda: __import__("_".join(["answers", "of", "the", "course"]))).message
        assert "may not be imported here" in message
        assert sys.modules["answers_of_the_course"] is module
    finally:
        del sys.modules["answers_of_the_course"]


def test_answers_caught_up_on_may_serve_other_exercises():
    assert offence(helper, ["torch.nn.functional.mse_loss"], exercise="99.3") is not None
    catch_up("99.2")
    assert offence(helper, ["torch.nn.functional.mse_loss"], exercise="99.3") is None
    assert offence(helper, ["torch.nn.functional.mse_loss"], exercise="99.2") is not None


# comparing


@pytest.mark.parametrize(
    "got, want",
    [
        (1.0 + 2e-5, 1.0),
        (torch.ones(2), torch.ones(2, 1)),
        (torch.tensor([1.0, float("nan")]), torch.ones(2)),
        ([1.0], (1.0, 2.0)),
        ({"a": 1.0}, {"b": 1.0}),
        ({"a": 1.0}, {"a": 2.0}),
        (None, 1.0),
        ("cps", "ddim"),
        (True, False),
    ],
)
def test_same_refuses(got, want):
    with pytest.raises(Mismatch, match="expected"):
        same(got, want)


@pytest.mark.parametrize(
    "got, want",
    [
        (1.0 + 5e-6, 1.0),
        (torch.ones(2, dtype=torch.float64), torch.ones(2)),
        (torch.tensor(float("nan")), torch.tensor(float("nan"))),
        ([1.0, torch.zeros(2)], (1, torch.zeros(2))),
        (torch.tensor(2), 2),
        ("cps", "cps"),
    ],
)
def test_same_accepts(got, want):
    same(got, want)


def test_same_gradient_tells_elements_and_inputs_apart():
    x, y = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])
    same_gradient(lambda a, b: a * b, lambda a, b: b * a, (x, y))
    same_gradient(lambda a, n: a * n, lambda a, n: n * a, (x, 3))
    for wrong in (lambda a, b: (a * b).flip(0), lambda a, b: a.detach() * b, lambda a, b: (a * b).detach(),
                  lambda a, b: a * a):  # fmt: skip
        with pytest.raises(Mismatch, match="the gradient with respect to"):
            same_gradient(wrong, lambda a, b: a * b, (x, y))


def test_gradients_against_the_formula():
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    weights = torch.cos(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)) + 1.5
    assert torch.allclose(gradients(lambda a: a**2, [x])[0], 2 * x * weights, rtol=1e-14)
    assert torch.equal(gradients(lambda a: (a**2).sum(), [x])[0], 2 * x)
    assert gradients(lambda a, n: a * n, [x, 2])[1] is None
    assert torch.equal(gradients(lambda a: torch.ones(2), [x])[0], torch.zeros(3, dtype=torch.float64))


def test_fingerprint_keeps_errors_by_name():
    assert fingerprint(lambda x: x.nothing, lambda: [(torch.ones(1),)]) == ["AttributeError"] * 2
    [values] = fingerprint(lambda n: n + 1, lambda: [(2,)])
    assert values == [torch.tensor(3.0)]


def test_fingerprint_gives_each_call_fresh_arguments():
    values, slopes = fingerprint(lambda x: (x.data.mul_(2) * x).sum(), lambda: [(torch.tensor([3.0]),)])
    assert values[0] == 36 and slopes[0] == 6


def test_raises():
    def group_of_one(x):
        raise GroupError("a group of one")

    raises(GroupError, group_of_one, 1)
    with pytest.raises(Mismatch, match="a GroupError"):
        raises(GroupError, lambda x: x, 1)
    with pytest.raises(Mismatch, match="ValueError"):
        raises(LabError, lambda x: int("x"), 1)
