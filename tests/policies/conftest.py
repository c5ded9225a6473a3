import pytest
import torch

from pixelpolicy.generators.image import build


@pytest.fixture(scope="session")
def generator():
    """A random twin of the shapes generator: its classes, a hundredth of its size. Tests must not change it."""
    torch.manual_seed(0)
    return build(width=32, layers=1, channels=(8, 8, 8))
