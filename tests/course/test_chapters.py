"""Chapters: their code runs and agrees with the library, and each has what the house style asks of a chapter.

A chapter with a comment ``<!-- run`` ... ``-->`` has its code run, that of such comments and of fences marked
``python``, in order and in one namespace. The comments hold what the reader need not see: the tensors that a block
takes for granted, and the asserts on its result. In other chapters the code is only parsed.
"""

import importlib
import os
import re
from pathlib import Path

import pytest

CHAPTERS = sorted((Path(__file__).parents[2] / "chapters").glob("*.md"))
CODE = re.compile(r"^```python\n(?P<shown>.*?)^```$|^<!-- run\n(?P<hidden>.*?)^-->$", re.M | re.S)
FIGURE = re.compile(r"^```\{figure\} (?P<path>\S+)\n(?P<options>(?::[^\n]*\n)*)", re.M)
CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]*)`")
FEWEST, MOST = 1_500, 3_000


def prose(text: str) -> list[str]:
    """The words of a chapter's sentences: no code, formulas, tables, comments or options, but captions and boxes."""
    text = re.sub(r"<!--.*?-->|^\$\$.*?^\$\$$", "", text, flags=re.M | re.S)
    text = re.sub(r"^```[a-z]+\n.*?^```$|^```\{(code|math)[^\n]*\n.*?^```$", "", text, flags=re.M | re.S)
    text = re.sub(r"^(```.*|:[\w-]+:.*|\|.*|:::.*)$", "", text, flags=re.M)
    text = re.sub(r"\{[\w:]+\}`[^`]*`|\$[^$]*\$", "", text)
    return re.findall(r"[A-Za-z][\w'-]*", re.sub(r"\]\([^)]*\)", "]", text))


def run(text: str, name: str) -> dict:
    """Run a chapter's code, or parse it where nothing is given; a traceback names the chapter's own lines."""
    namespace = {"__name__": "chapter"}
    prepared = "\n<!-- run\n" in text
    for block in CODE.finditer(text):
        group = "shown" if block["shown"] is not None else "hidden"
        padding = "\n" * text.count("\n", 0, block.start(group))
        code = compile(padding + block[group], name, "exec")
        if prepared:
            exec(code, namespace)
    return namespace


def faults(text: str, folder: Path) -> list[str]:
    """What a chapter lacks, in words."""
    found, opening = [], text.split("\n## ")[0]
    if not FIGURE.search(opening):
        found.append("it does not open with a figure")
    if not re.search(r"^\*\*[^*]+\?\*\*$", opening, re.M):
        found.append("it does not open with a question in bold")
    if not FEWEST <= (count := len(prose(text))) <= MOST:
        found.append(f"{count} words of prose, not {FEWEST} to {MOST}")
    for figure in FIGURE.finditer(text):
        if not re.search(r"^:alt: +\S", figure["options"], re.M):
            found.append(f"{figure['path']} has no alternative text")
        if not (folder / figure["path"]).exists():
            found.append(f"{figure['path']} is not there")
    if re.search(r"!\[\s*\]\(|^```\{image\}", text, re.M):
        found.append("a picture without alternative text, or outside a figure")
    fences = re.findall(r"^.*```.*$", text, re.M)
    if any(not line.startswith("```") or (line == "```") != index % 2 for index, line in enumerate(fences)):
        found.append("a fence that is not closed, or not on a line of its own")
    if not CODE.search(text):
        found.append("no code")
    if not CITED.search(text):
        found.append("no citation")
    if text.count("\n## In the literature\n") != 1:
        found.append("no section, In the literature")
    return found


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_has_what_the_style_asks(path):
    assert faults(path.read_text(encoding="utf-8"), path.parent) == []


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_the_code_of_a_chapter_runs(path):
    text = path.read_text(encoding="utf-8")
    names = run(text, str(path))
    assert path.stem != "12-grpo" or "window" in names  # it was run, not only parsed


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_what_a_chapter_cites_is_in_the_bibliography(path, root):
    bibliography = root / "book" / "references.bib"
    if not bibliography.exists() and os.environ.get("CI") != "true":
        pytest.skip("book/references.bib is not there")
    known = set(re.findall(r"^@\w+\{([^,\s]+),", bibliography.read_text(encoding="utf-8"), re.M))
    cited = {key.strip() for keys in CITED.findall(path.read_text(encoding="utf-8")) for key in keys.split(",")}
    assert cited - known == set()


