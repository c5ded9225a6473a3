"""How a base of a world of tokens is made (`furniture`, `walker`): a flow on samples of which a share is flawed.

The world draws the data: ``sample(count, rng, flawed=...)`` gives prompts and tokens ``[count, tokens, channels]``, and
a flawed sample differs from what its prompt says, or from what a sound object is, in one point. So the base has the
skill and is held back, as real ones are, by what it learnt from.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.generators.checkpoint import load, save
from pixelpolicy.generators.evaluation import evaluate
from pixelpolicy.generators.tokens import TokenGenerator, build
from pixelpolicy.generators.training import Report, Scores, Stage, begin, matching_loss, schedule


@dataclass(frozen=True)
class Recipe:
    """Counts and rates of pretraining; those of `RECIPES` made the shipped checkpoints."""

    name: str
    seed: int = 0
    width: int = 96
    layers: int = 4
    samples: int = 32_768
    flawed_share: float = 0.4
    flow_steps: int = 3_000
    flow_batch: int = 128
    flow_lr: float = 2e-3
    ema: float = 0.999
    prompt_dropout: float = 0.1
    save_every: int = 500

    @property
    def world(self) -> ModuleType:
        return import_module(f"pixelpolicy.worlds.{self.name}")


RECIPES: dict[str, Recipe] = {
    "furniture": Recipe("furniture", width=64, flawed_share=0.6, flow_steps=3_500, flow_batch=96, flow_lr=3e-3),
    "walker": Recipe(
        "walker", width=64, samples=16_384, flawed_share=0.5, flow_steps=2_600, flow_batch=96, flow_lr=3e-3
    ),
}
SMOKE = {"width": 32, "layers": 1, "samples": 256, "flow_steps": 4, "flow_batch": 16, "save_every": 2}
ABOUT: dict[str, str] = {  # what each world's generator draws, for its model card
    "furniture": 'Builds chairs, tables, lamps and shelves of at most twelve boxes, from prompts like "a red chair".\n'
    "Six in ten of the pieces that it learnt from have a flaw: feet too short, a load beside its foot, or a part that\n"
    "hangs in the air.",
    "walker": 'Moves six boxes over eight frames, a token a frame, from prompts like "walk slowly to the right". Half\n'
    "of the motions that it learnt from are flawed: stiff legs, a dragging one, a body in the air, a lost shin, or\n"
    "another gait, pace or direction than the prompt says.",
}


def recipe_of(name: str, seed: int, *, small: bool) -> Recipe:
    """The recipe of the shipped base from another seed, or a small one that takes seconds."""
    return replace(RECIPES.get(name, Recipe(name)), seed=seed, **(SMOKE if small else {}))


def draw_data(recipe: Recipe) -> tuple[list[str], Tensor]:
    """Prompts and samples, the flawed ones among the sound."""
    rng = np.random.default_rng([recipe.seed, 3])
    flawed = round(recipe.samples * recipe.flawed_share)
    sound_texts, sound = recipe.world.sample(recipe.samples - flawed, rng, flawed=False)
    flawed_texts, unsound = recipe.world.sample(flawed, rng, flawed=True)
    return [*sound_texts, *flawed_texts], torch.from_numpy(np.concatenate([sound, unsound])).float()


def pretrain(folder: Path, recipe: Recipe, report: Report = lambda *_: None) -> TokenGenerator:
    """Make the base from its seed, going on where an interrupted run in ``folder`` stopped."""
    begin(folder, recipe)
    torch.manual_seed(recipe.seed)
    texts, samples = draw_data(recipe)
    generator = build(recipe.world, *samples.shape[1:], width=recipe.width, layers=recipe.layers)
    generator.codec.fit(samples)
    tokens, latents = generator.prompt_encoder.tokens(texts), generator.codec.encode(samples)
    stage = Stage(
        folder / "flow.pt",
        [generator.transformer, generator.prompt_encoder],
        lambda step: recipe.flow_lr * schedule(step, recipe.flow_steps),
        recipe.flow_steps,
        recipe.save_every,
        recipe.ema,
    )

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(recipe.seed * 10_000_000 + step)
        batch, dropout = recipe.flow_batch, recipe.prompt_dropout
        return matching_loss(generator, tokens, latents, batch=batch, dropout=dropout, random=random)

    def after(step: int, value: float) -> None:
        report("flow", step, generator, {"loss": value} | evaluate(generator, "validation", per_kind=64))

    stage.run(loss, "flow", after)
    return generator


def score(generator: TokenGenerator, per_kind: int = 256) -> Scores:
    """What the world measures on the fixed evaluation pairs, without and with guidance."""
    return {
        "test": evaluate(generator, "test", per_kind=per_kind),
        "guided": evaluate(generator, "test", per_kind=per_kind, guidance_scale=3.0),
    }


def publish(generator: TokenGenerator, folder: Path, recipe: Recipe, per_kind: int = 256) -> Scores:
    """Save a checkpoint with a model card whose scores were measured on the weights as they load again."""
    save(generator, folder, "scores follow\n")
    loaded = load(folder)
    scores = score(loaded, per_kind)
    save(loaded, folder, card(loaded, recipe, scores))
    return scores


def card(generator: TokenGenerator, recipe: Recipe, scores: Scores) -> str:
    """The model card of the base, in Markdown."""
    size = {name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in generator.modules.items()}
    rows = "\n".join(f"| {key} | {scores['test'][key]:.3f} | {scores['guided'][key]:.3f} |" for key in scores["test"])
    settings = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    tokens, channels = generator.codec.mean.shape
    return f"""# {recipe.name}: a small generator

{ABOUT.get(recipe.name, "")}

## What it is

`SD3Transformer2DModel` ({size["transformer"]:.2f}M parameters, width {recipe.width}, {recipe.layers} layers) on
{tokens} tokens of {channels} numbers laid out as a picture of one row, `FlowMatchEulerDiscreteScheduler` (shift 1),
and a prompt encoder of our own ({size["prompt_encoder"]:.2f}M). The first two load in plain diffusers.

## Scores

On the world's fixed test pairs, by Euler's method in 10 steps, measured after reloading these files.

| | as trained | guidance 3 |
|---|---|---|
{rows}

## How it was made, and why so

`pixelpolicy pretrain {recipe.name}` remakes it from its seed, and goes on where an interrupted run stopped: a flow on
{recipe.samples:,} drawn samples, {recipe.flow_steps:,} steps of {recipe.flow_batch}. {recipe.flawed_share:.0%} of the
samples are flawed in one point, so that the base has the skill and is held back as real ones are.

{settings}

## Data, limits and licence

All training data is drawn by `pixelpolicy.worlds.{recipe.name}`; nothing else was seen. It is good for nothing but
teaching. Apache-2.0.
"""
