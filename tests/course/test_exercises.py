"""Every exercise of every lab: its solution passes, its blank fails, its wrong answers fail each with its own hint.

Labs are found in solutions/, their wrong answers in tests/mutants/labNN.py; the fixture lab tries this very test.
"""

import functools
import multiprocessing
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from pixelpolicy.course.checking import exercise_of, seeded
from pixelpolicy.course.exercises import mistake_in
from pixelpolicy.course.proof import trials, wrong_answers
from pixelpolicy.course.source import read_source, sources

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork processes"
)

TESTS = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"
LABS = [(path, TESTS / "mutants") for path in sources(TESTS.parent)]
LABS += [(path, FIXTURES / "mutants") for path in sources(FIXTURES)]
EXERCISES = [(path, mutants, id) for path, mutants in LABS for id in read_source(path, checks=False).tasks]
LEAST_MUTANTS = 4
MOST_CALLS = 250  # of an answer by its check; a grader makes them twice, each a way to another process and back


def mutants_of(folder, id):
    return wrong_answers(folder / f"lab{int(id.partition('.')[0]):02d}.py").get(id, [])


@functools.cache
def tried(path, folder, id):
    source = read_source(path, checks=False)
    task, mutants = source.tasks[id], mutants_of(folder, id)
    answers = {f"mutant {m.name}": functools.partial(lambda f: f, m.function) for m in mutants}
    # made here and not in the fork, so that what the lab imports is imported once
    solution, blank = source.submission(id, task.solution), source.submission(id, task.blank)
    answers |= {"solution": lambda: solution, "blank": lambda: blank}
    return mutants, trials(id, answers)


@pytest.mark.parametrize("path, folder, id", EXERCISES, ids=[id for *_, id in EXERCISES])
class TestExercise:
    def test_solution_passes(self, path, folder, id):
        trial = tried(path, folder, id)[1]["solution"]
        assert trial.passed, trial.message

    def test_blank_fails(self, path, folder, id):
        trial = tried(path, folder, id)[1]["blank"]
        assert trial.blank and not trial.passed
        assert "not written yet" in trial.message

    def test_wrong_answers_fail_each_with_its_own_hint(self, path, folder, id):
        mutants, tried_answers = tried(path, folder, id)
        assert len(mutants) >= LEAST_MUTANTS, f"exercise {id} has {len(mutants)} wrong answers"
        for mutant in mutants:
            trial = tried_answers[f"mutant {mutant.name}"]
            assert not trial.passed, f"{mutant.name} passes"
            got = [other.name for other in mutants if other.hint in trial.message]
            assert got == [mutant.name], f"{mutant.name} gets the hints of {got}:\n{trial.message}"

    def test_is_quick(self, path, folder, id):
        slow = {name: t.seconds for name, t in tried(path, folder, id)[1].items() if t.seconds > 2}
        assert not slow

    def test_asks_an_answer_a_few_hundred_times_at_most(self, path, folder, id):
        exercise = exercise_of(id)
        answer, calls = exercise.answer(), []
        for property in exercise.properties:
            with seeded():
                property.function(lambda *args, **kwargs: calls.append(0) or answer(*args, **kwargs))
        assert len(calls) <= MOST_CALLS

    def test_known_mistakes_are_told_apart(self, path, folder, id):
        exercise = exercise_of(id)
        assert mistake_in(exercise, exercise.answer()) is None, "the course's own answer looks like a mistake"
        for mistake in exercise.mistakes:
            assert mistake.wrong is None or mistake_in(exercise, mistake.wrong) is mistake, mistake.name


@pytest.mark.parametrize("path, folder", LABS, ids=[path.stem for path, _ in LABS])
def test_checks_take_half_a_second_in_the_median(path, folder):
    ids = read_source(path, checks=False).tasks
    assert not ids or statistics.median(tried(path, folder, id)[1]["solution"].seconds for id in ids) <= 0.5


def test_checks_import_no_diffusers():
    labs = sorted({int(path.stem[:2]) for path, _ in LABS})
    code = f"""
import sys
from pixelpolicy.course.checking import exercises_of
for lab in {labs}:
    for exercise in exercises_of(lab).values():
        for property in exercise.properties:
            property.function(exercise.answer())
print("diffusers" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
