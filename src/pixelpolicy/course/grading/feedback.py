"""What each student gets back: a page in Markdown and the same in HTML."""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from pathlib import Path

from pixelpolicy.course.grading.examine import Verdict
from pixelpolicy.course.grading.grade import Grades, Paper
from pixelpolicy.course.grading.visible import visible
from pixelpolicy.course.source import Source
from pixelpolicy.errors import GradingError
from pixelpolicy.files import write_whole

STATES = {
    "passed": "right", "partial": "partly right", "failed": "not right", "blank": "not written",
    "missing": "not found", "forbidden": "not your own answer", "memorised": "right for the known inputs alone",
    "stopped": "stopped", "ungraded": "not graded",
}  # fmt: skip
STYLE = """body{font:1rem/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#222;
background:#fff}h1,h2{line-height:1.2}table{border-collapse:collapse}td,th{padding:.3rem .7rem;border:1px solid #888;
text-align:left}pre{background:#f3f3f3;padding:.6rem;overflow:auto}img{max-width:100%}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}pre{background:#262626}img{background:#fff}}"""


def write_feedback(grades: Grades, out: Path) -> list[Path]:
    """`feedback/STUDENT/NN-name.md` and `.html` for every paper; returns the folders' files."""
    written = []
    for paper in grades.papers:
        source = grades.sources[paper.lab]
        place = out / "feedback" / folder_of(paper.student)
        for end, text in (("md", markdown(paper, source)), ("html", page(paper, source))):
            write_whole(place / f"{source.name}.{end}", text, GradingError)
            written.append(place / f"{source.name}.{end}")
    return written


def markdown(paper: Paper, source: Source) -> str:
    """A paper in Markdown; what a student wrote stands in a fence, as code."""
    lines = [f"# Lab {source.name}: {_said(paper, source)}", ""]
    if paper.fault:
        lines += [f"Your notebook could not be graded: {_flat(paper.fault)}.", ""]
    for id, verdict in paper.verdicts.items():
        lines += [f"## {_title(source, id, verdict)}", ""]
        lines += [f"- {'✓' if held else '✗'} {name}" for name, held in verdict.held.items()]
        lines += ["", *_fenced([visible(line) for line in verdict.explained]), ""]
        lines += [f"**Hint.** {verdict.hint}", ""] if verdict.hint else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


def page(paper: Paper, source: Source) -> str:
    """A paper as a page that loads nothing from elsewhere."""
    parts = [f"<h1>Lab {html.escape(source.name)}</h1>", f"<p>{html.escape(_said(paper, source))}</p>"]
    if paper.fault:
        parts.append(f"<p>Your notebook could not be graded: {html.escape(_flat(paper.fault))}.</p>")
    for id, verdict in paper.verdicts.items():
        parts.append(f"<h2>{html.escape(_title(source, id, verdict))}</h2>")
        items = [f"<li>{'✓' if held else '✗'} {html.escape(name)}</li>" for name, held in verdict.held.items()]
        parts += ["<ul>", *items, "</ul>"] if items else []
        if verdict.explained:
            parts.append(f"<pre>{html.escape(chr(10).join(map(visible, verdict.explained)))}</pre>")
        if verdict.hint:
            parts.append(f"<p><strong>Hint.</strong> {html.escape(verdict.hint)}</p>")
    return document(f"Lab {source.name}", "\n".join(parts))


def document(title: str, body: str) -> str:
    """An HTML page around its body."""
    policy = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"  # nothing a student wrote may run
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{html.escape(title)}</title><style>{STYLE}</style></head>
<body>
{body}
</body></html>
"""


def folder_of(student: str) -> str:
    """A folder's name for a student, whatever signs the name has."""
    kept = re.sub(r"[^\w.@ -]", "_", unicodedata.normalize("NFC", student)).strip(" .")[:50]  # four bytes each at most
    digest = hashlib.sha256(student.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return kept if kept and kept == student else f"{kept or '_'}-{digest}"


def _fenced(lines: list[str]) -> list[str]:
    """Lines as a block of code that nothing in them ends: indented, they would belong to the list above."""
    longest = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *lines, fence] if lines else []


def _said(paper: Paper, source: Source) -> str:
    return f"{paper.points:.3g} of {sum(task.points for task in source.tasks.values()):g} points"


def _title(source: Source, id: str, verdict: Verdict) -> str:
    state = STATES.get(verdict.state, verdict.state)
    return f"{id} {source.tasks[id].title}: {state}, {verdict.points:.3g} of {verdict.of:g} points"


def _flat(text: str) -> str:
    return " ".join(visible(text).split())
