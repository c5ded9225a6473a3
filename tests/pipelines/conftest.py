from functools import cached_property
from types import ModuleType

import pytest
import torch

from pixelpolicy.pipelines import (
    flux2_klein,
    flux2_klein_config,
    sd3,
    sd3_config,
    sd15,
    sd15_config,
    shap_e,
    shap_e_config,
    wan,
    wan_config,
)
from pixelpolicy.rl import Reward


class Kind:
    """A kind of pipeline and its tiny random twin on disk; `generator` is the twin in float32, not to be changed."""

    def __init__(self, module: ModuleType, config: ModuleType, make_folder, *, norms_in_float32=False, **settings):
        self.module, self.config, self.make_folder = module, config, make_folder
        self.settings = {"height": 64, "width": 64, "device": "cpu", **settings}
        self.norms_in_float32 = norms_in_float32  # whatever the dtype of the rest

    @cached_property
    def folder(self):
        return self.module.twin(self.make_folder("twin"))

    def opened(self, folder, dtype=torch.float32, **settings):
        return self.module.load(folder, dtype=dtype, **(self.settings | settings))

    @cached_property
    def generator(self):
        return self.opened(self.folder)

    @property
    def sample_shape(self):
        """Of one decoded sample: a picture, a clip of them, or views."""
        return (*self.several.values(), 3, self.settings["height"], self.settings["width"])

    @property
    def several(self):
        """How many pictures a sample has, where it may have several: under the name of that setting."""
        return {name: self.settings[name] for name in ("frames", "views") if name in self.settings}

    def decoder_of(self, generator):
        """The part that makes samples of latents."""
        return getattr(generator.pipeline, self.config.SOURCE.decoder)

    def judged_by(self, reward: Reward) -> Reward:
        """A reward for pictures, for samples of this kind: of several it sees the last."""
        if len(self.sample_shape) == 3:
            return reward
        return Reward(reward.name, lambda clips, prompts: reward(clips[:, -1], prompts), reward.differentiable)


@pytest.fixture(scope="session")
def kinds(tmp_path_factory):
    make = tmp_path_factory.mktemp
    return {
        "sd3": Kind(sd3, sd3_config, make, max_sequence_length=16),
        "flux2_klein": Kind(flux2_klein, flux2_klein_config, make, max_sequence_length=32),
        "sd15": Kind(sd15, sd15_config, make),
        "wan": Kind(wan, wan_config, make, norms_in_float32=True, frames=9, max_sequence_length=16),
        "shap_e": Kind(shap_e, shap_e_config, make, views=2, points=(4, 8)),
    }


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
