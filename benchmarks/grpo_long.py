"""The recorded long run of lab 12: `python benchmarks/grpo_long.py --seed 0` (goes on where it was interrupted).

The same algorithm as in the lab, with the library's functions, for longer. Leaves the log, the weights and a record
under `benchmarks/12-grpo-long`.
"""

from dataclasses import replace
from functools import partial

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import GRPO, GRPOConfig, LoopConfig
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, cps
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

SETTINGS = GRPOConfig(
    prompts_per_iteration=16, group_size=12, trained_steps=5, minibatches=2, clip_range=2e-3, kl_weight=0.02
)
LOOP = LoopConfig(
    iterations=480,
    learning_rate=5e-4,
    warmup_iterations=4,
    cooldown_iterations=410,
    ema_decay=0.95,
    save_every=10,
    name="12-grpo-long",
)


def make(student: ImageGenerator, seed: int) -> GRPO:
    policy = DenoisingPolicy(student, partial(cps, noise=0.5), steps=6)
    return GRPO(policy, shapes_dense(), shapes.draw_prompts, replace(SETTINGS, seed=seed))


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__)
