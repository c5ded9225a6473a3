"""The pretraining recipe: what it draws, and that an interruption changes nothing."""

import dataclasses
import errno
import os

import numpy as np
import pytest
import torch

from pixelpolicy.errors import CheckpointError
from pixelpolicy.generators import pretrain
from pixelpolicy.generators.pretrain import Recipe
from pixelpolicy.worlds import shapes

RECIPE = Recipe(
    width=32,
    layers=1,
    autoencoder_steps=4,
    autoencoder_batch=4,
    pictures=24,
    flow_steps=5,
    held_back_steps=4,
    flow_batch=8,
    save_every=2,
)
STOPS = [
    ("autoencoder", 2),
    ("autoencoder", 4),
    ("flow", 2),
    ("flow", 4),
    ("flow", 5),
    ("held-back", 2),
    ("held-back", 4),
]
real_scenes, real_pairs = pretrain.sample_scenes, shapes.evaluation_pairs


class Interrupted(Exception):
    """Stands for a power cut."""


@pytest.fixture(scope="module", autouse=True)
def few_pictures():
    """Measure on few pictures: only what is learnt matters here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretrain, "sample_scenes", lambda n, rng, **flaw: real_scenes(min(n, 24), rng, **flaw))
        patch.setattr(shapes, "evaluation_pairs", lambda split="test", _=256: real_pairs(split, 1))
        yield


@pytest.fixture(scope="module")
def whole(few_pictures, tmp_path_factory):
    """The final state of an uninterrupted run, its scores and its states at each report."""
    scores, states = {}, {}

    def report(stage, step, generator, values):
        scores[stage, step], states[stage, step] = values, state(generator)

    return state(pretrain.pretrain(tmp_path_factory.mktemp("whole"), RECIPE, report)), scores, states


def state(generator) -> dict[str, torch.Tensor]:
    """All that training determines."""
    parts = {name: getattr(generator, name).state_dict() for name in ("transformer", "vae", "prompt_encoder")}
    flat = {f"{name}.{key}": value.clone() for name, weights in parts.items() for key, value in weights.items()}
    config = generator.vae.config
    return flat | {"scale": torch.tensor([config.scaling_factor, config.shift_factor], dtype=torch.float64)}


def differing(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [key for key in a if not torch.equal(a[key], b[key])]


def test_a_run_reports_every_stage_with_its_scores(whole):
    _, scores, _ = whole
    assert list(scores) == STOPS
    for (stage, step), values in scores.items():
        assert np.isfinite(values["loss"])
        measured = stage == "autoencoder" or (stage, step) in (("flow", 5), ("held-back", 4))
        assert ("accuracy" in values) == measured


def test_every_stage_moves_its_own_parts(whole):
    final, _, states = whole
    early, late = states["autoencoder", 2], states["flow", 5]
    assert {key.split(".")[0] for key in differing(early, late)} == {"vae", "transformer", "prompt_encoder", "scale"}
    assert {key.split(".")[0] for key in differing(late, final)} == {"transformer", "prompt_encoder"}
    assert differing(states["held-back", 4], final) == []


def test_another_seed_gives_other_weights(whole, tmp_path):
    short = dataclasses.replace(RECIPE, seed=1, autoencoder_steps=1, flow_steps=1, held_back_steps=1)
    assert len(differing(state(pretrain.pretrain(tmp_path, short)), whole[0])) > 50


def test_a_run_stopped_at_every_report_ends_with_the_same_weights(whole, tmp_path):
    seen = []

    def stop(name, step, *_):
        if (name, step) not in seen:
            seen.append((name, step))
            raise Interrupted

    for _ in STOPS:
        torch.manual_seed(len(seen))  # nothing may hang on the global stream
        with pytest.raises(Interrupted):
            pretrain.pretrain(tmp_path, RECIPE, stop)
        assert not list(tmp_path.glob("*.part"))
    generator = pretrain.pretrain(tmp_path, RECIPE, stop)
    assert seen == STOPS
    assert differing(state(generator), whole[0]) == []


@pytest.mark.parametrize("steps", [3, 6, 10])
def test_a_run_stopped_between_two_saves_ends_with_the_same_weights(whole, tmp_path, monkeypatch, steps):
    left = iter(range(steps))
    clip = torch.nn.utils.clip_grad_norm_

    def stop(*args):
        if next(left, None) is None:
            raise Interrupted
        return clip(*args)

    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", stop)
        with pytest.raises(Interrupted):
            pretrain.pretrain(tmp_path, RECIPE)
    assert differing(state(pretrain.pretrain(tmp_path, RECIPE)), whole[0]) == []


def test_a_full_disk_stops_the_run_and_keeps_the_last_state(whole, tmp_path, monkeypatch):
    real, left = torch.save, iter(range(3))

    def full(state, path):
        if next(left, None) is None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(CheckpointError, match="flow.pt.*No space left on device"):
            pretrain.pretrain(tmp_path, RECIPE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["autoencoder.pt", "flow.pt", "recipe.json"]
    assert differing(state(pretrain.pretrain(tmp_path, RECIPE)), whole[0]) == []


def test_training_pictures_show_their_captions_in_the_recipes_shares():
    texts, pictures = real_scenes(600, np.random.default_rng(5))
    assert all(verdict.strict for verdict in shapes.verify(pictures[:200], texts[:200]))
    shares = {kind: np.mean([shapes.parse(text).kind == kind for text in texts]) for kind in shapes.KINDS}
    assert shares == pytest.approx(pretrain.KIND_SHARES, abs=0.06)
    texts, pictures = real_scenes(200, np.random.default_rng(6), flawed=True)
    assert not any(verdict.strict for verdict in shapes.verify(pictures, texts))


def test_the_share_of_flawed_captions_is_the_recipes(tmp_path, monkeypatch):
    encode, counts = pretrain.encode_pictures, []

    def count(generator, number, seed, *, flawed):
        counts.append((number, flawed))
        return encode(generator, number, seed, flawed=flawed)

    monkeypatch.setattr(pretrain, "encode_pictures", count)
    short = dataclasses.replace(RECIPE, flawed_share=0.25, autoencoder_steps=1, flow_steps=1, held_back_steps=1)
    pretrain.pretrain(tmp_path, short)
    assert counts == [(24, False), (24, False), (8, True)]


def test_the_learning_rate_warms_up_and_falls_to_zero():
    rates = [pretrain.schedule(step, 1000) for step in range(1001)]
    assert rates[0] == pytest.approx(1 / 200)
    assert rates[99] == pytest.approx(0.5)
    assert max(rates) < 1
    assert rates[500] == pytest.approx(0.5)
    assert rates[1000] == pytest.approx(0, abs=1e-12)
    assert all(a > b for a, b in zip(rates[200:], rates[201:], strict=False))
    cooled = [pretrain.schedule(step, 1000, horizon=2000, cooldown=100) for step in range(1001)]
    assert cooled[900] == pytest.approx((1 + np.cos(0.45 * np.pi)) / 2)
    assert cooled[950] == pytest.approx((1 + np.cos(0.475 * np.pi)) / 4)
    assert cooled[1000] == 0


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text('{"seed": 7}')
    with pytest.raises(CheckpointError, match="another recipe"):
        pretrain.pretrain(tmp_path, RECIPE)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


def test_a_truncated_stage_is_told(tmp_path):
    pretrain.pretrain(tmp_path, RECIPE)
    path = tmp_path / "autoencoder.pt"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="goes on from the stage before"):
        pretrain.pretrain(tmp_path, RECIPE)
