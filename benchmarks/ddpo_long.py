"""The recorded long run of lab 09: `python benchmarks/ddpo_long.py --seed 0` (goes on where it was interrupted).

DPOK for longer than the lab, with the library's functions: a critic, and a KL without which a run of this length
collapses. Leaves the log, the weights of the best look at the validation set and a record under
`benchmarks/09-ddpo-long`.
"""

from dataclasses import replace
from functools import partial

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import DPOK, GRPOConfig, LoopConfig
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ddim_eta
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

SETTINGS = GRPOConfig(
    prompts_per_iteration=16, group_size=12, trained_steps=5, minibatches=2, clip_range=2e-3, kl_weight=0.02
)
LOOP = LoopConfig(
    iterations=200,
    learning_rate=5e-4,
    warmup_iterations=4,
    cooldown_iterations=150,
    ema_decay=0.95,
    save_every=10,
    name="09-ddpo-long",
)


def make(student: ImageGenerator, seed: int) -> DPOK:
    policy = DenoisingPolicy(student, partial(ddim_eta, noise=1.0), steps=6)
    return DPOK(policy, shapes_dense(), shapes.draw_prompts, replace(SETTINGS, seed=seed))


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__)
