"""Samples per second of GRPO's iterations by two processes against one: `python benchmarks/two_processes.py`.

The global batch, the threads a process (one) and the base are the same. The two ways take turns, each in processes of
its own; the first iterations, which warm up, are left out. Leaves a record in `benchmarks/two-processes.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial

import torch

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.results import record

NAME = "two-processes"
BATCH, WARM_UP, ITERATIONS = 192, 2, 8


def work(count: int) -> None:
    """Train for a while, and print the seconds of each iteration."""
    from pixelpolicy.finetune import GRPO, GRPOConfig, Loop, LoopConfig
    from pixelpolicy.generators import load
    from pixelpolicy.policies import DenoisingPolicy, cps
    from pixelpolicy.rewards import shapes_dense
    from pixelpolicy.worlds import shapes

    torch.set_num_threads(1)
    policy = DenoisingPolicy(load("shapes").student(), partial(cps, noise=0.5), steps=6, micro_batch=48)
    settings = GRPOConfig(prompts_per_iteration=16, group_size=12, trained_steps=4, minibatches=2)
    algorithm = GRPO(policy, shapes_dense(), shapes.draw_prompts, settings)
    loop = Loop(algorithm, LoopConfig(WARM_UP + ITERATIONS, progress=False))
    assert loop.accelerator.num_processes == count
    seconds = [row["seconds"] for row in loop.run()]
    if loop.accelerator.is_main_process:
        print(json.dumps(seconds[WARM_UP:]))


def seconds_of(count: int) -> float:
    """Median seconds of an iteration by so many processes."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}"] if count > 1 else []
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launch, __file__, "--work", str(count)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=int, help="Be one of so many processes.")
    parser.add_argument("--turns", type=int, default=5)
    asked = parser.parse_args()
    if asked.work:
        return work(asked.work)
    torch.set_num_threads(1)
    start, cpu_start = time.perf_counter(), time.process_time()
    turns = [{count: seconds_of(count) for count in (1, 2)} for _ in range(asked.turns)]
    ratios = [turn[1] / turn[2] for turn in turns]
    metrics = {
        "speed_up": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "samples_per_second": {
            str(count): BATCH / statistics.median(turn[count] for turn in turns) for count in (1, 2)
        },
    }
    print(json.dumps(metrics, indent=2))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    made = record(NAME, metrics, seed=0, seconds=seconds, cpu_seconds=cpu_seconds, samples=BATCH, source=__file__)
    write_json(course_root() / "benchmarks" / f"{NAME}.json", [made])


if __name__ == "__main__":
    main()
