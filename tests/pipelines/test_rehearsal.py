"""Labs under the profile gpu on a machine without CUDA: the real model's code path, with its tiny twin."""

import json

import pytest

from pixelpolicy.course.run import run_lab


@pytest.mark.slow
def test_lab_12_rehearses_the_real_model_without_network_or_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(12, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120
    notebook = json.loads((tmp_path / "12.ipynb").read_text(encoding="utf-8"))
    printed = "".join(
        "".join(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", [])
    )
    assert "smallest and largest ratio: 1.0 1.0" in printed
    # A random twin draws nothing that the verifier takes for a shape, so that nothing is to be learnt from it.
    assert record["metrics"]["accuracy"] == {"before": 0, "after": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["12.ipynb", "12.json"]


@pytest.mark.slow
def test_lab_09_rehearses_stable_diffusion_without_network_or_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(9, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120
    assert record["metrics"]["accuracy"] == {"before": 0, "after": 0}
    notebook = json.loads((tmp_path / "09.ipynb").read_text(encoding="utf-8"))
    printed = "".join(
        "".join(output.get("text", "")) for cell in notebook["cells"] for output in cell.get("outputs", [])
    )
    assert "smallest and largest ratio: 1.0 1.0" in printed


@pytest.mark.slow
def test_lab_10_rehearses_stable_diffusion_without_network_or_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(10, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120
    assert record["metrics"]["accuracy"] == {"before": 0, "after": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10.ipynb", "10.json"]


@pytest.mark.slow
def test_lab_08_rehearses_the_real_model_without_network_or_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(8, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120


@pytest.mark.slow
def test_lab_15_rehearses_wan_without_network_or_cuda(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(15, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120
