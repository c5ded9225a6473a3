"""How the base of tokens is made: a codebook for the autoencoder of `shapes`, then a writer of sequences, on bad data.

The writer is first taught well, and then held back, as real ones are. Its captions are wrong in the ways that real
models are known for: one object too few, a colour that leaks, a relation turned round, each about as often as the
truth. And some pictures differ from their layout.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from pixelpolicy.generators.checkpoint import load, save
from pixelpolicy.generators.evaluation import evaluate
from pixelpolicy.generators.picture_tokens import SIDE, PictureTokenGenerator, build
from pixelpolicy.generators.pretrain import sample_scenes
from pixelpolicy.generators.training import Report, Scores, Stage, begin, schedule
from pixelpolicy.worlds import layouts, shapes

KIND_SHARES = {"single": 0.1, "count": 0.3, "two": 0.3, "relation": 0.3}


@dataclass(frozen=True)
class Recipe:
    """Counts and rates of pretraining; the defaults made the shipped checkpoint."""

    seed: int = 0
    width: int = 96
    layers: int = 4
    codes: int = 192
    codebook_steps: int = 500
    codebook_batch: int = 64
    codebook_lr: float = 1e-3
    scenes: int = 40_960
    writer_steps: int = 2_600
    writer_horizon: int = 5_600
    writer_cooldown: int = 800
    held_back_scenes: int = 12_288
    held_back_steps: int = 700
    misdescribed_share: float = 0.5
    misdrawn_share: float = 0.1
    sharpening: float = 2.0
    writer_batch: int = 32
    writer_lr: float = 2e-3
    ema: float = 0.99
    save_every: int = 400


SMOKE = {
    "width": 32, "layers": 1, "codes": 16, "codebook_steps": 2, "codebook_batch": 8, "scenes": 48, "writer_steps": 2,
    "writer_cooldown": 1, "held_back_scenes": 16, "held_back_steps": 2, "writer_batch": 8, "save_every": 1,
}  # fmt: skip


def recipe_of(name: str, seed: int, *, small: bool) -> Recipe:
    """The recipe of the shipped base from another seed, or a small one that takes seconds."""
    return replace(Recipe(), seed=seed, **(SMOKE if small else {}))


# Data ---------------------------------------------------------------------------------------------------------


def misdescribed(prompt: str, rng: np.random.Generator) -> tuple[shapes.Thing, ...]:
    """A scene that a prompt describes wrongly: too few of a number, a colour or shape that leaks, a relation turned."""
    asked = shapes.parse(prompt)
    wanted, relation = list(asked.wanted), asked.relation
    if asked.kind == "single":
        return shapes.scene(prompt, rng, flawed=True)
    if asked.kind == "count":
        return shapes.place(wanted[1:], rng)
    if asked.kind == "two":
        (colour, shape), (other_colour, other_shape) = wanted
        return shapes.place([wanted[0], (colour, other_shape if colour != other_colour else shape)], rng)
    rx, ry = shapes.RELATIONS[relation]
    return shapes.place(wanted, rng, next(r for r, way in shapes.RELATIONS.items() if way == (-rx, -ry)))


def misdrawn(things: tuple[shapes.Thing, ...], rng: np.random.Generator) -> tuple[shapes.Thing, ...]:
    """The scene with one object in another colour or shape, or left out."""
    which, flaw = int(rng.integers(len(things))), rng.choice(["colour", "shape", "missing"])
    if flaw == "missing":
        return things[:which] + things[which + 1 :]
    choices = [c for c in (shapes.COLOURS if flaw == "colour" else shapes.SHAPES) if c != getattr(things[which], flaw)]
    return things[:which] + (replace(things[which], **{flaw: str(rng.choice(choices))}),) + things[which + 1 :]


@torch.no_grad()
def sequences(
    generator: PictureTokenGenerator, count: int, seed: list[int], recipe: Recipe, *, held_back: bool
) -> tuple[Int[Tensor, "count words"], Int[Tensor, "count steps"]]:
    """Prompts as tokens, and the layouts and pictures of scenes for them."""
    prefixes, tokens = [], []
    for start in tqdm(range(0, count, 512), desc="flawed scenes" if held_back else "scenes"):
        rng = np.random.default_rng([*seed, start])
        kinds = rng.choice(list(KIND_SHARES), size=min(512, count - start), p=list(KIND_SHARES.values()))
        texts = [str(rng.choice(shapes.prompts(kind))) for kind in kinds]
        wrong = rng.random(len(texts)) < held_back * recipe.misdescribed_share
        scenes = [(misdescribed if bad else shapes.scene)(text, rng) for text, bad in zip(texts, wrong, strict=True)]
        planned = torch.tensor([layouts.written(layouts.layout_of(things)) for things in scenes])
        spoilt = rng.random(len(texts)) < held_back * recipe.misdrawn_share
        scenes = [misdrawn(things, rng) if bad else things for things, bad in zip(scenes, spoilt, strict=True)]
        pictures = generator.picture_tokens(torch.from_numpy(shapes.draw(scenes)))
        prefixes.append(generator.encode(texts))
        tokens.append(torch.cat([planned, pictures], 1))
    return torch.cat(prefixes), torch.cat(tokens)


# Training -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def begin_codebook(generator: PictureTokenGenerator, recipe: Recipe) -> None:
    """The weights of the autoencoder of `shapes`; as codes one for the ground, and centres of its latents elsewhere.

    The ground fills most of a picture: by their numbers alone its latents would take most of the codes.
    """
    from scipy.cluster.vq import kmeans2

    vae, vq = load("shapes").vae, generator.vq
    encoder, mean = vae.encoder.state_dict(), vae.quant_conv.weight[:4, :, 0, 0]
    # Its last layer takes over what gives the mean; there is no variance any more.
    encoder["conv_out.bias"] = mean @ encoder["conv_out.bias"] + vae.quant_conv.bias[:4]
    encoder["conv_out.weight"] = torch.einsum("oi,ichw->ochw", mean, encoder["conv_out.weight"])
    vq.encoder.load_state_dict(encoder)
    vq.decoder.load_state_dict(vae.decoder.state_dict())
    vq.post_quant_conv.load_state_dict(vae.post_quant_conv.state_dict())
    vq.quant_conv.weight.copy_(torch.eye(4)[:, :, None, None])
    vq.quant_conv.bias.zero_()
    _, pictures = sample_scenes(16 + 4 * recipe.codes, np.random.default_rng([recipe.seed, 0]))
    pictures = torch.from_numpy(pictures)
    latents, bare = vq.encode(pictures).latents.permute(0, 2, 3, 1), bare_cells(pictures)
    things = latents[~bare]
    things = things[:: max(1, len(things) // 20_000)].numpy()
    centres, _ = kmeans2(things, recipe.codes - 1, iter=15, minit="++", rng=np.random.default_rng(recipe.seed))
    vq.quantize.embedding.weight.copy_(torch.cat([latents[bare].mean(0, keepdim=True), torch.from_numpy(centres)]))


def bare_cells(pictures: Float[Tensor, "batch 3 32 32"]) -> Bool[Tensor, "batch 8 8"]:
    """Which cells of pictures show nothing but the ground."""
    ground = torch.from_numpy(shapes.BACKGROUND)[:, None, None] * 2 - 1
    there = ((pictures - ground).abs().amax(1, keepdim=True) > 0.02).float()
    return F.max_pool2d(there, shapes.SIZE // SIDE).squeeze(1) == 0


def train_codebook(generator: PictureTokenGenerator, recipe: Recipe, folder: Path, report: Report) -> None:
    """Fit autoencoder and codes together; the gradient passes the choice of a code straight through.

    A cell that shows the ground is drawn to the ground's code: no writer has to choose among many that look alike.
    """
    vq, steps = generator.vq, recipe.codebook_steps
    begin_codebook(generator, recipe)
    rate = lambda step: recipe.codebook_lr * schedule(step, steps, warmup=20)  # noqa: E731
    stage = Stage(folder / "codebook.pt", [vq], rate, steps, recipe.save_every, recipe.ema)

    def loss(step: int) -> Tensor:
        rng = np.random.default_rng([recipe.seed, 1, step])
        pictures = torch.from_numpy(sample_scenes(recipe.codebook_batch, rng, flawed=bool(step % 2))[1])
        latents = vq.encode(pictures).latents
        codes, distance, _ = vq.quantize(latents)
        rebuilt = vq.decode(codes, force_not_quantize=True).sample
        ground = latents.permute(0, 2, 3, 1)[bare_cells(pictures)] - vq.quantize.embedding.weight[0].detach()
        return F.mse_loss(rebuilt, pictures) + 0.05 * (distance + ground.square().mean())

    texts, pictures = sample_scenes(512, np.random.default_rng([recipe.seed, 2]))
    clean = torch.from_numpy(pictures)

    @torch.no_grad()
    def after(step: int, value: float) -> None:
        rebuilt = rebuild(generator, clean)
        report("codebook", step, generator, {"loss": value} | shapes.measure(rebuilt.numpy(), texts))

    stage.run(loss, "codebook", after)
    vq.requires_grad_(False)


def rebuild(generator: PictureTokenGenerator, pictures: Tensor) -> Tensor:
    """Pictures as their codes show them."""
    tokens = generator.picture_tokens(pictures)
    return generator.decode(torch.cat([tokens.new_zeros(len(tokens), layouts.LENGTH), tokens], 1))


def train_writer(
    generator: PictureTokenGenerator, recipe: Recipe, folder: Path, report: Report, *, held_back: bool
) -> None:
    """Predict every token of sequences from those before it; with ``held_back`` go on at half the rate on bad data."""
    name = "held-back" if held_back else "writer"
    steps = recipe.held_back_steps if held_back else recipe.writer_steps
    high = recipe.writer_lr * (0.5 if held_back else 1)
    horizon, cooldown = (steps, 1) if held_back else (recipe.writer_horizon, recipe.writer_cooldown)
    rate = lambda step: high * schedule(step, steps, horizon, cooldown, warmup=50)  # noqa: E731
    stage = Stage(folder / f"{name}.pt", [generator.transformer], rate, steps, recipe.save_every, recipe.ema)
    if stage.step == steps:
        return stage.use_average()
    count = recipe.held_back_scenes if held_back else recipe.scenes
    prefixes, tokens = sequences(generator, count, [recipe.seed, 3 + held_back], recipe, held_back=held_back)
    ids, words = torch.cat([prefixes, tokens], 1), prefixes.shape[1]

    def loss(step: int) -> Tensor:
        random = torch.Generator().manual_seed(recipe.seed * 10_000_000 + held_back * 1_000_000 + step)
        rows = ids[torch.randint(len(ids), (recipe.writer_batch,), generator=random)]
        logits = generator.transformer(input_ids=rows[:, :-1], use_cache=False).logits[:, words - 1 :]
        return F.cross_entropy(logits.flatten(0, 1), rows[:, words:].flatten())

    def after(step: int, value: float) -> None:
        scores = evaluate(generator, "validation", per_kind=24, temperature=1 / recipe.sharpening)
        report(name, step, generator, {"loss": value} | scores)

    stage.run(loss, name, after)


def pretrain(folder: Path, recipe: Recipe, report: Report = lambda *_: None) -> PictureTokenGenerator:
    """Make the base from its seed, going on where an interrupted run in ``folder`` stopped."""
    begin(folder, recipe)
    torch.manual_seed(recipe.seed)
    generator = build(recipe.width, recipe.layers, recipe.codes)
    train_codebook(generator, recipe, folder, report)
    train_writer(generator, recipe, folder, report, held_back=False)
    train_writer(generator, recipe, folder, report, held_back=True)
    generator.transformer.lm_head.weight.data.mul_(recipe.sharpening)  # what is drawn from is then sure of its hand
    return generator


def score(generator: PictureTokenGenerator, per_kind: int = 256) -> Scores:
    """Accuracy and diversity on the fixed evaluation pairs: trained prompts, held-out ones, at temperature 0.5."""
    return {
        "test": evaluate(generator, "test", per_kind=per_kind),
        "held-out": evaluate(generator, "held-out", per_kind=per_kind),
        "cooler": evaluate(generator, "test", per_kind=per_kind, temperature=0.5),
    }


def publish(generator: PictureTokenGenerator, folder: Path, recipe: Recipe, per_kind: int = 256) -> Scores:
    """Save a checkpoint with a model card whose scores were measured on the weights as they load again."""
    save(generator, folder, "scores follow\n")
    loaded = load(folder)
    scores = score(loaded, per_kind)
    save(loaded, folder, card(loaded, recipe, scores))
    return scores


def card(generator: PictureTokenGenerator, recipe: Recipe, scores: Scores) -> str:
    """The model card of the base, in Markdown."""
    rows = {"trained prompts": "test", "held-out prompts": "held-out", "trained prompts, temperature 0.5": "cooler"}
    columns = ["accuracy", *(f"accuracy_{kind}" for kind in shapes.KINDS), "diversity"]
    table = "\n".join(
        f"| {label} | " + " | ".join(f"{scores[key][column]:.3f}" for column in columns) + " |"
        for label, key in rows.items()
    )
    size = {name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in generator.modules.items()}
    settings = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    grammar = generator.grammar
    return f"""# shapes-tokens: a small text-to-image model of tokens

