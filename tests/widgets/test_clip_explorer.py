"""The clip explorer: its numbers against `rl.clipped_surrogate`, autograd and torch; then the page under the hand."""

import numpy as np
import pytest
import torch
from explorers import (
    THEMES,
    charts,
    check_alone,
    check_answer,
    check_json,
    check_keys,
    check_names,
    check_still,
    check_theme,
    in_page,
    shown,
    status,
)
from torch.distributions import Categorical

from pixelpolicy.errors import FigureError
from pixelpolicy.rl import clip_fraction, clipped_surrogate
from pixelpolicy.widgets.clip_explorer import ADVANTAGES, LIMITS, LOGITS, ClipExplorer

MINUS = "\N{MINUS SIGN}"


def explorer(**words) -> ClipExplorer:
    return ClipExplorer(**{"alt": "PPO's objective under sliders", "caption": "Move a slider."} | words)


def exact_term(ratio: float, advantage: float, clip: float) -> tuple[float, float]:
    """Loss and gradient in the log-probability, by the library and autograd."""
    log_prob = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    advantages = torch.tensor([advantage], dtype=torch.float64)
    loss = clipped_surrogate(log_prob, torch.zeros_like(log_prob), advantages, clip)
    loss.backward()
    return loss.item(), log_prob.grad.item()


def exact_rollout(state: dict) -> dict[str, float]:
    """The rollout's part of the explorer, by torch."""
    a = torch.tensor(state["advantages"], dtype=torch.float64)
    if state["normalise"]:
        a = (a - a.mean()) / (a.std() + 1e-8)
    kept = torch.tensor(state["logits"][: state["actions"]], dtype=torch.float64)
    log_now, log_old = (kept / state["temperature"]).log_softmax(0), kept.log_softmax(0)
    taken = torch.arange(len(a)) * state["actions"] // len(a)
    surrogate = -clipped_surrogate(log_now[taken], log_old[taken], a, state["clip_range"])
    entropy = Categorical(logits=log_now).entropy()
    outside = clip_fraction(log_now[taken], log_old[taken], state["clip_range"]) * len(a)
    leaf = log_now[taken].clone().requires_grad_()
    clipped_surrogate(leaf, log_old[taken], a, state["clip_range"]).backward()
    return {
        "surrogate": surrogate.item(),
        "entropy": entropy.item(),
        "total": (surrogate + state["entropy_weight"] * entropy).item(),
        "outside": outside.item(),
        "still": ((leaf.grad == 0) & (a != 0)).sum().item(),
        "mean": a.mean().item(),
        "std": a.std().item(),
    }


def random_state(rng: np.random.Generator) -> dict:
    count = int(rng.integers(2, 17))
    return {
        "clip_range": rng.uniform(*LIMITS["clip_range"][:2]),
        "ratio": rng.uniform(*LIMITS["ratio"][:2]),
        "advantage": rng.uniform(*LIMITS["advantage"][:2]),
        "normalise": bool(rng.integers(2)),
        "actions": int(rng.integers(2, 5)),
        "temperature": 10 ** rng.uniform(-1, 1),
        "entropy_weight": rng.uniform(),
        "advantages": rng.normal(rng.normal(), 10 ** rng.uniform(-1, 2), count).tolist(),
        "logits": rng.normal(0, 2, 4).tolist(),
    }


def test_numbers_of_the_page_are_those_of_the_library(stand):
    page, rng = stand(explorer()), np.random.default_rng(0)
    states = [random_state(rng) for _ in range(200)]
    for state in states:
        found, expected = in_page(page, "figures", [state]), exact_rollout(state)
        loss, gradient = exact_term(state["ratio"], state["advantage"], state["clip_range"])
        assert found["one"]["loss"] == pytest.approx(loss, abs=1e-9)
        assert found["one"]["gradient"] == pytest.approx(gradient, abs=1e-9)
        told = found | found["scaled"]
        for name, value in expected.items():
            assert told[name] == pytest.approx(value, abs=1e-6, rel=1e-9), name
    still = [exact_rollout(state)["still"] for state in states]
    assert 0 in still and max(still) > 2  # the states lie on both sides of the clip


@pytest.mark.parametrize("advantage", [2.5, -2.5, 0.0])
@pytest.mark.parametrize("log_ratio", [0.25, -0.25])
def test_on_the_edge_of_the_clip_the_gradient_is_autograds(stand, advantage, log_ratio):
    """Exactly on the edge autograd takes the side within; a rounding beyond it, on the flat side, nothing."""
    page, ratio = stand(explorer()), float(np.exp(log_ratio))
    clip = abs(ratio - 1)  # exact, for a ratio from one half to two
    for step in (0, 1, -1):
        given = ratio + step * 1e-9
        found = in_page(page, "surrogate", [given, advantage, clip])
        loss, gradient = exact_term(given, advantage, clip)
        assert found["loss"] == pytest.approx(loss, abs=1e-12)
        assert found["gradient"] == pytest.approx(gradient, abs=1e-8), step


