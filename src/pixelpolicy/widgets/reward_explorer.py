"""The reward explorer: how far to go towards a reward, and what the independent check says of it."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import torch
import traitlets

from pixelpolicy.errors import FigureError, PixelPolicyError
from pixelpolicy.widgets.assets import joined
from pixelpolicy.widgets.explorer import described, within
from pixelpolicy.widgets.sprites import as_pixels

if TYPE_CHECKING:
    from pixelpolicy.generators.image import ImageGenerator
    from pixelpolicy.rl import Reward, Rollout

LIMITS = {
    "alpha": (0.0, 1.5, 0.05),
    "guidance": (1.0, 6.0, 0.5),
    "steps": (2, 16, 1),
    "noise": (0.0, 1.0, 0.1),
    "seed_set": (1, 20, 1),
}
WEIGHT = (-1.0, 2.0, 0.1)  # the slider of each reward's weight
SAMPLES = 16
CHUNK = 4  # pictures between two words of progress
BASE = "base"
PROMPTS = (
    "a red circle",
    "a blue triangle",
    "two green squares",
    "four yellow circles",
    "a red circle and a blue square",
    "a yellow triangle and a green circle",
    "a red square left of a blue circle",
    "a green triangle above a red circle",
)


def pairs(prompts: Sequence[str], seed_set: int = 1) -> tuple[list[str], list[int]]:
    """The prompt and the seed of each of the `SAMPLES` pictures: prompts in turn, each with seeds of its own row."""
    texts = [prompts[i % len(prompts)] for i in range(SAMPLES)]
    return texts, [SAMPLES * (seed_set - 1) + i // len(prompts) for i in range(SAMPLES)]


def draw(
    generator: ImageGenerator, prompts: list[str], seeds: list[int], *, guidance: float, steps: int, noise: float
) -> Rollout:
    """Trajectories by the ODE, or by coefficients-preserving sampling where ``noise`` is above 0."""
    return _policy(generator, guidance, steps, noise).rollout(prompts, seeds=torch.as_tensor(seeds))


def kl(
    generator: ImageGenerator,
    base: ImageGenerator,
    prompts: list[str],
    seeds: list[int],
    *,
    guidance: float,
    steps: int,
    noise: float,
) -> torch.Tensor:
    """KL to the base in nats ``[batch]``, along the generator's own trajectories; ``noise`` above 0."""
    from pixelpolicy.policies import trajectory_kl

    policies = [_policy(one, guidance, steps, noise) for one in (generator, base)]
    return trajectory_kl(*policies, prompts, torch.as_tensor(seeds))


def course_rewards() -> list[Reward]:
    """The rewards that the explorer of the book offers, the strict verifier being its check."""
    from pixelpolicy.rewards import jpeg_compressibility, learned_proxy, prompt_colours, redness, shapes_dense

    return [learned_proxy(), shapes_dense(), jpeg_compressibility(), redness(), prompt_colours()]


def _policy(generator: ImageGenerator, guidance: float, steps: int, noise: float):
    from pixelpolicy.policies import DenoisingPolicy, cps

    transition = partial(cps, noise=noise)
    return DenoisingPolicy(generator, transition=transition, steps=steps, guidance_scale=guidance, micro_batch=128)


@dataclass(frozen=True)
class _Wish:
    """One drawing that the reader asked for, checked."""

    number: int
    prompts: list[str]
    run: str
    alpha: float
    guidance: float
    steps: int
    noise: float
    seed_set: int


