"""Submissions that resemble each other more than the task explains.

Answers are compared by runs of four tokens, comments and layout dropped, names kept. A run that half the class has
written tells nothing and weighs nothing; one that two students share and nobody else has weighs most.
"""

from __future__ import annotations

import io
import math
import tokenize
from collections import Counter
from itertools import combinations

from pixelpolicy.course.grading.grade import Paper

_RUN = 4
_DROPPED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING}


def resemblances(papers: list[Paper], least: float = 0.8, weight: float = 12.0) -> list[tuple[float, str, str]]:
    """Pairs of students of one lab with their likeness from 0 to 1, the most alike first.

    A pair is told of where its likeness is at least `least` and what it shares weighs at least `weight` bits: two
    short answers that happen to be the same do not.
    """
    runs = {paper.student: runs_of(paper) for paper in papers}
    count = len(runs)
    spread = Counter(run for own in runs.values() for run in own)
    worth = {run: math.log2(count / n) if n <= count / 2 or count < 4 else 0.0 for run, n in spread.items()}
    found = []
    for one, other in combinations(sorted(runs), 2):
        shared, either = runs[one] & runs[other], runs[one] | runs[other]
        bits, whole = sum(worth[run] for run in shared), sum(worth[run] for run in either)
        if bits >= weight and bits / whole >= least:
            found.append((bits / whole, one, other))
    return sorted(found, reverse=True)


def runs_of(paper: Paper) -> set[tuple[str, ...]]:
    """The runs of tokens in all answers of a paper, each with the exercise it stands in."""
    found: set[tuple[str, ...]] = set()
    for id, code in paper.code.items():
        words = _tokens(code)
        found |= {(id, *words[i : i + _RUN]) for i in range(len(words) - _RUN + 1)}
    return found


def _tokens(code: str) -> list[str]:
    try:
        tokens = tokenize.generate_tokens(io.StringIO(code).readline)
        return [token.string for token in tokens if token.type not in _DROPPED]
    except (tokenize.TokenError, SyntaxError):
        return code.split()
