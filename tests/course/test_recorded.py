"""Recorded long runs: what is kept comes back, moved by alpha; what is missing is told."""

import json

import pytest
import torch

from pixelpolicy.course import recorded
from pixelpolicy.errors import CheckpointError, LabError
from pixelpolicy.generators.image import build


@pytest.fixture
def course(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_ROOT", str(tmp_path))
    return tmp_path


def _twins():
    pair = []
    for _ in range(2):
        torch.manual_seed(0)
        pair.append(build(width=32, layers=1, channels=(8, 8, 8)))
    return pair


def test_what_was_kept_comes_back(course):
    base, tuned = _twins()
    with torch.no_grad():
        tuned.transformer.proj_out.weight.add_(0.25)
    log = [{"iteration": 1, "reward": 0.5}]
    recorded.keep("12-x-long", 3, log, tuned.transformer.state_dict(), base)
    assert recorded.history("12-x-long", 3) == log
    for alpha in (0.0, 0.5, 1.0, 1.5):
        moved = recorded.apply("12-x-long", 3, _twins()[0], alpha).transformer.proj_out.weight
        torch.testing.assert_close(moved, base.transformer.proj_out.weight + 0.25 * alpha, atol=1e-4, rtol=0)


def test_a_missing_run_is_told(course):
    with pytest.raises(LabError, match="no benchmark"):
        recorded.records("12-none-long")
    with pytest.raises(LabError, match="git checkout"):
        recorded.history("12-none-long", 0)
    with pytest.raises(CheckpointError, match="missing"):
        recorded.apply("12-none-long", 0, _twins()[0])


def test_an_altered_weight_is_told(course):
    base, tuned = _twins()
    with torch.no_grad():
        tuned.transformer.proj_out.weight.add_(1.0)
    recorded.keep("12-x-long", 0, [], tuned.transformer.state_dict(), base)
    path = course / "benchmarks" / "12-x-long" / "seed-0.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(CheckpointError, match="altered"):
        recorded.apply("12-x-long", 0, base)


def test_a_log_that_is_no_json_is_told(course):
    folder = course / "benchmarks" / "12-x-long"
    folder.mkdir(parents=True)
    (folder / "seed-0.json").write_text(json.dumps([{"a": 1}])[:-3])
    with pytest.raises(LabError, match="cannot be read"):
        recorded.history("12-x-long", 0)
