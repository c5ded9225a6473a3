"""The configuration of Stable Diffusion 3.5 medium, and what the model weighs: counted, not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

REPOSITORY = "stabilityai/stable-diffusion-3.5-medium"
LICENCE = "Stability AI Community License"
# What the repository holds twice, or for other programs than diffusers.
UNNEEDED = ("*fp16*", "sd3.5_medium*", "text_encoders/*", "vae copy/*", "*.png")
FETCH = f"hf download {REPOSITORY} " + " ".join(f'--exclude "{pattern}"' for pattern in UNNEEDED)

# The config.json of each part of that repository, with diffusers' and transformers' defaults left out.
PUBLISHED: dict[str, dict[str, Any]] = {
    "transformer": {
        "sample_size": 128, "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 24,
        "attention_head_dim": 64, "num_attention_heads": 24, "joint_attention_dim": 4096,
        "caption_projection_dim": 1536, "pooled_projection_dim": 2048, "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm",
    },
    "vae": {
        "sample_size": 1024, "latent_channels": 16, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 32, "scaling_factor": 1.5305, "shift_factor": 0.0609,
        "use_quant_conv": False, "use_post_quant_conv": False,
    },
    "text_encoder": {
        "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
        "projection_dim": 768, "hidden_act": "quick_gelu", "vocab_size": 49408, "max_position_embeddings": 77,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
    },
    "text_encoder_2": {
        "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
        "projection_dim": 1280, "hidden_act": "gelu", "vocab_size": 49408, "max_position_embeddings": 77,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
    },
    "text_encoder_3": {
        "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_layers": 24, "num_heads": 64, "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    },
    "scheduler": {"num_train_timesteps": 1000, "shift": 3.0},
}  # fmt: skip


def modules(configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The five networks of a pipeline with fresh random weights, under the names that the pipeline gives them."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    return {
        "transformer": SD3Transformer2DModel(**configs["transformer"]),
        "vae": AutoencoderKL(**configs["vae"]),
        "text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder"])),
        "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder_2"])),
        "text_encoder_3": T5EncoderModel(T5Config(**configs["text_encoder_3"])),
    }


@dataclass(frozen=True)
class Footprint:
    """Gigabytes (10^9 bytes), by counting: on disk, while the model loads, while a LoRA trains, and a sample's share.

    ``training`` holds weights, gradients and the optimiser's state; ``sample`` comes on top of it for each sample of a
    micro-batch, and twice with guidance. Temporary buffers are not counted.
    """

    disk: float
    loading: float
    training: float
    sample: float


def parameter_counts(rank: int = 32) -> dict[str, int]:
    """Parameters of each network as published, and of a ``lora`` of that rank. No weight is made: the device is meta.

    Tensors that are kept but not trained, such as the table of positions, count too: they are on disk.
    """
    with torch.device("meta"):
        parts = modules(PUBLISHED)
    counts = {name: _stored(part) for name, part in parts.items()}
    student = _student(parts["transformer"], rank)
    return counts | {"lora": sum(p.numel() for p in student.parameters() if p.requires_grad)}


def activation_bytes(*, picture: int = 512, tokens: int = 77 + 128, rank: int = 32) -> int:
    """Bytes that one sample's forward keeps for its backward, with the transformer in bfloat16 and its LoRA in float32.

    Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them.
    """
    from diffusers import SD3Transformer2DModel

    with torch.device("meta"):
        student = _student(SD3Transformer2DModel(**PUBLISHED["transformer"]), rank, torch.bfloat16)
        inputs = {
            "hidden_states": torch.empty(1, 16, picture // 8, picture // 8, dtype=torch.bfloat16),
            "encoder_hidden_states": torch.empty(1, tokens, 4096, dtype=torch.bfloat16),
            "pooled_projections": torch.empty(1, 2048, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
        }
    weights = {_place(value) for value in student.state_dict(keep_vars=True).values()}
    lengths = {(picture // 16) ** 2, (picture // 16) ** 2 + tokens}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if _place(tensor) not in weights and not (tensor.ndim > 2 and set(tensor.shape[-2:]) <= lengths):
            kept[_place(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = student(**inputs).sample  # held until all is counted: what it frees could be counted for another
    assert output.requires_grad
    return sum(kept.values())


def footprint(rank: int = 32) -> Footprint:
    """What SD3.5 medium needs at 512 x 512 pixels: see `Footprint`.

    Weights take 2 bytes each (bfloat16), the autoencoder's 4 once loaded. A LoRA takes five float32 values for each of
    its weights: the weight, its gradient, Adam's two moments and the moving average. The text encoders are dropped
    before training.
    """
    counts = parameter_counts(rank)
    lora = 20 * counts.pop("lora")
    disk = 2 * sum(counts.values())
    training = 2 * counts["transformer"] + 4 * counts["vae"] + lora
    return Footprint(disk / 1e9, (disk + 2 * counts["vae"]) / 1e9, training / 1e9, activation_bytes(rank=rank) / 1e9)


def _student(transformer: nn.Module, rank: int, dtype: torch.dtype | None = None) -> nn.Module:
    from pixelpolicy.pipelines.lora import with_lora
    from pixelpolicy.pipelines.sd3 import TARGETS

    for parameter in transformer.parameters():
        parameter.requires_grad_(False).data = parameter.data.to(dtype)
    with torch.device("meta"):
        return with_lora(transformer, TARGETS, rank=rank, alpha=2 * rank)


def _stored(module: nn.Module) -> int:
    """Numbers in a module's state, those that two names share counted once."""
    return sum(value.numel() for value in {id(v): v for v in module.state_dict(keep_vars=True).values()}.values())


def _place(tensor: Tensor) -> int:
    """Which storage a tensor looks at; a tensor on the meta device has no address."""
    return tensor.untyped_storage()._cdata
