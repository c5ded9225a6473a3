"""The literature as data: the course's file is sound by formulas of its own, and each kind of fault is named."""

import dataclasses
import re
from importlib import resources

import pytest
import yaml

from pixelpolicy import atlas
from pixelpolicy.atlas import data
from pixelpolicy.errors import AtlasError, PixelPolicyError

TEXT = (resources.files("pixelpolicy.atlas") / "methods.yaml").read_text(encoding="utf-8")
GOOD = """\
- key: black2023ddpo
  name: DDPO
  title: Training Diffusion Models with Reinforcement Learning
  authors: Black et al.
  authors_checked: true
  year: 2023
  arxiv: "2305.13301"
  venue: ICLR 2024
  venue_checked: true
  domain: image
  family: ppo
  reward: JPEG size
  base_model: SD 1.4
  code: https://github.com/kvablack/ddpo-pytorch
  in_survey: unknown
  one_line: A line.
  source: https://example.org/list (README.md)
"""
SECOND = GOOD.replace("black2023ddpo", "other2023").replace('"2305.13301"', '""').replace("with Reinforcement", "by")


@pytest.fixture(scope="module")
def entries():
    return atlas.load()


def raw(field: str) -> list[str]:
    """The values of a field as they stand in the file, read without YAML."""
    return [value.strip("'\"") for value in re.findall(rf"(?m)^[- ] {field}: *(.*)$", TEXT)]


def test_what_is_loaded_is_what_stands_in_the_file(entries):
    assert len(entries) == TEXT.count("\n- key: ") > 300
    assert [e.key for e in entries] == raw("key")
    assert [e.arxiv for e in entries] == raw("arxiv")
    assert [str(e.year) for e in entries] == raw("year")
    assert [str(e.authors_checked).lower() for e in entries] == raw("authors_checked")
    assert [e.domain for e in entries] == raw("domain") and set(raw("domain")) == set(atlas.DOMAINS)
    assert [e.family for e in entries] == raw("family") and set(raw("family")) == set(atlas.FAMILIES)


def test_ids_and_addresses_of_the_file_are_well_formed_and_given_once():
    ids = [text for text in raw("arxiv") if text]
    assert len(ids) == len(set(ids)) > 250 and len(raw("key")) == len(set(raw("key")))
    for text in ids:
        stamp, number = text.split(".")
        assert 1 <= int(stamp[2:]) <= 12 and 700 < int(stamp) < 2700
        assert number.isdigit() and len(number) == (5 if int(stamp) > 1500 else 4)
    for address in filter(None, raw("code")):
        assert re.match(r"https://github\.com/[\w.-]+/[\w.-]+", address)
    assert all(raw("source"))


def test_the_survey_is_cited_in_its_version_of_record(entries):
    (survey,) = (entry for entry in entries if entry.in_survey == "is the survey")
    assert survey.title == "Integrating Reinforcement Learning with Visual Generative Models: Foundations and Advances"
    assert (survey.year, survey.arxiv) == (2026, "2508.10316")
    assert survey.venue == "Vicinagearth 3(1), article 2" and survey.doi == "10.1007/s44336-025-00030-z"


def test_enough_is_known(entries):
    """Figures that the atlas promises its readers; each printed for the record."""
    known = {
        "with id or DOI, and source": sum(bool((e.arxiv or e.doi) and e.source) for e in entries),
        "first author checked": sum(e.authors_checked for e in entries),
        "with a kind of reward": sum(e.reward_kinds != ("not stated",) for e in entries),
        "with a line of ours": sum(bool(e.one_line) for e in entries),
    }
    print(known)
    assert known["with id or DOI, and source"] >= 290 and known["first author checked"] >= 200
    assert known["with a kind of reward"] >= 250 and known["with a line of ours"] >= 300


def test_kinds_of_reward_are_told_by_words(entries):
    kinds = {entry.key: set(entry.reward_kinds) for entry in entries}
    assert kinds["liu2025flowgrpo"] == {"a rule or verifier", "people's preferences"}
    assert kinds["schulman2017ppo"] == {"return of a task"}
    assert kinds["kupyn2025epipolar"] == {"physics or geometry"}
    assert kinds["meng2025identity"] == {"not stated"}
    assert {kind for found in kinds.values() for kind in found} == {*data.REWARD_KINDS, data.NOT_STATED}


