"""Lab 08 under the profile gpu on a machine without CUDA: every reward judges the tiny twin's pictures."""

import pytest

from pixelpolicy.course.run import run_lab


@pytest.mark.slow
def test_lab_08_rehearses_the_real_model_without_network_or_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(8, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120
