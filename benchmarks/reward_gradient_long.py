"""The recorded long run of lab 10: `python benchmarks/reward_gradient_long.py --seed 0` (goes on where it stopped).

DRaFT with two steps on the proxy, held by a KL to the base, with the library's functions. Leaves the log, the weights
and a record under `benchmarks/10-reward-gradient-long`.
"""

from dataclasses import replace
from functools import partial

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import LoopConfig, RewardGradient, RewardGradientConfig, last_steps
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ddim_eta
from pixelpolicy.rewards import learned_proxy
from pixelpolicy.worlds import shapes

SETTINGS = RewardGradientConfig(prompts_per_iteration=96, kl_weight=1.0)
LOOP = LoopConfig(
    iterations=600,
    learning_rate=2e-4,
    warmup_iterations=10,
    cooldown_iterations=400,
    ema_decay=0.95,
    save_every=20,
    name="10-reward-gradient-long",
)


def make(student: ImageGenerator, seed: int) -> RewardGradient:
    policy = DenoisingPolicy(student, partial(ddim_eta, noise=1.0), steps=6)
    settings = replace(SETTINGS, seed=seed)
    return RewardGradient(policy, learned_proxy(), shapes.draw_prompts, settings, last_steps(2))


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__)
