"""The glossary: every entry is used, and each chapter leads to it at the first use, without building the book."""

import re

import pytest

from pixelpolicy.book.glossary import Term, linked, place_glossary, prose_of, read_glossary, uses
from pixelpolicy.errors import BookError

ROLE = re.compile(r"\{term\}`([^`<]*) <([^`]*)>`")


@pytest.fixture(scope="module")
def glossary(root):
    return read_glossary(root / "book")


@pytest.fixture(scope="module")
def chapters(root):
    return {path: path.read_text(encoding="utf-8") for path in sorted((root / "chapters").glob("[0-9]*.md"))}


def test_every_entry_is_used(glossary, chapters):
    terms, symbols = glossary
    used = {name for path, text in chapters.items() for name in uses(text, int(path.name[:2]), terms)}
    assert {entry.term for entry in terms} - used == set()
    whole = "\n".join(chapters.values())
    assert [entry.symbol for entry in symbols if entry.found not in whole] == []
    assert len({entry.symbol for entry in symbols}) == len(symbols)


def test_each_chapter_leads_there_once_a_term_and_at_its_first_use(glossary, chapters):
    terms, _ = glossary
    for path, text in chapters.items():
        number = int(path.name[:2])
        made, places = linked(text, number, terms), uses(text, number, terms)
        assert ROLE.sub(lambda found: found[1], made) == text, f"{path.name}: more than links was changed"
        names = [name for _, name in ROLE.findall(made)]
        assert len(names) == len(set(names)) >= 10, path.name
        prose = prose_of(text)
        for entry in terms:
            if entry.term in names:
                start = places[entry.term][0]
                first = entry.pattern.search(prose)
                overlapped = [other for other in names if other != entry.term]
                assert first.start() <= start and (start <= first.end() or overlapped), (path.name, entry.term)


def test_words_of_definition_are_those_of_the_design(glossary):
    says = {entry.term: entry.says for entry in glossary[0]}
    for name, words in {
        "accuracy": "strict verifier accepts", "diversity": "accepted samples", "KL divergence": "to the base",
        "best of N": "untouched base", "rollout": "log-probabilities",
    }.items():  # fmt: skip
        assert words in says[name], name


TEXT = """# A policy of titles

:::{note}
:class: policy
:::

```{figure} policy.png
:alt: A policy.

A policy in a caption.
```

See `policy`, $policy$, [policy](policy.md), {doc}`policy <policy>`, <!-- policy --> and
$$
policy
$$

| policy | in a table |

```python
policy = 1
```

Here at last a **policy
gradient**, and one policy more. Policies end.
"""


def test_only_prose_is_linked():
    terms = [Term("policy", "It acts.", r"\bpolic(?:y|ies)\b"), Term("policy gradient", "It climbs.")]
    made = linked(TEXT, 1, terms)
    assert made.count("{term}") == 2
    assert (
        "a **{term}`policy\ngradient <policy gradient>`**, and one {term}`policy <policy>` more. Policies end." in made
    )
    assert ROLE.sub(lambda found: found[1], made) == TEXT


def test_chapters_that_mean_something_else_are_left_alone():
    terms = [Term("velocity", "Of a flow.", not_in=(15,))]
    assert "{term}" in linked("The velocity.", 14, terms) and linked("The velocity.", 15, terms) == "The velocity."


def test_a_part_of_what_was_found_can_be_linked():
    terms = [Term("base", "Untouched.", r"\b(?:the|our) (?P<link>base)\b")]
    assert linked("A base, our base.", 1, terms) == "A base, our {term}`base <base>`."


@pytest.mark.parametrize(
    "entries, fault",
    [
        ("terms: [{term: a, says: b}, {term: A, says: c}]\nsymbols: []", "has a twice"),
        ("terms: [{term: a, means: b}]\nsymbols: []", "means"),
        ("terms: []", "symbols"),
    ],
)
def test_a_faulty_entry_is_named(tmp_path, entries, fault):
    (tmp_path / "glossary.yaml").write_text(entries)
    with pytest.raises(BookError, match=fault):
        read_glossary(tmp_path)


def test_the_page_leads_back_to_the_first_chapter(tmp_path):
    (tmp_path / "chapters").mkdir()
    (tmp_path / "glossary.yaml").write_text(
        "terms: [{term: policy, says: It acts.}]\nsymbols: [{symbol: '\\pi', found: '\\pi', says: a policy}]"
    )
    (tmp_path / "chapters" / "02-b.md").write_text("# 2\n\nA policy $\\pi$.\n")
    (tmp_path / "chapters" / "01-a.md").write_text("# 1\n\nNothing.\n")
    place_glossary(tmp_path)
    page = (tmp_path / "glossary.md").read_text()
    assert "policy\n  It acts. {doc}`chapter 2 <chapters/02-b>`" in page
    assert "| $\\pi$ | a policy | {doc}`chapter 2 <chapters/02-b>` |" in page
    assert "A {term}`policy <policy>` $" in (tmp_path / "chapters" / "02-b.md").read_text()
    assert not (tmp_path / "glossary.yaml").exists()