def test_entropy_at_its_ends(stand):
    page = stand(explorer())
    for actions in (2, 3, 4):
        assert in_page(page, "entropy", [[1 / actions] * actions]) == pytest.approx(np.log(actions), abs=1e-12)
    assert in_page(page, "entropy", [[1.0, 0.0]]) == 0


def test_advantages_that_are_all_alike_become_nothing(stand):
    page = stand(explorer(advantages=[3.0] * 8))
    assert shown(page, "in use: mean, std") == [0, 0]
    assert shown(page, "clipped surrogate") == [0]


def test_what_stands_on_the_page_is_the_state(stand):
    page = stand(explorer(clip_range=0.3))
    assert page.get_by_role("slider", name="clip range").input_value() == "0.3"
    for trait, value in (("ratio", 1.45), ("advantage", 2.0), ("temperature", 0.5), ("entropy_weight", 0.3)):
        page.evaluate(f"model.set('{trait}', {value})")
    loss, gradient = exact_term(1.45, 2.0, 0.3)
    assert shown(page, f"objective, {MINUS}loss") == pytest.approx([-loss], abs=1e-9)
    assert shown(page, "gradient in log p") == [0] and gradient == 0
    expected = exact_rollout(
        {"clip_range": 0.3, "normalise": True, "actions": 3, "temperature": 0.5, "entropy_weight": 0.3}
        | {"advantages": ADVANTAGES, "logits": LOGITS}
    )
    assert shown(page, "entropy, at most") == pytest.approx([expected["entropy"], np.log(3)], abs=1e-9)
    assert shown(page, "total objective") == pytest.approx([expected["total"]], abs=1e-9)
    assert shown(page, "raw: mean, std") == pytest.approx([np.mean(ADVANTAGES), np.std(ADVANTAGES, ddof=1)], abs=1e-9)


def test_words_follow_the_state_and_say_only_what_changed(stand):
    page = stand(explorer())
    assert (
        "Ratio 1.00" in status(page) and "Advantages normalised" in status(page) and "Temperature 1.00" in status(page)
    )
    before = charts(page)
    page.get_by_role("slider", name="ratio").press("End")
    assert "objective 1.200, gradient 0.000, flat" in status(page)
    assert "Temperature" not in status(page)  # it would be read aloud at every key
    assert "You are at ratio 2.00, objective 1.20, slope 0.00" in charts(page)[0]
    assert charts(page)[1:] == before[1:]
    page.get_by_role("checkbox", name="normalise advantages").press("Space")
    assert "Advantages raw: mean 6.05, standard deviation 3.44." in status(page)
    assert any(chart.startswith("raw, in use. action a 11.00") for chart in charts(page))
    page.get_by_role("slider", name="actions").press("ArrowRight")
    assert "4 actions" in status(page) and any("action d" in chart for chart in charts(page))


def test_the_curve_is_flat_only_where_there_is_no_gradient(stand):
    page = stand(explorer())

    def ends(kind: str) -> list[list[float]]:
        points = page.locator(f".pixelpolicy-explorer-chart .{kind}").first.get_attribute("points")
        return [[float(x) for x in point.split(",")] for point in points.split(" ")]

    for advantage, clip, side in ((1.5, 0.2, "right"), (-1.5, 0.4, "left")):
        page.evaluate(f"() => {{ model.set('advantage', {advantage}); model.set('clip_range', {clip}); }}")
        flat, steep, faint = ends("flat"), ends("first"), ends("faint")
        assert flat[0][1] == flat[1][1] and steep[0][1] != steep[1][1]
        low, high = faint[0][0], faint[1][0]  # ratios 0 and 2
        edge = low + (high - low) * (1 + clip if side == "right" else 1 - clip) / 2
        assert flat[0 if side == "right" else 1][0] == pytest.approx(edge, abs=0.02)
        assert flat[1 if side == "right" else 0][0] == pytest.approx(high if side == "right" else low, abs=0.02)


def test_every_control_has_a_name(stand):
    page = stand(explorer())
    check_names(page)
    assert page.get_by_role("slider").count() == 6
    assert page.get_by_role("figure", name="PPO's objective under sliders").count() == 1


def test_keys_move_every_slider(stand):
    page = stand(explorer())
    page.keyboard.press("Tab")
    assert page.get_by_role("slider", name="clip range").evaluate("node => node === document.activeElement")
    keys = [("ArrowRight", 0.21), ("ArrowUp", 0.22), ("ArrowDown", 0.21), ("ArrowLeft", 0.2), ("PageUp", 0.29)]
    check_keys(page, "clip range", "clip_range", [*keys, ("PageDown", 0.2), ("End", 0.9), ("End", 0.9), ("Home", 0.01)])
    check_keys(page, "ratio", "ratio", [("ArrowRight", 1.01), ("PageUp", 1.21), ("Home", 0.01), ("End", 2)])
    check_keys(page, "advantage", "advantage", [("ArrowLeft", 0.9), ("Home", -3), ("ArrowRight", -2.9), ("End", 3)])
    check_keys(page, "actions", "actions", [("ArrowRight", 4), ("ArrowRight", 4), ("Home", 2), ("ArrowUp", 3)])
    check_keys(
        page, "temperature", "temperature", [("ArrowRight", 10**0.05), ("ArrowLeft", 1), ("Home", 0.1), ("End", 10)]
    )
    check_keys(page, "entropy weight", "entropy_weight", [("ArrowUp", 0.02), ("Home", 0), ("PageUp", 0.1)])


