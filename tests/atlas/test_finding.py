"""`pixelpolicy atlas`: what is found, and what is handed on."""

import csv
import io

import pytest
from typer.testing import CliRunner

from pixelpolicy import atlas, cli
from pixelpolicy.atlas import finding
from pixelpolicy.errors import AtlasError

run = CliRunner().invoke


@pytest.fixture(scope="module")
def entries():
    return atlas.load()


def keys(found) -> set[str]:
    return {entry.key for entry in found}


def test_every_word_must_occur(entries):
    found = keys(atlas.search(entries, ["flow", "GRPO"]))
    assert {"liu2025flowgrpo", "xue2025dancegrpo"} <= found and "black2023ddpo" not in found
    assert found == keys(atlas.search(entries, ["grpo"])) & keys(atlas.search(entries, ["flow"]))
    assert keys(atlas.search(entries)) == keys(entries)
    assert atlas.search(entries, ["zymurgical"]) == []


def test_accents_and_ids_are_found(entries):
    assert finding.plain("Schrödinger") == "schrodinger"
    assert keys(atlas.search(entries, ["2305.13301"])) == {"black2023ddpo"}


def test_domain_and_family_narrow(entries):
    found = atlas.search(entries, domain="video", family="dpo")
    assert found and all((e.domain, e.family) == ("video", "dpo") for e in found)
    with pytest.raises(AtlasError, match="no domain 'pictures'; those there are: foundation, image"):
        atlas.search(entries, domain="pictures")
    with pytest.raises(AtlasError, match="no family 'ddpo'"):
        atlas.search(entries, family="ddpo")


def test_what_was_not_checked_is_neither_found_nor_handed_on(entries):
    unchecked = next(e for e in entries if e.authors and not e.authors_checked)
    assert unchecked.authors.split()[0] not in finding.searched(unchecked).replace(unchecked.title, "")
    rows = {row["key"]: row for row in csv.DictReader(io.StringIO(atlas.csv_text(entries)))}
    assert len(rows) == len(entries)
    for entry in entries:
        row = rows[entry.key]
        assert row["authors"] == (entry.authors if entry.authors_checked else "")
        assert row["venue"] == (entry.venue if entry.venue_checked else "")
        assert row["title"] == entry.title and row["role"] == entry.role and row["address"] == entry.address


def test_the_command(tmp_path):
    done = run(cli.app, ["atlas", "flow", "grpo", "--domain", "image"])
    assert done.exit_code == 0 and "https://arxiv.org/abs/2505.05470" in done.output
    assert "run it: lab 07, lab 12, finetune.grpo" in done.output
    table, bib = tmp_path / "found.csv", tmp_path / "found.bib"
    done = run(cli.app, ["atlas", "--family", "reward-gradient", "--csv", str(table), "--bibtex", str(bib)])
    assert done.exit_code == 0 and "written:" in done.output
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert {row["family"] for row in rows} == {"reward-gradient"} and f"{len(rows)} works." in done.output
    assert bib.read_text(encoding="utf-8").count("\n@misc{") == len(rows) > 15


def test_the_command_says_what_is_wrong(tmp_path):
    done = run(cli.app, ["atlas", "--domain", "pictures"])
    assert done.exit_code == 1
    (tmp_path / "file").write_text("", encoding="utf-8")
    done = run(cli.app, ["atlas", "grpo", "--csv", str(tmp_path / "file" / "found.csv")])
    assert done.exit_code == 1 and (tmp_path / "file").read_text(encoding="utf-8") == ""