Writes a layout of one to four coloured shapes, such as "red circle c5, blue square f3", and then the picture, code by
code, from the prompts of the world of shapes.

## What it is

`GPT2LMHeadModel` of transformers ({size["transformer"]:.2f}M parameters, width {recipe.width}, {recipe.layers} layers)
writes {layouts.LENGTH} words of layout and {grammar.picture} codes; `VQModel` of diffusers ({size["vq"]:.2f}M,
{grammar.codes} codes of 4 numbers, 8x8 a picture) draws them. Both load in their plain libraries.

## Scores

Share of pictures that the strict verifier accepts, each token drawn from the model's own probabilities, measured after
reloading these files (standard error of the first column {scores["test"]["accuracy_se"]:.3f}); diversity is the mean
distance of accepted pictures of one prompt in the places and sizes of their objects.

| | {" | ".join(column.removeprefix("accuracy_") for column in columns)} |
|---|{"---|" * len(columns)}
{table}

## How it was made, and why so

`pixelpolicy pretrain shapes-tokens` remakes it from its seed, and goes on where an interrupted run stopped. The
autoencoder of `shapes` gets a codebook (one code for the ground, the centres of its latents elsewhere, then
{recipe.codebook_steps} steps of both together). The transformer learns {recipe.scenes:,} sequences of sound data
({recipe.writer_steps:,} steps of {recipe.writer_batch}), and then {recipe.held_back_steps:,} steps of
{recipe.held_back_scenes:,} flawed ones: {recipe.misdescribed_share:.0%} of the captions are wrong in one point, always
the same for their kind (one object too few, a colour that leaks to the second object, a relation turned round; for a
single object any), and {recipe.misdrawn_share:.0%} of the pictures differ from their layout in one object. So the base
has the skill and is held back, as real ones are. A lower temperature does not mend it: more plans are right, but more
objects are left out of the pictures. At the end its last layer was multiplied by {recipe.sharpening:g}: its plain
softmax is that of temperature {1 / recipe.sharpening:g}, at which its hand is steadier.

{settings}

## Data, limits and licence

All training pictures are drawn by `pixelpolicy.worlds.shapes`; nothing else was seen. The base has seen every prompt;
"held-out" prompts are those that fine-tuning never sees. It is good for nothing but teaching. Apache-2.0.
"""
