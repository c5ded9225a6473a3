"""Lab 13's long run without its brake: `python benchmarks/forward_process_brakeless.py --seed 0`.

All as in `forward_process_long.py`, but the KL has no weight. Leaves the log and a record, no weights.
"""

from dataclasses import replace

import numpy as np
import torch
from forward_process_long import LOOP, make

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.recording import arguments, keep_record, train
from pixelpolicy.generators import evaluate, load

NAME = "13-forward-process-brakeless"

if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    base = load("shapes")
    algorithm = make(base.student(), asked.seed, kl_weight=0.0)
    config = replace(LOOP, iterations=asked.iterations or LOOP.iterations, name=NAME)
    loop = train(algorithm, config, every=10)
    with loop.averaged_weights():
        before, after = (evaluate(g, "test", per_kind=64) for g in (base, algorithm.policy.generator))
    metrics = {key: {"before": before[key], "after": after[key]} for key in ("accuracy", "dense")}
    log = [{key: float(np.nan_to_num(value)) for key, value in row.items()} for row in loop.history]
    write_json(course_root() / "benchmarks" / NAME / f"seed-{asked.seed}.json", log)
    keep_record(NAME, metrics, log, seed=asked.seed, source=__file__)
