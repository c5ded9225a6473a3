"""Labs under the profile gpu on a machine without CUDA: the real model's code path, with its tiny twin."""

import json
from pathlib import Path

import pytest

from pixelpolicy.course.run import run_lab

SOLUTIONS = sorted(Path(__file__).parents[2].glob("solutions/[0-9][0-9]-*.py"))
LABS = [int(lab.name[:2]) for lab in SOLUTIONS if "real_model()" in lab.read_text(encoding="utf-8")]
LABS = [lab for lab in LABS if lab >= 8]  # those before train no real model: they only look at one
PRINTED = dict.fromkeys((9, 12), "smallest and largest ratio: 1.0 1.0") | {16: "reward/red all round"}
# A random twin draws nothing that the verifier takes for a shape, so that nothing is to be learnt from it.
WITHOUT_SHAPES = (9, 10, 12, 13)
NOTHING_ELSE = (10, 12, 13)  # is written than the notebook and the record


@pytest.mark.slow
@pytest.mark.parametrize("lab", LABS)
def test_a_lab_rehearses_its_real_model_without_network_or_cuda(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELPOLICY_RESULTS", str(tmp_path))
    monkeypatch.setenv("PIXELPOLICY_SEED", "0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    record = run_lab(lab, "gpu", network=False, show=False)
    assert record["profile"] == "gpu" and record["metrics"]["rehearsal"] == 1
    assert record["cpu_seconds"] < 120
    if lab in WITHOUT_SHAPES:
        assert record["metrics"]["accuracy"] == {"before": 0, "after": 0}
    if lab in NOTHING_ELSE:
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{lab:02}.ipynb", f"{lab:02}.json"]
    notebook = json.loads((tmp_path / f"{lab:02}.ipynb").read_text(encoding="utf-8"))
    outputs = (output for cell in notebook["cells"] for output in cell.get("outputs", []))
    assert PRINTED.get(lab, "") in "".join("".join(output.get("text", "")) for output in outputs)
