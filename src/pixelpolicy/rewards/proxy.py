"""How the shipped proxy is made: a reward network fitted to the dense verifier on pictures of the base.

Half of the pairs are the base's own pictures under their prompts, half the same pictures under prompts that share words
with them, so that the proxy must read.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from pixelpolicy.generators.checkpoint import load, save_weights
from pixelpolicy.rewards.learned import RewardNetwork, fit_scores
from pixelpolicy.verified import write_text
from pixelpolicy.worlds import shapes


@dataclass(frozen=True)
class Recipe:
    """Counts of the fit; the defaults made the shipped checkpoint."""

    seed: int = 0
    pictures: int = 32_000
    steps: int = 4_000
    held_out: int = 2_000


def near_prompt(text: str, rng: np.random.Generator) -> str:
    """Another prompt: of four drawn, the one that shares the most words."""
    kind = shapes.parse(text).kind if rng.random() < 0.8 else None
    drawn = [str(rng.choice(shapes.prompts(kind))) for _ in range(4)]
    return max(drawn, key=lambda other: len(set(shapes.words(other)) & set(shapes.words(text))))


def judged_pictures(count: int, seed: list[int]) -> tuple[Tensor, list[str], Tensor, Tensor]:
    """``(pictures, prompts, dense, strict)``: ``count`` pictures of the base under their prompts, then under others."""
    base, rng = load("shapes"), np.random.default_rng(seed)
    texts, pictures = [], []
    for start in tqdm(range(0, count, 200), desc="pictures of the base"):
        drawn = shapes.draw_prompts(min(200, count - start), rng)
        seeds, steps = rng.integers(2**62, size=len(drawn)).tolist(), int(rng.integers(4, 11))
        scale = float(rng.choice([1.0, 1.0, 2.5]))
        pictures.append(base.generate(drawn, seeds, steps=steps, guidance_scale=scale))
        texts += drawn
    pictures, texts = torch.cat([*pictures, *pictures]), texts + [near_prompt(text, rng) for text in texts]
    verdicts = shapes.verify(pictures.numpy(), texts)
    dense, strict = (torch.tensor([float(getattr(v, key)) for v in verdicts]) for key in ("dense", "strict"))
    return pictures, texts, dense, strict


def agreement(network: RewardNetwork, pictures: Tensor, prompts: list[str], dense: Tensor, strict: Tensor) -> dict:
    """How the network's word compares with the verifier's: the correlation with the dense score, and how often an
    accepted picture has the higher value of two (the area under the curve)."""
    with torch.no_grad():
        tokens = network.tokens(prompts)
        values = torch.cat([network(p, t) for p, t in zip(pictures.split(500), tokens.split(500), strict=True)])
    ranks, accepted = values.argsort().argsort().double(), strict > 0.5
    good, bad = int(accepted.sum()), int((~accepted).sum())
    above = (ranks[accepted].sum() - good * (good - 1) / 2) / (good * bad)
    return {"correlation": torch.corrcoef(torch.stack([values, dense]))[0, 1].item(), "auc": above.item()}


def publish(folder: Path, recipe: Recipe = Recipe()) -> dict[str, dict[str, float]]:
    """Train the proxy from its seed and write its weights and model card to ``folder``; how it agrees held out."""
    pictures, prompts, dense, strict = judged_pictures(recipe.pictures, [recipe.seed, 1])
    torch.manual_seed(recipe.seed)
    network = RewardNetwork()
    fit_scores(network, pictures, prompts, dense, steps=recipe.steps, seed=recipe.seed)
    held = judged_pictures(recipe.held_out, [recipe.seed, 2])
    own, other = slice(0, recipe.held_out), slice(recipe.held_out, None)
    scores = {
        name: agreement(network, *(part[rows] for part in held))
        for name, rows in (("own prompts", own), ("near prompts", other))
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.md", card(network, recipe, scores))
    save_weights(network.state_dict(), folder / "proxy.safetensors")
    return scores


def card(network: RewardNetwork, recipe: Recipe, scores: dict[str, dict[str, float]]) -> str:
    """The model card, in Markdown."""
    rows = "\n".join(f"| {name} | {s['correlation']:.3f} | {s['auc']:.3f} |" for name, s in scores.items())
    settings = "\n".join(f"- `{name}`: {value}" for name, value in asdict(recipe).items())
    size = sum(p.numel() for p in network.parameters()) / 1e6
    return f"""# proxy: a differentiable stand-in for the verifier of shapes

A convolutional network of {size:.2f}M parameters that sees a picture and the words of its prompt and guesses the
verifier's dense score. It has a gradient, and it can be fooled: that is what the course uses it for. Never report it
without the strict verifier beside it.

## Agreement with the verifier

On {recipe.held_out} fresh pictures of the base, each under its own prompt and under another that shares words with it:
the correlation with the dense score, and how often an accepted picture is given more than a rejected one.

| | correlation | accepted above rejected |
|---|---|---|
{rows}

## How it was made

`pixelpolicy pretrain proxy` remakes it from its seed: pictures of the base (4 to 10 steps, guidance 1 or 2.5), judged
by the verifier under both prompts, and least squares.

{settings}

Licence: Apache-2.0, as the code; the data are the course's own.
"""
