"""The graphs of the reward explorer, run by onnxruntime in Python, against torch; and as the exporter makes them."""

import numpy as np
import pytest
import torch

from pixelpolicy.generators import load
from pixelpolicy.rewards import RewardNetwork
from pixelpolicy.widgets.onnx_export import GRAPHS, Decoder, graphs

PROMPTS = ["a red circle", "two blue squares", "", "a red circle above a green square", "four yellow triangles"]


@pytest.fixture(scope="module")
def base():
    return load("shapes")


@pytest.fixture(scope="module")
def proxy():
    torch.manual_seed(3)
    return RewardNetwork().eval()


def run(name: str, module, **inputs) -> list[np.ndarray]:
    """A graph on ``inputs``, under the weights of ``module``."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(GRAPHS / f"{name}.onnx"), providers=["CPUExecutionProvider"])
    given = {key: value.numpy() for key, value in (module.state_dict() | inputs).items()}
    return session.run(None, {node.name: given[node.name] for node in session.get_inputs()})


@pytest.mark.parametrize("count", [1, 5])
def test_each_graph_is_its_module(base, proxy, count):
    torch.manual_seed(count)
    latents, timestep = torch.randn(count, *base.latent_shape), torch.rand(count) * 1000
    tokens = base.prompt_encoder.tokens(PROMPTS[:count])
    with torch.no_grad():
        embeds, pooled = base.prompt_encoder(tokens)
        velocity = base.velocity(latents, timestep / 1000, embeds, pooled)
        pictures = base.decode(latents)
        reward = proxy(pictures, tokens)
    found = run("encoder", base.prompt_encoder, tokens=tokens)
    assert all(np.abs(a - b.numpy()).max() <= 1e-5 for a, b in zip(found, (embeds, pooled), strict=True))
    told = {"latents": latents, "timestep": timestep, "embeds": embeds, "pooled": pooled}
    assert np.abs(run("velocity", base.transformer, **told)[0] - velocity.numpy()).max() <= 1e-4
    assert np.abs(run("decoder", Decoder(base.vae), latents=latents)[0] - pictures.numpy()).max() <= 1e-5
    assert np.abs(run("proxy", proxy, pictures=pictures, tokens=tokens)[0] - reward.numpy()).max() <= 1e-5


@pytest.mark.slow
def test_the_graphs_are_what_the_exporter_makes(base, proxy):
    pytest.importorskip("onnxscript", reason='pip install -e ".[onnx]" makes the graphs anew')
    for name, content in graphs(base, proxy).items():
        assert (GRAPHS / f"{name}.onnx").read_bytes() == content, f"python -m pixelpolicy.widgets.onnx_export: {name}"
