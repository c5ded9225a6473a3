"""Checks of lab 10: the pieces of a reward gradient, each against an independent formula, values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, gradients, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies")


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _double(cases: list[tuple]) -> list[tuple]:
    """The same arguments in float64, where two ways to write one formula agree to the last digit that is compared."""
    return [tuple(x.double() if isinstance(x, Tensor) else x for x in case) for case in cases]


# 10.1 A drawn state with a gradient ------------------------------------------------------------------------------

DRAWS = [
    (_normal(0, 3, 2), torch.tensor(0.5), _normal(1, 3, 2)),
    (_normal(2, 2, 4, 2, 2), torch.tensor(1.7), _normal(3, 2, 4, 2, 2)),
    (_normal(4, 1, 5), torch.tensor(0.0), _normal(5, 1, 5)),
]


def _drawn(mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
    return torch.addcmul(mean, noise, std.expand_as(noise))


def _draw_values(student) -> None:
    for given in DRAWS:
        same(student(*given), _drawn(*given))


def _draw_gradients(student) -> None:
    for given in DRAWS:
        same_gradient(student, _drawn, given, names=("mean", "std", "noise"))


def _draw_same_noise(student) -> None:
    mean, std, noise = DRAWS[0]
    same(student(mean, std, noise), student(mean, std, noise), what="the same noise twice")


DRAW = Exercise(
    id="10.1",
    name="draw_state",
    points=1,
    reference="pixelpolicy.finetune.reward_gradient:reparameterised",
    forbidden=FORBIDDEN,
    probes=lambda: _double(DRAWS),
    properties=[
        Property("the draw has the given mean and deviation", _draw_values),
        Property("gradients reach the mean and the deviation", _draw_gradients),
        Property("the noise that is handed over alone decides", _draw_same_noise, "Draw nothing yourself."),
    ],
    mistakes=[
        Mistake("detached", "The value is right, but the draw is cut from its mean. Detach nothing.",
                wrong=lambda m, s, e: (m + s * e).detach()),
        Mistake("mean detached", "Only the deviation has a gradient here, and it is the mean that the network makes.",
                wrong=lambda m, s, e: m.detach() + s * e),
        Mistake("variance", "You stretch the noise by the variance. Stretch it by the deviation.",
                wrong=lambda m, s, e: m + s**2 * e),
        Mistake("plain noise", "The noise has deviation 1: stretch it by `std`.", wrong=lambda m, s, e: m + e),
        Mistake("mean alone", "Where is the noise? Without it this is the ODE.", wrong=lambda m, s, e: m + 0 * s * e),
        Mistake("whole stretched", "Stretch the noise only, not the mean.", wrong=lambda m, s, e: s * (m + e)),
        Mistake(
            "own noise",
            "You draw noise of your own, so that nothing can be repeated. Use the noise that is handed over.",
            when=lambda student: not torch.equal(student(*DRAWS[0]), student(*DRAWS[0])),
        ),
    ],
)  # fmt: skip

# 10.2 Truncated sampling -----------------------------------------------------------------------------------------

WEIGHTS = _normal(10, 4)
STARTS = [(_normal(11, 3, 2), first) for first in (0, 1, 3, 4)] + [(_normal(12, 1, 2, 2), 2)]


def _bend(state: Tensor, weight: Tensor) -> Tensor:
    return state + 0.5 * torch.sin(weight * state) + weight


def _ways(weights: Tensor) -> list[Callable[[Tensor], Tensor]]:
    return [lambda state, w=w: _bend(state, w) for w in weights]


def _unrolled(state: Tensor, weights: Tensor, first: int) -> Tensor:
    """With weights and state that are constants up to the cut."""
    for number, weight in enumerate(weights):
        if number < first:
            state, weight = state.detach(), weight.detach()
        state = _bend(state, weight)
    return state


def _through(unroll: Callable) -> Callable:
    return lambda state, weights, first: unroll(state, _ways(weights), first)


def _unroll_values(student) -> None:
    for state, first in STARTS:
        same(student(state, _ways(WEIGHTS), first), _unrolled(state, WEIGHTS, first))


def _unroll_gradients(student) -> None:
    for state, first in STARTS:
        same_gradient(_through(student), _unrolled, (state, WEIGHTS, first), names=("the start", "the steps' weights"))


def _unroll_modes(student) -> None:
    """What costs memory is a forward with gradients on."""
    for first in (0, 2, 4):
        modes: list[bool] = []

        def watched(state: Tensor) -> Tensor:
            modes.append(torch.is_grad_enabled())  # noqa: B023
            return state + 1

        student(torch.zeros(1, 2), [watched] * 4, first)
        same(modes, [number >= first for number in range(4)], what="whether each step ran with gradients on")


def _unroll_none(student) -> None:
    same(student(STARTS[0][0], [], 0), STARTS[0][0], what="no steps at all")


def _switching(on: Callable[[int, int, int], bool], detach: Callable[[int, int], bool] = lambda n, f: False):
    def unroll(state, steps, first):
        for number, step in enumerate(steps):
            with torch.set_grad_enabled(on(number, first, len(steps))):
                state = step(state.detach() if detach(number, first) else state)
        return state

    return unroll


def _like(wrong: Callable) -> Callable[[Callable], bool]:
    """Whether an answer gives every step's weight the gradient that ``wrong`` gives it."""

    def alike(student: Callable) -> bool:
        pairs = [
            [gradients(_through(one), (state, WEIGHTS, first)) for one in (student, wrong)] for state, first in STARTS
        ]
        return all(torch.allclose(a, b) for mine, other in pairs for a, b in zip(mine[:2], other[:2], strict=True))

    return alike


