"""The parts of a small generator as ONNX graphs without weights: the weights are inputs, given at each run.

So a graph is a small file that fits every checkpoint of its architecture, the browser reads the very safetensors files
that Python reads, and weights part of the way to a fine-tuned model are a sum of two arrays rather than another model.
``python -m pixelpolicy.widgets.onnx_export`` writes the graphs of the reward explorer (`GRAPHS`) anew; it needs the
packages onnx and onnxscript (the extra ``onnx``), which nothing else does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

GRAPHS = Path(__file__).parent / "graphs"


class WithWeights(nn.Module):
    """``module`` as a function of its inputs and its weights; ``forward`` calls ``module`` as ``call`` says."""

    def __init__(self, module: nn.Module, call):
        super().__init__()
        self.module, self.call, self.names = module, call, list(module.state_dict())

    def forward(self, inputs: list[Tensor], weights: list[Tensor]) -> Any:
        """What ``call(run, *inputs)`` gives, where ``run`` is the module under these weights."""
        state = dict(zip(self.names, weights, strict=True))
        return self.call(lambda *args, **more: torch.func.functional_call(self.module, state, args, more), *inputs)


def graph(module: nn.Module, call, inputs: dict[str, Tensor], outputs: list[str]) -> bytes:
    """The ONNX graph of a module, its first axis free in all ``inputs``; weights are inputs by their names.

    Raises `ImportError` where onnx or onnxscript is not installed, `ValueError` where the module works for one size of
    batch alone.
    """
    import onnx

    wrapped = WithWeights(module.eval(), call).eval()
    weights = list(module.state_dict().values())
    free = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        wrapped,
        (list(inputs.values()), weights),
        dynamo=True,
        verbose=False,
        dynamic_shapes=([{0: free} for _ in inputs], [None for _ in weights]),
        input_names=[*inputs, *wrapped.names],
        output_names=outputs,
    )
    model = program.model_proto
    _forget(model)
    fixed = [node.name for node in model.graph.input if node.name in inputs and not _first(node).dim_param]
    if fixed:
        raise ValueError(f"the module fixes the batch of {', '.join(fixed)}: let it ask for shape[0] rather than len()")
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def graphs(generator, proxy: nn.Module | None = None) -> dict[str, bytes]:
    """The graphs of the explorer by their names: prompt encoder, velocity, decoder and, where there is one, proxy."""
    count, (channels, *size), config = 3, generator.latent_shape, generator.vae.config
    tokens = generator.prompt_encoder.tokens(["a red circle"] * count)
    embeds, pooled = generator.encode(["a red circle"] * count)
    latents, timestep = torch.randn(count, channels, *size), torch.full((count,), 500.0)

    def velocity(run, latents, timestep, embeds, pooled):
        return run(
            hidden_states=latents,
            encoder_hidden_states=embeds,
            pooled_projections=pooled,
            timestep=timestep,
            return_dict=False,
        )[0]

    def decode(run, latents):
        return run(latents / config.scaling_factor + config.shift_factor).clamp(-1, 1)

    made = {
        "encoder": graph(generator.prompt_encoder, lambda run, t: run(t), {"tokens": tokens}, ["embeds", "pooled"]),
        "velocity": graph(
            generator.transformer,
            velocity,
            {"latents": latents, "timestep": timestep, "embeds": embeds, "pooled": pooled},
            ["velocity"],
        ),
        "decoder": graph(Decoder(generator.vae), decode, {"latents": latents}, ["pictures"]),
    }
    if proxy is not None:
        pictures = generator.decode(latents)
        made["proxy"] = graph(proxy, lambda run, p, t: run(p, t), {"pictures": pictures, "tokens": tokens}, ["reward"])
    return made


class Decoder(nn.Module):
    """What of an `AutoencoderKL` turns latents into pictures; its weights keep the names they have there."""

    def __init__(self, vae):
        super().__init__()
        self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latents: Tensor) -> Tensor:
        """Pictures of scaled latents."""
        return self.decoder(self.post_quant_conv(latents) if self.post_quant_conv is not None else latents)


def _first(node):
    """The first axis of a graph's input."""
    return node.type.tensor_type.shape.dim[0]


def _forget(model) -> None:
    """Take out what tells of the exporter and of this machine: nothing of it is used, and it is most of the file."""
    model.ClearField("metadata_props")
    for part in [model.graph, *model.functions]:
        for field in ("doc_string", "metadata_props", "value_info"):
            part.ClearField(field)
        for node in part.node:
            for field in ("doc_string", "metadata_props"):
                node.ClearField(field)
    for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
        for field in ("doc_string", "metadata_props"):
            value.ClearField(field)


def main() -> None:
    """Write the graphs of the course's generator and proxy."""
    from pixelpolicy.generators import load
    from pixelpolicy.rewards import RewardNetwork

    for name, content in graphs(load("shapes"), RewardNetwork()).items():
        path = GRAPHS / f"{name}.onnx"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        print(f"{path.name}: {len(content):,} bytes")


if __name__ == "__main__":
    sys.exit(main())
