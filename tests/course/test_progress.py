"""A student's progress: kept whole, never lost, and shown in rows."""

import json
from datetime import datetime

import pytest

from pixelpolicy.course import progress
from pixelpolicy.course.build import build_labs
from pixelpolicy.errors import LabError


def test_attempts_add_up_and_the_best_counts(progress_file):
    progress.tried("99.1", share=0.5, of=2)
    progress.tried("99.1", share=1.0, of=2)
    entry = progress.tried("99.1", share=0.0, of=2)
    assert (entry.attempts, entry.points, entry.of, entry.passed) == (3, 2.0, 2, True)
    assert progress.load() == {"99.1": entry}
    assert datetime.fromisoformat(entry.first) <= datetime.fromisoformat(entry.last)
    assert datetime.fromisoformat(entry.first).tzinfo is not None
    assert list(progress_file.parent.iterdir()) == [progress_file]


def test_nothing_yet(progress_file):
    assert progress.load() == {} and not progress_file.exists()


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "null", '{"exercises": 3}', '{"exercises": {"1.1": {"colour": 1}}}',
     '{"exercises": {"1.1": {"points": "many"}}}', b"\xff\xfe"],
)  # fmt: skip
def test_a_damaged_file_is_kept_aside(progress_file, damage):
    progress_file.parent.mkdir(parents=True)
    progress_file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    with pytest.warns(UserWarning, match="progress.json.corrupt"):
        entry = progress.tried("99.1", share=1.0, of=2)
    assert progress.load() == {"99.1": entry}
    kept = progress_file.with_name("progress.json.corrupt").read_bytes()
    assert kept == (damage if isinstance(damage, bytes) else damage.encode())


def test_two_damaged_files_are_both_kept(progress_file):
    progress_file.parent.mkdir(parents=True)
    for _ in range(2):
        progress_file.write_text("{")
        with pytest.warns(UserWarning):
            progress.load()
    assert sorted(path.name for path in progress_file.parent.iterdir()) == [
        "progress.json.corrupt",
        "progress.json.corrupt.1",
    ]


def test_a_full_disk_leaves_the_old_file(progress_file, monkeypatch):
    progress.tried("99.1", share=1.0, of=2)
    before = progress_file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(LabError, match="No space left on device; the file is as it was. Free some space"):
        progress.tried("99.2", share=1.0, of=2)
    assert progress_file.read_bytes() == before and list(progress_file.parent.iterdir()) == [progress_file]


def test_beside_the_course_unless_told_otherwise(course, monkeypatch):
    monkeypatch.delenv("PIXELPOLICY_PROGRESS")
    assert progress.progress_file() == course / "work" / "progress.json"


def test_status(course):
    assert progress.status() == []
    build_labs()
    row = progress.status()[0]
    assert (row.lab, row.id, row.name, row.of, row.state) == ("99-means", "99.1", "centred", 2, "new")
    progress.tried("99.1", share=0.5, of=2)
    progress.caught_up("99.2", of=1.5)
    assert [(row.state, row.points) for row in progress.status()] == [("begun", 1.0), ("caught up", 0.0)]
    progress.tried("99.1", share=1.0, of=2)
    assert [row.state for row in progress.status()] == ["passed", "caught up"]
    (course / "labs" / "99-means.ipynb").write_text("{")
    with pytest.raises(LabError, match="build-labs"):
        progress.status()


def test_file_is_plain_json(progress_file):
    progress.caught_up("99.2", of=1.5)
    kept = json.loads(progress_file.read_text())
    assert kept["version"] == 1 and kept["exercises"]["99.2"]["caught_up"] is True
