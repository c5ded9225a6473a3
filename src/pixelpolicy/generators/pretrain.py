"""How the base of the `shapes` world is made: an autoencoder, then a flow on its latents, then bad captions.

The base is first taught well, and then held back as real ones are, by captions that misdescribe their pictures; it
*has* the skill that reinforcement learning later brings out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from pixelpolicy.generators.checkpoint import load, save
from pixelpolicy.generators.evaluation import evaluate
from pixelpolicy.generators.image import ImageGenerator, build
from pixelpolicy.generators.training import Report, Scores, Stage, begin, matching_loss, schedule
from pixelpolicy.worlds import shapes

KIND_SHARES = {"single": 0.10, "count": 0.25, "two": 0.25, "relation": 0.40}


@dataclass(frozen=True)
class Recipe:
    """Counts and rates of pretraining; the defaults made the shipped checkpoint."""

    seed: int = 0
    width: int = 96
    layers: int = 4
    autoencoder_steps: int = 2_500
    autoencoder_batch: int = 64
    autoencoder_lr: float = 2e-3
    kl_weight: float = 1e-4
    pictures: int = 98_304
    flow_steps: int = 10_000
    flow_horizon: int = 14_000
    flow_cooldown: int = 4_000
    held_back_steps: int = 1_500
    flawed_share: float = 0.2
    flow_batch: int = 128
    flow_lr: float = 2e-3
    ema: float = 0.999
    prompt_dropout: float = 0.1
    save_every: int = 500


DEFAULT = Recipe()
SMOKE = {
    "width": 32, "layers": 1, "autoencoder_steps": 2, "autoencoder_batch": 8, "pictures": 48, "flow_steps": 2,
    "held_back_steps": 2, "flow_batch": 8, "save_every": 1,
}  # fmt: skip


def recipe_of(name: str, seed: int, *, small: bool) -> Recipe:
    """The recipe of the shipped base from another seed, or a small one that takes seconds."""
    return Recipe(seed=seed, **(SMOKE if small else {}))


def sample_scenes(count: int, rng: np.random.Generator, *, flawed: bool = False) -> tuple[list[str], np.ndarray]:
    """Random prompts (kinds in their shares) and pictures of what they describe, or misdescribe."""
    kinds = rng.choice(list(KIND_SHARES), size=count, p=list(KIND_SHARES.values()))
    texts = [str(rng.choice(shapes.prompts(kind))) for kind in kinds]
    return texts, shapes.draw([shapes.scene(text, rng, flawed=flawed) for text in texts])


def train_autoencoder(generator: ImageGenerator, recipe: Recipe, folder: Path, report: Report) -> None:
    """Fit the autoencoder, then set its scale so that latents have mean 0 and variance 1."""
    vae = generator.vae
    steps = recipe.autoencoder_steps
    stage = Stage(
        folder / "autoencoder.pt",
        [vae],
        lambda step: recipe.autoencoder_lr * schedule(step, steps),
        steps,
        recipe.save_every,
        recipe.ema,
    )

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([recipe.seed, 1, step])
        pictures = torch.from_numpy(sample_scenes(recipe.autoencoder_batch, rng, flawed=bool(step % 2))[1])
        posterior = vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(step))
        rebuilt = vae.decode(posterior.mean + posterior.std * noise).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return F.mse_loss(rebuilt, pictures) + recipe.kl_weight * kl

    texts, pictures = sample_scenes(512, np.random.default_rng([recipe.seed, 2]))
    clean = torch.from_numpy(pictures)

    @torch.no_grad()
    def after(step: int, value: float) -> None:
        rebuilt = vae.decode(vae.encode(clean).latent_dist.mean).sample.clamp(-1, 1)
        scores = shapes.measure(rebuilt.numpy(), texts)
        report("autoencoder", step, generator, {"loss": value, "mse": F.mse_loss(rebuilt, clean).item(), **scores})

    stage.run(loss, "autoencoder", after)
    with torch.no_grad():
        latents = vae.encode(clean).latent_dist.mean
    vae.register_to_config(shift_factor=latents.mean().item(), scaling_factor=1 / latents.std().item())


@torch.no_grad()
def encode_pictures(generator: ImageGenerator, count: int, seed: list[int], *, flawed: bool) -> tuple[Tensor, Tensor]:
    """Tokens and scaled latents (float16) of random scenes, made once and used for all steps."""
    tokens, latents, config = [], [], generator.vae.config
    for chunk in tqdm(range(0, count, 512), desc="flawed scenes" if flawed else "scenes"):
        texts, pictures = sample_scenes(min(512, count - chunk), np.random.default_rng([*seed, chunk]), flawed=flawed)
        mean = generator.vae.encode(torch.from_numpy(pictures)).latent_dist.mean
        latents.append(((mean - config.shift_factor) * config.scaling_factor).half())
        tokens.append(generator.prompt_encoder.tokens(texts))
    return torch.cat(tokens), torch.cat(latents)


def train_flow(generator: ImageGenerator, recipe: Recipe, folder: Path, report: Report, *, held_back: bool) -> None:
    """Flow matching on latents of scenes.

    With ``held_back`` it goes on from the trained flow at half the rate, ``recipe.flawed_share`` of captions flawed.
    """
    name = "held-back" if held_back else "flow"
    steps = recipe.held_back_steps if held_back else recipe.flow_steps

    def rate(step: int) -> float:
        if held_back:
            return 0.5 * recipe.flow_lr * schedule(step, steps)
        return recipe.flow_lr * schedule(step, steps, recipe.flow_horizon, recipe.flow_cooldown)

    modules = [generator.transformer, generator.prompt_encoder]
    stage = Stage(folder / f"{name}.pt", modules, rate, steps, recipe.save_every, recipe.ema)
    if stage.step == steps:
        return stage.use_average()
    tokens, latents = encode_pictures(generator, recipe.pictures, [recipe.seed, 3], flawed=False)
    if held_back:
        count = int(recipe.pictures * recipe.flawed_share / (1 - recipe.flawed_share))
        flawed = encode_pictures(generator, count, [recipe.seed, 4], flawed=True)
        tokens, latents = torch.cat([tokens, flawed[0]]), torch.cat([latents, flawed[1]])

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(recipe.seed * 10_000_000 + held_back * 1_000_000 + step)
        batch, dropout = recipe.flow_batch, recipe.prompt_dropout
        return matching_loss(generator, tokens, latents, batch=batch, dropout=dropout, random=random)

    texts, seeds = shapes.evaluation_pairs("validation", 64)

    def after(step: int, value: float) -> None:
        scores = {"loss": value}
        if step % (4 * recipe.save_every) == 0 or step == steps:
            scores |= shapes.measure(generator.generate(texts, seeds).numpy(), texts)
            guided = shapes.measure(generator.generate(texts, seeds, guidance_scale=3.0).numpy(), texts)
            scores["guided_accuracy"] = guided["accuracy"]
        report(name, step, generator, scores)

    stage.run(loss, name, after)


def pretrain(folder: Path, recipe: Recipe = DEFAULT, report: Report = lambda *_: None) -> ImageGenerator:
    """Make the base from its seed, going on where an interrupted run in ``folder`` stopped."""
    begin(folder, recipe)
    torch.manual_seed(recipe.seed)
    generator = build(recipe.width, recipe.layers)
    train_autoencoder(generator, recipe, folder, report)
    generator.vae.requires_grad_(False)
    train_flow(generator, recipe, folder, report, held_back=False)
    train_flow(generator, recipe, folder, report, held_back=True)
    return generator


def score(generator: ImageGenerator, per_kind: int = 256) -> Scores:
    """Accuracy and diversity on the fixed evaluation pairs: trained prompts, held-out ones, with guidance 3."""
    return {
        "test": evaluate(generator, "test", per_kind=per_kind),
        "held-out": evaluate(generator, "held-out", per_kind=per_kind),
        "guided": evaluate(generator, "test", per_kind=per_kind, guidance_scale=3.0),
    }


def publish(generator: ImageGenerator, folder: Path, recipe: Recipe, per_kind: int = 256) -> Scores:
    """Save a checkpoint with a model card whose scores were measured on the weights as they load again."""
    save(generator, folder, "scores follow\n")
    loaded = load(folder)
    scores = score(loaded, per_kind)
    save(loaded, folder, card(loaded, recipe, scores))
    return scores


def card(generator: ImageGenerator, recipe: Recipe, scores: Scores) -> str:
    """The model card of the base, in Markdown."""
    rows = {"trained prompts": "test", "held-out prompts": "held-out", "trained prompts, guidance 3": "guided"}
    columns = ["accuracy", *(f"accuracy_{kind}" for kind in shapes.KINDS), "diversity"]
    table = "\n".join(
        f"| {label} | " + " | ".join(f"{scores[key][column]:.3f}" for column in columns) + " |"
        for label, key in rows.items()
    )
    size = {
        part: sum(p.numel() for p in getattr(generator, part).parameters()) / 1e6
        for part in ("transformer", "vae", "prompt_encoder")
    }
    settings = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    return f"""# shapes: a small text-to-image generator