def test_where_an_entry_is_read(entries):
    address = {entry.key: entry.address for entry in entries}
    assert address["black2023ddpo"] == "https://arxiv.org/abs/2305.13301"
    assert address["watkins1992q"] == "https://doi.org/10.1007/BF00992698"
    assert address["silver2016alphago"] == "https://www.nature.com/articles/nature16961"
    assert address["bellman1957dp"] == ""


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("black2023ddpo", "fine-tuning"),
        ("liu2025flowgrpo", "fine-tuning"),
        ("singhal2025fk", "fine-tuning"),
        ("ganin2018spiral", "structural"),
        ("ha2018world", "structural"),
        ("schulman2017ppo", "groundwork"),
        ("rombach2021ldm", "groundwork"),
        ("ghosh2023geneval", "groundwork"),
        ("liang2025survey", "groundwork"),
    ],
)
def test_role_follows_from_domain_and_family(entries, key, role):
    assert {entry.key: entry.role for entry in entries}[key] == role


def test_an_entry_cannot_be_changed(entries):
    with pytest.raises(dataclasses.FrozenInstanceError):
        entries[0].title = "Another"


def test_good_entries_are_taken():
    first, second = data.parse(GOOD + SECOND)
    assert first.arxiv == "2305.13301" and first.authors_checked is True and first.year == 2023
    assert second.key == "other2023" and second.arxiv == ""
    old = GOOD.replace("2305.13301", "hep-th/9901001").replace("2023\n", "1999\n")
    assert data.parse(old)[0].arxiv == "hep-th/9901001"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("  name: DDPO", "  name: DDPO\n  pages: 1", "field 'pages' is unknown"),
        ("  name: DDPO", "  name: DDPO\n  doi: 10.1/2", "doi is '10.1/2'; expected such as"),
        ("  name: DDPO", "  name: DDPO\n  doi: https://doi.org/10.1007/BF1", "with no address before it"),
        ("  name: DDPO", "  name: DDPO\n  runs: lab 9", "runs names 'lab 9'; expected such as"),
        ("  name: DDPO", "  name: DDPO\n  runs: lab 09, finetune.magic", "runs names 'finetune.magic'"),
        ("authors_checked: true", "authors_checked: false\n  authors_source: a list", "authors_source is given"),
        ("one_line: A line.", "one_line: Saves 34% of the steps.", "one_line says '34%'"),
        ("one_line: A line.", "one_line: First of its kind.", "one_line says 'First'"),
        ("reward: JPEG size", "reward: 798k human choices", "reward says '798k'"),
        ("  reward: JPEG size\n", "", "field 'reward' is missing"),
        ("  name: DDPO", "  name: DDPO\n  name: DDPO again", "field name is given twice"),
        ("key: black2023ddpo", "key: black2023ddpo\n  key: black", "field key is given twice"),
        ('"2305.13301"', "2305.13301", "arxiv is 2305.13301; expected str; put it in quotes"),
        ('"2305.13301"', '"2313.13301"', "arxiv is '2313.13301'; expected"),
        ('"2305.13301"', '"2305.1330"', "arxiv is '2305.1330'; expected"),
        ('"2305.13301"', '"1405.13301"', "arxiv is '1405.13301'; expected"),
        ('"2305.13301"', '"2305.13301v2"', "arxiv is '2305.13301v2'; expected"),
        ('"2305.13301"', '"arXiv:2305.13301"', "arxiv is 'arXiv:2305.13301'; expected"),
        ('"2305.13301"', '"cs/0812004"', "arxiv is 'cs/0812004'; expected"),
        ('"2305.13301"', '"cs/031200"', "arxiv is 'cs/031200'; expected"),
        ('"2305.13301"', '"2405.13301"', "year is 2023, but arXiv 2405.13301 is of 2024"),
        ("year: 2023", "year: 23", "year is 23; expected four digits"),
        ("year: 2023", "year: '2023'", "year is '2023'; expected int"),
        ("year: 2023", "year: true", "year is True; expected int"),
        ("authors_checked: true", "authors_checked: 1", "authors_checked is 1; expected bool"),
        ("domain: image", "domain: picture", "domain is 'picture'; expected one of foundation, image"),
        ("family: ppo", "family: PPO", "family is 'PPO'; expected one of value"),
        ("code: https://github.com/", "code: ", "code is 'kvablack/ddpo-pytorch'; expected a whole address"),
        ("https://github.com/kvablack", "https://git hub.com/kvablack", "expected a whole address"),
        ("source: https://example.org/list (README.md)", "source: ''", "source is empty; say where"),
        ("source: https://example.org/list (README.md)", "source: ' '", "source is empty; say where"),
        ("authors: Black et al.", "authors: ''", "authors_checked is true and authors is empty"),
        ("venue: ICLR 2024", "venue: ''", "venue_checked is true and venue is empty"),
        ("authors: Black et al.", "authors: Bl{\\'a}ck et al.", "authors holds { \\ }; write it as a reader sees it"),
        ("title: Training Diffusion", "title: Training $\\nabla$", "title holds $ \\ $; write it"),
        ("title: Training Diffusion Models with Reinforcement Learning", "title: ''", "title is empty"),
    ],
)
def test_each_kind_of_fault_is_told_with_its_key(old, new, words):
    assert GOOD.count(old) == 1
    with pytest.raises(AtlasError) as raised:
        data.parse(SECOND + GOOD.replace(old, new))
    message = str(raised.value)
    assert words in message and "black2023ddpo: " in message and "other2023: " not in message


