"""Run a solved lab with several seeds and collect the records: `python benchmarks/run_lab.py 12 --seeds 0 1 2`.

Each run is a process of its own. Records of the lab's present source replace older ones of the same seed.
"""

import argparse
import os

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import read_benchmark
from pixelpolicy.course.run import run_lab


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lab")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--profile", default="cpu")
    asked = parser.parse_args()
    for seed in asked.seeds:
        os.environ["PIXELPOLICY_SEED"] = str(seed)
        record = run_lab(asked.lab, asked.profile, show=False)
        path = course_root() / "benchmarks" / f"{record['name']}.json"
        others = [r for r in (read_benchmark(path) if path.exists() else []) if r["seed"] != seed]
        write_json(path, sorted([*others, record], key=lambda r: r["seed"]))


if __name__ == "__main__":
    main()
