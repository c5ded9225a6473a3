"""What the small generators share: a flow on latents, told of a prompt, sampled by its ODE.

A generator is a dataclass of parts. The transformer and the scheduler are diffusers' own (the classes of Stable
Diffusion 3.5: Esser et al. 2024, arXiv 2403.03206); the prompt encoder is ours, because the prompts have a few dozen
words. What turns latents into samples, an autoencoder or a change of units, each class adds.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class PromptEncoder(nn.Module):
    """Words to ``prompt_embeds [batch, words, width]`` and ``pooled [batch, width]``.

    A small network over all slots together lets each word know its sentence: "left of" means nothing by itself.
    """

    def __init__(self, vocabulary: Sequence[str], length: int, width: int = 64, world: str = "shapes"):
        super().__init__()
        self.config = {"vocabulary": list(vocabulary), "length": length, "width": width, "world": world}
        self.embedding = nn.Embedding(len(vocabulary), width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.5)
        self.sentence = nn.Sequential(
            nn.Linear(length * width, 4 * width), nn.SiLU(), nn.Linear(4 * width, (length + 1) * width)
        )

    @classmethod
    def of(cls, world: ModuleType, width: int = 64) -> PromptEncoder:
        """A fresh encoder of the words of a world."""
        return cls(world.VOCABULARY, world.MOST_WORDS, width, world.__name__.rpartition(".")[2])

    @property
    def world(self) -> ModuleType:
        return import_module(f"pixelpolicy.worlds.{self.config['world']}")

    def tokens(self, prompts: list[str]) -> Int[Tensor, "batch words"]:
        """Token numbers of prompts. Raises `PromptError` outside the vocabulary; "" is the empty prompt."""
        rows = self.world.token_rows(prompts, tuple(self.config["vocabulary"]), self.config["length"])
        return torch.tensor(rows, device=self.position.device)

    def forward(self, tokens: Int[Tensor, "batch words"]) -> tuple[Tensor, Tensor]:
        embeds = self.embedding(tokens) + self.position
        context = self.sentence(embeds.flatten(1)).unflatten(1, (-1, embeds.shape[-1]))
        return embeds + context[:, :-1], context[:, -1]

    def save_pretrained(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path) -> PromptEncoder:
        encoder = cls(**json.loads((folder / "config.json").read_text()))
        encoder.load_state_dict(load_file(folder / "model.safetensors"))
        return encoder


class Parts:
    """What a generator that is a dataclass of parts can do whatever it draws: be loaded, moved, copied to be trained.

    The part that is trained is called ``transformer``. ``OWN`` reads the parts that no class of diffusers reads.
    """

    OWN: ClassVar[dict[str, Callable[[Path], Any]]] = {}
    transformer: nn.Module

    @classmethod
    def parts(cls) -> tuple[str, ...]:
        """The names of the parts, which are also the folders of a checkpoint."""
        return tuple(field.name for field in fields(cls))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that have weights."""
        parts = {name: getattr(self, name) for name in self.parts()}
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """The parts in the folders of a checkpoint: `OWN` reads ours, the others name their class of diffusers."""
        return cls(**{name: cls.OWN.get(name, _plain_part)(Path(folder) / name) for name in cls.parts()})

    def to(self, *args, **kwargs) -> Self:
        """Move all parts to a device or dtype, in place."""
        for module in self.modules.values():
            module.to(*args, **kwargs)
        return self

    def student(self) -> Self:
        """The same generator with a transformer of its own to train."""
        return replace(self, transformer=copy.deepcopy(self.transformer).requires_grad_(True))

    def reference(self) -> Self:
        """The same generator with a transformer of its own that nothing trains."""
        return replace(self, transformer=copy.deepcopy(self.transformer).requires_grad_(False))


@dataclass
class FlowGenerator(Parts):
    """The parts of a latent text-to-sample model; a class of it adds the part that decodes."""

    transformer: nn.Module
    scheduler: Any
    prompt_encoder: PromptEncoder

    OWN: ClassVar[dict[str, Callable[[Path], Any]]] = {"prompt_encoder": PromptEncoder.from_pretrained}

    @property
    def world(self) -> ModuleType:
        """The module of `pixelpolicy.worlds` that the generator draws, with its prompts and its verifier."""
        return self.prompt_encoder.world

    @property
    def latent_shape(self) -> tuple[int, ...]:
        raise NotImplementedError

    def decode(self, latents: Tensor) -> Tensor:
        """Samples in the world's own units; keeps the gradient."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, prompts: list[str]) -> tuple[Float[Tensor, "batch words width"], Float[Tensor, "batch width"]]:
        """``(prompt_embeds, pooled)`` of prompts. Raises `PromptError` outside the vocabulary."""
        return self.prompt_encoder(self.prompt_encoder.tokens(prompts))

    def velocity(self, latents, sigma, prompt_embeds, pooled) -> Float[Tensor, "batch ..."]:
        """The flow's velocity ``x1 - x0`` (noise minus sample) at noise level ``sigma``, a number or ``[batch]``."""
        timestep = torch.as_tensor(sigma, device=latents.device, dtype=torch.float32).expand(len(latents)) * 1000
        return self.transformer(
            hidden_states=latents,
            encoder_hidden_states=prompt_embeds,
            pooled_projections=pooled,
            timestep=timestep,
            return_dict=False,
        )[0]

    def sigmas(self, steps: int) -> Float[Tensor, "steps+1"]:
        """The noise levels of a sampler with so many steps, from 1 down to 0, shifted as the scheduler says."""
        sigma = torch.linspace(1, 0, steps + 1)
        shift = self.scheduler.config.shift
        return shift * sigma / (1 + (shift - 1) * sigma)

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        *,
        steps: int = 10,
        guidance_scale: float = 1.0,
        batch_size: int = 128,
    ) -> Float[Tensor, "batch ..."]:
        """Samples by Euler steps of the flow's ODE, one random stream a sample."""
        samples = []
        for start in range(0, len(prompts), batch_size):
            texts, part = prompts[start : start + batch_size], seeds[start : start + batch_size]
            latents = initial_noise(part, self.latent_shape).to(self.device)
            conditioning = self.encode(texts)
            if guidance_scale != 1:
                empty = self.encode([""] * len(texts))
            sigmas = self.sigmas(steps)
            for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
                velocity = self.velocity(latents, sigma, *conditioning)
                if guidance_scale != 1:
                    unconditional = self.velocity(latents, sigma, *empty)
                    velocity = unconditional + guidance_scale * (velocity - unconditional)
                latents = latents + (following - sigma) * velocity
            samples.append(self.decode(latents))
        return torch.cat(samples)


def initial_noise(seeds: list[int], shape: tuple[int, ...]) -> Float[Tensor, "batch ..."]:
    """Standard normal noise, one generator a sample, so that a sample does not depend on its batch."""
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(s))) for s in seeds])


def _plain_part(folder: Path) -> Any:
    """A part whose configuration names its class of diffusers."""
    import diffusers

    config = next(folder.glob("*config.json"))
    kind = getattr(diffusers, json.loads(config.read_text(encoding="utf-8"))["_class_name"])
    weights = {"torch_dtype": torch.float32} if issubclass(kind, nn.Module) else {}
    return kind.from_pretrained(folder, local_files_only=True, **weights)
