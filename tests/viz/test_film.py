"""Films: what moves is what was given, once and for at most five seconds, with words and a still beside it."""

import io

import numpy as np
import pytest
import torch
from browser import chromium
from PIL import Image, ImageSequence

from pixelpolicy import viz
from pixelpolicy.errors import ControlError, FigureError


def bar(time, width=40):
    """A red bar on white that moves one pixel a frame to the right."""
    frames = np.full((time, 20, width, 3), 255, np.uint8)
    for t in range(time):
        frames[t, :, t % width] = (200, 30, 30)
    return frames


def shown(film):
    image = Image.open(io.BytesIO(film.gif))
    frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
    durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
    return np.stack(frames), durations, image.info


def test_a_film_shows_its_frames_at_their_pace_and_once():
    frames, durations, info = shown(viz.film(bar(30), alt="a bar moves to the right", fps=25))
    assert frames.shape == (30, 20, 40, 3) and set(durations) == {40}
    assert abs(frames.astype(int) - bar(30)).max() <= 8
    assert "loop" not in info, "it would play again and again"


def test_a_long_film_is_thinned_to_five_seconds_from_first_to_last():
    film = viz.film(bar(400, width=400), alt="a bar", fps=20)
    frames, durations, _ = shown(film)
    assert sum(durations) <= 5000 and len(frames) == 100
    where = (frames[:, 0, :, 1] < 100).argmax(1)
    assert where[0] == 0 and where[-1] == 399 and set(np.diff(where)) <= {4, 5}


def test_the_still_is_the_last_frame_and_serves_who_wants_less_motion():
    film = viz.film(bar(5), alt='a "red" bar')
    still = np.asarray(Image.open(io.BytesIO(film.still)).convert("RGB"))
    assert (still == bar(5)[-1]).all()
    page = film._repr_mimebundle_()
    assert 'alt="a &quot;red&quot; bar"' in page["text/html"] and "prefers-reduced-motion" in page["text/html"]
    assert page["text/plain"] == 'a "red" bar'


@pytest.mark.slow
def test_a_browser_plays_the_film_and_shows_the_still_to_who_wants_less_motion():
    film = viz.film(bar(5), alt="a bar")
    with chromium() as browser:
        for motion, kind in (("no-preference", "image/gif"), ("reduce", "image/png")):
            page = browser.new_page(reduced_motion=motion)
            page.set_content(film._repr_mimebundle_()["text/html"])
            shown = page.get_by_alt_text("a bar")
            assert shown.evaluate("image => image.currentSrc").startswith(f"data:{kind};base64,")
            assert shown.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [
                40,
                20,
            ]
            page.close()


def test_shrinking_averages():
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[:, :, ::2] = 200
    assert (np.asarray(Image.open(io.BytesIO(viz.film(frames, alt="stripes", shrink=2).still))) == 100).all()


def test_a_film_is_saved_as_it_is_shown(tmp_path):
    film = viz.film(bar(3), alt="a bar")
    film.save(tmp_path / "bar.gif")
    assert (tmp_path / "bar.gif").read_bytes() == film.gif


@pytest.mark.parametrize(
    "change, message",
    [
        ({"alt": " "}, "alternative text"),
        ({"frames": bar(2).astype(float)}, "give uint8"),
        ({"frames": bar(2)[0]}, r"\[20, 40, 3\]"),
        ({"frames": bar(2)[:0]}, "one frame at least"),
        ({"fps": 0}, "fps is 0"),
        ({"shrink": 0}, "shrink 0"),
    ],
)
def test_what_is_no_film_is_refused(change, message):
    given = {"frames": bar(2), "alt": "a bar"} | change
    with pytest.raises(FigureError, match=message):
        viz.film(given.pop("frames"), **given)


def test_the_frames_of_an_episode_end_with_it():
    seen = []

    def falling(observations):
        seen.append(observations)
        return torch.ones(1, dtype=torch.long)

    every = viz.episode_frames(falling, "CartPole-v1", seed=0)
    steps = len(seen)
    assert every.dtype == np.uint8 and every.shape == (steps + 1, 400, 600, 3) and 8 <= steps <= 12
    assert (every[0] != every[-1]).any(), "nothing moves"
    thinned = viz.episode_frames(falling, "CartPole-v1", seed=0, every=4)
    assert (thinned[1] == every[4]).all() and (thinned[-1] == every[-1]).all()
    assert len(viz.episode_frames(falling, "CartPole-v1", seed=0, most_steps=3)) == 4


def test_a_box_takes_its_actions_too():
    assert len(viz.episode_frames(lambda o: torch.zeros(1, 1), "Pendulum-v1", most_steps=4)) == 5


def test_no_film_of_what_is_not_there():
    with pytest.raises(ControlError, match="no film can be made of 'Pole-v9'"):
        viz.episode_frames(lambda o: o, "Pole-v9")


def test_side_by_side_holds_the_shorter_one():
    pair = viz.side_by_side([bar(2), bar(5)], gap=4)
    assert pair.shape == (5, 20, 84, 3)
    assert (pair[4, :, :40] == bar(2)[1]).all() and (pair[4, :, 44:] == bar(5)[4]).all()
    assert (pair[:, :, 40:44] == 255).all()
