"""The recorded long run of lab 14: `python benchmarks/tokens_long.py --seed 0` (goes on where it was interrupted).

The same algorithm as in the lab, with the library's functions, for longer. Leaves the log, the weights and a record
under `benchmarks/14-autoregressive-long`.
"""

from dataclasses import replace

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import GRPOConfig, LoopConfig, TokenGRPO
from pixelpolicy.generators.picture_tokens import PictureTokenGenerator
from pixelpolicy.policies import TokenPolicy
from pixelpolicy.rewards import layout_agreement, of_pictures, shapes_dense
from pixelpolicy.worlds import shapes

SETTINGS = GRPOConfig(
    prompts_per_iteration=16, group_size=12, trained_steps=10_000, minibatches=2, clip_range=0.2, kl_weight=0.1
)
LOOP = LoopConfig(
    iterations=40,
    learning_rate=5e-4,
    warmup_iterations=2,
    cooldown_iterations=24,
    save_every=10,
    name="14-autoregressive-long",
)


def make(student: PictureTokenGenerator, seed: int) -> TokenGRPO:
    reward = 0.5 * layout_agreement() + of_pictures(shapes_dense())
    return TokenGRPO(TokenPolicy(student), reward, shapes.draw_prompts, replace(SETTINGS, seed=seed))


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__, world="shapes-tokens")
