"""The benchmark of throughput runs, and refuses to compare two ways that do different work."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pixelpolicy.course.results import validate_record

KINDS = ["sd3"]
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sd3_throughput.py"


@pytest.mark.slow
def test_the_quick_benchmark_leaves_a_valid_record(tmp_path):
    out = tmp_path / "record.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    (entry,) = json.loads(out.read_text())
    metrics = validate_record(entry)["metrics"]
    assert entry["name"] == "sd3-throughput" and entry["threads"] == 1
    for name in ("rollout", "rollout_embeddings_given", "update"):
        row = metrics[name]
        assert 0 < row["lowest"] <= row["ratio"] <= row["highest"] and f"{name}: {row['ratio']:.3f}x" in done.stdout
    assert metrics["memory"]["peak"] == metrics["memory"]["ours_peak_mb"] / metrics["memory"]["straight_peak_mb"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["noise", "clip", "none"])
def test_ways_that_differ_are_not_compared(folder, monkeypatch, fault):
    spec = importlib.util.spec_from_file_location("sd3_throughput", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "sd3_throughput", script)  # where its dataclass looks for its annotations
    spec.loader.exec_module(script)
    bench = script.Bench(script.QUICK, folder)
    if fault == "none":
        return bench.check()
    if fault == "noise":
        monkeypatch.setattr(script, "NOISE", 0.7)  # of the straight way; ours has taken the other already
    else:
        bench.algorithm.policy = replace(bench.algorithm.policy, guidance_scale=1.0)
    with pytest.raises(AssertionError):
        bench.check()