class RewardExplorer(anywidget.AnyWidget):
    """Choose prompts, weights of rewards and how far to go from the base to a fine-tuned model; see what it draws.

    - ``alt``: what it shows, for those who cannot see it
    - ``runs``: by name, the file of a fine-tuned model's difference to the base (`generators.save_weights`)
    - ``generator``: the base, ``load("shapes")`` unless given
    - ``rewards``: those to weigh, `course_rewards` unless given; ``weights`` by their names, 0 where none is given
    - ``prompts``: to choose from; all of them are chosen at first
    - ``states``: what ``benchmarks/explorer_states.py`` recorded: the frontier, and the rewards that a page without a
      kernel cannot compute
    - ``caption``: stands below

    With a kernel, Python draws and judges, in a thread of its own: other cells run meanwhile, and a new wish puts an
    end to the one before. On a page of the book the reader's browser does so (`reward_explorer_engine.js`).

    What the controls set (`LIMITS`, ``chosen``, ``run``, ``weights``) may be read, set and observed. Raises
    `FigureError` where a part is missing or does not fit.
    """

    _esm = joined("js", "explorer", "reward_explorer")
    _css = joined("css", "paper", "explorer", "reward_explorer")

    alpha = traitlets.Float(1.0).tag(sync=True)
    guidance = traitlets.Float(1.0).tag(sync=True)
    steps = traitlets.Int(8).tag(sync=True)
    noise = traitlets.Float(0.0).tag(sync=True)
    seed_set = traitlets.Int(1).tag(sync=True)
    run = traitlets.Unicode().tag(sync=True)
    chosen = traitlets.List(traitlets.Unicode()).tag(sync=True)
    weights = traitlets.Dict(traitlets.Float()).tag(sync=True)
    prompts = traitlets.List(traitlets.Unicode()).tag(sync=True)
    rewards = traitlets.List(traitlets.Unicode()).tag(sync=True)
    runs = traitlets.List(traitlets.Unicode()).tag(sync=True)
    limits = traitlets.Dict(LIMITS | {"weight": WEIGHT}).tag(sync=True)
    samples = traitlets.Int(SAMPLES).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        *,
        alt: str,
        runs: Mapping[str, Path | str],
        generator: ImageGenerator | None = None,
        rewards: Sequence[Reward] | None = None,
        weights: Mapping[str, float] | None = None,
        prompts: Sequence[str] = PROMPTS,
        states: Mapping[str, Any] | None = None,
        caption: str = "",
    ):
        if not runs or BASE in runs:
            raise FigureError(f"runs name {sorted(runs)}; give one fine-tuned model or more, none of them {BASE!r}")
        if isinstance(prompts, str) or not 1 <= len(set(prompts)) == len(prompts) <= SAMPLES:
            raise FigureError(f"prompts are {prompts!r}; give 1 to {SAMPLES} different ones to choose from")
        self._judges = course_rewards() if rewards is None else list(rewards)
        names = [reward.name for reward in self._judges]
        if not names or len(set(names)) < len(names):
            raise FigureError(f"rewards are named {names}; give one or more, each with a name of its own")
        self.files = {name: Path(path) for name, path in runs.items()}
        self._generator, self._states = generator, dict(states) if states else None
        self._latest, self._turn = -1, threading.Lock()
        super().__init__(
            alt=described(alt),
            runs=list(runs),
            run=next(iter(runs)),
            prompts=list(prompts),
            chosen=list(prompts),
            rewards=names,
            weights={name: 0.0 for name in names} | dict({names[0]: 1.0} if weights is None else weights),
            caption=caption,
        )
        self.on_msg(self._heard)

    @classmethod
    def from_states(cls, path: Path, **more: Any) -> RewardExplorer:
        """The explorer of a file that ``benchmarks/explorer_states.py`` wrote: its prompts, its runs, its record.

        Runs are looked for as seen from the folder above the file's; ``more`` goes to the constructor. Raises
        `FigureError` where it is no such file.
        """
        path = Path(path).absolute()
        try:
            states = json.loads(path.read_text(encoding="utf-8"))
            runs = {name: path.parents[1] / file for name, file in states["runs"].items()}
            prompts = states["prompts"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FigureError(
                f"{path} is no record of an explorer ({error!r}); `python benchmarks/explorer_states.py` makes one"
            ) from error
        return cls(**{"runs": runs, "prompts": prompts, "states": states} | more)

    @traitlets.validate(*LIMITS)
    def _within(self, proposal: Any) -> float:
        return within(LIMITS, proposal["trait"].name, proposal["value"])

    @traitlets.validate("weights")
    def _weighed(self, proposal: Any) -> dict[str, float]:
        for name, weight in proposal["value"].items():
            if name not in self.rewards and self.rewards:
                raise FigureError(f"there is no reward {name!r} to weigh; there are {', '.join(self.rewards)}")
            within({name: WEIGHT}, name, weight)
        return proposal["value"]

    @traitlets.validate("chosen", "run")
    def _offered(self, proposal: Any) -> Any:
        name, value = proposal["trait"].name, proposal["value"]
        offered = self.runs if name == "run" else self.prompts
        wrong = [one for one in ([value] if name == "run" else value) if offered and one not in offered]
        if wrong or not value:
            raise FigureError(f"{name} is {value!r}; choose among {offered}")
        return value

    # With a kernel --------------------------------------------------------------------------------------------

    def _heard(self, _: Any, message: Any, __: Any) -> None:
        """What the page sends: a greeting, a wish to draw, or that none is wanted any more."""
        kind = message.get("kind") if isinstance(message, dict) else None
        if kind == "hello":
            self.send({"kind": "here", "states": self._states})
        elif kind == "draw":
            self._latest = message.get("number", 0)
            threading.Thread(target=self._answer, args=(message,), daemon=True).start()
        elif kind == "stop":
            self._latest = -1

    def _answer(self, message: dict[str, Any]) -> None:
        """Draw and judge what was asked for, unless something else is asked for meanwhile; errors are sent in words."""
        number = message.get("number", 0)
        with self._turn:
            try:
                self._draw(self._wish(message))
            except PixelPolicyError as error:
                self.send({"kind": "error", "number": number, "words": str(error)})
            except Exception as error:  # whatever it was, the reader is told rather than left waiting
                self.send({"kind": "error", "number": number, "words": f"{type(error).__name__}: {error}"})

    def _wish(self, message: dict[str, Any]) -> _Wish:
        wanted = {name: message["settings"][name] for name in LIMITS}
        for name, value in wanted.items():
            within(LIMITS, name, value)
        prompts, run = message["settings"]["chosen"], message["settings"]["run"]
        if run not in self.files or not prompts or set(prompts) - set(self.prompts):
            raise FigureError(f"there is no run {run!r} with the prompts {prompts}; the widget is of an older cell")
        return _Wish(message.get("number", 0), list(prompts), run, **wanted)

    def _draw(self, wish: _Wish) -> None:
        from pixelpolicy.generators.checkpoint import apply_difference
        from pixelpolicy.worlds import shapes

        started = time.monotonic()
        self._say(wish, "progress", done=0, words="loading the model" if self._generator is None else "drawing")
        tuned = apply_difference(self._base().reference(), self.files[wish.run], wish.alpha)
        prompts, seeds = pairs(wish.prompts, wish.seed_set)
        how = {"guidance": wish.guidance, "steps": wish.steps, "noise": wish.noise}
        verdicts, divergences = [], []
        for start in range(0, SAMPLES, CHUNK):
            if self._latest != wish.number:
                return
            rows = slice(start, start + CHUNK)
            pictures = draw(tuned, prompts[rows], seeds[rows], **how).samples
            values = {reward.name: reward(pictures, prompts[rows]).tolist() for reward in self._judges}
            verdicts += shapes.verify(pictures.numpy(), prompts[rows])
            if wish.noise:
                divergences += kl(tuned, self._base(), prompts[rows], seeds[rows], **how).tolist()
            values["strict"] = [float(verdict.strict) for verdict in verdicts[rows]]
            packed = [b64encode(one.tobytes()).decode() for one in as_pixels(pictures)]
            self._say(wish, "pictures", first=start, side=pictures.shape[-1], pictures=packed, values=values)
        spread = shapes.diversity(verdicts, prompts)
        self._say(
            wish,
            "done",
            seconds=time.monotonic() - started,
            diversity=spread if spread == spread else None,
            kl=sum(divergences) / SAMPLES if divergences else None,
        )

    def _base(self) -> ImageGenerator:
        if self._generator is None:
            from pixelpolicy.generators import load

            self._generator = load("shapes")
        return self._generator

    def _say(self, wish: _Wish, kind: str, **more: Any) -> None:
        if self._latest == wish.number:
            self.send({"kind": kind, "number": wish.number, **more})
