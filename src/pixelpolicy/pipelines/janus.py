"""Janus-Pro (Chen et al. 2025, arXiv 2501.17811) as transformers has it, as a generator of tokens for a policy.

T2I-R1 and GoT-R1 train its 7B and 1B relatives to write a plan first and the picture's codes next. Here the plan is a
layout in the grammar of `generators.grammar`: at each place only the words that may stand there have a probability.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pixelpolicy.errors import CheckpointError
from pixelpolicy.generators.grammar import Grammar
from pixelpolicy.generators.sampling import write
from pixelpolicy.pipelines.janus_config import FETCH, REPOSITORY, TARGETS
from pixelpolicy.pipelines.janus_twin import twin
from pixelpolicy.pipelines.lora import sharing_copy, with_lora
from pixelpolicy.profiles import rehearsing
from pixelpolicy.quiet import quiet
from pixelpolicy.worlds import layouts

__all__ = ["JanusGenerator", "load", "load_for_profile", "twin"]

TEMPLATE = (
    "<|User|>: {prompt}\nFirst say where each thing stands: its colour, its shape, its column a to h and its row 1 to "
    "8.\n\n<|Assistant|>:"
)
EMPTY = "none"  # what stands in an empty slot of the layout


@dataclass(eq=False)
class JanusGenerator:
    """`JanusForConditionalGeneration` as `policies.tokens.Writer` wants it: a layout in words, then a picture's codes.

    ``template`` is what a prompt is set into. ``transformer`` is the language model, with an adapter or without; all
    else is shared and frozen. There is no guidance. Pictures are square, of 384 pixels as published. Raises
    `CheckpointError` where the tokenizer does not tell the words of layouts apart.
    """

    model: Any
    tokenizer: Any
    template: str = TEMPLATE
    decode_batch: int = 8
    transformer: nn.Module | None = None
    base: Self | None = None

    def __post_init__(self) -> None:
        if self.transformer is None:
            self.transformer = self.model.model.language_model
        numbers = self.words.tolist()
        if len(set(numbers)) != len(numbers):
            raise CheckpointError(
                "this tokenizer begins two words of layouts with the same token, so that they cannot be told apart; "
                "load the tokenizer that belongs to the model"
            )

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    @cached_property
    def words(self) -> Int[Tensor, "words"]:
        """The text token that stands for each of `layouts.WORDS`: the first of its spelling."""
        spell = lambda word: self.tokenizer.encode(f" {word or EMPTY}", add_special_tokens=False)[0]  # noqa: E731
        return torch.tensor([spell(word) for word in layouts.WORDS])

    @property
    def grammar(self) -> Grammar:
        config = self.model.config
        return Grammar(config.vq_config.num_embeddings, config.vq_config.num_patches**2)

    @property
    def steps(self) -> int:
        return self.grammar.steps

    # Weights ------------------------------------------------------------------------------------------------------

    def student(self, rank: int = 32, alpha: float = 64, *, seed: int = 0) -> Self:
        """The same generator with a LoRA to train, which changes nothing yet; a student's student has a copy of it."""
        if self.base is not None:
            return replace(self, transformer=sharing_copy(self.transformer))
        return replace(
            self, transformer=with_lora(self.transformer, TARGETS, rank=rank, alpha=alpha, seed=seed), base=self
        )

    def reference(self) -> Self:
        """The generator without the adapter: the very same weights, which nothing trains."""
        return self.base or self

    # Tokens -------------------------------------------------------------------------------------------------------

    def prefix(self, prompts: list[str]) -> tuple[Int[Tensor, "batch words"], Int[Tensor, "batch words"]]:
        """Prompts in their template as text tokens, filled up on the left, and which of them count."""
        texts = [self.template.replace("{prompt}", prompt) for prompt in prompts]
        rows = [self.tokenizer.encode(text) for text in texts]
        most = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (most - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (most - len(row)) + [1] * len(row) for row in rows], device=self.device)
        return ids, mask

    def embed(self, tokens: Int[Tensor, "batch some"], first: int) -> Float[Tensor, "batch more width"]:
        """What the transformer is told of tokens, of which the first has the place ``first`` in its sequence; behind
        the layout it is told that a picture begins."""
        inner, cut = self.model.model, max(layouts.LENGTH - first, 0)
        words, codes = tokens[:, :cut], tokens[:, cut:] - self.grammar.first_code
        parts = [inner.language_model.get_input_embeddings()(self.words.to(self.device)[words])]
        if first < layouts.LENGTH <= first + tokens.shape[1]:
            start = torch.full((len(tokens), 1), self.tokenizer.boi_token_id, device=self.device)
            parts.append(inner.language_model.get_input_embeddings()(start))
        if codes.shape[1]:
            parts.append(self.model.prepare_embeddings_for_image_generation(codes))
        return torch.cat(parts, 1)

    def head(self, hidden: Float[Tensor, "batch some width"], first: int) -> Float[Tensor, "batch some choices"]:
        """Logits in float32 of the tokens from the place ``first`` on, each from one hidden state."""
        cut = min(max(layouts.LENGTH - first, 0), hidden.shape[1])
        words = self.model.lm_head(hidden[:, :cut])[..., self.words.to(hidden.device)].float()
        codes = self.model.model.generation_head(hidden[:, cut:]).float()
        beyond = float("-inf")
        return torch.cat(
            [
                torch.cat([words, words.new_full((*words.shape[:2], self.grammar.codes), beyond)], 2),
                torch.cat([codes.new_full((*codes.shape[:2], len(layouts.WORDS)), beyond), codes], 2),
            ],
            1,
        )

    def logits(self, prompts: list[str], tokens: Int[Tensor, "batch steps"]) -> Float[Tensor, "batch steps+1 choices"]:
        """Logits of whole sequences at once, with gradient: those at ``t`` are of token ``t``, from all before it."""
        tokens = tokens.to(self.device)
        ids, mask = self.prefix(prompts)
        embeds = torch.cat([self.model.get_input_embeddings()(ids), self.embed(tokens, 0)], 1)
        whole = torch.cat([mask, mask.new_ones(len(mask), embeds.shape[1] - mask.shape[1])], 1)
        hidden = self.transformer(
            inputs_embeds=embeds, attention_mask=whole, position_ids=positions(whole), use_cache=False
        ).last_hidden_state[:, ids.shape[1] - 1 :]
        # The state at the layout's last word speaks of the picture's beginning, which is certain.
        hidden = torch.cat([hidden[:, : layouts.LENGTH], hidden[:, layouts.LENGTH + 1 :]], 1)
        return self.grammar.masked(self.head(hidden, 0), tokens)

    def begin(self, prompts: list[str]) -> Draft:
        """Sequences to be written for prompts, a token at a time; keys and values of what is written are kept."""
        return Draft(self, *self.prefix(prompts))

    # Pictures -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def decode(self, tokens: Int[Tensor, "batch steps"]) -> Float[Tensor, "batch 3 side side"]:
        """Pictures in [-1, 1] of the codes in sequences, in float32 on the CPU."""
        codes = (tokens[:, layouts.LENGTH :] - self.grammar.first_code).to(self.device)
        parts = [self.model.decode_image_tokens(part).permute(0, 3, 1, 2) for part in codes.split(self.decode_batch)]
        return torch.cat(parts).float().cpu().clamp(-1, 1)

    def drawings(self, tokens: Int[Tensor, "batch steps"]) -> list[layouts.Drawing]:
        """Layout and picture of each sequence."""
        pairs = zip(tokens[:, : layouts.LENGTH].tolist(), self.decode(tokens), strict=True)
        return [layouts.Drawing(layouts.read(row), picture) for row, picture in pairs]

    @torch.no_grad()
    def generate(
        self,
        prompts: list[str],
        seeds: Sequence[int],
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        batch_size: int = 16,
    ) -> Float[Tensor, "batch 3 side side"]:
        """Pictures of prompts, one random stream a sample; on the CPU."""
        pictures = []
        for start in range(0, len(prompts), batch_size):
            draft = self.begin(prompts[start : start + batch_size])
            pictures.append(self.decode(write(draft, seeds[start : start + batch_size], temperature, top_p)))
        return torch.cat(pictures)


