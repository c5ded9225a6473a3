"""What becomes of Diffusion-DPO after its best: `python benchmarks/preferences_fall.py --seed 0`.

Lab 11's thousand pairs and settings, with the library's functions, for four times as many iterations: the plain loss,
and the one with an anchor for the winner. Leaves the logs and a record a loss, no weights. What a thousand pairs gave
at the look that the validation set chose, and at the end, is measured on the test set.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from preferences_long import SETTINGS, drawn_pairs

from pixelpolicy.course.files import course_root, write_json
from pixelpolicy.course.recording import arguments, keep_record, train
from pixelpolicy.finetune import DiffusionDPO, LoopConfig, Pairs, diffusion_dpo_loss
from pixelpolicy.generators import evaluate, load
from pixelpolicy.policies import DenoisingPolicy, ode

NAME = "11-preferences-fall"
PAIRS, LOOK = 1_000, 15
LOOP = LoopConfig(iterations=300, learning_rate=3e-4, warmup_iterations=4, name=NAME, progress=False)
LOSSES = {"dpo": 0.0, "dpo-anchored": 0.5}


def run(method: str, seed: int, pairs: Pairs, config: LoopConfig) -> None:
    base, kept = load("shapes"), {}
    policy = DenoisingPolicy(base.student(), ode, steps=6)
    settings = replace(SETTINGS, prompts_per_iteration=64, seed=seed)
    loss = partial(diffusion_dpo_loss, beta=100.0, anchor=LOSSES[method])
    algorithm = DiffusionDPO(policy, config=settings, pairs=pairs, loss_of=loss)
    loop = train(
        algorithm, config, LOOK, lambda state: kept.update({key: value.clone() for key, value in state.items()})
    )
    found = {"base": evaluate(base, "test", per_kind=256)}
    with loop.averaged_weights():
        found["end"] = evaluate(policy.generator, "test", per_kind=256)
    algorithm.model.load_state_dict(kept)
    found["best"] = evaluate(policy.generator, "test", per_kind=256)
    metrics = {
        f"{key}_{when}": {"before": found["base"][key], "after": found[when][key]}
        for when in ("best", "end")
        for key in ("accuracy", "diversity")
    }
    log = [{key: float(np.nan_to_num(value)) for key, value in row.items()} for row in loop.history]
    write_json(course_root() / "benchmarks" / NAME / method / f"seed-{seed}.json", log)
    keep_record(NAME, metrics, log, seed=seed, method=method, samples=4 * PAIRS, source=__file__)
    looks = [row["accuracy"] for row in log if "accuracy" in row]
    print(method, seed, [round(look, 3) for look in looks], flush=True)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    chosen = drawn_pairs(load("shapes"), asked.seed, PAIRS + 60).select(slice(PAIRS))
    for loss_name in LOSSES:
        run(loss_name, asked.seed, chosen, replace(LOOP, iterations=asked.iterations or LOOP.iterations))
