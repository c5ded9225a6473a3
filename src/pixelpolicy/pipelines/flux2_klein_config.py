"""The configuration of FLUX.2 klein base 4B, and what the model weighs: counted, not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixelpolicy.pipelines import counting
from pixelpolicy.pipelines.counting import Footprint
from pixelpolicy.pipelines.loading import Source

REPOSITORY = "black-forest-labs/FLUX.2-klein-base-4B"
LICENCE = "Apache-2.0"
# The network once more, in one file for other programs than diffusers, and pictures for the model's page.
UNNEEDED = ("flux-2-klein*", "*.png", "*.jpg")
SOURCE = Source("Flux2KleinPipeline", "FLUX.2 klein", REPOSITORY, UNNEEDED)
FETCH = SOURCE.fetch()
TOKENS = 512  # of a text, whatever its length

# The repository's own config.json files were not at hand. The transformer and the scheduler are those with which
# diffusers converted the authors' weights (scripts/convert_flux2_to_diffusers.py, "klein-4b"), the autoencoder is the
# default of its class, as there, and the text encoder is Qwen3-4B. Their parameters fill the published files.
PUBLISHED: dict[str, dict[str, Any]] = {
    "transformer": {
        "patch_size": 1, "in_channels": 128, "num_layers": 5, "num_single_layers": 20, "attention_head_dim": 128,
        "num_attention_heads": 24, "joint_attention_dim": 7680, "timestep_guidance_channels": 256, "mlp_ratio": 3.0,
        "axes_dims_rope": (32, 32, 32, 32), "rope_theta": 2000, "eps": 1e-6, "guidance_embeds": False,
    },
    "vae": {
        "latent_channels": 32, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32,
        "batch_norm_eps": 1e-4, "patch_size": (2, 2),
    },
    "text_encoder": {
        "vocab_size": 151936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
        "tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    },
    "scheduler": {
        "num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
        "base_image_seq_len": 256, "max_image_seq_len": 4096,
    },
}  # fmt: skip


def modules(configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The three networks of a pipeline with fresh random weights, under the names that the pipeline gives them."""
    from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return {
        "transformer": Flux2Transformer2DModel(**configs["transformer"]),
        "vae": AutoencoderKLFlux2(**configs["vae"]),
        "text_encoder": Qwen3ForCausalLM(Qwen3Config(**configs["text_encoder"])),
    }


def parameter_counts(rank: int = 32) -> dict[str, int]:
    """Parameters of each network as published, and of a ``lora`` of that rank: see `counting.parameter_counts`."""
    from pixelpolicy.pipelines.flux2_klein import TARGETS

    return counting.parameter_counts(lambda: modules(PUBLISHED), "transformer", TARGETS, rank)


def activation_bytes(*, picture: int = 512, tokens: int = TOKENS, rank: int = 32, checkpointed: bool = False) -> int:
    """Bytes that one sample's forward keeps for its backward, with the transformer in bfloat16 and its LoRA in float32.

    Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them.
    """
    from diffusers import Flux2Transformer2DModel

    from pixelpolicy.pipelines.flux2_klein import TARGETS

    patches = (picture // 16) ** 2
    with torch.device("meta"):
        network = Flux2Transformer2DModel(**PUBLISHED["transformer"])
        student = counting.student(network, TARGETS, rank, torch.bfloat16)
        inputs = {
            "hidden_states": torch.empty(1, patches, 128, dtype=torch.bfloat16),
            "encoder_hidden_states": torch.empty(1, tokens, 7680, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
            "img_ids": torch.empty(patches, 4),
            "txt_ids": torch.empty(tokens, 4),
        }
    if checkpointed:
        student.enable_gradient_checkpointing()
    return counting.kept_bytes(lambda: student(**inputs).sample, lambda shape: set(shape[-2:]) == {patches + tokens})


def footprint(rank: int = 32, *, checkpointed: bool = False) -> Footprint:
    """What FLUX.2 klein base 4B needs at 512 x 512 pixels: see `Footprint`. The files hold bfloat16, and so do the
    loaded weights but the autoencoder's."""
    sample = activation_bytes(rank=rank, checkpointed=checkpointed)
    return counting.footprint(parameter_counts(rank), "transformer", sample, stored=2)