UNROLL = Exercise(
    id="10.2",
    name="unroll",
    points=3,
    reference="pixelpolicy.finetune.reward_gradient:unroll",
    forbidden=FORBIDDEN,
    properties=[
        Property("all steps are taken, one after another", _unroll_values),
        Property("the gradient is that of the steps from `first` on, and passes between them", _unroll_gradients),
        Property(
            "steps before the cut run with gradients off, the others with gradients on",
            _unroll_modes,
            "The gradient is right, but its price is not: run the early steps under `torch.no_grad()`.",
        ),
        Property("no steps change nothing", _unroll_none, "Return the state even where there is no step."),
    ],
    mistakes=[
        Mistake(
            "all off",
            "No step has a gradient. Only those before `first` are to run without.",
            when=_like(_switching(lambda n, f, count: False)),
        ),
        Mistake(
            "all on",
            "Every step has a gradient: memory and time of the whole sampler. Switch gradients off before `first`.",
            when=_like(_switching(lambda n, f, count: True)),
        ),
        Mistake(
            "one late",
            "Off by one: step number `first` has a gradient too.",
            when=_like(_switching(lambda n, f, count: n > f)),
        ),
        Mistake(
            "turned",
            "Turned round: the steps *before* `first` run without a gradient.",
            when=_like(_switching(lambda n, f, count: n < f)),
        ),
        Mistake(
            "count",
            "`first` is the number of a step, not how many have a gradient.",
            when=_like(_switching(lambda n, f, count: n >= count - f)),
        ),
        Mistake(
            "cut between",
            "You cut between all steps: each learns as if what comes before it were given. Cut once.",
            when=_like(_switching(lambda n, f, count: n >= f, lambda n, f: True)),
        ),
    ],
)

# 10.3 ReFL's leap ------------------------------------------------------------------------------------------------

LEAPS = [
    (_normal(20, 2, 3), _normal(21, 2, 3), torch.tensor(0.5)),
    (_normal(22, 3, 4, 2, 2), _normal(23, 3, 4, 2, 2), torch.tensor(0.9)),
    (_normal(24, 1, 4), _normal(25, 1, 4), torch.tensor(0.0)),
    (_normal(26, 1, 4), _normal(27, 1, 4), torch.tensor(1.0)),
]


