"""The recorded long run of lab 13: `python benchmarks/forward_process_long.py --seed 0` (goes on where it was stopped).

DiffusionNFT as in the lab, with the library's functions, for three times as many iterations: the brake must hold.
Leaves the log, the weights and a record under `benchmarks/13-forward-process-long`.
"""

from dataclasses import replace

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import DiffusionNFT, ForwardProcessConfig, LoopConfig
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, ode
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

SETTINGS = ForwardProcessConfig(
    prompts_per_iteration=16, group_size=12, minibatches=2, noise_draws=2, old_decay=0.5, kl_weight=0.1
)
LOOP = LoopConfig(
    iterations=150, learning_rate=1e-3, warmup_iterations=4, cooldown_iterations=120, name="13-forward-process-long"
)


def make(student: ImageGenerator, seed: int) -> DiffusionNFT:
    policy = DenoisingPolicy(student, ode, steps=6)
    return DiffusionNFT(policy, shapes_dense(), shapes.draw_prompts, replace(SETTINGS, seed=seed))


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__)
