"""Running a solved lab headless, and what is said and left when it does not end well."""

import json
import textwrap

import nbformat
import pytest

from pixelpolicy.course.build import build_labs
from pixelpolicy.course.opening import open_copy, prepare_work
from pixelpolicy.course.run import run_lab, summary
from pixelpolicy.errors import LabError, ProfileError


def lab(course, code, name="98-tiny"):
    """A solved lab of one text cell and the given code cells."""
    cells = "\n\n".join(f"# %%\n{textwrap.dedent(cell).strip()}" for cell in code)
    (course / "solutions" / f"{name}.py").write_text(f"# %% [markdown]\n# # Tiny\n\n{cells}\n")


def left(course):
    folder = course / "results"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


RECORD = 'write_record("98-tiny", {"loss": {"after": 0.25}}, seed=0, seconds=1, cpu_seconds=1)'


def test_a_lab_that_ends_well(course, progress_file, capsys):
    (course / "results").mkdir()
    (course / "results" / "98.failed.ipynb").touch()
    lab(
        course,
        [
            """
            import os
            from pixelpolicy.course import progress
            from pixelpolicy.course.results import results_folder, write_record
            print("hello from", os.environ["PIXELPOLICY_PROFILE"], os.environ["HF_HUB_OFFLINE"])
            from tqdm.auto import tqdm
            for _ in tqdm(range(7)):
                pass
            """,
            """
            import socket
            try:
                socket.create_connection(("203.0.113.1", 80), timeout=5)
            except OSError as error:
                assert "network is cut" in str(error)
            """,
            'progress.tried("98.1", share=1.0, of=1)\n(results_folder() / "curve.txt").write_text("x")',
            RECORD,
        ],
    )
    record = run_lab(98, "cpu", network=False)
    assert record["metrics"] == {"loss": {"after": 0.25}} and record["profile"] == "cpu"
    shown = capsys.readouterr()
    assert "hello from cpu 1" in shown.out and shown.out.rstrip().endswith("loss                     after 0.25")
    assert "lab 98-tiny: 100%" in shown.err and "4/4" in shown.err
    assert "7 of 7 steps" in shown.err, "a loop's own bar is shown beside the cells'"
    assert left(course) == ["98.ipynb", "98.json", "curve.txt"]
    assert not progress_file.exists(), "a run is no student's progress"
    executed = nbformat.read(course / "results" / "98.ipynb", as_version=4)
    nbformat.validate(executed)
    assert "hello from cpu" in executed.cells[1].outputs[0].text


FAULTS = {
    "raises": ("x = 1\nraise ValueError('no such thing')", "code cell 2 of 2 ('x = 1'): ValueError: no such thing", 60),
    "dies": ("import os\nos._exit(1)", "code cell 2 of 2 ('import os'): its kernel died", 60),
    "hangs": ("import time\ntime.sleep(60)", "code cell 2 of 2 ('import time'): it took more than 5 s", 5),
}


@pytest.mark.parametrize("code, message, timeout", FAULTS.values(), ids=FAULTS)
def test_a_lab_that_does_not(course, code, message, timeout):
    (course / "results").mkdir()
    (course / "results" / "98.json").write_text("the last good run")
    lab(course, ["print('begun')", code])
    with pytest.raises(LabError) as error:
        run_lab(98, timeout=timeout, show=False)
    assert f"lab 98-tiny, profile smoke, stopped in {message}" in str(error.value)
    assert str(course / "results" / "98.failed.ipynb") in str(error.value)
    assert left(course) == ["98.failed.ipynb", "98.json"]
    assert (course / "results" / "98.json").read_text() == "the last good run"
    failed = nbformat.read(course / "results" / "98.failed.ipynb", as_version=4)
    assert failed.cells[1].outputs[0].text == "begun\n"


def test_a_failed_check_shows_its_message_and_no_traceback(course):
    lab(course, ["from pixelpolicy.course import check", 'check("99.2", lambda a, b: (a - b).square().sum())'])
    with pytest.raises(LabError, match="You sum where the mean is asked for"):
        run_lab(98)
    output = nbformat.read(course / "results" / "98.failed.ipynb", as_version=4).cells[2].outputs[0]
    assert output.ename == "CheckFailed"
    assert output.traceback[0] == "99.2 squared_error: 0 of 2 properties hold."
    assert not any("Traceback" in line or "checking.py" in line for line in output.traceback)


@pytest.mark.parametrize("code", ["x = 1", "import os, pathlib\n(pathlib.Path(os.environ['PIXELPOLICY_RESULTS']) / "
                                  "'98.json').write_text('{}')"], ids=["none", "invalid"])  # fmt: skip
def test_a_lab_without_a_record(course, code):
    lab(course, [code])
    with pytest.raises(LabError, match="98-tiny|not valid"):
        run_lab(98)
    assert left(course) == []


def test_no_such_lab_or_profile(course):
    with pytest.raises(LabError, match="there is no lab 7: the labs are 99-means"):
        run_lab(7)
    with pytest.raises(ProfileError, match="fast.*smoke, cpu, gpu"):
        run_lab(99, "fast")


def test_summary():
    record = {
        "name": "12-grpo", "profile": "cpu", "seed": 0, "seconds": 281.4, "cpu_seconds": 540.2,
        "peak_memory_mb": 1450, "threads": 2, "metrics": {"accuracy": {"before": 0.58, "after": 0.86}, "kl": 0.12345},
    }  # fmt: skip
    assert summary(record).splitlines() == [
        "12-grpo · profile cpu · seed 0 · 281 s (540 s of CPU, 2 threads, 1450 MB)",
        "  accuracy                 before 0.58  after 0.86",
        "  kl                        0.1235",
    ]


# a student's own copies


def test_copies_are_made_once_and_never_touched_again(course):
    with pytest.raises(LabError, match="build-labs"):
        prepare_work()
    build_labs()
    [copy] = prepare_work()
    assert copy == course / "work" / "99-means.ipynb" == open_copy(99) == open_copy("99-means")
    assert copy.read_bytes() == (course / "labs" / "99-means.ipynb").read_bytes()
    copy.write_text("my answers")
    assert prepare_work() == [copy] and copy.read_text() == "my answers"
    with pytest.raises(LabError, match="there is no lab 12: the labs are 99-means"):
        open_copy(12)


def test_labs_are_read_as_json(course):
    build_labs()
    assert json.loads(open_copy(99).read_text())["nbformat"] == 4
