"""The README's results from the records alone: `python benchmarks/summary.py` writes them, `--check` compares."""

import argparse
import re
import sys
from pathlib import Path
from statistics import median

from pixelpolicy.course.results import read_benchmark

ROOT = Path(__file__).parents[1]
RUNS = {"12-grpo": "lab 12, as a student runs it", "12-grpo-long": "lab 12, recorded long run"}
ROWS = {"accuracy": "accuracy", "accuracy_held_out": "accuracy, held-out prompts", "diversity": "diversity"}
BLOCK = re.compile(r"(<!-- results: made by benchmarks/summary.py -->\n).*?(<!-- end of results -->)", re.S)


def table() -> str:
    """One row a metric of each benchmark: median over seeds, and in brackets the lowest and the highest."""
    lines = ["| run | seeds | measured | before | after | CPU minutes |", "|---|---|---|---|---|---|"]
    for name, title in RUNS.items():
        path = ROOT / "benchmarks" / f"{name}.json"
        runs = read_benchmark(path) if path.exists() else []
        if not runs:
            continue
        minutes = _spread([run["cpu_seconds"] / 60 for run in runs], "{:.0f}")
        for key, label in ROWS.items():
            before = runs[0]["metrics"][key]["before"]
            after = _spread([run["metrics"][key]["after"] for run in runs], "{:.3f}")
            lines.append(f"| {title} | {len(runs)} | {label} | {before:.3f} | {after} | {minutes} |")
    return "\n".join(lines) + "\n"


def _spread(values: list[float], form: str) -> str:
    low, middle, high = (form.format(v) for v in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the README differs")
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda found: found[1] + table() + found[2], old)
    if parser.parse_args().check:
        sys.exit("README.md's results are not those of benchmarks/: run it without --check" if new != old else 0)
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
