"""The fixture lab stands beside the course's own labs; nothing here touches a student's progress or results."""

import os
import shutil
from pathlib import Path

import pytest

import pixelpolicy.course.checks

FIXTURES = Path(__file__).parent / "fixtures"

# Subprocesses and kernels find the fixture's checks by the variable, this process by the path.
os.environ["PIXELPOLICY_CHECKS"] = str(FIXTURES / "checks")
if str(FIXTURES / "checks") not in pixelpolicy.course.checks.__path__:
    pixelpolicy.course.checks.__path__.append(str(FIXTURES / "checks"))


@pytest.fixture(autouse=True)
def progress_file(tmp_path, monkeypatch):
    path = tmp_path / "progress" / "progress.json"
    monkeypatch.setenv("PIXELPOLICY_PROGRESS", str(path))
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course of the fixture lab alone, in a folder of its own."""
    root = tmp_path / "course"
    (root / "solutions").mkdir(parents=True)
    shutil.copy(FIXTURES / "solutions" / "99-means.py", root / "solutions")
    (root / "pyproject.toml").touch()
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(root))
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(root / "results"))
    monkeypatch.setenv("PIXELPOLICY_PROFILE", "smoke")
    return root
