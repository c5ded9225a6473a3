"""A small vocabulary in the form of Qwen's tokenizers, with their marks of a conversation: nothing is fetched."""

from __future__ import annotations

from typing import Any

from pixelpolicy.pipelines.clip import WORDS, byte_pairs

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
THINKING = "<think>", "</think>"
ROLES = ("user", "assistant")
# What `apply_chat_template` writes: who speaks, what is said, and an answer begun, with its thoughts left out if asked.
CONVERSATION = (
    f"{{% for message in messages %}}{START}{{{{ message.role }}}}\n{{{{ message.content }}}}{END}\n{{% endfor %}}"
    f"{{% if add_generation_prompt %}}{START}{ROLES[1]}\n"
    f"{{% if enable_thinking is false %}}{THINKING[0]}\n\n{THINKING[1]}\n\n{{% endif %}}{{% endif %}}"
)


def qwen_tokenizer() -> Any:
    """A `Qwen2Tokenizer` that knows the words of twins, at the start of a text and after a space, and spells others."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2TokenizerFast

    words = [[*word] for word in (*ROLES, *WORDS)]
    merges = byte_pairs([*words, *(["Ġ", *letters] for letters in words), ["Ċ", "Ċ"]])
    tokens = dict.fromkeys([*sorted(ByteLevel.alphabet()), *map("".join, merges)])
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Qwen2TokenizerFast(vocab=vocabulary, merges=merges, eos_token=END, pad_token=PAD, unk_token=PAD)
    tokenizer.add_tokens([AddedToken(mark, special=mark == START, normalized=False) for mark in (START, *THINKING)])
    tokenizer.chat_template = CONVERSATION
    return tokenizer
