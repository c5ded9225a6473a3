"""Rewards of clips: what clean data gets, what the flaws cost, and gradients against finite differences."""

import numpy as np
import pytest
import torch

from pixelpolicy.rewards import physics
from pixelpolicy.worlds import bounce

SOFT = (physics.presence, physics.likeness, physics.heading, physics.newton)


def clips_of(flaw=None, count=120, seed=0):
    rng = np.random.default_rng(seed)
    texts = [str(t) for t in rng.choice(bounce.prompts(), count)]
    return torch.from_numpy(bounce.draw([bounce.scene(t, rng, flaw=flaw) for t in texts])), texts


def test_clean_clips_get_nearly_everything():
    clips, texts = clips_of()
    for reward in SOFT:
        assert reward()(clips, texts).quantile(0.03) > 0.93, reward().name
    assert physics.bounce_strict()(clips, texts).mean() >= 0.97


@pytest.mark.parametrize(
    ("flaw", "reward", "most"),
    [
        ("vanishing", physics.presence, 0.9),
        ("vanishing", physics.newton, 0.3),
        ("jitter", physics.newton, 0.3),
        ("gravity", physics.newton, 0.7),
        ("direction", physics.heading, 0.3),
        ("colour", physics.likeness, 0.4),
        ("shape", physics.likeness, 0.9),
    ],
)
def test_every_flaw_costs_where_it_should(flaw, reward, most):
    clips, texts = clips_of(flaw)
    assert reward()(clips, texts).mean() < most


def test_the_empty_clip_is_smoothest_and_has_nothing_else():
    empty = torch.from_numpy(bounce.stage() * 2 - 1).expand(3, bounce.FRAMES, 3, 24, 24)
    texts = ["a red disc thrown left"] * 3
    assert (physics.smoothness()(empty, texts) == 0).all()
    clean, prompts = clips_of()
    assert (physics.smoothness()(clean, prompts) < -0.05).all()
    assert physics.presence()(empty, texts).max() < 1e-3 and physics.likeness()(empty, texts).max() < 0.2
    assert physics.newton()(empty, texts).max() < 0.5


def test_the_frozen_ball_that_teleports_is_smooth_present_and_off_to_the_left_but_breaks_newtons_law():
    scene = bounce.scene("a red disc thrown left", np.random.default_rng(0))
    frozen = dict(scene, track=np.array([[18.0, 10.0]] * 4 + [[8.0, 10.0]] * 4))
    clips, texts = torch.from_numpy(bounce.draw([frozen])), ["a red disc thrown left"]
    assert physics.presence()(clips, texts) == 1 and physics.heading()(clips, texts) == 1
    honest = torch.from_numpy(bounce.draw([scene]))
    assert physics.smoothness()(clips, texts) > physics.smoothness()(honest, texts)
    assert physics.newton()(clips, texts) < 0.1 < 0.9 < physics.newton()(honest, texts)


def test_tracking_is_that_of_the_simulator():
    rng = np.random.default_rng(1)
    scenes = [bounce.scene(t, rng) for t in bounce.prompts()]
    track = physics.centres(physics.cover(torch.from_numpy(bounce.draw(scenes))))
    assert (track - torch.from_numpy(np.stack([s["track"] for s in scenes]))).abs().max() < 0.25


def test_bounces_are_found_and_only_they():
    rng = np.random.default_rng(2)
    texts = [t for t in bounce.prompts() if "disc" in t]
    tracks, floors = [], []
    for text in texts:
        track, radius = bounce.throw(text, rng)
        tracks.append(track)
        floors.append(bounce.GROUND - radius)
    track = torch.from_numpy(np.stack(tracks))
    free = physics.in_flight(track, torch.tensor(floors), slack=1e-6)
    acceleration = (track[:, 2:] - 2 * track[:, 1:-1] + track[:, :-2])[..., 1]
    assert torch.equal(free, (acceleration - bounce.GRAVITY).abs() < 1e-9)
    assert 0 < (~free).sum() < free.numel()


@pytest.mark.parametrize("reward", [*SOFT, physics.smoothness])
def test_gradients_are_those_of_finite_differences(reward):
    clips, texts = clips_of(count=2, seed=3)
    clips = (
        clips.double() * 0.8 + 0.02 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    ).double()
    clips.requires_grad_()
    reward = reward()
    direction = torch.randn(clips.shape, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad(reward(clips, texts).sum(), clips)
    assert gradient.isfinite().all()
    if reward.name == "likeness":  # the drawing moves with the clip, and is held still by intention
        return
    step = 1e-6
    with torch.no_grad():
        numeric = (reward(clips + step * direction, texts) - reward(clips - step * direction, texts)).sum() / (2 * step)
    assert numeric.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-2, abs=1e-5)


def test_one_frame_alone_has_a_likeness():
    clips, texts = clips_of(count=6)
    per_frame = torch.stack([physics.likeness()(clips[:, i : i + 1], texts) for i in range(bounce.FRAMES)], 1)
    torch.testing.assert_close(per_frame.mean(1), physics.likeness()(clips, texts))


def test_grain_does_not_make_the_object_that_is_drawn_larger():
    """Following its gradient from a grainy clip leaves the mass where it was."""
    clips, texts = clips_of(count=12)
    before = bounce.measure(clips.numpy(), texts)["mass"]
    clips = clips + 0.1 * torch.randn(clips.shape, generator=torch.Generator().manual_seed(0))
    for _ in range(40):
        clips.requires_grad_()
        (gradient,) = torch.autograd.grad(physics.likeness()(clips, texts).sum(), clips)
        clips = (clips + 20 * gradient).detach()
    after = bounce.measure(clips.clamp(-1, 1).numpy(), texts)["mass"]
    assert after == pytest.approx(before, rel=0.05)
