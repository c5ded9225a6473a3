"""The capstone's ledger: what a query costs, what is refused, and that nothing is told that is not written down."""

import json
import os
import re

import pytest
import torch
from typer.testing import CliRunner

from pixelpolicy.course import capstone
from pixelpolicy.errors import CheckpointError, LabError
from pixelpolicy.generators import checkpoint
from pixelpolicy.generators.image import build


def twin(seed: int = 7, width: int = 32):
    torch.manual_seed(seed)
    generator = build(width=width, layers=1, channels=(8, 8, 8))
    for module in (generator.transformer, generator.vae, generator.prompt_encoder):
        module.eval().requires_grad_(False)
    return generator


@pytest.fixture
def base(monkeypatch):
    monkeypatch.setattr(capstone, "load", lambda name: twin() if name == capstone.BASE else checkpoint.load(name))
    return twin()


@pytest.fixture
def ledger(tmp_path, base):
    return capstone.open_ledger(tmp_path / "capstone.json", budget=2, per_kind={"query": 1, "submission": 2})


def weights(base, path, amount=0.01):
    """A trained generator's difference, each `amount` another one."""
    state = base.transformer.state_dict()
    tuned = {name: value + amount for name, value in state.items()}
    checkpoint.save_weights(checkpoint.difference(tuned, state), path, base=base)
    return path


def test_a_query_is_charged_once_written_down_and_told_again_for_nothing(tmp_path, base, ledger):
    file = weights(base, tmp_path / "one.safetensors")
    told = ledger.query(file, "one")
    assert (ledger.spent, ledger.left) == (1, 1)
    assert 0 <= told.scores.gold <= 1 and told.scores.gold_se >= 0
    again = capstone.open_ledger(ledger.path, per_kind=ledger.per_kind)
    assert again.entries == [told] and again.left == 1
    assert again.query(file) == told and again.spent == 1


def test_the_budget_ends_and_the_first_submission_stays_free(tmp_path, base, ledger):
    files = [weights(base, tmp_path / f"{n}.safetensors", 0.01 * n) for n in range(1, 5)]
    for file in files[:2]:
        ledger.query(file)
    with pytest.raises(LabError, match="all 2 gold queries .* first submission is still free"):
        ledger.query(files[2])
    before = ledger.path.read_bytes()
    assert ledger.submit(files[2], "third").asked == 2
    with pytest.raises(LabError, match="nothing was scored$"):
        ledger.submit(files[3], "fourth")
    assert len(ledger.leaderboard()) == 1 and ledger.path.read_bytes() != before


def test_a_second_submission_costs_a_query(tmp_path, base, ledger):
    for n in (1, 2):
        ledger.submit(weights(base, tmp_path / f"{n}.safetensors", 0.01 * n), f"entry {n}")
    assert ledger.spent == 1
    golds = [entry.scores.gold for entry in ledger.leaderboard()]
    assert golds == sorted(golds, reverse=True) and len(golds) == 2
    with pytest.raises(LabError, match="has no name"):
        ledger.submit(tmp_path / "1.safetensors", " ")


def test_a_whole_generator_scores_as_its_difference_does(tmp_path, base, ledger):
    file = weights(base, tmp_path / "one.safetensors")
    tuned = checkpoint.apply_difference(twin(), file)
    told = ledger.query(file)
    assert ledger.query(tuned) == told
    checkpoint.save(tuned, tmp_path / "folder", "a card")
    assert ledger.query(tmp_path / "folder") == told and ledger.spent == 1


def test_weights_that_are_missing_altered_foreign_or_not_finite_are_refused_and_cost_nothing(tmp_path, base, ledger):
    with pytest.raises(CheckpointError, match="there are no weights .*save_weights"):
        ledger.query(tmp_path / "none.safetensors")
    file = weights(base, tmp_path / "one.safetensors")
    content = file.read_bytes()
    file.write_bytes(content[:-2] + b"\x00\x01")
    with pytest.raises(CheckpointError, match="altered"):
        ledger.query(file)
    file.write_bytes(content[:-50])
    with pytest.raises(CheckpointError, match="truncated"):
        ledger.query(file)
    foreign = twin(seed=8)
    with pytest.raises(CheckpointError, match="another base"):
        ledger.submit(weights(foreign, tmp_path / "foreign.safetensors"), "foreign")
    with pytest.raises(CheckpointError, match="does not come of the base"):
        ledger.query(foreign)
    broken = twin()
    next(broken.transformer.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not all finite"):
        ledger.query(broken)
    assert ledger.spent == 0 and not ledger.path.exists()


def test_what_cannot_be_written_down_is_not_told(tmp_path, base, ledger, monkeypatch):
    file = weights(base, tmp_path / "one.safetensors")
    ledger.query(file)
    before = ledger.path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabError, match="No space left"):
        ledger.query(base)
    assert ledger.path.read_bytes() == before and ledger.spent == 1
    assert sorted(p.name for p in tmp_path.glob("*capstone*")) == ["capstone.json"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": 2, "budget": 3, "entries": []}', '{"format": 1, "entries": 3}']
)
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path, text):
    path = tmp_path / "capstone.json"
    path.write_text(text)
    with pytest.raises(LabError, match="cannot be read"):
        capstone.open_ledger(path)
    assert path.read_text() == text


def test_the_command(tmp_path, base, monkeypatch):
    from pixelpolicy.cli import app

    monkeypatch.setenv("PIXELPOLICY_ROOT", str(tmp_path))
    monkeypatch.setattr(capstone, "PER_KIND", {"query": 1, "submission": 1})
    file = weights(base, tmp_path / "one.safetensors")

    def run(*words):
        return CliRunner().invoke(app, ["capstone", *words])

    assert "no submission" in run("leaderboard").output
    asked = run("query", str(file))
    assert asked.exit_code == 0 and re.search(r"gold 0\.\d{3}", asked.output) and "19 queries left" in asked.output
    sent = run("submit", str(file), "--name", "mine")
    assert sent.exit_code == 0 and "mine" in run("leaderboard").output
    assert len(json.loads((tmp_path / "work" / "capstone.json").read_text())["entries"]) == 2
    missing = run("query", str(tmp_path / "none.safetensors"))
    assert missing.exit_code == 1 and "Traceback" not in missing.output
