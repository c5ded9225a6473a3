"""The scrubber as Python makes it: what is packed, what is refused, what a rollout becomes."""

import fnmatch
import io
import json
import re
import tomllib
from base64 import b64decode
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _remove_buffers
from PIL import Image

import pixelpolicy
from pixelpolicy.errors import FigureError
from pixelpolicy.policies import DenoisingPolicy, cps
from pixelpolicy.widgets import TrajectoryScrubber

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (2, 5, 3, 6, 4), dtype=np.uint8)
VALUES = np.array([[-1.5, 0.25, float("nan"), 2.0], [-0.5, float("nan"), float("nan"), 1.0]])
LABELS = [f"sigma {sigma:.2f}" for sigma in (1, 0.75, 0.5, 0.25, 0)]


def scrubber(**changes) -> TrajectoryScrubber:
    words = {"frames": FRAMES, "values": VALUES, "labels": LABELS, "alt": "noise becomes noise"} | changes
    return TrajectoryScrubber(words.pop("frames"), **words)


def unpacked(widget: TrajectoryScrubber, sample: int, state: int) -> np.ndarray:
    """One picture ``[3, height, width]`` cut out of its sprite."""
    head, data = widget.sprites[sample].split(",")
    assert head == "data:image/png;base64"
    width, height, columns = widget.grid
    left, top = state % columns * width, state // columns * height
    picture = Image.open(io.BytesIO(b64decode(data))).crop((left, top, left + width, top + height))
    return np.asarray(picture).transpose(2, 0, 1)


@pytest.mark.parametrize("states", [2, 3, 5, 10])
def test_a_sprite_gives_every_picture_back(states):
    frames = RNG.integers(0, 256, (2, states, 3, 6, 4), dtype=np.uint8)
    widget = scrubber(frames=frames, values=np.zeros((2, states - 1)), labels=["x"] * states)
    for sample in range(2):
        for state in range(states):
            np.testing.assert_array_equal(unpacked(widget, sample, state), frames[sample, state])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_floats_are_pictures_from_minus_one_to_one(dtype):
    frames = torch.linspace(-1, 1, 48, dtype=dtype).reshape(1, 2, 3, 2, 4).requires_grad_()
    widget = scrubber(frames=frames, values=torch.zeros(1, 1, requires_grad=True), labels=["a", "b"])
    shown = np.stack([unpacked(widget, 0, state) for state in (0, 1)])
    expected = (frames.detach().double().numpy()[0] + 1) / 2 * 255
    assert np.abs(shown - expected).max() <= 0.5 + 1e-4
    assert shown.min() == 0 and shown.max() == 255


def test_large_pictures_are_made_smaller_in_proportion():
    frames = np.full((1, 2, 3, 300, 600), 200, np.uint8)
    widget = scrubber(frames=frames, values=[[0.0]], labels=["a", "b"])
    assert widget.grid[:2] == (256, 128)
    assert (unpacked(widget, 0, 1) == 200).all()


def test_a_step_without_density_is_none_and_all_that_a_page_needs_is_json():
    widget = scrubber()
    assert widget.values == [[-1.5, 0.25, None, 2.0], [-0.5, None, None, 1.0]]
    state, paths, buffers = _remove_buffers(widget.get_state())
    assert not paths and not buffers
    json.dumps({key: value for key, value in state.items() if key != "layout"}, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"alt": " "}, "alt="),
        ({"frames": FRAMES[0]}, r"\[samples, steps \+ 1, 3, height, width\]"),
        ({"frames": FRAMES[:, :1], "values": VALUES[:, :0], "labels": LABELS[:1]}, "one step at least"),
        ({"frames": FRAMES[:, :, :1]}, r"\[2, 5, 1, 6, 4\]"),
        ({"frames": FRAMES.transpose(0, 1, 3, 4, 2)}, r"\[2, 5, 6, 4, 3\]"),
        ({"frames": FRAMES[:0]}, "no side of 0"),
        ({"frames": FRAMES.astype(np.int64)}, "int64"),
        ({"frames": FRAMES.astype(np.float32)}, "between 0 and 255"),
        ({"frames": np.full(FRAMES.shape, np.nan)}, "nan"),
        ({"values": np.zeros((2, 5))}, r"\[2, 5\].*need \[2, 4\]"),
        ({"values": np.zeros(4)}, r"\[4\]"),
        ({"values": np.where(np.isnan(VALUES), np.inf, VALUES)}, "infinity"),
        ({"labels": LABELS[1:]}, "4 labels came with 5 states"),
        ({"labels": "abcde"}, "single string"),
        ({"names": ["one"]}, "1 names came with 2 samples"),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_what_to_do(changes, words):
    with pytest.raises(FigureError, match=words) as caught:
        scrubber(**changes)
    assert isinstance(caught.value, ValueError)