def test_the_mouse_drags_handles_and_charts(stand):
    page = stand(explorer())
    curve, whole = page.locator(".pixelpolicy-explorer-draggable").all()
    for chart, name, trait in ((curve, "ratio", "ratio"), (whole, "temperature", "temperature")):
        chart.scroll_into_view_if_needed()
        box = chart.bounding_box()
        y = box["y"] + 60
        middle = box["x"] + (44 + box["width"] - 10) / 2  # between the chart's margins
        page.mouse.move(middle, y)
        page.mouse.down()
        assert page.evaluate(f"model.get('{trait}')") == pytest.approx(1, rel=0.02)
        page.mouse.move(box["x"] + box["width"] + 30, y, steps=4)
        page.mouse.up()
        assert page.evaluate(f"model.get('{trait}')") == LIMITS[trait][1]
        page.mouse.move(middle, y, steps=3)
        assert page.evaluate(f"model.get('{trait}')") == LIMITS[trait][1]
        page.keyboard.press("Home")  # the press has given the slider the focus
        assert page.evaluate(f"model.saved.{trait}") == LIMITS[trait][0], name
    box = page.get_by_role("slider", name="clip range").bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert page.evaluate("model.saved.clip_range") == pytest.approx(0.455, abs=0.011)


def test_what_the_kernel_sets_is_shown_and_a_closed_view_is_deaf(stand):
    page = stand(explorer())
    page.evaluate("() => { model.set('clip_range', 0.35); model.set('normalise', false); }")
    assert page.get_by_role("slider", name="clip range").input_value() == "0.35"
    assert not page.get_by_role("checkbox").is_checked()
    page.evaluate("() => { leave(); model.set('clip_range', 0.5); }")
    page.get_by_role("slider", name="clip range").focus()
    assert page.get_by_role("slider", name="clip range").input_value() == "0.35"


@pytest.mark.parametrize("width", [320, 400, 700])
def test_a_narrow_screen_needs_no_sideways_scrolling(stand, width):
    page = stand(explorer(advantages=np.linspace(-1000, 2000, 32)), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1000, "height": 800})
    page.wait_for_function("document.querySelector('svg[role=img]').viewBox.baseVal.width > 380")  # drawn anew


@pytest.mark.parametrize(("host", "wish", "dark"), THEMES)
def test_light_and_dark_follow_the_host_first_and_are_legible(stand, host, wish, dark):
    page = stand(explorer(), dark=wish)
    page.evaluate(f"() => {{ {host} }}")
    check_theme(
        page, dark, [("chart .flat", "stroke", 3), ("chart .tangent", "stroke", 3), ("chart .old", "stroke", 3)]
    )
    check_still(page)


def test_a_key_is_answered_within_fifty_milliseconds(stand):
    check_answer(stand(explorer()), "clip range")


def test_all_that_a_page_needs_is_json_and_is_embedded():
    check_json(explorer())
    check_alone(explorer())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"alt": " "}, "alt="),
        ({"clip_range": 0.0}, "clip_range is 0.0"),
        ({"clip_range": 1e-4}, "from 0.01 to 0.9"),
        ({"clip_range": float("nan")}, "clip_range is nan"),
        ({"advantages": [1.0]}, "2 numbers or more"),
        ({"advantages": [1.0, float("nan")]}, "finite"),
        ({"advantages": [[1.0, 2.0]]}, "sequence of numbers"),
        ({"advantages": "12"}, "sequence of numbers"),
        ({"advantages": torch.tensor(1.0)}, "sequence of numbers"),
        ({"advantages": np.zeros(33)}, "33 advantages"),
    ],
)
def test_parts_that_do_not_fit_are_refused(words, message):
    with pytest.raises(FigureError, match=message):
        explorer(**words)


def test_traits_may_be_set_read_and_observed_within_their_sliders():
    widget, seen = explorer(advantages=torch.tensor([1.0, -2.0])), []
    assert widget.advantages == [1.0, -2.0]
    widget.observe(lambda change: seen.append(change.new), "ratio")
    widget.set_state({"ratio": 1.5, "actions": 4, "temperature": 10, "normalise": False})  # as the browser sends it
    assert seen == [1.5] and (widget.actions, widget.temperature, widget.normalise) == (4, 10.0, False)
    for name, (least, most, _) in LIMITS.items():
        setattr(widget, name, least)
        setattr(widget, name, most)
        with pytest.raises(FigureError, match=f"{name} is"):
            setattr(widget, name, most + 1)
