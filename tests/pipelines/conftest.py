import pytest
import torch

from pixelpolicy.pipelines import sd3


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A tiny random Stable Diffusion 3 pipeline on disk."""
    return sd3.twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="session")
def opened():
    """Load a twin's folder with the settings of these tests."""

    def load(folder, dtype=torch.float32, **settings):
        settings = {"height": 64, "width": 64, "max_sequence_length": 16, "device": "cpu"} | settings
        return sd3.load(folder, dtype=dtype, **settings)

    return load


@pytest.fixture(scope="session")
def generator(folder, opened):
    """The twin in float32. Tests must not change it."""
    return opened(folder)
