"""The trajectory scrubber: watch a picture form, and see where its log-probability is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import torch
import traitlets

from pixelpolicy.errors import FigureError
from pixelpolicy.widgets.assets import joined
from pixelpolicy.widgets.sprites import as_pixels, sprite

if TYPE_CHECKING:
    from pixelpolicy.policies import DenoisingPolicy
    from pixelpolicy.rl import Rollout


class TrajectoryScrubber(anywidget.AnyWidget):
    """A slider through the states of denoising trajectories; it needs no kernel once it is made.

    - ``frames [samples, steps + 1, 3, height, width]``: the picture at each state; uint8, or floats in [-1, 1];
      those larger than 256 pixels are made smaller
    - ``values [samples, steps]``: one bar a step; NaN where a step has no density
    - ``labels``: one string a state, such as "sigma 0.83"
    - ``alt``: what the pictures show, for those who cannot see them
    - ``value_name``: what the bars are, with its unit; ``names``: one string a sample, for the chooser

    ``step`` (the state shown, from 0) and ``sample`` may be read, set and observed. Raises `FigureError` where the
    parts do not fit, where ``alt`` is missing, and for a ``step`` or ``sample`` that is not there.
    """

    _esm = joined("js", "trajectory_scrubber")
    _css = joined("css", "paper", "trajectory_scrubber")

    step = traitlets.Int(0).tag(sync=True)
    sample = traitlets.Int(0).tag(sync=True)
    # Base64 rather than bytes: a saved notebook and a static page carry strings as they are.
    sprites = traitlets.List(traitlets.Unicode()).tag(sync=True)
    grid = traitlets.Tuple(traitlets.Int(), traitlets.Int(), traitlets.Int()).tag(sync=True)
    values = traitlets.List(traitlets.List(traitlets.Float(allow_none=True))).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    names = traitlets.List(traitlets.Unicode()).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    value_name = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        frames: Any,
        *,
        values: Any,
        labels: Sequence[str],
        alt: str,
        value_name: str = "log-probability",
        caption: str = "",
        names: Sequence[str] | None = None,
    ):
        if not alt.strip():
            raise FigureError("the scrubber has no alternative text: say in alt= what its pictures show")
        pixels, values = as_pixels(frames), _array(values)
        if pixels.ndim != 5 or pixels.shape[1] < 2:
            raise FigureError(
                f"frames have {pixels.ndim} dimensions and shape {[*pixels.shape[:-3], 3, *pixels.shape[-3:-1]]}; "
                "give [samples, steps + 1, 3, height, width] with one step at least, the first state too"
            )
        samples, states = pixels.shape[:2]
        if values.shape != (samples, states - 1):
            raise FigureError(
                f"values have shape {list(values.shape)}; {samples} samples of {states} states need "
                f"{[samples, states - 1]}: one value a step, which is one fewer than states, NaN where there is none"
            )
        if np.isinf(values).any():
            raise FigureError("values hold an infinity, which no bar can show; give NaN where a step has no density")
        if isinstance(labels, str) or len(labels) != states:
            raise FigureError(f"{_count(labels)} labels came with {states} states; give one label a state")
        names = [f"{i + 1}" for i in range(samples)] if names is None else names
        if isinstance(names, str) or len(names) != samples:
            raise FigureError(f"{_count(names)} names came with {samples} samples; give one name a sample, or none")
        packed = [sprite(trajectory) for trajectory in pixels]
        super().__init__(
            sprites=[source for source, _ in packed],
            grid=packed[0][1],
            values=[[None if np.isnan(value) else float(value) for value in row] for row in values],
            labels=[str(label) for label in labels],
            names=[str(name) for name in names],
            alt=alt,
            value_name=value_name,
            caption=caption,
        )

    @classmethod
    def from_rollout(
        cls,
        policy: DenoisingPolicy,
        rollout: Rollout,
        *,
        alt: str,
        predicted: bool = False,
        value_name: str = "log-probability (nats per dimension)",
        caption: str = "",
    ) -> TrajectoryScrubber:
        """The trajectories of a rollout, every state decoded; choose few samples with ``rollout.select``.

        With ``predicted`` each picture is the network's guess ``x0`` of the end, from that state. ``value_name`` fits
        the default log-probability, a mean over dimensions: name yours where ``policy.log_prob_of`` sums.
        """
        values = torch.where(rollout.stochastic, rollout.log_probs.float(), float("nan"))
        return cls(
            _pictures(policy, rollout, predicted),
            values=values,
            labels=[f"sigma {sigma:.2f}" for sigma in rollout.sigmas.tolist()],
            alt=alt,
            value_name=value_name,
            caption=caption,
            names=[f"{i + 1}: {prompt}" for i, prompt in enumerate(rollout.prompts)],
        )

    @traitlets.validate("step", "sample")
    def _there(self, proposal: Any) -> int:
        name, value = proposal["trait"].name, proposal["value"]
        most = len(self.labels if name == "step" else self.sprites) - 1
        if not 0 <= value <= max(most, 0):
            raise FigureError(f"there is no {name} {value}; choose one from 0 to {most}")
        return value


def _array(values: Any) -> np.ndarray:
    values = values.detach().cpu().double().numpy() if hasattr(values, "detach") else values
    return np.asarray(values, dtype=np.float64)


def _count(strings: Any) -> str:
    return "a single string of" if isinstance(strings, str) else str(len(strings))


@torch.no_grad()
def _pictures(policy: DenoisingPolicy, rollout: Rollout, predicted: bool) -> torch.Tensor:
    """Decoded states, or decoded guesses of the end, ``[batch, steps + 1, 3, height, width]``."""
    from pixelpolicy.policies import endpoints  # the labs of control use widgets, and no generators

    kept = []
    for start in range(0, len(rollout), policy.micro_batch):
        part = rollout.select(slice(start, start + policy.micro_batch))
        conditioning, pictures = policy.conditioning(part.prompts) if predicted else (), []
        for step, sigma in enumerate(part.sigmas):
            latents = part.states[:, step].to(policy.generator.device, torch.float32)
            if predicted and sigma > 0:
                sigma = sigma.to(latents.device)
                latents, _ = endpoints(latents, policy.velocity(latents, sigma, conditioning), sigma)
            pictures.append(policy.generator.decode(latents).float().cpu())
        kept.append(torch.stack(pictures, 1))
    return torch.cat(kept)
