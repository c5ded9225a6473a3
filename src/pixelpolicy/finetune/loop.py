"""The one training loop: an algorithm collects experience and gives losses; the loop does all the rest.

Device, precision, accumulation, averaging of weights, checkpoints, the progress bar and trackers live here, on
Accelerate, so that an algorithm's file holds nothing but the algorithm.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from tqdm.auto import tqdm

from pixelpolicy.errors import CheckpointError, TrainingError
from pixelpolicy.finetune.processes import average_gradients, place, total

Loss = Callable[[], tuple[Tensor, dict[str, float]]]
Minibatch = Sequence[Loss]


class Algorithm(Protocol):
    """What the loop asks of a fine-tuning method.

    One that has a memory of its own beside the model, such as a critic, has ``state() -> dict`` and
    ``load_state(dict)`` too, of what `torch.save` writes as plain data.
    """

    model: nn.Module

    def collect(self, iteration: int) -> tuple[Any, dict[str, float]]:
        """Experience for one iteration, and metrics of it; all randomness follows from ``iteration``."""

    def minibatches(self, experience: Any, iteration: int) -> Iterable[Minibatch]:
        """The optimiser steps of one iteration, each a list of losses whose mean is descended."""


@dataclass(frozen=True)
class LoopConfig:
    """Settings of the loop that no algorithm needs to know."""

    iterations: int
    learning_rate: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_iterations: int = 0
    cooldown_iterations: int = 0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.9
    mixed_precision: str = "no"
    folder: Path | None = None
    save_every: int = 10
    trackers: tuple[str, ...] = ()
    name: str = "finetune"
    progress: bool = True


@dataclass
class Loop:
    """State of one training: what a checkpoint holds, and what callbacks may look at."""

    algorithm: Algorithm
    config: LoopConfig
    iteration: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        from accelerate import Accelerator
        from diffusers.training_utils import EMAModel

        config = self.config
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision, log_with=list(config.trackers) or None, project_dir=config.folder
        )
        if not any(p.requires_grad for p in self.algorithm.model.parameters()):
            raise TrainingError("the model has no parameter that requires a gradient; call requires_grad_(True) on it")
        model = self.algorithm.model.to(self.accelerator.device)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, config.learning_rate, config.betas, weight_decay=0.0)
        if self.accelerator.distributed_type == "FSDP":  # shards the model's own modules, in place
            _, self.optimizer = self.accelerator.prepare(model, optimizer)
        else:
            self.optimizer = self.accelerator.prepare(optimizer)
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        # Without a least decay EMAModel would start with almost none: it is made for runs of many thousand steps.
        self.ema = EMAModel(self.parameters, decay=config.ema_decay, min_decay=config.ema_decay)
        if config.trackers:
            self.accelerator.init_trackers(config.name)
        self.resume()

    @contextmanager
    def averaged_weights(self):
        """Within this context the model has its moving average: what one evaluates and keeps."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield self.algorithm.model
        finally:
            self.ema.restore(self.parameters)

    def run(self, callbacks: Sequence[Callable[[Loop, dict[str, float]], None]] = ()) -> list[dict[str, float]]:
        """Train to the last iteration; a callback may add to the metrics of each. Returns the history."""
        bar = tqdm(
            range(self.iteration, self.config.iterations),
            initial=self.iteration,
            total=self.config.iterations,
            desc=self.config.name,
            disable=not (self.config.progress and self.accelerator.is_main_process),
        )
        for _ in bar:
            metrics = self.iterate()
            for callback in callbacks:
                callback(self, metrics)
            self.history.append(metrics)
            if self.config.trackers:
                self.accelerator.log(metrics, step=self.iteration)
            bar.set_postfix({k: f"{v:.3f}" for k, v in metrics.items() if k in ("reward", "accuracy")})
            last = self.iteration == self.config.iterations
            if self.config.folder and (last or self.iteration % self.config.save_every == 0):
                self.save()
        if self.config.trackers:
            self.accelerator.end_training()
        return self.history

    def iterate(self) -> dict[str, float]:
        """Collect once, take the algorithm's optimiser steps, and return the mean metrics."""
        start, cpu_start = time.perf_counter(), time.process_time()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self.ramp()
        with self.accelerator.autocast():  # the densities written down must be those that the losses replay
            experience, metrics = self.algorithm.collect(self.iteration)
        logged: dict[str, list[float]] = {}
        for losses in self.algorithm.minibatches(experience, self.iteration):
            self.optimizer.zero_grad()
            for loss in losses:
                with self.accelerator.autocast():
                    value, details = loss()
                self.accelerator.backward(value / len(losses))
                for key, number in {"loss": value.item(), **details}.items():
                    logged.setdefault(key, []).append(number)
            average_gradients(self.parameters)
            norm = float(whole(self.accelerator.clip_grad_norm_(self.parameters, self.config.max_grad_norm)))
            if not math.isfinite(norm):
                raise TrainingError(
                    f"the gradient is {norm} at iteration {self.iteration}: training has diverged. Lower the "
                    f"learning rate or raise the KL weight; the last checkpoint is untouched."
                )
            logged.setdefault("grad_norm", []).append(norm)
            self.optimizer.step()
            self.ema.step(self.parameters)
        self.iteration += 1
        means = {key: sum(values) / len(values) for key, values in logged.items()}
        *shared, cpu_seconds = total(torch.tensor([*means.values(), time.process_time() - cpu_start]).double()).tolist()
        return {
            "iteration": self.iteration,
            **metrics,
            **{key: value / place()[1] for key, value in zip(means, shared, strict=True)},
            "seconds": time.perf_counter() - start,
            "cpu_seconds": cpu_seconds,
        }

    def ramp(self) -> float:
        """Factor of the learning rate: up in a straight line over the warm-up, down over the cool-down."""
        config, left = self.config, self.config.iterations - self.iteration
        return min(1.0, (self.iteration + 1) / (config.warmup_iterations + 1), left / (config.cooldown_iterations + 1))

    # Checkpoints: a folder written beside the old one and renamed, so that there is always a whole one.

    def state(self) -> dict[str, Any]:
        """All that the rest of the training follows from: trained weights alone, whole on every process."""
        optimizer, ema = self.optimizer.state_dict(), self.ema.state_dict()
        moments = {i: {key: whole(value) for key, value in moment.items()} for i, moment in optimizer["state"].items()}
        return {
            "model": {name: whole(p.detach()) for name, p in zip(self.names, self.parameters, strict=True)},
            "optimizer": optimizer | {"state": moments},
            "ema": ema | {"shadow_params": [whole(mean) for mean in ema["shadow_params"]]},
            "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler else {},
            "random": torch.get_rng_state(),
            "iteration": self.iteration,
            "algorithm": self.algorithm.state() if hasattr(self.algorithm, "state") else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises where it is of another model."""
        held = {name: value.shape for name, value in state["model"].items()}
        if held != {name: p.shape for name, p in zip(self.names, self.parameters, strict=True)}:
            raise ValueError("it holds weights of other names or shapes than those that this model trains")
        moments = {
            i: {key: value if key == "step" else spread(value, self.parameters[i]) for key, value in moment.items()}
            for i, moment in state["optimizer"]["state"].items()
        }
        shadows = [spread(m, p) for m, p in zip(state["ema"]["shadow_params"], self.parameters, strict=True)]
        with torch.no_grad():
            for parameter, value in zip(self.parameters, state["model"].values(), strict=True):
                parameter.copy_(spread(value, parameter))
        self.optimizer.load_state_dict(state["optimizer"] | {"state": moments})
        self.ema.load_state_dict(state["ema"] | {"shadow_params": shadows})
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"].cpu())
        if hasattr(self.algorithm, "load_state"):
            self.algorithm.load_state(state["algorithm"])
        self.iteration = state["iteration"]

    def save(self) -> Path:
        """Write ``checkpoint-N`` and keep the last two. Raises `CheckpointError` where the disk will not take it."""
        folder, state = self.config.folder / f"checkpoint-{self.iteration:06d}", self.state()
        if self.accelerator.is_main_process:
            self._write(folder, state)
        self.accelerator.wait_for_everyone()
        return folder

    def _write(self, folder: Path, state: dict[str, Any]) -> None:
        part = folder.with_suffix(".part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            torch.save(state, part / "state.pt")
            (part / "history.json").write_text(json.dumps(self.history, default=float))
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(part, folder)
        except (OSError, RuntimeError) as error:
            shutil.rmtree(part, ignore_errors=True)
            raise CheckpointError(
                f"could not save {folder} ({error}). Free some disk space and run again: training goes on from the "
                f"last whole checkpoint."
            ) from error
        for old in self.checkpoints()[:-2]:
            shutil.rmtree(old)

    def checkpoints(self) -> list[Path]:
        """The whole checkpoints of this folder, oldest first."""
        found = self.config.folder.glob("checkpoint-*") if self.config.folder else ()
        return sorted(p for p in found if p.is_dir() and p.suffix != ".part")

    def resume(self) -> None:
        """Go on from the newest checkpoint of the folder, if it has one."""
        if not self.checkpoints():
            return
        folder = self.checkpoints()[-1]
        try:
            self.load_state(torch.load(folder / "state.pt", weights_only=True, map_location="cpu"))
            self.history = json.loads((folder / "history.json").read_text())
        except Exception as error:
            raise CheckpointError(
                f"{folder} cannot be read ({type(error).__name__}: {error}). Delete it to go on from the one before, "
                f"or delete {folder.parent} to begin again."
            ) from error


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the CPU, all of it where processes hold shards."""
    if not isinstance(tensor, Tensor):
        return tensor
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).cpu()


def spread(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor where ``like`` is, in shards where that is in shards."""
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements) if isinstance(like, DTensor) else value
