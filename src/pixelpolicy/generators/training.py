"""What the recipes of all bases share: resumable stages of optimisation, and the flow-matching loss."""

from __future__ import annotations

import json
import math
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from pixelpolicy.errors import CheckpointError
from pixelpolicy.generators.flow import FlowGenerator

Scores = dict[str, dict[str, float]]
Report = Callable[[str, int, Any, dict[str, float]], None]  # stage, step, generator, scores


def begin(folder: Path, recipe: Any) -> None:
    """Open the folder of a run. Raises `CheckpointError` where it holds a run of another recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    note, mine = folder / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n"
    if note.exists() and note.read_text(encoding="utf-8") != mine:
        raise CheckpointError(
            f"{folder} holds a run of another recipe (see {note}). Give another folder, or remove it to start again."
        )
    note.write_text(mine, encoding="utf-8")


def schedule(step: int, steps: int, horizon: int | None = None, cooldown: int = 1, warmup: int = 200) -> float:
    """Learning-rate factor: linear warm-up, half a cosine towards ``horizon`` (``steps`` unless given), and over the
    last ``cooldown`` steps a straight line to zero on top."""
    half_cosine = 0.5 * (1 + math.cos(math.pi * step / (horizon or steps)))
    return min((step + 1) / warmup, half_cosine) * min(1.0, (steps - step) / cooldown)


class Stage:
    """One resumable optimisation: its state is written to a file whole or not at all."""

    def __init__(
        self,
        path: Path,
        modules: list[torch.nn.Module],
        rate: Callable[[int], float],
        steps: int,
        save_every: int,
        ema: float,
    ):
        self.path, self.modules, self.steps, self.rate, self.save_every = path, modules, steps, rate, save_every
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate(0), betas=(0.9, 0.99), weight_decay=1e-3)
        self.decay, self.average = ema, [p.detach().clone() for p in self.parameters]
        self.step = 0
        if path.exists():
            try:
                state = torch.load(path, weights_only=True)
            except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
                raise CheckpointError(
                    f"{path} cannot be read ({error}). Remove it: the run goes on from the stage before."
                ) from error
            self.step, self.average = state["step"], state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            for module, weights in zip(modules, state["modules"], strict=True):
                module.load_state_dict(weights)

    def save(self) -> None:
        state = {
            "step": self.step,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "modules": [m.state_dict() for m in self.modules],
        }
        part = self.path.with_suffix(".part")
        try:
            torch.save(state, part)
            os.replace(part, self.path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise CheckpointError(
                f"could not save {self.path} ({error}); the one before it is whole. Free some space and run the same "
                f"command again: it goes on from there"
            ) from error

    def run(self, loss: Callable[[int], Tensor], name: str, after: Callable[[int, float], None]) -> None:
        bar = tqdm(range(self.step, self.steps), initial=self.step, total=self.steps, desc=name)
        for step in bar:
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(step)
            value = loss(step)
            self.optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            decay = min(self.decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)
            self.step = step + 1
            if self.step % self.save_every == 0 or self.step == self.steps:
                self.save()
                bar.set_postfix(loss=f"{value.item():.4f}")
                with self.averaged():
                    after(self.step, value.item())
        self.use_average()

    def use_average(self) -> None:
        for parameter, mean in zip(self.parameters, self.average, strict=True):
            parameter.data.copy_(mean)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within this context the modules have their averaged weights."""
        kept = [p.detach().clone() for p in self.parameters]
        self.use_average()
        yield
        for parameter, old in zip(self.parameters, kept, strict=True):
            parameter.data.copy_(old)


def matching_loss(
    generator: FlowGenerator,
    tokens: Int[Tensor, "samples words"],
    latents: Float[Tensor, "samples ..."],
    *,
    batch: int,
    dropout: float,
    random: torch.Generator,
) -> Float[Tensor, ""]:
    """Flow matching (Lipman et al. 2023, eq. 23; logit-normal times, Esser et al. 2024) on a random batch of samples.

    A share ``dropout`` of the prompts is left empty, so that guidance has something to compare with.
    """
    rows = torch.randint(len(tokens), (batch,), generator=random)
    x0 = latents[rows].float()
    x1 = torch.randn(x0.shape, generator=random)
    dropped = torch.rand(batch, 1, generator=random) < dropout
    embeds, pooled = generator.prompt_encoder(tokens[rows].masked_fill(dropped, 0))
    sigma = torch.randn(batch, generator=random).sigmoid()
    s = sigma.reshape(-1, *[1] * (x0.ndim - 1))
    velocity = generator.velocity((1 - s) * x0 + s * x1, sigma, embeds, pooled)
    return F.mse_loss(velocity, x1 - x0)
