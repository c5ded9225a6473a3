"""The clip explorer: PPO's clipped objective, normalised advantages and the entropy bonus, under the hand."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from pixelpolicy.errors import FigureError
from pixelpolicy.widgets.assets import joined
from pixelpolicy.widgets.explorer import described, numbers, within

LIMITS = {
    "clip_range": (0.01, 0.9, 0.01),
    "ratio": (0.01, 2.0, 0.01),
    "advantage": (-3.0, 3.0, 0.1),
    "actions": (2, 4, 1),
    "temperature": (0.1, 10.0, 0.05),
    "entropy_weight": (0.0, 1.0, 0.01),
}
# All positive, as where a critic still expects too little: raw, they push every action up.
ADVANTAGES = (11.0, 8.3, 9.1, 7.8, 4.6, 3.2, 2.9, 1.5)
LOGITS = (1.0, 0.4, -0.2, -0.8)


class ClipExplorer(anywidget.AnyWidget):
    """Sliders on PPO's objective, for one action and for a rollout; it needs no kernel once it is made.

    - ``alt``: what it shows, for those who cannot see it
    - ``clip_range``: where the first slider begins, from 0.01 to 0.9
    - ``advantages [samples]``: of one rollout, 2 to 32 of them, in order of the actions: with k actions to choose
      from, the first k-th of the samples took action a, the next b, and so on
    - ``caption``: stands below

    The rollout was made by ``softmax(logits)`` over the first ``actions`` of four logits; ``temperature`` divides them
    and so moves the ratios of all its samples. The total is ``rl.clipped_surrogate``'s objective plus
    ``entropy_weight`` times the entropy in nats. Advantages are normalised by their mean and their standard deviation
    (n - 1 below) plus 1e-8.

    What the sliders set (`LIMITS`) and ``normalise`` may be read, set and observed. Raises `FigureError` where ``alt``
    is missing, where the advantages are no numbers, too few or too many, and for a value beyond its slider.
    """

    _esm = joined("js", "explorer", "clip_explorer")
    _css = joined("css", "paper", "explorer", "clip_explorer")

    clip_range = traitlets.Float(0.2).tag(sync=True)
    ratio = traitlets.Float(1.0).tag(sync=True)
    advantage = traitlets.Float(1.0).tag(sync=True)
    normalise = traitlets.Bool(True).tag(sync=True)
    actions = traitlets.Int(3).tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)
    entropy_weight = traitlets.Float(0.01).tag(sync=True)
    advantages = traitlets.List(traitlets.Float()).tag(sync=True)
    logits = traitlets.List(traitlets.Float(), list(LOGITS)).tag(sync=True)
    limits = traitlets.Dict(LIMITS).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(self, *, alt: str, clip_range: float = 0.2, advantages: Any = None, caption: str = ""):
        given = numbers("advantages", ADVANTAGES if advantages is None else advantages, least=2)
        if len(given) > 32:
            raise FigureError(f"there are {len(given)} advantages; give 32 at most, for each is drawn as a bar")
        super().__init__(alt=described(alt), clip_range=clip_range, advantages=given, caption=caption)

    @traitlets.validate(*LIMITS)
    def _within(self, proposal: Any) -> float:
        return within(LIMITS, proposal["trait"].name, proposal["value"])
