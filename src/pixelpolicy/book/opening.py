"""What stands at the head of a lab's page: what it takes, and where it can be opened."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import median
from urllib.parse import urlparse

from pixelpolicy.book.glossary import prose_of
from pixelpolicy.course.files import repository
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.course.source import Source

WORDS_A_MINUTE = 200


def minutes_to_read(text: str) -> int:
    """Minutes for the prose of a text in Markdown, code, formulas and tables left out."""
    return max(1, math.ceil(len(re.findall(r"[A-Za-z][\w'-]*", prose_of(text))) / WORDS_A_MINUTE))


def effort(root: Path, source: Source) -> str:
    """What chapter and lab take, in Markdown: by their words, by the exercises' own minutes, by records."""
    told, chapter = [], root / "chapters" / f"{source.name}.md"
    if chapter.exists():
        minutes = minutes_to_read(chapter.read_text(encoding="utf-8"))
        told.append(f"{{doc}}`Chapter {source.number} </chapters/{source.name}>`: {minutes} minutes to read")
    text = "\n\n".join(cell.text for cell in source.cells if cell.kind == "markdown" and cell.role != "hints")
    told.append(f"this lab: {minutes_to_read(text)} minutes to read")
    if source.tasks:
        work = sum(task.minutes for task in source.tasks.values())
        count = len(source.tasks)
        told[-1] += f", {work} for its {count} exercise{'s' * (count > 1)}"
    if (record := root / "benchmarks" / f"{source.name}.json").exists():
        seconds = median(entry["cpu_seconds"] for entry in read_benchmark(record))
        took = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        told.append(f"a solved run: {took} of one processor")
    return "; ".join(told) + "."


def ways_to_open(root: Path, source: Source) -> str:
    """Where the lab can be opened, in Markdown: here by a command, and elsewhere if the repository is public."""
    here = f"Open it in JupyterLab on your machine: `make lab LAB={source.number:02d}`."
    parts = urlparse(address := repository(root))
    if parts.netloc != "github.com":
        return here
    path, lab = parts.path.strip("/"), f"labs/{source.name}.ipynb"
    links = {
        "JupyterLab on Binder": f"https://mybinder.org/v2/gh/{path}/main?labpath={lab}",
        "Colab": f"https://colab.research.google.com/github/{path}/blob/main/{lab}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={address}/blob/main/{lab}",
    }
    listed = " · ".join(f"[{name}]({link})" for name, link in links.items())
    return (
        f"{here} Elsewhere: {listed}. On Colab and Kaggle, run this in a cell first: `!git clone --depth 1 {address} "
        "/tmp/course && pip install --quiet --editable /tmp/course`, then `%cd /tmp/course`."
    )
