"""Graders graded: the operators on small functions, the list of equivalents, what is kept and run again, the page."""

import ast
import json
import textwrap
from pathlib import Path

import pytest
import yaml

from pixelpolicy.book.mutation_page import place_page
from pixelpolicy.course import mutation_score as of
from pixelpolicy.course.exercises import exercises_of
from pixelpolicy.course.mutation import mutations
from pixelpolicy.errors import LabError

ROOT = Path(__file__).parents[2]
FIXTURES = Path(__file__).parent / "fixtures"


def made(body, signature="x: Tensor, y: Tensor", returns="Tensor"):
    text = textwrap.indent(textwrap.dedent(body).strip(), "    ")
    return mutations(f'def f({signature}) -> {returns}:\n    """Words, 1 + 2."""\n{text}\n', "f")


def changes(body, operator, **kwargs):
    return {one.after for one in made(body, **kwargs) if one.operator == operator}


@pytest.mark.parametrize(
    "operator, body, wanted",
    [
        ("sign", "return -x + y", {"return x + y", "return -x - y"}),
        ("sign", "return x - y", {"return x + y", "return y - x"}),
        ("sign", "return (x - y) ** 2", {"return (x + y) ** 2"}),
        ("comparison", "return x < y", {"return x <= y", "return x > y"}),
        ("comparison", "return x == y", {"return x != y"}),
        ("constant", "return x + 2", {"return x + 3", "return x + 1"}),
        ("constant", "return x.clamp(0.25)", {"return x.clamp(1.25)", "return x.clamp(0.5)"}),
        ("constant", "return x + 1e-8", {"return x + 1.00000001"}),
        ("constant", "return x.sort(stable=True)", {"return x.sort(stable=False)"}),
        ("dropped term", "return x * y", {"return x", "return y"}),
        ("dropped term", "return x.exp() / y", {"return x.exp()", "return x / y"}),
        ("dropped term", "return x.std(correction=0)", {"return x.std()", "return x"}),
        ("detached gradient", "return x.detach() + y",
         {"return x + y", "return x.detach() + y.detach()", "return (x.detach() + y).detach()"}),
        ("wrong axis", "return x.sum(1)", {"return x.sum(0)", "return x.sum()"}),
        ("wrong axis", "return x.softmax(dim=-1)", {"return x.softmax(dim=-2)"}),
        ("wrong axis", "return x.amax((1, 2))", {"return x.amax((2,))", "return x.amax((1,))", "return x.amax()"}),
        ("wrong axis", "return x[:, None]", {"return x[None, :]"}),
        ("wrong reduction", "return x.mean(0)", {"return x.sum(0)"}),
        ("wrong reduction", "return torch.maximum(x, y)", {"return torch.minimum(x, y)"}),
        ("off by one", "return x[1:]", {"return x[2:]", "return x[:]"}),
        ("off by one", "return x[:-1]", {"return x[:]", "return x[:-2]"}),
        ("off by one", "return [i for i in range(n)]",
         {"return [i for i in range(n + 1)]", "return [i for i in range(n - 1)]"}),
        ("branch", "return x if y else -x", {"return x", "return -x"}),
        ("arithmetic", "return x / y", {"return x * y", "return y / x"}),
    ],
)  # fmt: skip
def test_an_operator_makes_its_mistakes(operator, body, wanted):
    assert changes(body, operator) == wanted


def test_what_is_no_mistake_is_left_alone():
    body = """
        for a, b in zip(x, y, strict=True):
            if a.shape != b.shape:
                raise ValueError(f"{a} has {1 + 2}")
        return x.float()
    """
    found = [one for one in made(body) if one.operator != "detached gradient"]
    assert {one.line for one in found} == {4} and len(found) == 3
    assert not [one for one in made("return x", returns="Bool[Tensor, 'n']") if one.after != "return x.detach()"]


def test_a_gradient_is_cut_where_there_may_be_one():
    assert (
        changes("return x + n", "detached gradient", signature="x: Int[Tensor, 'n'], n: int", returns="float") == set()
    )
    assert changes("return x * (x > y)", "detached gradient") == {
        "return x.detach() * (x > y)", "return (x * (x > y)).detach()"
    }  # fmt: skip
    with_off = changes("with torch.no_grad():\n    return x", "detached gradient")
    assert "with torch.enable_grad():" in with_off


def test_mutants_are_the_same_each_time_and_all_different():
    tasks = {id: task for _, id, task, _ in of._tasks(ROOT, [12, 16])}
    for task in tasks.values():
        found = mutations(task.solution, task.name)
        assert found == mutations(task.solution, task.name)
        programs = [ast.dump(ast.parse(one.code)) for one in found]
        assert len(set(programs)) == len(programs) and len({one.id for one in found}) == len(found)
        assert ast.dump(ast.parse(task.solution)) not in programs


def test_an_id_outlives_edits_elsewhere():
    before, after = made("z = x + y\nreturn z * 2"), made("z = x + y\n# why\nz = z.square()\nreturn (z *  2)")
    assert {one.id for one in before} - {one.id for one in after} == set()
    assert "dropped term: no z += y" in {one.id for one in made("z = x\nz += y\nreturn z")}


def test_a_function_that_is_not_there_is_told():
    with pytest.raises(LabError, match="no function 'g'"):
        mutations("def f(x):\n    return x", "g")


# The list of equivalents ----------------------------------------------------------------------------------------------


