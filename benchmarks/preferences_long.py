"""The recorded long run of lab 11: `python benchmarks/preferences_long.py --seed 0` (goes on where it was interrupted).

Diffusion-KTO as in the lab, with the library's functions, on three times as many labels and for longer. The pictures
are drawn of the base before it begins; the seconds of the record are those of the training alone.
"""

from dataclasses import replace
from functools import partial

import numpy as np
import torch

from pixelpolicy.course.recording import long_run
from pixelpolicy.finetune import DiffusionKTO, Labelled, LoopConfig, Pairs, PreferenceConfig, best_and_worst
from pixelpolicy.finetune.batch import grouped
from pixelpolicy.finetune.noising import pictures_of
from pixelpolicy.generators.image import ImageGenerator
from pixelpolicy.policies import DenoisingPolicy, cps, ode
from pixelpolicy.rewards import shapes_dense
from pixelpolicy.worlds import shapes

GROUPS = 3_000
SETTINGS = PreferenceConfig(prompts_per_iteration=32, group_size=4, minibatches=1, noise_draws=2)
LOOP = LoopConfig(
    iterations=200,
    learning_rate=3e-4,
    warmup_iterations=4,
    cooldown_iterations=150,
    ema_decay=0.95,
    save_every=20,
    name="11-preferences-long",
)


def drawn_pairs(generator: ImageGenerator, seed: int, groups: int) -> Pairs:
    """The best and the worst of each group of four pictures; flat groups are left out."""
    rng = np.random.default_rng([seed, 11])
    texts, of = grouped(shapes.draw_prompts(groups, rng), SETTINGS.group_size)
    drawn = DenoisingPolicy(generator, ode, steps=10).rollout(
        texts, seeds=torch.from_numpy(rng.integers(2**62, size=len(texts)))
    )
    best, worst = best_and_worst(shapes_dense()(drawn.samples, texts), of)
    latents = pictures_of(drawn).float()
    return Pairs([texts[row] for row in best], latents[best], latents[worst])


def make(student: ImageGenerator, seed: int) -> DiffusionKTO:
    policy = DenoisingPolicy(student, partial(cps, noise=0.5), steps=6)  # its noise is for the record's KL alone
    labelled = Labelled.of_pairs(drawn_pairs(student, seed, GROUPS))
    return DiffusionKTO(policy, config=replace(SETTINGS, seed=seed), labelled=labelled)


if __name__ == "__main__":
    long_run(__doc__, make, LOOP, source=__file__)
