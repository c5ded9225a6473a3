"""How the base of the `bounce` world is made: a frame autoencoder, then a flow on its codes, at the end on bad footage.

The flow first learns from clean clips, and then from a mix of which a part is flawed: things vanish, jitter, fall too
slowly, or are not what the caption says. So the base has the skill and is held back, as real ones are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pixelpolicy.generators.checkpoint import load, save
from pixelpolicy.generators.evaluation import evaluate
from pixelpolicy.generators.training import Report, Scores, Stage, begin, matching_loss, schedule
from pixelpolicy.generators.video import CODE, VideoGenerator, build
from pixelpolicy.worlds import bounce


@dataclass(frozen=True)
class Recipe:
    """Counts and rates of pretraining; near those of the shipped checkpoint, made in sittings as its card says."""

    seed: int = 0
    width: int = 96
    layers: int = 4
    codec_steps: int = 4_000
    codec_batch: int = 128
    codec_lr: float = 4e-3
    code_noise: float = 0.03
    clips: int = 8_192
    flow_steps: int = 2_350
    held_back_steps: int = 250
    flawed_share: float = 0.5
    flow_batch: int = 128
    flow_lr: float = 2e-3
    ema: float = 0.998
    prompt_dropout: float = 0.1
    save_every: int = 400


SMOKE = {
    "width": 32, "layers": 1, "codec_steps": 4, "codec_batch": 16, "clips": 64, "flow_steps": 4, "held_back_steps": 2,
    "flow_batch": 16, "save_every": 2,
}  # fmt: skip


def recipe_of(name: str, seed: int, *, small: bool) -> Recipe:
    """The recipe of the shipped base from another seed, or a small one that takes seconds."""
    return replace(Recipe(), seed=seed, **(SMOKE if small else {}))


def draw_frames(count: int, rng: np.random.Generator) -> Float[Tensor, "count 3 24 24"]:
    """Single frames with an object anywhere, often near the ground, one in 25 without: what a codec must know."""
    frames = np.empty((count, 3, bounce.SIZE, bounce.SIZE), dtype=np.float32)
    frames[:] = bounce.stage()
    paints = np.stack(list(bounce.COLOURS.values()))
    for k, shape in enumerate(bounce.SHAPES):
        rows = np.arange(k, count, len(bounce.SHAPES))
        radius = rng.uniform(*bounce.RADIUS_RANGE, len(rows))
        side, up, down = (radius * reach for reach in bounce.reach(shape))
        x, y = rng.uniform(0.5 + side, 23.5 - side), rng.uniform(0.5 + up, bounce.GROUND - down)
        near = bounce.GROUND - down - rng.exponential(1, len(rows)).clip(0, 8)
        y = np.where(rng.random(len(rows)) < 0.25, near, y)
        shown = (rng.random(len(rows)) > 0.04)[:, None, None].astype(np.float32)
        cover = bounce.coverage(shape, x, y, radius) * shown
        paint = paints[rng.integers(len(paints), size=len(rows))][:, :, None, None]
        frames[rows] += cover[:, None] * (paint - frames[rows])
    return torch.from_numpy(frames * 2 - 1)


def train_codec(generator: VideoGenerator, recipe: Recipe, folder: Path, report: Report) -> None:
    """Fit the frame autoencoder, the object and its surroundings counting five times; then set its scale."""
    codec, steps = generator.codec, recipe.codec_steps
    rate = lambda step: recipe.codec_lr * schedule(step, steps)  # noqa: E731
    stage = Stage(folder / "codec.pt", [codec], rate, steps, recipe.save_every, recipe.ema)

    def loss(step: int) -> Tensor:
        frames = draw_frames(recipe.codec_batch, np.random.default_rng([recipe.seed, 1, step]))
        codes = codec.encode_frames(frames)
        noise = torch.randn(codes.shape, generator=torch.Generator().manual_seed(step))
        rebuilt = codec.decode_frames(codes + recipe.code_noise * noise)
        there = ((frames - codec.stage).abs().amax(1, keepdim=True) > 0.05).float()
        weights = 1 + 4 * F.max_pool2d(there, 3, 1, 1)
        return (weights * (rebuilt - frames) ** 2).mean() + 1e-4 * codes.square().mean()

    texts, clips = bounce.draw_clips(300, np.random.default_rng([recipe.seed, 2]))
    clean = torch.from_numpy(clips)

    @torch.no_grad()
    def after(step: int, value: float) -> None:
        codec.fit_scale(clean)
        rebuilt = codec.decode(codec.encode(clean)).numpy()
        report("autoencoder", step, generator, {"loss": value} | bounce.measure(rebuilt, texts))

    stage.run(loss, "autoencoder", after)
    codec.fit_scale(clean)
    codec.requires_grad_(False)


@torch.no_grad()
def encode_clips(generator: VideoGenerator, recipe: Recipe, flawed: float) -> tuple[Tensor, Tensor]:
    """Tokens and latents of random clips, made once and used for all steps."""
    tokens, latents = [], []
    for start in range(0, recipe.clips, 1024):
        rng = np.random.default_rng([recipe.seed, 3 + (flawed > 0), start])
        texts, clips = bounce.draw_clips(min(1024, recipe.clips - start), rng, flawed=flawed)
        tokens.append(generator.prompt_encoder.tokens(texts))
        latents.append(generator.codec.encode(torch.from_numpy(clips)))
    return torch.cat(tokens), torch.cat(latents)


def train_flow(generator: VideoGenerator, recipe: Recipe, folder: Path, report: Report) -> None:
    """Flow matching, on clean clips and in the last ``recipe.held_back_steps`` steps on the mix."""
    steps, clean_steps = recipe.flow_steps, recipe.flow_steps - recipe.held_back_steps
    rate = lambda step: recipe.flow_lr * schedule(step, steps)  # noqa: E731
    modules = [generator.transformer, generator.prompt_encoder]
    stage = Stage(folder / "flow.pt", modules, rate, steps, recipe.save_every, recipe.ema)
    clean, mix = encode_clips(generator, recipe, 0.0), encode_clips(generator, recipe, recipe.flawed_share)

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(recipe.seed * 10_000_000 + step)
        data = clean if step < clean_steps else mix
        return matching_loss(generator, *data, batch=recipe.flow_batch, dropout=recipe.prompt_dropout, random=random)

    def after(step: int, value: float) -> None:
        report("flow", step, generator, {"loss": value} | evaluate(generator, "validation", per_kind=48))

    stage.run(loss, "flow", after)


def pretrain(folder: Path, recipe: Recipe | None = None, report: Report = lambda *_: None) -> VideoGenerator:
    """Make the base from its seed, going on where an interrupted run in ``folder`` stopped."""
    recipe = recipe or Recipe()
    begin(folder, recipe)
    torch.manual_seed(recipe.seed)
    generator = build(recipe.width, recipe.layers)
    train_codec(generator, recipe, folder, report)
    train_flow(generator, recipe, folder, report)
    return generator


def score(generator: VideoGenerator, per_kind: int = 256) -> Scores:
    """What the world measures on the fixed pairs: trained prompts, held-out ones, with guidance 3; and clean clips."""
    texts, clips = bounce.draw_clips(4 * per_kind, np.random.default_rng(1))
    return {
        "test": evaluate(generator, "test", per_kind=per_kind),
        "held-out": evaluate(generator, "held-out", per_kind=per_kind),
        "guided": evaluate(generator, "test", per_kind=per_kind, guidance_scale=3.0),
        "clean clips": bounce.measure(clips, texts),
        "clean clips through the codec": bounce.measure(
            generator.decode(generator.codec.encode(torch.from_numpy(clips))).numpy(), texts
        ),
    }


def publish(generator: VideoGenerator, folder: Path, recipe: Recipe, per_kind: int = 256) -> Scores:
    """Save a checkpoint with a model card whose scores were measured on the weights as they load again."""
    save(generator, folder, "scores follow\n")
    loaded = load(folder)
    with torch.no_grad():
        scores = score(loaded, per_kind)
    save(loaded, folder, card(loaded, recipe, scores))
    return scores


def card(generator: VideoGenerator, recipe: Recipe, scores: Scores) -> str:
    """The model card of the base, in Markdown."""
    size = {name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in generator.modules.items()}
    columns = ["accuracy", *(f"accuracy_{kind}" for kind in bounce.KINDS), "diversity", "mass", "displacement"]
    table = "\n".join(
        f"| {label} | " + " | ".join(f"{values.get(c, float('nan')):.3f}" for c in columns) + " |"
        for label, values in scores.items()
    )
    settings = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    return f"""# bounce: a small text-to-video generator

