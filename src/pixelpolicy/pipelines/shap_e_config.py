"""The configuration of Shap-E, and what the model weighs: counted, not measured."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from pixelpolicy.pipelines import counting
from pixelpolicy.pipelines.clip import CLIP_L
from pixelpolicy.pipelines.counting import Footprint
from pixelpolicy.pipelines.loading import Source

REPOSITORY = "openai/shap-e"
LICENCE = "MIT"
# What the repository holds twice: in half precision, and the renderer as it was before.
UNNEEDED = ("*fp16*", "renderer/*")
SOURCE = Source("ShapEPipeline", "Shap-E", REPOSITORY, UNNEEDED, decoder="shap_e_renderer")
FETCH = SOURCE.fetch()
RAYS = 4096  # that are followed at a time: a view of 64 x 64 pixels
POINTS = (64, 128)  # on a ray: evenly spread, and where those found something

# The config.json of each part of that repository, with diffusers' and transformers' defaults left out.
PUBLISHED: dict[str, dict[str, Any]] = {
    "prior": {
        "num_attention_heads": 16, "attention_head_dim": 64, "num_layers": 24, "embedding_dim": 1024,
        "num_embeddings": 1024, "additional_embeddings": 0, "time_embed_act_fn": "gelu", "norm_in_type": "layer",
        "encoder_hid_proj_type": None, "added_emb_type": None, "time_embed_dim": 4096, "embedding_proj_dim": 768,
        "clip_embed_dim": 2048,
    },
    "text_encoder": CLIP_L,
    "shap_e_renderer": {
        "param_shapes": ((256, 93), (256, 256), (256, 256), (256, 256)), "d_latent": 1024, "d_hidden": 256,
        "n_output": 12, "n_hidden_layers": 6, "insert_direction_at": 4,
    },
    "scheduler": {
        "beta_schedule": "exp", "num_train_timesteps": 1024, "prediction_type": "sample", "clip_sample": True,
        "clip_sample_range": 1.0, "use_karras_sigmas": True,
    },
}  # fmt: skip


def modules(configs: dict[str, dict[str, Any]]) -> dict[str, nn.Module]:
    """The three networks of a pipeline with fresh random weights, under the names that the pipeline gives them."""
    from diffusers import PriorTransformer
    from diffusers.pipelines.shap_e import ShapERenderer
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    return {
        "prior": PriorTransformer(**configs["prior"]),
        "text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**configs["text_encoder"])),
        "shap_e_renderer": ShapERenderer(**configs["shap_e_renderer"]),
    }


def parameter_counts(rank: int = 16) -> dict[str, int]:
    """Parameters of each network as published, and of a ``lora`` of that rank: see `counting.parameter_counts`."""
    from pixelpolicy.pipelines.shap_e import TARGETS

    return counting.parameter_counts(lambda: modules(PUBLISHED), "prior", TARGETS, rank)


def activation_bytes(*, rank: int = 16) -> int:
    """Bytes that one sample's forward keeps for its backward, with the prior in bfloat16 and its LoRA in float32.

    Counted on the meta device, without the matrices of attention: the kernels for CUDA do not keep them.
    """
    from diffusers import PriorTransformer

    from pixelpolicy.pipelines.shap_e import TARGETS

    with torch.device("meta"):
        network = counting.student(PriorTransformer(**PUBLISHED["prior"]), TARGETS, rank, torch.bfloat16)
        inputs = {
            "hidden_states": torch.empty(1, 1024, 1024, dtype=torch.bfloat16),
            "timestep": torch.empty(1),
            "proj_embedding": torch.empty(1, 768, dtype=torch.bfloat16),
        }
    tokens = 1024 + 2  # the latents, the text and the noise level
    return counting.kept_bytes(
        lambda: network(**inputs).predicted_image_embedding, lambda shape: set(shape[-2:]) == {tokens}
    )


def render_bytes() -> int:
    """Bytes that `RAYS` rays keep for their backward, with the renderer in float32: what checkpointing computes again
    at a time, and without it what each view of 64 x 64 keeps."""
    from diffusers.pipelines.shap_e.renderer import MLPNeRSTFModel

    settings = {k: v for k, v in PUBLISHED["shap_e_renderer"].items() if k not in ("param_shapes", "d_latent")}
    with torch.device("meta"):
        network, points = MLPNeRSTFModel(**settings), torch.empty(1, RAYS, sum(POINTS), 3)

    def colours():
        found = network(position=points, direction=None, ts=None, nerf_level="fine")
        return found.channels * found.density

    return counting.kept_bytes(colours, lambda shape: False)


def footprint(rank: int = 16) -> Footprint:
    """What Shap-E needs: see `Footprint`. The files hold float32."""
    counts, sample = parameter_counts(rank), activation_bytes(rank=rank)
    return counting.footprint(counts, "prior", sample, stored=4, decoder=SOURCE.decoder)
