"""The rewards on colour: by hand, against a loop over pixels, their gradient, and how they are fooled."""

import numpy as np
import pytest
import torch

from pixelpolicy.errors import RewardError
from pixelpolicy.rewards import prompt_colours, redness, shapes_strict
from pixelpolicy.worlds import shapes

PROMPTS = ["a red circle", "two blue squares", "a red circle and a yellow square", "a green circle above a red square"]


@pytest.fixture(scope="module")
def pictures():
    """Four right pictures with a little noise [4, 3, 32, 32]."""
    rng = np.random.default_rng(0)
    clean = shapes.draw([shapes.scene(text, rng) for text in PROMPTS])
    return torch.from_numpy(np.clip(clean + rng.normal(0, 0.1, clean.shape), -1, 1).astype(np.float32))


def plain(colour) -> torch.Tensor:
    return (torch.tensor(colour, dtype=torch.float32) * 2 - 1)[None, :, None, None].expand(1, 3, 32, 32)


def test_redness_is_what_its_formula_says(pictures):
    expected = []
    for picture in (pictures.double().numpy() + 1) / 2:
        expected.append(np.mean([r - 0.5 * g - 0.5 * b for r, g, b in picture.reshape(3, -1).T]))
    assert torch.allclose(redness()(pictures, PROMPTS), torch.tensor(expected).float(), atol=1e-6)
    for colour, value in (([1, 0, 0], 1.0), ([0, 1, 1], -1.0), ([0.4, 0.4, 0.4], 0.0)):
        assert redness()(plain(colour), ["a blue square"]).item() == pytest.approx(value, abs=1e-6)


def test_redness_has_its_gradient(pictures):
    leaf = pictures.clone().requires_grad_()
    reward = redness()
    assert reward.differentiable and not prompt_colours().differentiable
    reward(leaf, PROMPTS).sum().backward()
    each = torch.tensor([0.5, -0.25, -0.25]) / 1024
    assert torch.allclose(leaf.grad, each[None, :, None, None].expand_as(leaf), atol=1e-9)


def test_colours_are_counted_pixel_by_pixel(pictures):
    palette = [shapes.BACKGROUND, *shapes.COLOURS.values()]
    names = [None, *shapes.COLOURS]
    for picture, prompt in zip(pictures, PROMPTS, strict=True):
        found = []
        for pixel in (picture.numpy() + 1).reshape(3, -1).T / 2:
            found.append(names[int(np.argmin([np.sum((pixel - colour) ** 2) for colour in palette]))])
        coloured = [name for name in found if name]
        share = sum(name in prompt for name in coloured) / len(coloured)
        assert prompt_colours()(picture[None], [prompt]).item() == pytest.approx(share, abs=1e-6)
        assert share > 0.5


def test_colours_are_fooled_by_a_blot_and_see_nothing_on_the_ground():
    red = plain(shapes.COLOURS["red"])
    assert prompt_colours()(red, ["a red circle"]).item() == 1
    assert prompt_colours()(red, ["a blue circle"]).item() == 0
    assert shapes_strict()(red, ["a red circle"]).item() == 0
    assert prompt_colours()(plain(shapes.BACKGROUND), ["a red circle"]).item() == 0


def test_what_is_no_picture_is_refused(pictures):
    for reward in (redness(), prompt_colours()):
        with pytest.raises(RewardError, match="one prompt a picture"):
            reward.evaluate(pictures[:, :, :, :][:3], PROMPTS)
        with pytest.raises(RewardError, match="finite numbers"):
            reward(torch.full((1, 3, 32, 32), torch.nan), PROMPTS[:1])
        assert reward(torch.zeros(0, 3, 32, 32), []).shape == (0,)
    assert redness() == redness() and (0.5 * redness() + 0.5 * redness()).name == "redness"
