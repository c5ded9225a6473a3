"""The README's results from the records alone: `python benchmarks/summary.py` writes them, `--check` compares."""

import argparse
import re
import sys
from pathlib import Path

from pixelpolicy.book.results import overview

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"(<!-- results: made by benchmarks/summary.py -->\n).*?(<!-- end of results -->)", re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the README differs")
    readme = ROOT / "README.md"
    old = readme.read_text(encoding="utf-8")
    new = BLOCK.sub(lambda found: found[1] + overview(ROOT) + found[2], old)
    if parser.parse_args().check:
        sys.exit("README.md's results are not those of benchmarks/: run it without --check" if new != old else 0)
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
