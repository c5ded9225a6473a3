"""The video generator: its codec frame by frame, its checkpoint, and its recipe in small."""

import numpy as np
import pytest
import torch

from pixelpolicy.generators import load, save
from pixelpolicy.generators.pretrain_bounce import draw_frames, pretrain, publish, recipe_of
from pixelpolicy.generators.video import CODE, FrameCodec, VideoGenerator, build
from pixelpolicy.policies import DenoisingPolicy
from pixelpolicy.worlds import bounce


@pytest.fixture(scope="module")
def small() -> VideoGenerator:
    torch.manual_seed(0)
    return build(width=32, layers=1)


def test_frames_are_coded_one_by_one_and_the_scale_is_undone():
    torch.manual_seed(1)
    codec = FrameCodec()
    clips = torch.from_numpy(bounce.draw_clips(3, np.random.default_rng(0))[1])
    codec.fit_scale(clips)
    latents = codec.encode(clips)
    assert latents.shape == (3, CODE, bounce.FRAMES, 1, 1)
    torch.testing.assert_close(latents.mean((0, 2)).flatten(), torch.zeros(CODE), atol=1e-4, rtol=0)
    plain = codec.decode_frames(codec.encode_frames(clips.flatten(0, 1))).clamp(-1, 1).view_as(clips)
    torch.testing.assert_close(codec.decode(latents), plain, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(codec.decode(latents[:, :, 2:3]), plain[:, 2:3], atol=1e-4, rtol=1e-4)


def test_a_clip_is_a_function_of_its_seed_and_prompt_alone(small):
    prompts = ["a red disc thrown left", "a blue square thrown up"]
    clips = small.generate(prompts, [1, 2], steps=2)
    assert clips.shape == (2, bounce.FRAMES, 3, 24, 24) and clips.abs().max() <= 1
    torch.testing.assert_close(small.generate(prompts[1:], [2], steps=2), clips[1:], atol=1e-5, rtol=1e-4)


def test_the_policy_replays_its_log_probabilities(small):
    policy = DenoisingPolicy(small, steps=3, micro_batch=4)
    rollout = policy.rollout(["a red disc thrown left"] * 4, seeds=torch.arange(4))
    with torch.no_grad():
        for step in policy.noisy_steps():
            assert torch.equal(policy.log_prob(rollout, step), rollout.log_prob_at(step))


def test_a_checkpoint_comes_back_as_it_was(small, tmp_path):
    save(small, tmp_path / "there", "card\n")
    back = load(tmp_path / "there")
    assert isinstance(back, VideoGenerator) and back.world is bounce
    half = torch.allclose(back.codec.mean, small.codec.mean.half().float())
    assert half and back.transformer.config.in_channels == CODE


def test_the_recipe_runs_and_goes_on(tmp_path):
    recipe = recipe_of("bounce", 0, small=True)
    seen = []
    pretrain(tmp_path, recipe, lambda stage, step, *_: seen.append((stage, step)))
    assert seen[-1] == ("flow", recipe.flow_steps) and ("autoencoder", recipe.codec_steps) in seen
    again = []
    generator = pretrain(tmp_path, recipe, lambda *line: again.append(line))
    assert not again
    scores = publish(generator, tmp_path / "checkpoint", recipe, per_kind=2)
    assert scores["clean clips"]["accuracy"] == 1
    assert "a frame" in (tmp_path / "checkpoint" / "README.md").read_text()


def test_frames_to_learn_from_hold_one_object_or_none():
    frames = draw_frames(300, np.random.default_rng(0)).numpy()
    there = np.abs(frames - (bounce.stage() * 2 - 1)).max((1, 2, 3)) > 0.1
    assert 0.9 < there.mean() < 1
