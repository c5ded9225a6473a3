"""The tilt explorer: what maximises a reward less the price of leaving the base, and how a proxy is over-optimised."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from pixelpolicy.errors import FigureError
from pixelpolicy.widgets.assets import joined
from pixelpolicy.widgets.explorer import described, numbers, within

LIMITS = {"beta": (0.1, 10.0, 0.05)}
POINTS = 601
REACH = 4.5  # standard deviations of the base, and of the optimum at the least beta, that the grid holds
THIN = 2.5  # standard deviations from the mean of its component to where the default bump stands
SPARE = 5  # nats by which that bump wins at the least beta
STEEPEST = 20  # standard deviations that a mean may move at the least beta


class TiltExplorer(anywidget.AnyWidget):
    """A Gaussian mixture ``p`` on the line and its tilted optimum ``p e^(r / beta) / Z``; it needs no kernel.

    - ``alt``: what it shows, for those who cannot see it
    - ``weights``, ``means``, ``stds``: of the mixture, one number a component each; weights sum to 1
    - ``slope``: the gold reward is ``slope x``
    - ``beta``: the price of a nat of KL, from 0.1 to 10, where the slider begins
    - ``bump``: height, centre and width of what the proxy adds to gold, ``height e^(-((x - centre) / width)^2 / 2)``;
      without it one stands where the base is thin and gold is low, high enough to be worth everything at a low beta
    - ``proxy``: whether the proxy is optimised, or gold; ``caption``: stands below

    All numbers are those of `rl.tilted` on the grid ``numpy.linspace(*window)`` with masses that sum to 1. ``beta`` and
    ``proxy`` may be read, set and observed. Raises `FigureError` where ``alt`` is missing, the parts are no mixture,
    the grid is too coarse for them, the slope is too steep for the least beta, or ``beta`` lies beyond its slider.
    """

    _esm = joined("js", "explorer", "tilt_explorer")
    _css = joined("css", "paper", "explorer", "tilt_explorer")

    beta = traitlets.Float(1.0).tag(sync=True)
    proxy = traitlets.Bool(False).tag(sync=True)
    weights = traitlets.List(traitlets.Float()).tag(sync=True)
    means = traitlets.List(traitlets.Float()).tag(sync=True)
    stds = traitlets.List(traitlets.Float()).tag(sync=True)
    slope = traitlets.Float().tag(sync=True)
    bump = traitlets.List(traitlets.Float()).tag(sync=True)
    window = traitlets.Tuple(traitlets.Float(), traitlets.Float(), traitlets.Int()).tag(sync=True)
    limits = traitlets.Dict(LIMITS).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        *,
        alt: str,
        weights: Any = (0.5, 0.35, 0.15),
        means: Any = (-2.0, 0.0, 2.5),
        stds: Any = (0.7, 0.5, 0.6),
        slope: float = 0.4,
        beta: float = 0.7,
        bump: tuple[float, float, float] | None = None,
        proxy: bool = False,
        caption: str = "",
    ):
        described(alt)
        parts = _mixture(numbers("weights", weights), numbers("means", means), numbers("stds", stds))
        slope = numbers("slope", [slope])[0]
        steepest = STEEPEST * LIMITS["beta"][0] / max(parts["stds"])
        if abs(slope) > steepest:
            raise FigureError(
                f"slope is {slope}: at the least beta the optimum of a std of {max(parts['stds'])} leaves all that can "
                f"be drawn; scale the reward to a slope of {steepest:.3g} at most"
            )
        bump = _bump(parts, slope) if bump is None else numbers("bump", bump)
        low, high = _window(parts, slope)
        if len(bump) != 3 or bump[2] <= 0 or not low <= bump[1] <= high:
            raise FigureError(
                f"bump is {bump}; give its height, its centre from {low:.1f} to {high:.1f} and a positive width"
            )
        if min(*parts["stds"], bump[2]) < 2 * (high - low) / (POINTS - 1):
            raise FigureError(
                f"a width of {min(*parts['stds'], bump[2])} is too narrow for a grid of {POINTS} points from {low:.1f} "
                f"to {high:.1f}; give wider parts and a wider bump, or means nearer to each other"
            )
        window = (low, high, POINTS)
        super().__init__(
            alt=alt, slope=slope, beta=beta, bump=bump, proxy=proxy, window=window, caption=caption, **parts
        )

    @traitlets.validate("beta")
    def _within(self, proposal: Any) -> float:
        return within(LIMITS, proposal["trait"].name, proposal["value"])


def _mixture(weights: list[float], means: list[float], stds: list[float]) -> dict[str, list[float]]:
    if not len(weights) == len(means) == len(stds):
        raise FigureError(
            f"there are {len(weights)} weights, {len(means)} means and {len(stds)} stds; give one of each a component"
        )
    if min(weights) < 0 or abs(sum(weights) - 1) > 1e-4:
        raise FigureError(f"weights are {weights}; none may be negative, and they must sum to 1")
    if min(stds) <= 0:
        raise FigureError(f"stds are {stds}; every component needs a positive one")
    return {"weights": weights, "means": means, "stds": stds}


def _window(parts: dict[str, list[float]], slope: float) -> tuple[float, float]:
    """What holds the base and every optimum of gold: each mean moves by ``slope std^2 / beta``."""
    moved = [abs(slope) / LIMITS["beta"][0] * std**2 for std in parts["stds"]]
    ends = list(zip(parts["means"], parts["stds"], moved, strict=True))
    low = min(mean - REACH * std - (shift if slope < 0 else 0) for mean, std, shift in ends)
    high = max(mean + REACH * std + (shift if slope > 0 else 0) for mean, std, shift in ends)
    return low, high


def _bump(parts: dict[str, list[float]], slope: float) -> list[float]:
    """Where gold pays least and the base is thin; worth more than all that gold pays, at the least beta too."""
    sign, beta = -1 if slope < 0 else 1, LIMITS["beta"][0]
    mean, std = min(zip(parts["means"], parts["stds"], strict=True), key=lambda part: sign * part[0])
    centre = mean - sign * THIN * std
    best = max(parts["means"], key=lambda other: sign * other)
    # nats that the best component gains from gold, and those that the base lacks at the bump (of its own component)
    gain = max(
        slope * m / beta + (slope * s / beta) ** 2 / 2 for m, s in zip(parts["means"], parts["stds"], strict=True)
    )
    least = beta * (gain + THIN**2 / 2 + SPARE) - slope * centre
    return [max(1.5 * abs(slope * (best - centre)), least), centre, 0.4 * std]