def test_step_and_sample_can_be_set_where_they_exist():
    widget, seen = scrubber(), []
    widget.observe(lambda change: seen.append(change.new), "step")
    widget.step, widget.sample = 4, 1
    assert seen == [4] and (widget.step, widget.sample) == (4, 1)
    for name, value in (("step", 5), ("step", -1), ("sample", 2)):
        with pytest.raises(FigureError, match=f"there is no {name} {value}"):
            setattr(widget, name, value)
    assert (widget.step, widget.sample) == (4, 1)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@torch.no_grad()
def test_a_rollout_becomes_its_states_and_their_log_probabilities(generator, guidance_scale):
    policy = DenoisingPolicy(
        generator, partial(cps, noise=0.7), 4, stochastic_steps=[0, 2], guidance_scale=guidance_scale, micro_batch=2
    )
    prompts = ["a red circle", "a blue square", "a green triangle"]
    rollout = policy.rollout(prompts, seeds=torch.arange(3))
    widget = TrajectoryScrubber.from_rollout(policy, rollout, alt="pictures of a random network")
    guess = TrajectoryScrubber.from_rollout(policy, rollout, alt="guesses of a random network", predicted=True)
    assert widget.labels == [f"sigma {sigma:.2f}" for sigma in rollout.sigmas.tolist()]
    assert all(prompt in name for prompt, name in zip(prompts, widget.names, strict=True))
    assert "nats per dimension" in widget.value_name
    for sample in range(3):
        assert widget.values[sample][1] is None and widget.values[sample][3] is None
        for step in (0, 2):
            assert widget.values[sample][step] == pytest.approx(rollout.log_probs[sample, step].item(), abs=1e-6)

    told, empty = generator.encode(prompts), generator.encode([""] * 3)
    for step in range(5):
        x, sigma = rollout.states[:, step], rollout.sigmas[step]
        velocity, nothing = generator.velocity(x, sigma, *told), generator.velocity(x, sigma, *empty)
        end = x - sigma * (guidance_scale * velocity + (1 - guidance_scale) * nothing)
        for made, latents in ((widget, x), (guess, end)):
            pictures = (generator.decode(latents).numpy() + 1) / 2 * 255
            for sample in range(3):
                assert np.abs(unpacked(made, sample, step) - pictures[sample]).max() <= 0.51
    for made in (widget, guess):
        ends = np.stack([unpacked(made, sample, 4) for sample in range(3)]) / 255 * 2 - 1
        assert np.abs(ends - rollout.samples.numpy()).max() <= 1.01 / 255
    assert any((unpacked(widget, sample, 0) != unpacked(guess, sample, 0)).any() for sample in range(3))


def test_the_widget_fetches_nothing_and_is_packaged(root):
    code = str(TrajectoryScrubber._esm)
    assert "export default" in code
    assert not re.search(r"\bimport\b|https?:|fetch\(|XMLHttpRequest", code)
    assert not re.search(r"@import|url\(", str(TrajectoryScrubber._css))
    globs = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["pixelpolicy"]
    package = Path(pixelpolicy.__file__).parent
    assets = [path for path in (package / "widgets").iterdir() if path.suffix in (".js", ".css")]
    assert len(assets) >= 2
    for path in assets:
        assert any(fnmatch.fnmatch(path.relative_to(package).as_posix(), glob) for glob in globs), path
