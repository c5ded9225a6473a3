"""The configuration of Janus-Pro 1B, and what the model weighs: counted, not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixelpolicy.pipelines import counting
from pixelpolicy.pipelines.counting import Footprint

REPOSITORY = "deepseek-community/Janus-Pro-1B"
LICENCE = "MIT, says the repository's page; the weights' authors also speak of a DeepSeek Model License: read both"
FETCH = f"hf download {REPOSITORY}"
# The projections of attention and of the feed-forward: T2I-R1's own choice is not attested.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

# The config.json of that repository, with transformers' defaults left out.
PUBLISHED: dict[str, Any] = {
    "text_config": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24,
        "num_attention_heads": 16, "num_key_value_heads": 16, "vocab_size": 102400, "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-6, "bos_token_id": 100000, "eos_token_id": 100001, "pad_token_id": 100002,
    },
    "vision_config": {"hidden_size": 1024, "image_size": 384, "patch_size": 16, "num_image_tokens": 576},
    "vq_config": {"num_embeddings": 16384, "embed_dim": 8, "projection_dim": 2048, "image_token_embed_dim": 2048},
    "image_token_id": 100581,
    "tie_word_embeddings": False,
}  # fmt: skip


def model(config: dict[str, Any]) -> nn.Module:
    """`JanusForConditionalGeneration` with fresh random weights."""
    from transformers import JanusConfig, JanusForConditionalGeneration

    return JanusForConditionalGeneration(JanusConfig(**config))


def modules() -> dict[str, nn.Module]:
    """The published model in four parts: what is trained, what decodes, what draws and reads tokens, what only sees."""
    whole = model(PUBLISHED)
    inner = whole.model
    return {
        "transformer": inner.language_model,
        "vqmodel": inner.vqmodel,
        "heads": nn.ModuleList(
            [whole.lm_head, inner.generation_embeddings, inner.generation_aligner, inner.generation_head]
        ),
        "unused": nn.ModuleList([inner.vision_model, inner.aligner]),
    }


def parameter_counts(rank: int = 32) -> dict[str, int]:
    """Parameters of each part as published, and of a ``lora`` of that rank: see `counting.parameter_counts`."""
    return counting.parameter_counts(modules, "transformer", TARGETS, rank)


def activation_bytes(*, tokens: int = 64 + 16 + 577, rank: int = 32) -> int:
    """Bytes that one sequence's forward keeps for its backward, with the transformer in bfloat16 and its LoRA in
    float32. Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them."""
    with torch.device("meta"):
        student = counting.student(modules()["transformer"], TARGETS, rank, torch.bfloat16)
        inputs = {
            "inputs_embeds": torch.empty(1, tokens, PUBLISHED["text_config"]["hidden_size"], dtype=torch.bfloat16),
            "attention_mask": torch.empty(1, 1, tokens, tokens, dtype=torch.bfloat16),
        }
    forward = lambda: student(**inputs, use_cache=False).last_hidden_state  # noqa: E731
    return counting.kept_bytes(forward, lambda shape: set(shape[-2:]) <= {tokens})


def footprint(rank: int = 32) -> Footprint:
    """What Janus-Pro 1B needs, sequences of 64 tokens of prompt, a layout and a picture: see `Footprint`. What only
    sees pictures stays loaded."""
    counts = parameter_counts(rank)
    size = counting.footprint(counts, "transformer", activation_bytes(rank=rank), stored=2, decoder="vqmodel")
    resident = 2 * (counts["heads"] + counts["unused"]) / 1e9
    return Footprint(size.disk, size.loading, size.training + resident, size.sample)
