"""One place that says how much of a run there is, and one that says where the course lies."""

import pytest
import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.errors import LabError, ProfileError
from pixelpolicy.files import write_whole
from pixelpolicy.profiles import choose, named, profile, real_model, rehearsing, seed


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("name, value", [("smoke", 1), ("cpu", 2), ("gpu", 3), (" cpu ", 2)])
def test_profile(monkeypatch, name, value, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setenv("PIXELPOLICY_PROFILE", name)
    rehearsal = name == "gpu" and not cuda
    assert profile() == name.strip() and rehearsing() == rehearsal and real_model() == (name == "gpu")
    assert choose(smoke=1, cpu=2, gpu=3) == (1 if rehearsal else value)


def test_without_a_variable_no_machine_rehearses(monkeypatch):
    """A rehearsal is asked for: where CUDA is missing, the default is `cpu`."""
    monkeypatch.delenv("PIXELPOLICY_PROFILE", raising=False)
    for cuda in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        assert not rehearsing() and real_model() == cuda and choose(smoke=1, cpu=2, gpu=3) == (3 if cuda else 2)


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize("unset", [True, False])
def test_default(monkeypatch, cuda, unset):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.delenv("PIXELPOLICY_PROFILE") if unset else monkeypatch.setenv("PIXELPOLICY_PROFILE", "")
    assert profile() == ("gpu" if cuda else "cpu")


def test_unknown_profile(monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_PROFILE", "fast")
    with pytest.raises(ProfileError, match="'fast': set PIXELPOLICY_PROFILE to one of smoke, cpu, gpu"):
        choose(smoke=1, cpu=2, gpu=3)
    with pytest.raises(ProfileError):
        named("GPU")


def test_course_root(course, monkeypatch, tmp_path, root):
    assert course_root() == course
    monkeypatch.delenv("PIXELPOLICY_ROOT")
    monkeypatch.chdir(course / "solutions")
    assert course_root() == course
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pixelpolicy.course.files.__file__", str(tmp_path / "site" / "a" / "b" / "c" / "files.py"))
    with pytest.raises(LabError, match="PIXELPOLICY_ROOT"):
        course_root()


def test_write_whole(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.json"
    write_json(path, {"a": "ü"})
    assert path.read_text(encoding="utf-8") == '{\n "a": "ü"\n}\n' and path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(LabError, match="NaN"):
        write_json(path, {"a": float("nan")})
    blocked = path / "inside" / "file.json"
    with pytest.raises(LabError, match="could not write"):
        write_whole(blocked, "x")
    assert [p.name for p in path.parent.iterdir()] == ["file.json"]


def test_the_seed_is_0_unless_it_is_set(monkeypatch):
    monkeypatch.delenv("PIXELPOLICY_SEED", raising=False)
    assert seed() == 0
    monkeypatch.setenv("PIXELPOLICY_SEED", "12")
    assert seed() == 12


@pytest.mark.parametrize("given", ["-1", "one", "0.5"])
def test_a_seed_that_is_no_whole_number_is_refused(monkeypatch, given):
    monkeypatch.setenv("PIXELPOLICY_SEED", given)
    with pytest.raises(ProfileError, match="whole number"):
        seed()