Clips of {bounce.FRAMES} frames of 24x24: something is thrown, falls and bounces, from prompts such as "a red disc
thrown left".

## What it is

A frame autoencoder of our own ({size["codec"]:.2f}M parameters, {CODE} numbers a frame), and
`WanTransformer3DModel` ({size["transformer"]:.2f}M, width {recipe.width}, {recipe.layers} layers) on one token a frame,
`FlowMatchEulerDiscreteScheduler` (shift 1) and a prompt encoder of our own ({size["prompt_encoder"]:.2f}M). Transformer
and scheduler load in plain diffusers.

## Scores

Share of clips that the strict verifier accepts, by Euler's method in 10 steps, measured after reloading these files
(standard error of the first row {scores["test"]["accuracy_se"]:.3f}); diversity of accepted clips of one prompt; mass
and displacement in pixels.

| | {" | ".join(column.removeprefix("accuracy_") for column in columns)} |
|---|{"---|" * len(columns)}
{table}

## How it was made, and why so

`pixelpolicy pretrain bounce` makes such a base from a seed, and goes on where an interrupted run stopped. The last
{recipe.held_back_steps:,} steps saw a mix of which {recipe.flawed_share:.0%} is flawed: things vanish for some frames,
jitter, fall too slowly, or have another colour, shape or direction than their caption says. So the base has the skill
and is held back as real ones are.

{settings}

## Data, limits and licence

All training data is drawn by `pixelpolicy.worlds.bounce`; nothing else was seen. It is good for nothing but teaching.
Apache-2.0.
"""
