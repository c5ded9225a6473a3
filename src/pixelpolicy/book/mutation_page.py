"""The page that says how good the checks are, made from `benchmarks/mutation/` when the book is built."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pixelpolicy.course.mutation_score import LATE, RAISED, REPEATS, SLOWER, Score, scores
from pixelpolicy.course.source import read_source, sources

NAME = "mutation"
TEXT = """# How good are the checks?

A check that lets a wrong answer pass does harm: a student trains on it and blames the method. So the checks of this
course are themselves examined. Each solution is broken on purpose, in one small place at a time: a sign turned, an axis
exchanged, a term dropped, a gradient detached. Each broken copy, a *mutant*, is handed to the exercise's check as a
student's answer would be.

{summary}

{partial}

## By lab

{labs}

A mutant is **caught** where the check does not pass it. Some are caught because they *raise* an error of their own (a
wrong axis often does), a few because they are *late*: they loop on, and are ended after {slower} times the CPU time of
the solution (half a second at least). Both count as caught and are told apart in the columns. **Equivalent** mutants do
the same as the solution on every input that the exercise allows; no check can refuse them, and they are left out of the
share. They are listed below, each with its reason; most are gradients cut where nothing is trained. **By hand** are the
wrong answers that an author wrote down because students give them.

## By kind of mistake

{operators}

## By exercise

{exercises}

## Mutants that pass

{survivors}

## Mutants that are no mistakes

{equivalent}

## How it is made

`make mutation` makes the mutants from the solutions' syntax trees, always the same ones, and runs what has changed
since the last time: the record of an exercise is tied to its solution, its check and the mistakes by hand.
`src/pixelpolicy/course/mutation.py` holds the operators, a few lines each. Signatures, docstrings, texts of errors and
casts of numbers are not broken. `tests/mutants/equivalent.yaml` lists the equivalent mutants; a test fails where an
entry no longer names a mutant. A check is **flaky** where it says different things of one answer: each is asked
{repeats} times about its solution and its mistakes by hand, with other states of the global random sources each time.
"""


def place_page(root: Path, folder: Path) -> None:
    """Write `mutation.md` into the staged book; nothing where no check has been examined."""
    found = scores(root)
    if found:
        (folder / f"{NAME}.md").write_text(page(found, _exercises(root)), encoding="utf-8")


def page(found: list[Score], exercises: int) -> str:
    """The page in Markdown, of a course with so many exercises."""
    labs = list(dict.fromkeys(score.lab for score in found))
    kinds = sorted({one.operator for score in found for one in score.mutants})
    flaky, by_hand = _flaky(found), sum(len(score.mistakes) for score in found)
    passing = sum(len(score.passing_mistakes) for score in found)
    summary = (
        f"**{_sum(found):,} mutants of {len(found)} exercises: {_share(found)} are caught.** "
        f"Of {by_hand:,} mistakes written by hand {'all' if not passing else by_hand - passing} are caught. {flaky}"
    )
    stale = [score.id for score in found if not score.current]
    partial = ""
    if len(found) < exercises or stale:
        what = [f"{exercises - len(found)} exercises have not been examined"] if len(found) < exercises else []
        what += [f"the texts of {', '.join(stale)} were changed since"] if stale else []
        partial = f"**This page is partial**: {'; '.join(what)}."
    rows = [[f"[{lab[:2]}](labs/{lab}.ipynb)", str(len(of)), *_cells(of)] for lab in labs
            for of in [[score for score in found if score.lab == lab]]]  # fmt: skip
    rows.append(["all", str(len(found)), *_cells(found)])
    return TEXT.format(
        summary=summary, partial=partial, slower=SLOWER, repeats=REPEATS,
        labs=_table(["lab", "exercises", *COLUMNS], rows),
        operators=_table(["operator", *COLUMNS[:-1]], [[kind, *_cells(_only(found, kind))[:-1]] for kind in kinds]),
        exercises=_table(["exercise", "function", *COLUMNS], [[s.id, f"`{s.name}`", *_cells([s])] for s in found]),
        survivors=_survivors(found), equivalent=_equivalent(found),
    )  # fmt: skip


COLUMNS = ["mutants", "caught", "raise", "late", "equivalent", "share caught", "by hand"]


def _cells(of: list[Score]) -> list[str]:
    by_hand = sum(len(score.mistakes) for score in of)
    caught = by_hand - sum(len(score.passing_mistakes) for score in of)
    counts = [sum(score.caught for score in of), *(sum(score.count(kind) for score in of) for kind in (RAISED, LATE))]
    equivalent = sum(len(score.mutants) - score.count() for score in of)
    mutants = sum(len(score.mutants) for score in of)
    return [f"{number:,}" for number in (mutants, *counts, equivalent)] + [_share(of), f"{caught} of {by_hand}"]


def _only(found: list[Score], kind: str) -> list[Score]:
    return [
        Score(s.id, s.name, s.lab, [m for m in s.mutants if m.operator == kind], s.outcomes, s.equivalent)
        for s in found
    ]


def _sum(found: list[Score]) -> int:
    return sum(score.count() for score in found)


def _share(found: list[Score]) -> str:
    """The share caught of those that are not equivalent, rounded down: 100% is all of them."""
    total, caught = _sum(found), sum(score.caught for score in found)
    return f"{int(1000 * caught / total) / 10:.1f}%" if total else "–"


def _flaky(found: list[Score]) -> str:
    tried = [score for score in found if score.repeats >= REPEATS]
    names = [f"{score.id} ({', '.join(score.flaky)})" for score in tried if score.flaky]
    where = "" if len(tried) == len(found) else f" ({len(tried)} of them so far)"
    said = f"these changed their verdict: {', '.join(names)}" if names else "none changed its verdict"
    return f"Of the checks, each asked {REPEATS} times{where}, {said}." if tried else ""


def _survivors(found: list[Score]) -> str:
    lines = [f"- {score.id}, {one.operator}: {_code(one.after)} in place of {_code(one.before)}"
             for score in found for one in score.survivors]  # fmt: skip
    return "\n".join(lines) or "None."


def _equivalent(found: list[Score]) -> str:
    lines = []
    for score in found:
        reasons: dict[str, list] = {}
        for one in score.mutants:
            if one.id in score.equivalent:
                reasons.setdefault(score.equivalent[one.id], []).append(one)
        for reason, mutants in reasons.items():
            changes = "; ".join(_code(f"no {one.before}" if one.after == "pass" else one.after) for one in mutants)
            lines.append(f"- {score.id} `{score.name}`: {changes}. *{reason}*")
    return "\n".join(lines) or "None."


def _code(text: str) -> str:
    return f"`{text}`" if "`" not in text else f"`` {text} ``"


def _table(heads: list[str], rows: Iterable[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows))


def _exercises(root: Path) -> int:
    return sum(len(read_source(path, checks=False).tasks) for path in sources(root))
