"""A small vocabulary for the tokenizers of T5 and UMT5, which pipelines share: nothing is fetched."""

from __future__ import annotations

from typing import Any

from pixelpolicy.pipelines.clip import WORDS


def t5_tokenizer() -> Any:
    """A tokenizer of T5's class."""
    from transformers import T5TokenizerFast

    return T5TokenizerFast(vocab=t5_vocabulary(), extra_ids=0, model_max_length=512)


def t5_vocabulary() -> list[tuple[str, float]]:
    """Pieces of a unigram model with their log-probabilities: T5's special tokens, `WORDS`, printable characters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    words = [(f"▁{word}", -3.0) for word in WORDS]
    letters = [(chr(code), -6.0) for code in range(33, 127)]
    return [*special, ("▁", -6.0), *words, *letters]
