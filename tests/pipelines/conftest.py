from functools import cached_property
from types import ModuleType

import pytest
import torch

from pixelpolicy.pipelines import sd3, sd3_config, sd15, sd15_config


class Kind:
    """A kind of pipeline and its tiny random twin on disk; `generator` is the twin in float32, not to be changed."""

    def __init__(self, module: ModuleType, config: ModuleType, make_folder, **settings):
        self.module, self.config, self.make_folder = module, config, make_folder
        self.settings = {"height": 64, "width": 64, "device": "cpu", **settings}

    @cached_property
    def folder(self):
        return self.module.twin(self.make_folder("twin"))

    def opened(self, folder, dtype=torch.float32, **settings):
        return self.module.load(folder, dtype=dtype, **(self.settings | settings))

    @cached_property
    def generator(self):
        return self.opened(self.folder)


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    make = tmp_path_factory.mktemp
    return {"sd3": Kind(sd3, sd3_config, make, max_sequence_length=16), "sd15": Kind(sd15, sd15_config, make)}


def pytest_generate_tests(metafunc):
    """Each test of a module runs with the module's KINDS of pipelines, one after another."""
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", metafunc.module.KINDS, indirect=True)


@pytest.fixture
def kind(request, kinds):
    return kinds[request.param]


@pytest.fixture
def folder(kind):
    return kind.folder


@pytest.fixture
def opened(kind):
    """Load a twin's folder with the settings of these tests."""
    return kind.opened


@pytest.fixture
def generator(kind):
    """The twin in float32. Tests must not change it."""
    return kind.generator