def test_the_form_asks_for_what_an_entry_has(root):
    form = yaml.safe_load((root / ".github/ISSUE_TEMPLATE/paper.yml").read_text(encoding="utf-8"))
    fields = {part["id"]: part for part in form["body"] if "id" in part}
    assert set(fields) <= set(data.TYPES) and {"title", "source", "arxiv", "family", "domain"} <= set(fields)
    assert fields["domain"]["attributes"]["options"] == list(data.DOMAINS)
    assert fields["family"]["attributes"]["options"] == list(data.FAMILIES)
    asked = {name for name, part in fields.items() if part.get("validations", {}).get("required")}
    assert asked == {"title", "source", "domain", "family"}


def test_twins_are_told():
    with pytest.raises(AtlasError, match="black2023ddpo, black2023ddpo: key 'black2023ddpo' is given 2 times"):
        data.parse(GOOD + GOOD.replace("2305.13301", "2305.13302"))
    with pytest.raises(AtlasError, match="black2023ddpo, other2023: arxiv '2305.13301' is given 2 times"):
        data.parse(GOOD + GOOD.replace("black2023ddpo", "other2023"))
    with pytest.raises(AtlasError, match="other2023, another2023: title 'training diffusion models by learning' is"):
        data.parse(SECOND + SECOND.replace("other2023", "another2023").replace("Diffusion Models", "diffusion models"))
    no_id = SECOND.replace("other2023", "another2023").replace("Training", "Tuning")
    assert len(data.parse(SECOND + no_id)) == 2  # two papers without an id are no twins
    with_doi = [text.replace("  name: DDPO", "  name: DDPO\n  doi: 10.1007/BF1") for text in (SECOND, no_id)]
    with pytest.raises(AtlasError, match="other2023, another2023: doi '10.1007/bf1' is given 2 times"):
        data.parse("".join(with_doi))


def test_every_fault_is_told_at_once_and_a_malformed_key_too():
    bad = GOOD.replace("domain: image", "domain: x").replace("family: ppo", "family: y") + SECOND.replace(
        "other2023", "Other 2023"
    )
    with pytest.raises(AtlasError) as raised:
        data.parse(bad)
    assert "3 faults" in str(raised.value) and "Other 2023: the key must be" in str(raised.value)
    with pytest.raises(AtlasError, match=r"entry 2 \(no key\): field 'key' is missing"):
        data.parse(GOOD + SECOND.replace("- key: other2023\n  name", "- name"))


@pytest.mark.parametrize("text", ["", "key: black2023ddpo", "- one\n- two", "42"])
def test_what_is_no_list_of_entries_is_refused(text):
    with pytest.raises(AtlasError, match="holds no list of entries"):
        data.parse(text)


def test_what_is_no_yaml_or_no_file_is_refused(tmp_path):
    with pytest.raises(AtlasError, match="is not the YAML it should be"):
        data.parse("- key: [")
    with pytest.raises(AtlasError, match="nowhere.yaml cannot be read"):
        atlas.load(tmp_path / "nowhere.yaml")
    assert issubclass(AtlasError, PixelPolicyError)
    (tmp_path / "mine.yaml").write_text(GOOD, encoding="utf-8")
    assert [entry.name for entry in atlas.load(tmp_path / "mine.yaml")] == ["DDPO"]


@pytest.mark.parametrize(
    "text", ["0704.0001", "1412.9999", "1501.00001", "2305.13301", "cs/0312004", "math.GT/0309136"]
)
def test_arxiv_ids_that_are(text):
    assert data.valid_arxiv(text)


@pytest.mark.parametrize(
    "text",
    ["0703.0001", "1412.99999", "1501.0001", "2300.13301", "2305.133011", "cs/0704001", "cs/9107001", "CS/0312004"],
)
def test_arxiv_ids_that_are_not(text):
    assert not data.valid_arxiv(text)


def test_years_of_arxiv_ids():
    assert [data.arxiv_year(text) for text in ("hep-th/9901001", "cs/0312004", "0704.0001", "2607.15273")] == [
        1999, 2003, 2007, 2026,
    ]  # fmt: skip