def test_every_equivalent_mutant_is_still_one_and_passes():
    assert of.stale(ROOT) == []
    assert {score.id: score.refuted for score in of.scores(ROOT) if score.current and score.refuted} == {}


def listed(root, *entries):
    path = root / "tests" / "mutants" / "equivalent.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(list(entries)))


@pytest.fixture
def course(tmp_path):
    """The course of the fixtures: one lab, its checks, its mistakes by hand."""
    (tmp_path / "solutions").symlink_to(FIXTURES / "solutions")
    (tmp_path / "tests" / "mutants").mkdir(parents=True)
    (tmp_path / "tests" / "mutants" / "lab99.py").symlink_to(FIXTURES / "mutants" / "lab99.py")
    return tmp_path


def test_a_stale_entry_and_one_given_twice_are_told(course):
    (id, *_), (_, _, task, name) = exercises_of(99), next(of._tasks(course, None))
    mutant = mutations(task.solution, name)[0].id
    listed(course, {"exercise": id, "reason": "the same", "mutants": [mutant, "sign: return 7"]})
    assert of.stale(course) == [f"{id}: sign: return 7"]
    listed(course, *[{"exercise": id, "reason": "the same", "mutants": [mutant]}] * 2)
    assert of.stale(course) == [f"{id}: {mutant}"]
    listed(course, {"exercise": id, "mutants": [mutant]})
    with pytest.raises(LabError, match="exercise, reason and mutants"):
        of.equivalents(course)


# Running --------------------------------------------------------------------------------------------------------------


def test_verdicts_are_kept_and_only_what_changed_is_run_again(course, monkeypatch):
    first = of.run(root=course, repeats=2, show=False)
    assert first and all(score.caught and score.mistakes and not score.passing_mistakes for score in first)
    assert all(score.current and score.repeats == 2 and score.flaky == [] for score in first)
    asked = []

    def watched(function, jobs, **kwargs):
        asked.extend(job[2] for job in jobs)
        return []

    monkeypatch.setattr(of, "in_parallel", watched)
    of.run(root=course, repeats=2, show=False)
    assert asked == []
    path = of._file(course, first[0].id)
    kept = json.loads(path.read_text())
    path.write_text(json.dumps(kept | {"key": kept["key"] | {"check": "another"}}))
    assert [score.current for score in of.scores(course)][0] is False
    of.run(root=course, repeats=2, show=False)
    assert asked == [first[0].id]
    path.write_text("{")
    with pytest.raises(LabError, match="Delete it"):
        of.scores(course)


BAD = {
    "loops on": "def f(*args):\n    while True:\n        pass",
    "dies": "def f(*args):\n    import os\n    os._exit(3)",
    "raises": "def f(*args):\n    raise KeyError(1)",
    "spoils": "def f(x, *args):\n    return x.zero_()",
    "gives nothing": "def f(*args):\n    return None",
}


def test_each_way_to_go_wrong_has_its_verdict_and_spoils_no_other(course):
    source, id, task, name = next(of._tasks(course, None))
    solution = source.submission(id, task.solution)
    answers = {}
    for told, code in BAD.items():
        answers[told] = of._maker(solution, code.replace("def f", f"def {name}"), name)
        answers[f"the solution after what {told}"] = lambda: solution
    outcomes = of._outcomes(id, solution, answers)
    assert {outcomes[f"the solution after what {told}"] for told in BAD} == {of.SURVIVED}
    assert outcomes["loops on"] == of.LATE and outcomes["dies"] == outcomes["raises"] == of.RAISED
    assert outcomes["spoils"] != of.SURVIVED and outcomes["gives nothing"] != of.SURVIVED
    with pytest.raises(LabError, match="does not pass its check: it is raised"):
        of._outcomes(id, lambda *args: 1 / 0, answers)


# The page -------------------------------------------------------------------------------------------------------------


def test_the_page_tells_counts_survivors_equivalents_and_what_is_missing(course):
    place_page(course, course)
    assert not (course / "mutation.md").exists()
    source, id, task, name = next(of._tasks(course, None))
    found = mutations(task.solution, name)
    verdicts = {of._digest(one.code): of.REFUSED for one in found}
    verdicts |= {of._digest(found[0].code): of.SURVIVED, of._digest(found[1].code): of.SURVIVED,
                 of._digest(found[2].code): of.LATE}  # fmt: skip
    made = {"exercise": id, "key": of._key(course, source, task), "verdicts": verdicts, "mistakes": {"a": of.REFUSED},
            "repeats": 10, "flaky": []}  # fmt: skip
    of.write_json(of._file(course, id), made)
    listed(course, {"exercise": id, "reason": "Rounding apart, it is the same.", "mutants": [found[1].id]})
    place_page(course, course)
    page = (course / "mutation.md").read_text()
    total = len(found)
    share = int(1000 * (total - 2) / (total - 1)) / 10
    assert f"**{total - 1:,} mutants of 1 exercises: {share:.1f}% are caught.**" in page
    assert f"| {id} | `{name}` | {total} | {total - 2} | 0 | 1 | 1 | {share:.1f}% | 1 of 1 |" in page
    assert "*Rounding apart, it is the same.*" in page and f"`{found[0].after}` in place of `{found[0].before}`" in page
    tasks = list(of._tasks(course, None))
    assert ("This page is partial" in page) == (len(tasks) > 1)
    of.write_json(of._file(course, id), made | {"key": {}})
    place_page(course, course)
    assert f"the texts of {id} were changed since" in (course / "mutation.md").read_text()