Draws one to four coloured shapes on a dark ground, 32x32, from prompts such as "a red circle left of a blue square".
It is the base on which every image method of the course acts.

## What it is

The classes of Stable Diffusion 3.5 with a small configuration: `SD3Transformer2DModel` ({size["transformer"]:.2f}M
parameters, width {recipe.width}, {recipe.layers} layers, 16 picture tokens and {shapes.MOST_WORDS} word tokens),
`AutoencoderKL` ({size["vae"]:.2f}M, latents 4x8x8), `FlowMatchEulerDiscreteScheduler` (shift 1) and a prompt encoder of
our own ({size["prompt_encoder"]:.2f}M). The first three load in plain diffusers.

## Scores

Share of pictures that the strict verifier accepts, by Euler's method in 10 steps, measured after reloading these
files (standard error of the first column {scores["test"]["accuracy_se"]:.3f}); diversity is the mean distance of
accepted pictures of one prompt in the places and sizes of their objects.

| | {" | ".join(column.removeprefix("accuracy_") for column in columns)} |
|---|{"---|" * len(columns)}
{table}

## How it was made, and why so

`pixelpolicy pretrain shapes` remakes it from its seed, and goes on where an interrupted run stopped. First the
autoencoder, then a flow on its latents ({recipe.flow_steps:,} steps of {recipe.flow_batch}), then
{recipe.held_back_steps:,} more in which {recipe.flawed_share:.0%} of the captions misdescribe their picture in one
point: a wrong colour, shape, number or relation. So the base has the skill and is held back, as real ones are, by the
captions it learnt from; reinforcement learning can bring that skill out in minutes.

Four colours, three shapes and {len(shapes.prompts())} prompts keep relations learnable within an hour on two cores.
A 4x8x8 latent makes 16 tokens; width {recipe.width} and {recipe.layers} layers were chosen because the cost of an
iteration of reinforcement learning is that of its forward passes. Pictures stay crisp because the autoencoder, not the
transformer, draws the edges.

{settings}

## Data, limits and licence

All training pictures are drawn by `pixelpolicy.worlds.shapes`; nothing else was seen. The base has seen every prompt;
"held-out" prompts are those that fine-tuning never sees. It is good for nothing but teaching. Apache-2.0.
"""