def _leap(state: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Twenty Euler steps along a straight line get there too."""
    for _ in range(20):
        state = state + velocity * (-sigma / 20)
    return state


def _leap_values(student) -> None:
    for given in LEAPS:
        same(student(*given), _leap(*given), atol=1e-5)


def _leap_gradients(student) -> None:
    for state, velocity, sigma in LEAPS:
        same_gradient(
            lambda s, v, g=sigma: student(s, v, g),
            lambda s, v, g=sigma: _leap(s, v, g),
            (state, velocity),
            names=("the state", "the velocity"),
            atol=1e-5,
        )


def _leap_known(student) -> None:
    picture, noise = _normal(28, 2, 3), _normal(29, 2, 3)
    for sigma in (0.1, 0.7, 1.0):
        state = (1 - sigma) * picture + sigma * noise
        same(student(state, noise - picture, torch.tensor(sigma)), picture, atol=1e-5, what=f"at sigma = {sigma}")


LEAP = Exercise(
    id="10.3",
    name="guess_picture",
    points=1,
    reference="pixelpolicy.finetune.reward_gradient:guess_picture",
    forbidden=FORBIDDEN,
    probes=lambda: _double(LEAPS),
    properties=[
        Property("it gets where a straight walk to sigma = 0 gets", _leap_values),
        Property("gradients reach the state and the velocity", _leap_gradients),
        Property("with the true velocity it finds the true picture", _leap_known),
    ],
    mistakes=[
        Mistake("noise", "That is the noise x1. The picture lies the other way: minus sigma times the velocity.",
                wrong=lambda x, v, s: x + (1 - s) * v),
        Mistake("sign", "The velocity points from the picture to the noise. Go against it.",
                wrong=lambda x, v, s: x + s * v),
        Mistake("no sigma", "How far it is depends on where you stand: the distance to go is sigma.",
                wrong=lambda x, v, s: x - v + 0 * s),
        Mistake("short", "You go the length 1 - sigma. What is left to go is sigma.",
                wrong=lambda x, v, s: x - (1 - s) * v),
        Mistake("detached", "The value is right, but ReFL's gradient runs through this very step. Detach nothing.",
                wrong=lambda x, v, s: (x - s * v).detach()),
        Mistake("velocity detached", "No gradient reaches the velocity, and it is all that the network says.",
                wrong=lambda x, v, s: x - s * v.detach()),
    ],
)  # fmt: skip

# 10.4 ReFL's hinge -----------------------------------------------------------------------------------------------

HINGES = [
    (torch.tensor([0.1, 0.7, 0.95, 1.3]), 0.9),
    (torch.tensor([-1.0, 2.5]), 2.0),
    (torch.tensor([3.0, 4.0, 5.0]), 2.0),
    (torch.tensor([0.4]), 0.9),
]


def _hinge(rewards: Tensor, enough: float) -> Tensor:
    total = rewards.new_zeros(())
    for reward in rewards:
        total = total + (enough - reward if reward < enough else 0 * reward)
    return total / len(rewards)


def _hinge_values(student) -> None:
    for rewards, enough in HINGES:
        same(student(rewards, enough), _hinge(rewards, enough))


def _hinge_gradients(student) -> None:
    for rewards, enough in HINGES:
        same_gradient(
            lambda r, e=enough: student(r, e), lambda r, e=enough: _hinge(r, e), (rewards,), names=("the rewards",)
        )


def _hinge_quiet(student) -> None:
    rewards = torch.tensor([2.5, 9.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(student(rewards, 2.0), rewards)
    same(gradient, torch.zeros(2), what="the gradient where every picture is good enough")


HINGE = Exercise(
    id="10.4",
    name="hinge",
    points=2,
    reference="pixelpolicy.finetune.reward_gradient:hinge",
    forbidden=FORBIDDEN,
    probes=lambda: _double(HINGES),
    properties=[
        Property("values are what is missing to `enough`, on average", _hinge_values),
        Property("every picture that is not good enough pulls alike", _hinge_gradients),
        Property("pictures that are good enough do not pull", _hinge_quiet),
    ],
    mistakes=[
        Mistake("of the mean", "Take the hinge of each picture, then the mean: a good one must not excuse a bad one.",
                wrong=lambda r, e: (e - r.mean()).relu()),
        Mistake("no hinge", "Nothing stops: a picture that is good enough goes on pulling. Cut what is below 0.",
                wrong=lambda r, e: (e - r).mean()),
        Mistake("sign", "Turned round: pull where the reward is *below* enough.",
                wrong=lambda r, e: (r - e).relu().mean()),
        Mistake("sum", "Average over the pictures, do not sum: the step would grow with the batch.",
                wrong=lambda r, e: (e - r).relu().sum()),
        Mistake("square", "Not squared: every picture below enough pulls alike, however bad it is.",
                wrong=lambda r, e: (e - r).relu().square().mean()),
        Mistake("average of some", "Divide by all pictures, also those that are good enough.",
                wrong=lambda r, e: (e - r).relu().sum() / (r < e).sum().clamp_min(1)),
        Mistake("detached", "The value is right, but no gradient reaches the rewards.",
                wrong=lambda r, e: (e - r).relu().mean().detach()),
    ],
)  # fmt: skip

# 10.5 Checkpointing ----------------------------------------------------------------------------------------------

_MATRIX, _SHIFT = _normal(30, 3, 3), _normal(31, 3)


def _tanh(matrix: Tensor, shift: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda state: torch.tanh(state @ matrix) + shift * state


def _recompute_cases(dtype: torch.dtype = torch.float32) -> list[tuple]:
    """Fresh every time: ``(step, state, parameters, gradient)``; the last has a parameter that nothing depends on."""
    cases = []
    for rows, spare in ((4, False), (1, False), (2, True)):
        matrix, shift = (x.to(dtype, copy=True).requires_grad_() for x in (_MATRIX, _SHIFT))
        parameters = [matrix, shift, *([torch.ones(2, dtype=dtype, requires_grad=True)] if spare else [])]
        state, gradient = (_normal(first + rows, rows, 3).to(dtype) for first in (32, 40))
        cases.append((_tanh(matrix, shift), state, parameters, gradient))
    return cases


def _by_hand(state: Tensor, parameters: list[Tensor], gradient: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The chain rule on paper for ``tanh(x M) + s x``."""
    matrix, shift = (p.detach() for p in parameters[:2])
    inner = gradient * (1 - torch.tanh(state @ matrix) ** 2)
    of_state = inner @ matrix.T + gradient * shift
    return of_state, [state.T @ inner, (gradient * state).sum(0), *(torch.zeros_like(p) for p in parameters[2:])]


def _recomputed(student, case) -> tuple[Tensor, list[Tensor]]:
    with torch.no_grad():  # as on autograd's way back
        found = student(*case)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mismatch("came out  something else\nexpected  the gradient of the state, and a list of the parameters'")
    of_state, of_parameters = found
    if any(g is None for g in (of_state, *of_parameters)):
        raise Mismatch("came out  None among the gradients\nexpected  zeros for a parameter that nothing depends on")
    return of_state, list(of_parameters)


def _recompute_state(student) -> None:
    for case in _recompute_cases()[:2]:
        same(_recomputed(student, case)[0], _by_hand(*case[1:])[0], atol=1e-5, what="the gradient of the state")


def _recompute_parameters(student) -> None:
    for case in _recompute_cases()[:2]:
        same(_recomputed(student, case)[1], _by_hand(*case[1:])[1], atol=1e-5, what="the gradients of the parameters")


def _recompute_spare(student) -> None:
    case = _recompute_cases()[2]
    same(_recomputed(student, case)[1], _by_hand(*case[1:])[1], atol=1e-5, what="the gradients of the parameters")


def _recompute_once(student) -> None:
    step, state, parameters, gradient = _recompute_cases()[0]
    calls: list[Tensor] = []

    def counted(given: Tensor) -> Tensor:
        calls.append(given)
        return step(given)

    _recomputed(student, (counted, state, parameters, gradient))
    same(len(calls), 1, what="how often the step was taken again")
    if any(p.grad is not None for p in parameters):
        raise Mismatch("came out  gradients in the parameters' .grad\nexpected  only what you return")
    if state.requires_grad:
        raise Mismatch("came out  a state that now asks for gradients\nexpected  the state handed over, as it was")


def _recompute_attached(student) -> None:
    """A state that hangs on earlier steps: their graph is not to be walked."""
    step, state, parameters, gradient = _recompute_cases()[0]
    before, leaves = state.clone().requires_grad_(), []

    def watched(given: Tensor) -> Tensor:
        leaves.append(given.is_leaf)
        return step(given)

    found, _ = _recomputed(student, (watched, before * 1.0, parameters, gradient))
    same(leaves, [True], what="whether the step is taken from a state without a past")
    same(found, _by_hand(state, parameters, gradient)[0], atol=1e-5, what="the gradient of a state with a past")


def _chain(weigh=lambda outcome, gradient: (outcome * gradient).sum(), change=lambda s, p, g: (s, p)):
    def backward(step, state, parameters, gradient):
        with torch.enable_grad():
            leaf = state.detach().requires_grad_()
            total = weigh(step(leaf), gradient)
            of_state, *of_parameters = torch.autograd.grad(
                total, [leaf, *parameters], allow_unused=True, materialize_grads=True
            )
        return change(of_state, of_parameters, gradient)

    return backward


RECOMPUTE = Exercise(
    id="10.5",
    name="backward_by_recomputing",
    points=3,
    reference="pixelpolicy.finetune.recompute:backward_by_recomputing",
    forbidden=(*FORBIDDEN, "torch.utils.checkpoint"),
    probes=lambda: _recompute_cases(torch.float64),
    properties=[
        Property("the gradient of the state is that of the chain rule", _recompute_state),
        Property("and so are those of the parameters", _recompute_parameters),
        Property("a parameter that nothing depends on has gradient zero", _recompute_spare,
                 "`torch.autograd.grad` takes allow_unused=True and materialize_grads=True."),
        Property("a state that came of earlier steps is cut from them", _recompute_attached,
                 "Begin with a fresh leaf: `state.detach().requires_grad_()`."),
        Property("the step is taken again once, and nothing else is touched", _recompute_once,
                 "Use `torch.autograd.grad`, which returns gradients, in place of `.backward()`, which adds them up."),
    ],
    mistakes=[
        Mistake("sum", "You ignore the gradient that comes from behind: weigh the outcome with it.",
                wrong=_chain(lambda outcome, gradient: outcome.sum())),
        Mistake("mean", "Sum what you weigh; a mean makes every gradient too small.",
                wrong=_chain(lambda outcome, gradient: (outcome * gradient).mean())),
        Mistake("times after", "Weigh the *outcome* before you differentiate. Afterwards it is too late: a number of "
                "the state moves all numbers of the outcome.",
                wrong=_chain(lambda outcome, gradient: outcome.sum(), lambda s, p, g: (s * g, p))),
        Mistake("state only", "The parameters' gradients are all zero: this step's share of the training is lost.",
                wrong=_chain(change=lambda s, p, g: (s, [torch.zeros_like(x) for x in p]))),
        Mistake("passed on", "You hand the gradient on as if the step changed nothing.",
                wrong=_chain(change=lambda s, p, g: (g.clone(), p))),
        Mistake(
            "gradients off",
            "On the way back gradients are off. Take the step again under `torch.enable_grad()`.",
            when=lambda student: _works_only_with_gradients(student),
        ),
    ],
)  # fmt: skip


def _works_only_with_gradients(student) -> bool:
    case = _recompute_cases()[0]
    with torch.enable_grad():
        found, _ = student(*case)
    right = torch.allclose(found, _by_hand(*case[1:])[0], atol=1e-5)
    try:
        _recomputed(student, _recompute_cases()[0])
    except Mismatch:
        return False
    except RuntimeError:
        return right
    return False


# 10.6 AlignProp's cut --------------------------------------------------------------------------------------------


def _cuts(student, steps: int, draws: int) -> list[tuple[int, int]]:
    """Few draws will do: a grader hands each over to another process. Right answers fail by chance once in 100,000."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        window = student(steps, rng)
        if not isinstance(window, tuple | list) or len(window) != 2:
            raise Mismatch(f"came out  {window!r}\nexpected  a pair (first, last) of numbers of steps")
        found.append((int(window[0]), int(window[1])))
    return found


def _cut_to_the_end(student) -> None:
    same({last for _, last in _cuts(student, 5, 10)}, {5}, what="where the gradient ends, of 5 steps")


def _cut_range(student) -> None:
    same({first for first, _ in _cuts(student, 3, 32)}, {0, 1, 2}, what="where the gradient may begin, of 3 steps")
    same(set(_cuts(student, 1, 3)), {(0, 1)}, what="of a single step")


def _cut_fair(student) -> None:
    counts = np.bincount([max(first, 0) for first, _ in _cuts(student, 3, 180)], minlength=3)
    if counts.min() < 31 or counts.max() > 89:
        raise Mismatch(f"came out  {counts.tolist()} cuts in 180 draws, of 3 steps\nexpected  about 60 of each")


def _cut_repeatable(student) -> None:
    np.random.seed(1)
    first = _cuts(student, 5, 10)
    np.random.seed(2)
    same(_cuts(student, 5, 10), first, what="the same generator again")


CUT = Exercise(
    id="10.6",
    name="random_cut",
    points=1,
    reference="pixelpolicy.finetune.reward_gradient:random_cut",
    forbidden=FORBIDDEN,
    probes=lambda: [(steps, np.random.default_rng(seed)) for steps in (1, 4, 7) for seed in range(6)],
    properties=[
        Property("the gradient runs to the last step", _cut_to_the_end),
        Property("it may begin at any step: at the first, at the last, and between", _cut_range),
        Property("every beginning has the same chance", _cut_fair),
        Property("the generator alone decides", _cut_repeatable, "Draw from rng, not from a global source of chance."),
    ],
    mistakes=[
        Mistake("never the first", "The first step never has a gradient: numbers of steps begin at 0.",
                wrong=lambda steps, rng: (int(rng.integers(1, max(steps, 2))) % steps, steps)),
        Mistake("beyond the last", "Sometimes no step at all has a gradient: the upper bound of `integers` is left out "
                "already.", wrong=lambda steps, rng: (int(rng.integers(steps + 1)), steps)),
        Mistake("never the last", "The last step never has a gradient alone: `integers` leaves out its upper bound.",
                wrong=lambda steps, rng: (int(rng.integers(max(steps - 1, 1))), steps)),
        Mistake("half", "Draw, do not fix: a fixed cut is DRaFT-K.", wrong=lambda steps, rng: (steps // 2, steps)),
        Mistake("one step", "Only one step has a gradient. It runs from the cut to the end.",
                wrong=lambda steps, rng: (lambda cut: (cut, cut + 1))(int(rng.integers(steps)))),
        Mistake("from the start", "The gradient belongs to the steps *after* the cut: those near the picture.",
                wrong=lambda steps, rng: (0, int(rng.integers(steps)) + 1)),
        Mistake(
            "global chance",
            "You draw from a global source, so that no run can be repeated. Draw from rng.",
            when=lambda student: any(
                tuple(student(1000, np.random.default_rng(0))) != tuple(student(1000, np.random.default_rng(0)))
                for _ in range(5)
            ),
        ),
    ],
)  # fmt: skip

# 10.7 The KL brake -----------------------------------------------------------------------------------------------

KLS = [
    (_normal(50, 2, 3), _normal(51, 2, 3), torch.tensor(0.5)),
    (_normal(52, 3, 4, 2, 2), _normal(53, 3, 4, 2, 2), torch.tensor(1.7)),
    (_normal(54, 1, 5), _normal(55, 1, 5), torch.tensor(0.05)),
]


def _kl(mean: Tensor, base_mean: Tensor, std: Tensor) -> Tensor:
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(
        normal(mean, std.expand_as(mean)), normal(base_mean, std.expand_as(base_mean))
    )
    return torch.stack([row.mean() for row in each])


def _kl_values(student) -> None:
    for given in KLS:
        same(student(*given), _kl(*given), atol=1e-6)


def _kl_gradients(student) -> None:
    for mean, base_mean, std in KLS:
        same_gradient(
            lambda m, b, s=std: student(m, b, s),
            lambda m, b, s=std: _kl(m, b, s),
            (mean, base_mean),
            names=("the mean", "the base's mean"),
        )


def _kl_zero(student) -> None:
    mean, _, std = KLS[1]
    same(student(mean, mean.clone(), std), torch.zeros(len(mean)), what="the KL of the base to itself")


def _square(scale=lambda std: 2 * std**2, reduce=lambda t: t.flatten(1).mean(1)):
    return lambda mean, base_mean, std: reduce((mean - base_mean) ** 2 / scale(std))


KL = Exercise(
    id="10.7",
    name="step_kl",
    points=2,
    reference="pixelpolicy.rl:gaussian_kl",
    forbidden=FORBIDDEN,
    probes=lambda: _double(KLS),
    properties=[
        Property("values agree with torch.distributions.kl_divergence, averaged over dimensions", _kl_values),
        Property("gradients pull the two means together", _kl_gradients),
        Property("the base is at distance 0 from itself", _kl_zero),
    ],
    mistakes=[
        Mistake("no 2", "A factor is off: the denominator is 2 std^2.", wrong=_square(lambda std: std**2)),
        Mistake("std, not variance", "Divide by 2 std^2, not by 2 std.", wrong=_square(lambda std: 2 * std)),
        Mistake("no std", "The gap is measured in units of the noise: divide by 2 std^2.",
                wrong=_square(lambda std: torch.tensor(2.0))),
        Mistake("sum", "Take the mean over the dimensions of a sample, not the sum.",
                wrong=_square(reduce=lambda t: t.flatten(1).sum(1))),
        Mistake("one number", "Return one number a sample: keep dimension 0.", wrong=_square(reduce=torch.mean)),
        Mistake("base detached", "The values are right. But the base's mean was computed at *your* state, and that "
                "hangs on your weights: do not detach it.", wrong=lambda m, b, s: _kl(m, b.detach(), s)),
        Mistake("detached", "The values are right, but no gradient reaches the mean, so that nothing brakes.",
                wrong=lambda m, b, s: _kl(m.detach(), b, s)),
    ],
)  # fmt: skip

# 10.8 A low-rank adapter -----------------------------------------------------------------------------------------


def _adapter(seed: int, rows: int, inputs: int, outputs: int, rank: int, alpha: float, bias: bool = True) -> tuple:
    return (
        _normal(seed, rows, inputs), _normal(seed + 1, outputs, inputs), _normal(seed + 2, outputs) if bias else None,
        _normal(seed + 3, rank, inputs), _normal(seed + 4, outputs, rank), alpha,
    )  # fmt: skip


ADAPTERS = [
    _adapter(60, 4, 3, 5, 2, 8.0),
    _adapter(70, 1, 6, 2, 4, 1.0),
    _adapter(80, 3, 4, 4, 1, 2.0, bias=False),
    _adapter(90, 2, 3, 5, 3, 0.0),
]


def _low_rank(x, weight, bias, down, up, alpha) -> Tensor:
    """Entry by entry, with the two matrices multiplied out."""
    whole = weight + alpha / len(down) * torch.einsum("or,ri->oi", up, down)
    return torch.einsum("...i,oi->...o", x, whole) + (0 if bias is None else bias)


def _lora_values(student) -> None:
    for given in ADAPTERS:
        same(student(*given), _low_rank(*given), atol=1e-4)


def _lora_gradients(student) -> None:
    for x, weight, bias, down, up, alpha in ADAPTERS:
        same_gradient(
            lambda x, d, u, w=weight, b=bias, a=alpha: student(x, w, b, d, u, a),
            lambda x, d, u, w=weight, b=bias, a=alpha: _low_rank(x, w, b, d, u, a),
            (x, down, up),
            names=("x", "down", "up"),
            atol=1e-4,
        )


def _lora_start(student) -> None:
    x, weight, bias, down, up, alpha = ADAPTERS[0]
    same(
        student(x, weight, bias, down, torch.zeros_like(up), alpha),
        x @ weight.T + bias,
        atol=1e-5,
        what="with `up` at 0, as training begins",
    )


def _lora_tokens(student) -> None:
    _, *rest = ADAPTERS[0]
    x = _normal(95, 2, 7, 3)
    same(student(x, *rest), _low_rank(x, *rest), atol=1e-4, what="an input of shape [batch, tokens, inputs]")


def _low_rank_like(scale=lambda alpha, rank: alpha / rank, delta=lambda x, d, u: x @ d.T @ u.T, bias=True):
    def linear(x, weight, b, down, up, alpha):
        plain = x @ weight.T + (b if bias and b is not None else 0)
        return plain + scale(alpha, down.shape[0]) * delta(x, down, up)

    return linear


LORA = Exercise(
    id="10.8",
    name="lora_linear",
    points=2,
    reference=_low_rank_like(),
    forbidden=(*FORBIDDEN, "peft", "pixelpolicy.pipelines"),
    probes=lambda: _double(ADAPTERS),
    properties=[
        Property("values are those of the sum of the two matrices", _lora_values),
        Property("gradients reach the input and both factors", _lora_gradients),
        Property("with `up` at 0 the layer is the old one", _lora_start),
        Property("any number of dimensions may stand before the last", _lora_tokens,
                 "`@` and `F.linear` both take [..., inputs]. Transpose the matrices only."),
    ],
    mistakes=[
        Mistake("no rank", "The adapter is scaled by alpha / rank, not by alpha: ranks could not be compared.",
                wrong=_low_rank_like(lambda alpha, rank: alpha)),
        Mistake("no alpha", "The adapter is scaled by alpha / rank; alpha is missing.",
                wrong=_low_rank_like(lambda alpha, rank: 1 / rank)),
        Mistake("root", "That is alpha over the *root* of the rank, another paper's scale. Here it is alpha / rank.",
                wrong=_low_rank_like(lambda alpha, rank: alpha / math.sqrt(rank))),
        Mistake("no scale", "The adapter has no scale at all: multiply it with alpha / rank.",
                wrong=_low_rank_like(lambda alpha, rank: 1.0)),
        Mistake("adapter alone", "The frozen layer is missing: the adapter is *added* to it.",
                wrong=lambda x, w, b, d, u, a: a / len(d) * (x @ d.T @ u.T)),
        Mistake("no bias", "The frozen layer's bias is missing.", wrong=_low_rank_like(bias=False)),
        Mistake("bias scaled", "Add the bias once, outside: it is no part of what alpha scales.",
                wrong=lambda x, w, b, d, u, a: x @ w.T + a / len(d) * (x @ d.T @ u.T + (0 if b is None else b))),
        Mistake("factors detached", "The values are right, but the adapter is what is trained: detach neither factor.",
                wrong=_low_rank_like(delta=lambda x, d, u: x @ d.detach().T @ u.detach().T)),
    ],
)  # fmt: skip

EXERCISES = [DRAW, UNROLL, LEAP, HINGE, RECOMPUTE, CUT, KL, LORA]
