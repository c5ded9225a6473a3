"""A small text-to-image model of tokens: a layout first, then the codes of a picture, one after another.

A transformer as language models have it (`GPT2LMHeadModel` of transformers) writes; a vector-quantised autoencoder
(`VQModel` of diffusers) turns 8x8 codes into a picture. Both are those libraries' classes, with a small configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.generators.flow import Parts
from pixelpolicy.generators.grammar import Grammar
from pixelpolicy.generators.sampling import Narrow, nucleus, write
from pixelpolicy.worlds import layouts, shapes

if TYPE_CHECKING:
    from diffusers import VQModel
    from transformers import GPT2LMHeadModel

SIDE = 8  # codes


def _gpt2(folder: Path) -> GPT2LMHeadModel:
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)


def quantise(
    latents: Float[Tensor, "batch dim height width"], codebook: Float[Tensor, "codes dim"]
) -> tuple[Float[Tensor, "batch dim height width"], Int[Tensor, "batch height width"]]:
    """Each latent vector replaced by the nearest code, and the number of that code (van den Oord et al. 2017).

    Straight through: the gradient of the first reaches the latents as if nothing had been replaced, and no code.
    """
    codes = torch.cdist(latents.permute(0, 2, 3, 1).flatten(0, 2), codebook).argmin(1)
    codes = codes.unflatten(0, (len(latents), *latents.shape[2:]))
    nearest = codebook[codes].permute(0, 3, 1, 2)
    return latents + (nearest - latents).detach(), codes


@dataclass
class PictureTokenGenerator(Parts):
    """The parts of a model that writes sequences of `Grammar.steps` tokens: a layout, and then a picture's codes."""

    transformer: GPT2LMHeadModel
    vq: VQModel

    OWN: ClassVar = {"transformer": _gpt2}

    @property
    def world(self) -> ModuleType:
        return shapes

    @property
    def grammar(self) -> Grammar:
        return Grammar(self.vq.config.num_vq_embeddings, SIDE * SIDE)

    @property
    def steps(self) -> int:
        """Tokens of a sequence: those of the layout, then those of the picture."""
        return self.grammar.steps

    def encode(self, prompts: list[str]) -> Int[Tensor, "batch words"]:
        """Prompts as tokens. Raises `PromptError` outside the vocabulary."""
        return torch.tensor(shapes.token_rows(prompts, layouts.WORDS), device=self.device)

    def logits(self, prompts: list[str], tokens: Int[Tensor, "batch steps"]) -> Float[Tensor, "batch steps+1 choices"]:
        """Logits of whole sequences at once, with gradient: those at ``t`` are of token ``t``, from all before it.

        The last are of the token behind the end, which does not exist.
        """
        prefix = self.encode(prompts)
        ids = torch.cat([prefix, tokens.to(self.device)], 1)
        logits = self.transformer(input_ids=ids, use_cache=False).logits[:, prefix.shape[1] - 1 :]
        return self.grammar.masked(logits, ids[:, prefix.shape[1] :])

    def begin(self, prompts: list[str]) -> Draft:
        """Sequences to be written for prompts, a token at a time; keys and values of what is written are kept."""
        return Draft(self, self.encode(prompts))

    def drawings(self, tokens: Int[Tensor, "batch steps"]) -> list[layouts.Drawing]:
        """Layout and picture of each sequence; pictures on the CPU."""
        return [
            layouts.Drawing(layouts.read(row[: layouts.LENGTH]), picture)
            for row, picture in zip(tokens.tolist(), self.decode(tokens).cpu(), strict=True)
        ]

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "batch steps"]) -> Float[Tensor, "batch 3 32 32"]:
        """Pictures in [-1, 1] of the codes in sequences."""
        codes = tokens[:, layouts.LENGTH :].to(self.device) - self.grammar.first_code
        vectors = self.vq.quantize.embedding(codes).unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 2)
        return self.vq.decode(vectors.contiguous(), force_not_quantize=True).sample.clamp(-1, 1)

    @torch.no_grad()
    def picture_tokens(self, pictures: Float[Tensor, "batch 3 32 32"]) -> Int[Tensor, "batch picture"]:
        """The tokens of pictures in [-1, 1]: the numbers of the nearest codes, row by row."""
        _, codes = quantise(self.vq.encode(pictures.to(self.device)).latents, self.vq.quantize.embedding.weight)
        return codes.flatten(1) + self.grammar.first_code

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: list[int],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        narrow: Narrow = nucleus,
        batch_size: int = 192,
    ) -> Float[Tensor, "batch 3 32 32"]:
        """Pictures of prompts, one random stream a sample."""
        pictures = []
        for start in range(0, len(prompts), batch_size):
            draft = self.begin(prompts[start : start + batch_size])
            pictures.append(self.decode(write(draft, seeds[start : start + batch_size], temperature, top_p, narrow)))
        return torch.cat(pictures)


class Draft:
    """Sequences that a `PictureTokenGenerator` is writing; the transformer reads each token once."""

    def __init__(self, generator: PictureTokenGenerator, prefix: Int[Tensor, "batch words"]):
        from transformers import DynamicCache

        self.transformer, self.grammar = generator.transformer, generator.grammar
        self.steps, self.cache = self.grammar.steps, DynamicCache(config=generator.transformer.config)
        self.tokens = prefix[:, :0]
        self._read(prefix)

    def append(self, tokens: Int[Tensor, "batch"]) -> None:
        self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
        if self.tokens.shape[1] < self.steps:
            self._read(tokens[:, None])

    def _read(self, ids: Int[Tensor, "batch some"]) -> None:
        logits = self.transformer(input_ids=ids, past_key_values=self.cache, use_cache=True).logits[:, -1]
        self.logits = logits.masked_fill(~self.grammar.allowed_next(self.tokens), float("-inf"))


def build(width: int = 96, layers: int = 4, codes: int = 192, channels: tuple[int, ...] = (16, 24, 32)):
    """A fresh generator for 32x32 pictures as 8x8 codes."""
    from diffusers import VQModel

    vq = VQModel(
        sample_size=shapes.SIZE,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=4,
        vq_embed_dim=4,
        num_vq_embeddings=codes,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    grammar = Grammar(codes, SIDE * SIDE)
    return PictureTokenGenerator(writer(grammar, width=width, layers=layers), vq)


def writer(grammar: Grammar, *, width: int, layers: int) -> nn.Module:
    """`GPT2LMHeadModel` for prompts and the sequences of a grammar.

    A place of the layout and the code that lies there begin with like embeddings, so that one finds the other.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=grammar.choices,
        n_positions=shapes.MOST_WORDS + grammar.steps,
        n_embd=width,
        n_layer=layers,
        n_head=width // 32,
        activation_function="gelu_pytorch_tanh",  # the same function in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    columns, rows = 0.1 * torch.randn(2, SIDE, width)
    words, positions = model.transformer.wte.weight.data, model.transformer.wpe.weight.data
    words[[layouts.WORDS.index(word) for word in layouts.COLUMNS]] = columns
    words[[layouts.WORDS.index(word) for word in layouts.ROWS]] = rows
    positions[-SIDE * SIDE - 1 : -1] = (rows[:, None] + columns[None]).flatten(0, 1)
    return model