class Draft:
    """Sequences that a `JanusGenerator` is writing; the transformer reads each token once."""

    def __init__(self, generator: JanusGenerator, prefix: Int[Tensor, "batch words"], mask: Int[Tensor, "batch words"]):
        from transformers import DynamicCache

        self.generator, self.mask, self.tokens = generator, mask[:, :0], prefix[:, :0]
        self.steps, self.cache = generator.steps, DynamicCache(config=generator.model.config.text_config)
        self._read(generator.model.get_input_embeddings()(prefix), mask)

    def append(self, tokens: Int[Tensor, "batch"]) -> None:
        place = self.tokens.shape[1]
        self.tokens = torch.cat([self.tokens, tokens[:, None]], 1)
        if place + 1 < self.steps:
            embeds = self.generator.embed(tokens[:, None], place)
            self._read(embeds, self.mask.new_ones(embeds.shape[:2]))

    def _read(self, embeds: Float[Tensor, "batch some width"], mask: Int[Tensor, "batch some"]) -> None:
        generator, some = self.generator, embeds.shape[1]
        self.mask = torch.cat([self.mask, mask], 1)
        hidden = generator.transformer(
            inputs_embeds=embeds,
            attention_mask=self.mask,
            position_ids=positions(self.mask)[:, -some:],
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state[:, -1:]
        logits = generator.head(hidden, self.tokens.shape[1])[:, 0]
        self.logits = logits.masked_fill(~generator.grammar.allowed_next(self.tokens), float("-inf"))


def positions(mask: Int[Tensor, "batch some"]) -> Int[Tensor, "batch some"]:
    """The place of each token among those that count."""
    return (mask.cumsum(1) - 1).clamp_min(0)


def load(
    folder_or_id: str | Path | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    **settings,
) -> JanusGenerator:
    """A generator from a folder or from what was fetched of a repository (by default Janus-Pro 1B); never downloads.

    On CUDA by default, in bfloat16; on the CPU in float32. ``settings`` are fields of `JanusGenerator`. Raises
    `CheckpointError` where the weights are not there, or not whole.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = dtype or (torch.float32 if device.type == "cpu" else torch.bfloat16)
    source = REPOSITORY if folder_or_id is None else folder_or_id
    try:
        with quiet():
            from transformers import AutoTokenizer, JanusForConditionalGeneration

            model = JanusForConditionalGeneration.from_pretrained(source, dtype=dtype, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except Exception as error:  # whatever the many loaders raise
        raise CheckpointError(
            f"{source} is no whole Janus model on this machine ({type(error).__name__}: {error}). Fetch it with "
            f"`{FETCH}`, or give a folder that `JanusForConditionalGeneration.save_pretrained` wrote."
        ) from error
    return JanusGenerator(model.to(device).eval().requires_grad_(False), tokenizer, **settings)


def load_for_profile(**settings) -> JanusGenerator:
    """What the profile gpu trains: Janus-Pro 1B, or in a rehearsal its tiny random twin, which draws 32 x 32."""
    if not rehearsing():
        return load(**settings)
    with tempfile.TemporaryDirectory(prefix="pixelpolicy-twin-") as folder:
        return load(twin(folder), **settings)
