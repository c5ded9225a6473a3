"""The tilt explorer: its numbers against `rl.oracles` on the same grid; then the page under the hand."""

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
from torch.distributions import Categorical, MixtureSameFamily, Normal

from pixelpolicy.errors import FigureError
from pixelpolicy.rl.oracles import exact_kl, tilted, tilted_mixture
from pixelpolicy.widgets.tilt_explorer import LIMITS, TiltExplorer

TRAITS = ("window", "weights", "means", "stds", "slope", "bump", "beta", "proxy")


def explorer(**words) -> TiltExplorer:
    return TiltExplorer(**{"alt": "a mixture and its tilted optimum", "caption": "Let beta fall."} | words)


def state_of(widget: TiltExplorer, **changes) -> dict:
    return {name: getattr(widget, name) for name in TRAITS} | changes


def exact(state: dict) -> dict[str, torch.Tensor]:
    """The same from torch's densities and the library's closed forms."""
    low, high, count = state["window"]
    x = torch.from_numpy(np.linspace(low, high, count))
    weights, means, stds = (torch.tensor(state[name], dtype=torch.float64) for name in ("weights", "means", "stds"))
    p = MixtureSameFamily(Categorical(weights), Normal(means, stds)).log_prob(x).softmax(0)
    height, centre, width = state["bump"]
    gold = state["slope"] * x
    rewards = gold + height * torch.exp(-(((x - centre) / width) ** 2) / 2) if state["proxy"] else gold
    q = tilted(p, rewards, state["beta"])
    kl = exact_kl(q, p)
    reward = q @ rewards
    return {
        "q": q,
        "kl": kl,
        "reward": reward,
        "gold": q @ gold,
        "mean": q @ x,
        "objective": reward - state["beta"] * kl,
    }


def random_explorer(rng: np.random.Generator) -> TiltExplorer:
    count = int(rng.integers(1, 5))
    weights, means = rng.dirichlet(np.ones(count)), rng.uniform(-3, 3, count)
    return explorer(
        weights=weights / weights.sum(), means=means, stds=rng.uniform(0.4, 1.2, count),
        slope=rng.uniform(-1, 1), bump=(rng.uniform(-5, 5), means.mean() + rng.uniform(-1, 1), rng.uniform(0.2, 1)),
        beta=10 ** rng.uniform(-1, 1), proxy=bool(rng.integers(2)),
    )  # fmt: skip


def test_numbers_of_the_page_are_those_of_the_library(stand):
    page, rng = stand(explorer()), np.random.default_rng(0)
    for state in [state_of(random_explorer(rng)) for _ in range(60)]:
        found, expected = in_page(page, "figures", [state]), exact(state)
        assert np.abs(np.array(found.pop("q")) - expected.pop("q").numpy()).max() < 1e-10
        assert found == {name: pytest.approx(value.item(), abs=1e-8) for name, value in expected.items()}


