"""Every exercise is graded on inputs that the notebook does not show, so that answers learnt by heart score nothing."""

from pathlib import Path

import pytest

from pixelpolicy.course.exercises import exercises_of
from pixelpolicy.course.grading.prepare import prepared
from pixelpolicy.course.source import sources

LABS = [int(path.name[:2]) for path in sources(Path(__file__).parents[2])]


@pytest.mark.parametrize("lab", LABS)
def test_every_exercise_has_a_hidden_version_of_what_it_asks(lab):
    lacking = []
    for id in exercises_of(lab):
        ready = prepared(lab, id, b"a secret of the tests")
        if not any(fresh and asks for fresh, asks in zip(ready.fresh, ready.substantive, strict=True)):
            lacking.append(id)
    assert not lacking
