"""Records: all that design.md asks for, finite, whole on disk."""

import copy
import hashlib
import json
import math
import time

import pytest
import torch

from pixelpolicy.course.results import (
    append_benchmark,
    commit,
    peak_memory_mb,
    read_benchmark,
    record,
    timer,
    validate_record,
    write_record,
)
from pixelpolicy.errors import LabError

RECORD = {
    "name": "12-grpo", "profile": "cpu", "seed": 0, "seconds": 281.4, "cpu_seconds": 540.2, "peak_memory_mb": 1450,
    "threads": 2, "metrics": {"accuracy": {"before": 0.58, "after": 0.86}, "kl": 0.2},
    "source_sha256": "0" * 64, "commit": "a" * 40, "packages": {"torch": "2.13.0"}, "date": "2026-11-30",
}  # fmt: skip


def test_record_of_a_lab(course):
    made = write_record("99-means", {"loss": {"after": 0.5}}, seed=3, seconds=1.26, cpu_seconds=2.34)
    assert json.loads((course / "results" / "99.json").read_text()) == made
    assert set(made) == set(RECORD)
    source = (course / "solutions" / "99-means.py").read_bytes()
    assert made["source_sha256"] == hashlib.sha256(source).hexdigest()
    assert (made["name"], made["profile"], made["seed"]) == ("99-means", "smoke", 3)
    assert (made["seconds"], made["cpu_seconds"], made["threads"]) == (1.3, 2.3, torch.get_num_threads())
    assert made["commit"] == "unknown" and made["packages"]["torch"] == torch.__version__
    assert 50 < made["peak_memory_mb"] < 100_000


def test_names(course):
    values = dict(seed=0, seconds=1, cpu_seconds=1)
    write_record("99-means-long", {"loss": 1.0}, **values)
    write_record("algorithms", {"loss": 1.0}, method="grpo", samples=96, source=__file__, **values)
    assert sorted(path.name for path in (course / "results").iterdir()) == ["99-long.json", "algorithms.json"]
    with pytest.raises(LabError, match="name the record after its lab"):
        record("99-modes", {"loss": 1.0}, **values)


def test_commit(root, tmp_path):
    assert commit(tmp_path) == "unknown"
    assert len(commit(root)) == 40 or not (root / ".git").exists()


def test_the_record_of_the_design_is_valid():
    assert validate_record(RECORD) is RECORD
    validate_record(RECORD | {"method": "grpo", "samples": 96, "commit": "unknown"})


@pytest.mark.parametrize("key", RECORD)
def test_every_key_is_needed(key):
    with pytest.raises(LabError, match=f"'{key}' is missing"):
        validate_record({k: v for k, v in RECORD.items() if k != key})


@pytest.mark.parametrize(
    "change, message",
    [
        ({"profile": "fast"}, "the profile 'fast' is none of smoke, cpu, gpu"),
        ({"seed": "0"}, "'seed' is '0'"),
        ({"seed": True}, "'seed' is True"),
        ({"seconds": math.nan}, "'seconds' is nan"),
        ({"seconds": -1.0}, "'seconds' is -1"),
        ({"threads": 0}, "'threads' is 0"),
        ({"samples": 0}, "'samples' is 0"),
        ({"name": "a/b"}, "no file's name"),
        ({"source_sha256": "abc"}, "no SHA-256"),
        ({"commit": "main"}, "'main'"),
        ({"date": "30.11.2026"}, "not of the form"),
        ({"packages": {}}, "must map names to versions"),
        ({"metrics": {}}, "'metrics' is empty"),
        ({"metrics": {"accuracy": {"after": math.inf}}}, "accuracy.after is inf"),
        ({"metrics": {"kinds": ["one"]}}, "kinds.0 is 'one'"),
        ({"mood": "good"}, "'mood' is not a key"),
    ],
)
def test_invalid_records(change, message):
    with pytest.raises(LabError, match="12-grpo|a/b") as error:
        validate_record(copy.deepcopy(RECORD) | change)
    assert message in str(error.value)


def test_an_invalid_record_is_not_written(course):
    with pytest.raises(LabError, match="loss is nan"):
        write_record("99-means", {"loss": math.nan}, seed=0, seconds=1, cpu_seconds=1)
    assert not (course / "results").exists()


def test_benchmarks(tmp_path):
    path = tmp_path / "benchmarks" / "12-grpo.json"
    append_benchmark(path, RECORD)
    append_benchmark(path, RECORD | {"seed": 1})
    assert [made["seed"] for made in read_benchmark(path)] == [0, 1]
    with pytest.raises(LabError):
        append_benchmark(path, RECORD | {"seed": None})
    assert len(read_benchmark(path)) == 2
    for text, message in [("{}", "list of records"), ("[", "no benchmark"), ("[{}]", "record 0")]:
        path.write_text(text)
        with pytest.raises(LabError, match=message):
            read_benchmark(path)
    with pytest.raises(LabError, match="no benchmark"):
        read_benchmark(tmp_path / "absent.json")


def test_timer():
    with timer() as sleeping:
        time.sleep(0.2)
    with timer() as working:
        started = time.process_time()
        while time.process_time() - started < 0.1:
            inside = working.seconds
    assert 0.2 <= sleeping.seconds and sleeping.cpu_seconds < 0.1
    assert 0.1 <= working.cpu_seconds and 0 < inside <= working.seconds
    assert working.seconds == working.seconds


def test_peak_memory_sees_what_was_held():
    block = torch.ones(30 * 2**20 // 4)
    held = peak_memory_mb()
    del block
    assert peak_memory_mb() >= held >= 30
