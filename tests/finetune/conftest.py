import pytest
import torch


@pytest.fixture
def fresh_accelerate():
    """Accelerate fixes the precision of a process at its first use; this lets a test choose another."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def make_twin():
    """A function that makes the same random twin of the shapes generator, anew at every call."""

    def make():
        from pixelpolicy.generators.image import build

        torch.manual_seed(0)
        generator = build(width=32, layers=1, channels=(8, 8, 8))
        generator.vae.requires_grad_(False)
        return generator

    return make
