"""The recorded long run of lab 15: `python benchmarks/video_long.py --seed 0` (goes on where it was interrupted).

VADER on whole clips with a KL to the base, as in the lab, with the library's functions, for longer and on a shorter
leash. Leaves the log, the weights and a record under `benchmarks/15-video-long`.
"""

from dataclasses import replace
from functools import partial

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import LoopConfig, RewardGradient, RewardGradientConfig
from pixelpolicy.finetune.reward_gradient import last_steps
from pixelpolicy.generators.video import VideoGenerator
from pixelpolicy.policies import DenoisingPolicy, cps
from pixelpolicy.rewards import physics
from pixelpolicy.worlds import bounce

SETTINGS = RewardGradientConfig(prompts_per_iteration=96, kl_weight=0.2)
LOOP = LoopConfig(
    iterations=200, learning_rate=3e-4, cooldown_iterations=150, save_every=20, name="15-video-long"
)  # fmt: skip


def make(student: VideoGenerator, seed: int) -> RewardGradient:
    policy = DenoisingPolicy(student, partial(cps, noise=0.4), steps=8, stochastic_steps=[5, 6])
    law = physics.likeness() + physics.heading() + physics.newton()
    return RewardGradient(policy, law, bounce.draw_prompts, replace(SETTINGS, seed=seed), choose_window=last_steps(3))


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__, world="bounce")
