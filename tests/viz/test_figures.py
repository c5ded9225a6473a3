"""Figures: no picture without words for it, and the pictures show what they were given."""

import io

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from pixelpolicy import viz


def _pixels(picture: viz.Picture) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(picture.png)).convert("RGB")).reshape(-1, 3)


def test_a_figure_without_alternative_text_is_refused():
    with pytest.raises(ValueError, match="alternative text"):
        viz.picture(Figure(), alt=" ")


def test_the_alternative_text_reaches_the_page_escaped():
    shown = viz.picture(Figure(), alt='a "red" circle')._repr_mimebundle_()
    assert 'alt="a &quot;red&quot; circle"' in shown["text/html"]
    assert shown["text/plain"] == 'a "red" circle'


def test_the_same_figure_is_the_same_bytes():
    sheets = [viz.sample_sheet(torch.zeros(2, 3, 8, 8), ["a", "b"], alt="two grey squares").png for _ in range(2)]
    assert sheets[0] == sheets[1]


def test_a_sample_sheet_shows_its_pictures_in_their_colours():
    red = torch.tensor([1.0, -1.0, -1.0])[None, :, None, None].expand(3, 3, 8, 8)
    sheet = _pixels(viz.sample_sheet(red, ["one", "two", "three"], columns=2, alt="three red squares"))
    share = (sheet == [255, 0, 0]).all(1).mean()
    assert 0.2 < share < 0.9
    assert not (_pixels(viz.sample_sheet(-red, ["one"] * 3, alt="three others")) == [255, 0, 0]).all(1).any()


def test_frames_tell_accepted_from_rejected():
    def frames(accepted):
        sheet = _pixels(
            viz.sample_sheet(torch.zeros(1, 3, 8, 8), ["x"], accepted=accepted, alt="one square", columns=1)
        )
        colours = {"green": (0x00, 0x9E, 0x73), "red": (0xD5, 0x5E, 0x00)}
        return {name for name, colour in colours.items() if (abs(sheet.astype(int) - colour).sum(1) < 30).any()}

    assert frames([True]) == {"green"}
    assert frames([False]) == {"red"}
    assert frames(None) == set()


def test_curves_draw_a_line_a_series_in_the_colour_of_its_algorithm():
    series = {"grpo": ([0, 1, 2], [0.1, 0.5, 0.9]), "other": ([0, 1, 2], [0.2, 0.2, 0.2])}
    plot = viz.curves(series, levels={"base": 0.3}, xlabel="iteration", ylabel="accuracy", alt="two lines")
    grpo = [int(viz.COLOURS["grpo"][i : i + 2], 16) for i in (1, 3, 5)]
    assert (abs(_pixels(plot).astype(int) - grpo).sum(1) < 30).sum() > 100
    assert not (abs(_pixels(viz.curves({"other": series["other"]}, xlabel="x", ylabel="y", alt="one line")).astype(int)
                    - grpo).sum(1) < 30).any()  # fmt: skip