def test_the_grid_holds_the_whole_optimum():
    """On the grid as on the endless line: the closed form of a tilted mixture, at both ends of the slider."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        widget = random_explorer(rng)
        for beta in LIMITS["beta"][:2]:
            state = state_of(widget, proxy=False, beta=beta)
            parts = [torch.tensor(state[name], dtype=torch.float64) for name in ("weights", "means", "stds")]
            weights, means = tilted_mixture(*parts, state["slope"], beta)
            assert exact(state)["mean"].item() == pytest.approx((weights * means).sum().item(), abs=1e-3)


def test_what_stands_on_the_page_is_the_state(stand):
    widget = explorer(slope=-0.6, beta=2.0)
    page = stand(widget)
    for changes in ({}, {"beta": 0.3}, {"proxy": True}):
        for trait, value in changes.items():
            page.evaluate("([trait, value]) => model.set(trait, value)", [trait, value])
        state = state_of(widget, beta=page.evaluate("model.get('beta')"), proxy=page.evaluate("model.get('proxy')"))
        expected, base = exact(state), exact(state | {"beta": 1e12})
        for row, value in (
            ("E[r], what is optimised", expected["reward"]),
            ("E[r] of the base", base["reward"]),
            ("KL(tilted || p), nats", expected["kl"]),
            ("E[r] \N{MINUS SIGN}", expected["objective"]),
            ("E[gold]", expected["gold"]),
            ("E[gold] of the base", base["gold"]),
        ):
            assert shown(page, row) == pytest.approx([value.item()], abs=1e-8), (row, changes)


def test_gold_rises_with_gold_and_falls_in_the_end_with_the_proxy(stand):
    """Over-optimisation in its smallest form, with the bump that is there by default, whichever way gold points."""
    for slope in (0.4, -0.4, -1.0, 1.0):
        widget = explorer(slope=slope)
        betas = np.geomspace(10, 0.1, 60)
        for proxy in (False, True):
            path = [exact(state_of(widget, beta=beta, proxy=proxy)) for beta in betas]
            gold = np.array([point["gold"].item() for point in path])
            assert (np.diff([point["kl"].item() for point in path]) > 0).all()
            assert (np.diff([point["reward"].item() for point in path]) > 0).all()
            if proxy:
                assert gold.max() > gold[0] + 0.2 and gold[-1] < gold[0] - 0.2
            else:
                assert (np.diff(gold) > 0).all()
    page = stand(widget)
    assert "Gold rises all the way." in status(page)
    page.get_by_role("checkbox", name="optimise a proxy").press("Space")
    best = betas[gold.argmax()]
    said = status(page)
    assert "The reward is the proxy" in said and "beyond it gold falls" in said
    assert float(said.split("near beta ")[1].split(",")[0]) == pytest.approx(best, rel=0.1)
    assert "rises again" not in said


@pytest.mark.parametrize(
    ("words", "expected", "said"),
    [
        ({"slope": 0.0}, [], "Gold stays as it is."),
        ({"bump": (20.0, -2.0, 0.5), "proxy": True}, [-1], "Gold falls from the start."),
        (
            {"bump": (6.0, -2.0, 0.7), "slope": 1.0, "proxy": True},
            [-1, 1],
            "Gold falls from the start before it rises again.",
        ),
        ({"bump": (4.2, -3.75, 0.28), "proxy": True}, [1, -1], "beyond it gold falls."),
        (
            {"bump": (9.0, 4.0, 0.24), "slope": -1.0, "proxy": True},
            [1, -1, 1],
            "beyond it gold falls before it rises again.",
        ),
        ({"bump": (2.0, 6.0, 0.5), "proxy": True}, [1], "Gold rises all the way."),
    ],
)
def test_what_becomes_of_gold_is_said_as_it_is(stand, words, expected, said):
    widget = explorer(**words)
    gold = [exact(state_of(widget, beta=beta))["gold"].item() for beta in np.geomspace(10, 0.1, 121)]
    turns = [sign for sign in np.sign(np.diff(gold)) if sign]
    ways = [way for i, way in enumerate(turns) if i == 0 or way != turns[i - 1]]
    assert ways == expected
    assert status(stand(widget)).endswith(said)


def test_words_follow_the_state_and_say_only_what_changed(stand):
    page = stand(explorer())
    expected = exact(state_of(explorer()))
    assert f"Beta 0.700: expected reward {expected['reward']:.3f}, KL {expected['kl']:.3f} nats" in status(page)
    assert f"the tilted optimum has mean {expected['mean']:.2f}" in charts(page)[0]
    assert f"You are at KL {expected['kl']:.2f}, gold {expected['gold']:.2f}" in charts(page)[2]
    page.get_by_role("slider").press("ArrowLeft")
    assert "Beta 0.631" in status(page) and "rises all the way" not in status(page)
    assert "bump" not in charts(page)[1]
    page.get_by_role("checkbox").press("Space")
    assert "The proxy adds a bump" in charts(page)[1] and "proxy" in charts(page)[2]


def test_you_are_where_the_curve_is(stand):
    page = stand(explorer(proxy=True))
    for beta in (10, 1, 0.35, 0.1):
        page.evaluate(f"model.set('beta', {beta})")
        dot, ring = page.locator("svg .dot"), page.locator("svg .ring")
        for mark, kind in ((dot, "third"), (ring, "first")):
            at = np.array([float(mark.get_attribute(name)) for name in ("cx", "cy")])
            line = page.locator(f".pixelpolicy-explorer-draggable .{kind}").get_attribute("points")
            points = np.array([[float(x) for x in point.split(",")] for point in line.split(" ")])
            assert np.interp(at[0], points[:, 0], points[:, 1]) == pytest.approx(at[1], abs=0.5)
        svg, you = (page.locator(css).bounding_box() for css in (".pixelpolicy-explorer-draggable", "svg .you"))
        assert svg["x"] <= you["x"] and you["x"] + you["width"] <= svg["x"] + svg["width"]


def test_every_control_has_a_name(stand):
    page = stand(explorer())
    check_names(page)
    assert page.get_by_role("slider", name="\N{GREEK SMALL LETTER BETA}, the price of a nat").count() == 1
    assert page.get_by_role("figure", name="a mixture and its tilted optimum").count() == 1


def test_keys_move_beta_by_steps_of_its_decades(stand):
    page = stand(explorer(beta=1.0))
    up, down = 10**0.05, 10**-0.05
    keys = [("ArrowRight", up), ("ArrowUp", up**2), ("ArrowDown", up), ("ArrowLeft", 1), ("ArrowLeft", down)]
    keys += [("PageUp", 10**0.15), ("PageDown", down), ("Home", 0.1), ("ArrowDown", 0.1), ("End", 10), ("PageUp", 10)]
    check_keys(page, "price of a nat", "beta", keys)
    page.evaluate("model.set('beta', 0.7)")  # between two steps: to the next one
    page.keyboard.press("ArrowRight")
    assert page.evaluate("model.get('beta')") == pytest.approx(10**-0.15)


def test_the_mouse_drags_along_the_frontier(stand):
    page = stand(explorer(proxy=True))
    box = page.locator(".pixelpolicy-explorer-draggable").bounding_box()
    y, (left, right) = box["y"] + 100, (box["x"] + 44, box["x"] + box["width"] - 10)
    farthest = exact(state_of(explorer(proxy=True), beta=0.1))["kl"].item()
    page.mouse.move(right + 30, y)
    page.mouse.move(right - 1, y)
    page.mouse.down()
    assert page.evaluate("model.get('beta')") == pytest.approx(0.1, rel=0.05)
    page.mouse.move((left + right) / 2, y, steps=4)
    assert shown(page, "KL(tilted || p), nats") == pytest.approx([farthest / 2], rel=0.05)
    page.mouse.up()
    page.mouse.move(left, y, steps=3)
    assert shown(page, "KL(tilted || p), nats") == pytest.approx([farthest / 2], rel=0.05)
    page.keyboard.press("End")  # the press has given the slider the focus
    assert page.evaluate("model.saved.beta") == 10


def test_what_the_kernel_sets_is_shown_and_a_closed_view_is_deaf(stand):
    page = stand(explorer())
    page.evaluate("() => { model.set('beta', 1); model.set('proxy', true); }")
    assert float(page.get_by_role("slider").input_value()) == 0 and page.get_by_role("checkbox").is_checked()
    page.evaluate("() => { leave(); model.set('beta', 5); }")
    assert float(page.get_by_role("slider").input_value()) == 0


@pytest.mark.parametrize("width", [320, 400, 700])
def test_a_narrow_screen_needs_no_sideways_scrolling(stand, width):
    page = stand(explorer(slope=1.0, proxy=True, beta=0.1), width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(("host", "wish", "dark"), THEMES)
def test_light_and_dark_follow_the_host_first_and_are_legible(stand, host, wish, dark):
    page = stand(explorer(proxy=True), dark=wish)
    page.evaluate(f"() => {{ {host} }}")
    check_theme(page, dark, [*[(f"chart .{kind}", "stroke", 3) for kind in ("third", "base", "ring")],
                             ("chart .you", "fill", 4.5)])  # fmt: skip
    check_still(page)


def test_a_key_is_answered_within_fifty_milliseconds(stand):
    check_answer(stand(explorer(proxy=True, beta=0.2)), "price of a nat")


def test_all_that_a_page_needs_is_json_and_is_embedded():
    check_json(explorer())
    check_alone(explorer())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"alt": ""}, "alt="),
        ({"beta": 0.0}, "beta is 0.0"),
        ({"beta": 20}, "from 0.1 to 10"),
        ({"weights": [0.5, 0.5]}, "2 weights, 3 means and 3 stds"),
        ({"weights": [0.5, 0.7, -0.2]}, "none may be negative"),
        ({"weights": [0.5, 0.2, 0.2]}, "sum to 1"),
        ({"stds": [0.5, 0.0, 1.0]}, "positive"),
        ({"stds": [0.5, 0.001, 1.0]}, "too narrow for a grid"),
        ({"means": [0.0, float("inf"), 1.0]}, "finite"),
        ({"means": "abc"}, "sequence of numbers"),
        ({"slope": float("nan")}, "finite"),
        ({"slope": 100.0}, "slope is 100.0"),
        ({"bump": (1.0, 0.0)}, "bump is"),
        ({"bump": (1.0, 0.0, 0.0)}, "positive width"),
        ({"bump": (1.0, 99.0, 1.0)}, "its centre from"),
        ({"bump": (1.0, 0.0, 0.001)}, "too narrow"),
    ],
)
def test_parts_that_do_not_fit_are_refused(words, message):
    with pytest.raises(FigureError, match=message):
        explorer(**words)


def test_traits_may_be_set_read_and_observed_within_the_slider():
    one = torch.ones(1, dtype=torch.float64)
    widget, seen = explorer(weights=one, means=one * 0, stds=one, slope=0), []
    assert (widget.weights, widget.slope) == ([1.0], 0.0)
    widget.observe(lambda change: seen.append(change.new), ["beta", "proxy"])
    widget.set_state({"beta": 5, "proxy": True})  # as the browser sends it
    assert seen == [5.0, True] and isinstance(widget.beta, float)
    with pytest.raises(FigureError, match="beta is 11"):
        widget.beta = 11
