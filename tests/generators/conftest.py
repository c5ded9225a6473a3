"""A twin of the shipped generator, so small that it is built at once."""

import pytest
import torch

from pixelpolicy.generators.image import build


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks so small are slower on two threads, and many times so where another process wants them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny():
    """An untrained generator of the shipped one's classes, in evaluation mode; do not change it."""
    torch.manual_seed(7)
    generator = build(width=32, layers=1, channels=(8, 8, 8))
    for module in (generator.transformer, generator.vae, generator.prompt_encoder):
        module.eval().requires_grad_(False)
    generator.vae.register_to_config(scaling_factor=1.75, shift_factor=0.25)
    return generator