@pytest.mark.parametrize(
    "name",
    [
        "08-rewards",
        "09-ddpo",
        "10-reward-gradient",
        "11-preferences",
        "12-grpo",
        "13-forward-process",
        "14-autoregressive",
        "16-three-d",
        "17-four-d",
        "18-structure",
    ],
)
def test_a_chapter_shows_the_results_of_the_records(root, monkeypatch, name):
    """Also where there are no records yet: it then says so."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    chapter = importlib.import_module(f"figure_{name[:2]}").CHAPTER
    text = chapter.path.read_text(encoding="utf-8")
    assert chapter.block.search(text), "the markers of the results are gone"
    assert text == chapter.with_results(text), f"make it anew: python benchmarks/figure_{name[:2]}.py --table"


WHOLE = (
    """# 1. Title

```{figure} figure.png
:alt: A figure.

A caption.
```

**Is it so?**

"""
    + "word " * FEWEST
    + """

## In the literature

{cite:p}`someone2020`

<!-- run
x = 2
-->

```python
y = x + 1
```
"""
)


def test_the_chapter_that_the_faults_are_made_of_has_none(tmp_path):
    (tmp_path / "figure.png").touch()
    assert faults(WHOLE, tmp_path) == []
    assert run(WHOLE, "whole")["y"] == 3


@pytest.mark.parametrize(
    "old, new, fault",
    [
        (":alt: A figure.\n", "", "figure.png has no alternative text"),
        (":alt: A figure.", ":alt: ", "figure.png has no alternative text"),
        ("figure.png", "other.png", "other.png is not there"),
        ("**Is it so?**", "It is so.", "it does not open with a question in bold"),
        ("**Is it so?**", "**Is it so?**\n\n![](figure.png)", "a picture without alternative text"),
        ("```{figure}", "## First\n\n```{figure}", "it does not open with a figure"),
        ("word " * 20, "", "words of prose"),
        ("word ", "word " * 2 * MOST, "words of prose"),
        ("{cite:p}`someone2020`", "", "no citation"),
        ("## In the literature", "## What is known", "no section, In the literature"),
        ("A caption.\n```", "A caption. ```", "a fence that is not closed"),
        ("A caption.\n```", "A caption.", "a fence that is not closed"),
    ],
)
def test_each_fault_is_found(tmp_path, old, new, fault):
    (tmp_path / "figure.png").touch()
    text = WHOLE.replace(old, new, 1)
    assert fault in " ".join(faults(text, tmp_path))


def test_words_are_those_of_sentences(tmp_path):
    hidden = (
        "```python\nmany words = here\n```\n<!-- run\nmore of them\n-->\n| a | table |\n$$\n\\alpha x\n$$\n:alt: text\n"
    )
    assert prose(hidden) == []
    shown = "```{admonition} A box\n:class: note\n\nTwo words {cite:p}`key` [linked](file.md) $x$.\n```\n"
    assert prose(shown) == ["Two", "words", "linked"]


def test_a_failing_block_names_its_line():
    with pytest.raises(AssertionError) as failure:
        run("<!-- start -->\n<!-- run\nx = 1\n-->\n```python\nassert x == 2\n```\n", "chapter.md")
    last = failure.traceback[-1]
    assert (str(last.path).endswith("chapter.md"), last.lineno + 1) == (True, 6)


def test_unprepared_code_is_parsed_alone():
    assert "x" not in run("```python\nx = unknown\n```\n", "chapter.md")
    with pytest.raises(SyntaxError):
        run("```python\nx = = 1\n```\n", "chapter.md")
