"""Checks of lab 06: a generator from nothing, each piece against an independent formula."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.policies", "pixelpolicy.generators.prediction")
FLOOR = 0.05
NO_LABEL = 10


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _pair(got, names: str) -> tuple[Tensor, Tensor]:
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mismatch(f"came out  a {type(got).__name__}\nexpected  two tensors: {names}")
    return got


# 6.1 The road -------------------------------------------------------------------------------------------------

ROADS = [
    (_normal(0, 3, 2), _normal(1, 3, 2), torch.tensor([0.2, 0.5, 0.9])),
    (_normal(2, 4, 1, 2, 4), _normal(3, 4, 1, 2, 4), torch.tensor([0.1, 0.35, 0.6, 0.95])),
    (_normal(4, 2, 2), _normal(5, 2, 2), torch.tensor([0.3, 0.8])),
]
ENDS = (_normal(6, 2, 3), _normal(7, 2, 3), torch.tensor([0.0, 1.0]))


def _road(x0: Tensor, x1: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by sample, from the picture towards the noise."""
    states = [picture + share * (noise - picture) for picture, noise, share in zip(x0, x1, sigma, strict=True)]
    return torch.stack(states), x1 - x0


def _mix_states(student) -> None:
    for given in ROADS:
        same(_pair(student(*given), "the state and the velocity")[0], _road(*given)[0], what="the state")


def _mix_ends(student) -> None:
    x0, x1, sigma = ENDS
    state = _pair(student(*ENDS), "the state and the velocity")[0]
    same(state, torch.stack([x0[0], x1[1]]), what="the states at sigma 0 and sigma 1")


def _mix_velocities(student) -> None:
    for given in (*ROADS, ENDS):
        same(_pair(student(*given), "the state and the velocity")[1], _road(*given)[1], what="the velocity")


def _mix_gradients(student) -> None:
    for given in ROADS:
        same_gradient(student, _road, given, names=("x0", "x1", "sigma"))


def _mixed(weights=lambda s: (1 - s, s), velocity=lambda x0, x1, x, s: x1 - x0, spread=True):
    def mix(x0, x1, sigma):
        s = sigma.reshape(-1, *[1] * (x0.dim() - 1)) if spread else sigma
        a, b = weights(s)
        x = a * x0 + b * x1
        return x, velocity(x0, x1, x, s)

    return mix


MIX = Exercise(
    id="6.1",
    name="mix",
    points=1,
    reference=_mixed(),
    forbidden=FORBIDDEN,
    probes=lambda: ROADS,
    properties=[
        Property("the state lies on the straight road, at its own level", _mix_states),
        Property("sigma 0 is the picture, sigma 1 the noise", _mix_ends),
        Property("the velocity is that of the road", _mix_velocities),
        Property("gradients reach both ends", _mix_gradients, "Do not detach, and do not write into the arguments."),
    ],
    mistakes=[
        Mistake(
            "ends exchanged",
            "Your road begins in the noise: at sigma 0 there must be the picture, whose weight is 1 - sigma.",
            wrong=_mixed(weights=lambda s: (s, 1 - s)),
        ),
        Mistake(
            "velocity turned",
            "The velocity points the wrong way: as sigma grows you go from the picture towards the noise.",
            wrong=_mixed(velocity=lambda x0, x1, x, s: x0 - x1),
        ),
        Mistake(
            "noise for velocity",
            "You return the noise itself as velocity. The velocity is noise minus picture.",
            wrong=_mixed(velocity=lambda x0, x1, x, s: x1),
        ),
        Mistake(
            "from the state on",
            "You take the way that is left, from the state to the noise. The velocity is the same all along.",
            wrong=_mixed(velocity=lambda x0, x1, x, s: x1 - x),
        ),
        Mistake(
            "times sigma",
            "You scale the velocity by sigma. Differentiate: (1 - sigma) x0 + sigma x1 has the slope x1 - x0.",
            wrong=_mixed(velocity=lambda x0, x1, x, s: s * (x1 - x0)),
        ),
        Mistake(
            "the arc",
            "Those are the weights of the arc, whose squares sum to 1. On the straight road the weights themselves do.",
            wrong=_mixed(weights=lambda s: ((1 - s).sqrt(), s.sqrt())),
        ),
        Mistake(
            "levels along the wrong side",
            "Each sample has a level of its own: sigma needs ones at its end, as in sigma.reshape(-1, 1, 1, 1).",
            wrong=_mixed(spread=False),
        ),
    ],
)

# 6.2 The loss -------------------------------------------------------------------------------------------------


def _network(weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A made-up network with one weight, which heeds the level."""

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, *[1] * (x.dim() - 1))
        return torch.sin(weight * x) + weight * level**2

    return velocity


def _loss(velocity, x0: Tensor, x1: Tensor, sigma: Tensor) -> Tensor:
    x, target = _road(x0, x1, sigma)
    return ((velocity(x, sigma) - target) ** 2).sum() / x0.numel()


def _loss_values(student) -> None:
    for given, weight in zip(ROADS, (0.7, -1.3, 2.0), strict=True):
        network = _network(torch.tensor(weight))
        got = student(network, *given)
        same(tuple(torch.as_tensor(got).shape), (), what="the shape of the loss")
        same(got, _loss(network, *given), atol=1e-5, what="the loss")


def _loss_zero(student) -> None:
    for x0, x1, sigma in ROADS:
        same(student(lambda x, s, v=x1 - x0: v, x0, x1, sigma), torch.tensor(0.0), what="the loss of the true velocity")


def _loss_average(student) -> None:
    """Two roads that cross: the constant with the least loss is their average velocity."""
    x0, x1 = torch.tensor([[-1.0], [1.0], [2.0]]), torch.tensor([[1.0], [-1.0], [4.0]])
    guess = torch.tensor(0.5, requires_grad=True)
    loss = student(lambda x, s: guess.expand_as(x), x0, x1, torch.full((3,), 0.5))
    if not (torch.is_tensor(loss) and loss.requires_grad):
        raise Mismatch("came out  a loss without a gradient\nexpected  one that reaches the network")
    (slope,) = torch.autograd.grad(loss, guess)
    same(slope, 2 * (torch.tensor(0.5) - (x1 - x0).mean()), what="the slope in a constant guess of 0.5")


def _loss_gradients(student) -> None:
    for given in ROADS:
        same_gradient(
            lambda weight, g=given: student(_network(weight), *g),
            lambda weight, g=given: _loss(_network(weight), *g),
            (torch.tensor(0.9),),
            names=("the network's weight",),
            atol=1e-5,
        )


def _losing(state=None, target=None, level=lambda s: s, reduce=lambda e: e.square().mean(), detach=False):
    def loss(velocity, x0, x1, sigma):
        x, v = _mixed()(x0, x1, sigma)
        said = velocity(state(x0, x1) if state else x, level(sigma))
        return reduce((said.detach() if detach else said) - (target(x0, x1, x) if target else v))

    return loss


LOSS = Exercise(
    id="6.2",
    name="flow_matching_loss",
    points=2,
    reference=_losing(),
    forbidden=FORBIDDEN,
    probes=lambda: [(_network(torch.tensor(w)), *given) for given in ROADS for w in (0.7, -1.3)],
    properties=[
        Property("one number: the mean squared error against the road's velocity", _loss_values),
        Property("the true velocity has no loss", _loss_zero),
        Property("where roads cross, the least loss is at their average", _loss_average),
        Property("gradients reach the network", _loss_gradients, "No detach, no .item(), no no_grad here."),
    ],
    mistakes=[
        Mistake(
            "turned target",
            "Your target points from noise to picture. The velocity of the road is x1 - x0; mix returns it.",
            wrong=_losing(target=lambda x0, x1, x: x0 - x1),
        ),
        Mistake(
            "noise for target",
            "You compare with the noise. That is DDPM's loss, section 4; here the target is the velocity.",
            wrong=_losing(target=lambda x0, x1, x: x1),
        ),
        Mistake(
            "picture for target",
            "You compare with the picture. Here the target is the velocity, the second thing that mix returns.",
            wrong=_losing(target=lambda x0, x1, x: x0),
        ),
        Mistake(
            "fed the picture",
            "You show the network the clean picture. It must see the state on the road, the first thing mix returns.",
            wrong=_losing(state=lambda x0, x1: x0),
        ),
        Mistake(
            "fed the noise",
            "You show the network the pure noise. It must see the state on the road, the first thing mix returns.",
            wrong=_losing(state=lambda x0, x1: x1),
        ),
        Mistake("sum", "Average over all numbers: a sum grows with the batch.",
                wrong=_losing(reduce=lambda e: e.square().sum())),
        Mistake("absolute", "The absolute error leads to the median. Square the error: the average is wanted.",
                wrong=_losing(reduce=lambda e: e.abs().mean())),
        Mistake("root", "Leave out the root: the mean of the squares is the loss.",
                wrong=_losing(reduce=lambda e: e.square().mean().sqrt())),
        Mistake("a loss a sample", "Return one number, the mean over samples too.",
                wrong=_losing(reduce=lambda e: e.square().flatten(1).mean(1))),
        Mistake("level turned", "The network is told 1 - sigma. Tell it sigma, as mix was.",
                wrong=_losing(level=lambda s: 1 - s)),
        Mistake(
            "detached",
            "The value is right, but no gradient reaches the network: remove .detach(), .item() or no_grad().",
            when=lambda student: _loss_without_slope(student),
        ),
    ],
)  # fmt: skip


def _loss_without_slope(student) -> bool:
    weight = torch.tensor(0.9, requires_grad=True)
    got = torch.as_tensor(student(_network(weight), *ROADS[0]))
    right = torch.allclose(got.detach().float(), _loss(_network(weight), *ROADS[0]).detach(), atol=1e-5)
    return right and not got.requires_grad


# 6.3 Following the flow ---------------------------------------------------------------------------------------


def _field(x: Tensor, sigma: Tensor) -> Tensor:
    """A made-up velocity that depends on place and level."""
    return torch.cos(x) + (1 + torch.as_tensor(sigma)) ** 2


RIDES = [
    (_field, _normal(0, 3, 2), torch.tensor([1.0, 0.5, 0.0])),
    (_field, _normal(1, 2, 1, 3, 3), torch.tensor([1.0, 0.9, 0.6, 0.2, 0.0])),
    (_field, _normal(2, 4, 2), torch.tensor([0.8, 0.1])),
]


def _ridden(velocity, start: Tensor, sigmas: Tensor) -> Tensor:
    """By the end points: each step keeps the noise and the picture that the velocity points at."""
    states, levels = [start], sigmas.tolist()
    for now, after in zip(levels, levels[1:], strict=False):
        v = velocity(states[-1], torch.tensor(now))
        picture, noise = states[-1] - now * v, states[-1] + (1 - now) * v
        states.append((1 - after) * picture + after * noise)
    return torch.stack(states)


def _ride_shape(student) -> None:
    for given in RIDES:
        got = student(*given)
        same(tuple(got.shape), (len(given[2]), *given[1].shape), what="the shape of the states")
        same(got[0], given[1], what="the first state")


def _ride_values(student) -> None:
    for given in RIDES:
        same(student(*given), _ridden(*given), atol=1e-5, what="the states")


def _ride_straight(student) -> None:
    """Along a constant velocity any steps lead to the same end: the true picture."""
    x0, x1 = _normal(8, 3, 2), _normal(9, 3, 2)
    for levels in ([1.0, 0.0], [1.0, 0.3, 0.0], [1.0, 0.8, 0.7, 0.1, 0.0]):
        got = student(lambda x, s: x1 - x0, x1, torch.tensor(levels))
        same(got[-1], x0, atol=1e-5, what=f"the end of a straight road in {len(levels) - 1} steps")


def _ride_gradients(student) -> None:
    for _, start, sigmas in RIDES:
        same_gradient(
            lambda x, s=sigmas: student(_field, x, s), lambda x, s=sigmas: _ridden(_field, x, s), (start,),
            names=("the start",), atol=1e-5,
        )  # fmt: skip


def _riding(span=lambda now, after, count: after - now, ask="here", first=True, last=True, keep=True):
    def follow(velocity, start, sigmas):
        states = [start]
        pairs = list(zip(sigmas[:-1], sigmas[1:], strict=True))
        for sigma, following in pairs if last else pairs[:-1]:
            x = start if ask == "start" else states[-1]
            level = following if ask == "next" else sigma
            states.append(states[-1] + span(sigma, following, len(pairs)) * velocity(x, level))
        return torch.stack(states if first else states[1:]) if keep else states[-1]

    return follow


FOLLOW = Exercise(
    id="6.3",
    name="follow",
    points=2,
    reference=_riding(),
    forbidden=FORBIDDEN,
    probes=lambda: RIDES,
    properties=[
        Property("all states, the start first", _ride_shape),
        Property("each step goes along the velocity where it starts", _ride_values),
        Property("a straight road ends at its picture, whatever the steps", _ride_straight),
        Property("gradients reach the start", _ride_gradients),
    ],
    mistakes=[
        Mistake(
            "uphill",
            "You go up: the step is sigma_next - sigma, which is negative. Yours leads further into the noise.",
            wrong=_riding(span=lambda now, after, count: now - after),
        ),
        Mistake(
            "equal steps",
            "You take equal steps. The levels need not be equally far apart: use the difference of each pair.",
            wrong=_riding(span=lambda now, after, count: -1 / count),
        ),
        Mistake(
            "whole steps",
            "You add the whole velocity at each step. Multiply it by the difference of the levels.",
            wrong=_riding(span=lambda now, after, count: -1.0),
        ),
        Mistake(
            "asks at the next level",
            "You ask for the velocity at the level you go to. Ask at the level where you are.",
            wrong=_riding(ask="next"),
        ),
        Mistake(
            "asks at the start",
            "You ask for the velocity at the start all the time. The field differs from place to place: ask anew.",
            wrong=_riding(ask="start"),
        ),
        Mistake("last state", "You return the last state only. Return them all, stacked.", wrong=_riding(keep=False)),
        Mistake("no start", "The start is missing: it is the first state.", wrong=_riding(first=False)),
        Mistake("one step short", "The last step is missing: go on to the last level.", wrong=_riding(last=False)),
    ],
)  # fmt: skip

# 6.4 Picture, noise, velocity ---------------------------------------------------------------------------------


def _weights(*pair: float) -> tuple[Tensor, Tensor]:
    return torch.tensor(pair[0]), torch.tensor(pair[1])


PLACES = {
    "on the straight road": _weights(0.7, 0.3),
    "on the arc": _weights(0.6, 0.8),
    "with a weight for each sample": (torch.tensor([[0.8], [0.28]]), torch.tensor([[0.6], [0.96]])),
    "near the noise": _weights(0.02, 0.98),
    "near the picture": _weights(0.99, 0.01),
    "at the noise": _weights(0.0, 1.0),
    "at the picture": _weights(1.0, 0.0),
}
SAID = (_normal(10, 2, 3), _normal(11, 2, 3))


def _ends(prediction: Tensor, kind: str, z: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """For the velocity by Cramer's rule on z = a x0 + b x1, v = x1 - x0."""
    if kind == "velocity":
        determinant = a * 1 - b * -1
        return (z * 1 - b * prediction) / determinant, (a * prediction - z * -1) / determinant
    if kind == "noise":
        return (z - b * prediction) / torch.where(a < FLOOR, torch.full_like(a, FLOOR), a), prediction
    return prediction, (z - a * prediction) / torch.where(b < FLOOR, torch.full_like(b, FLOOR), b)


def _ends_of(kind: str, places: tuple[str, ...]) -> Callable:
    def holds(student) -> None:
        for place in places:
            got = _pair(student(SAID[0], kind, SAID[1], *PLACES[place]), "the picture and the noise")
            want = _ends(SAID[0], kind, SAID[1], *PLACES[place])
            for one, other, name in zip(got, want, ("picture", "noise"), strict=True):
                same(one, other, atol=1e-5, what=f"the {name} {place}, from a prediction of the {kind}")

    return holds


INSIDE, EDGE = tuple(PLACES)[:3], tuple(PLACES)[3:]


def _ends_floor(student) -> None:
    for kind in ("picture", "noise", "velocity"):
        _ends_of(kind, EDGE)(student)


def _ends_truth(student) -> None:
    x0, x1 = _normal(12, 2, 3), _normal(13, 2, 3)
    for a, b in (PLACES[place] for place in INSIDE):
        for kind, truth in (("picture", x0), ("noise", x1), ("velocity", x1 - x0)):
            got = _pair(student(truth, kind, a * x0 + b * x1, a, b), "the picture and the noise")
            same(got[0], x0, atol=1e-4, what=f"the picture, from its true {kind}")
            same(got[1], x1, atol=1e-4, what=f"the noise, from the true {kind}")


def _ends_gradients(student) -> None:
    for kind in ("picture", "noise", "velocity"):
        for place in INSIDE:
            same_gradient(
                lambda p, z, k=kind, w=PLACES[place]: student(p, k, z, *w),
                lambda p, z, k=kind, w=PLACES[place]: _ends(p, k, z, *w),
                SAID,
                names=("the prediction", "the state"),
                atol=1e-5,
            )


def _ending(
    divisor=lambda w: w.clamp_min(FLOOR),
    total=lambda a, b: a + b,
    velocity=1,
    swapped=False,
    whole=False,
    assumed=None,
    bare=False,
):
    def endpoints(prediction, kind, z, a, b):
        kind = assumed or kind
        if kind == "picture":
            ends = prediction, z - a * prediction if bare else (z - (1 if whole else a) * prediction) / divisor(b)
        elif kind == "noise":
            ends = z - b * prediction if bare else (z - (1 if whole else b) * prediction) / divisor(a), prediction
        else:
            v = velocity * prediction
            ends = (z - b * v) / total(a, b), (z + a * v) / total(a, b)
        return ends[::-1] if swapped else ends

    return endpoints


ENDPOINTS = Exercise(
    id="6.4",
    name="endpoints",
    points=3,
    reference=_ending(),
    forbidden=FORBIDDEN,
    probes=lambda: [
        (SAID[0], kind, SAID[1], *PLACES[place]) for kind in ("picture", "noise", "velocity") for place in PLACES
    ],
    properties=[
        Property("from the picture", _ends_of("picture", INSIDE)),
        Property("from the noise", _ends_of("noise", INSIDE)),
        Property("from the velocity", _ends_of("velocity", INSIDE)),
        Property("a true prediction gives both true ends back", _ends_truth),
        Property("at the ends of the road no divisor is below 0.05", _ends_floor,
                 "Divide by b.clamp_min(0.05) for a picture, by a.clamp_min(0.05) for noise; not for a velocity."),
        Property("gradients reach prediction and state", _ends_gradients),
    ],
    mistakes=[
        Mistake(
            "no floor",
            "At the ends of the road you divide by 0 or nearly so. Use b.clamp_min(0.05) and a.clamp_min(0.05).",
            wrong=_ending(divisor=lambda w: w),
        ),
        Mistake(
            "added floor",
            "You add 0.05 to the divisor, which changes it everywhere. It must only not fall below: clamp_min(0.05).",
            wrong=_ending(divisor=lambda w: w + FLOOR),
        ),
        Mistake(
            "straight road only",
            "Your velocity holds on the straight road alone. On the arc a + b is more than 1: divide both ends by it.",
            wrong=_ending(total=lambda a, b: 1.0),
        ),
        Mistake(
            "divides by the squares",
            "From the velocity you divide by a² + b². Solve again: z - b v = (a + b) x0.",
            wrong=_ending(total=lambda a, b: a**2 + b**2),
        ),
        Mistake(
            "velocity turned",
            "Your velocity points from noise to picture. It is x1 - x0, so x1 = x0 + v.",
            wrong=_ending(velocity=-1),
        ),
        Mistake("exchanged", "You return the noise first. Return the picture, then the noise.",
                wrong=_ending(swapped=True)),
        Mistake(
            "unweighted",
            "What is taken from z must have its weight: a times the picture, b times the noise.",
            wrong=_ending(whole=True),
        ),
        Mistake(
            "undivided",
            "What is left of z is b times the noise (or a times the picture): the division is missing.",
            wrong=_ending(bare=True),
        ),
        Mistake(
            "one kind for all",
            "You treat every prediction as a velocity. Look at kind: three cases, three formulas.",
            wrong=_ending(assumed="velocity"),
        ),
    ],
)  # fmt: skip

# 6.5 DDIM and DDPM --------------------------------------------------------------------------------------------

ARC_STEPS = [
    (_normal(0, 2, 3), _normal(1, 2, 3), torch.tensor(0.3), torch.tensor(0.5), 0.5),
    (_normal(2, 3, 1, 2, 2), _normal(3, 3, 1, 2, 2), torch.tensor(0.6), torch.tensor(0.9), 1.0),
    (_normal(4, 1, 5), _normal(5, 1, 5), torch.tensor(0.05), torch.tensor(0.07), 0.0),
    (_normal(6, 2, 2), _normal(7, 2, 2), torch.tensor(0.2), torch.tensor(0.7), 0.3),
]


def _ddim(y: Tensor, noise: Tensor, before: Tensor, after: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """In float64, as a mixture of the guess, the kept noise and the fresh noise, whose squares add up."""
    t, s = before.double(), after.double()
    std = eta * torch.sqrt((1 - s) / (1 - t) * (s - t) / s)
    kept = torch.sqrt(((1 - s) - std**2).clamp_min(0))
    mean = torch.sqrt(s / t) * (y.double() - torch.sqrt(1 - t) * noise.double()) + kept * noise.double()
    return mean.to(y.dtype), std.to(y.dtype)


def _ddim_values(student) -> None:
    for given in ARC_STEPS:
        got, want = _pair(student(*given), "mean and standard deviation"), _ddim(*given)
        same(got[0], want[0], atol=1e-5, rtol=1e-4, what="the mean")
        same(got[1], want[1], atol=1e-6, rtol=1e-4, what="the standard deviation")


def _ddim_posterior(student) -> None:
    """With eta = 1: DDPM's posterior of the cleaner state, given the noisy one and the picture (its eq. 7)."""
    for y, noise, t, s, _ in ARC_STEPS:
        mean, std = _pair(student(y, noise, t, s, 1.0), "mean and standard deviation")
        picture, beta = (y - (1 - t).sqrt() * noise) / t.sqrt(), 1 - t / s
        want = s.sqrt() * beta / (1 - t) * picture + (t / s).sqrt() * (1 - s) / (1 - t) * y
        same(mean, want, atol=1e-4, rtol=1e-4, what="the mean for eta = 1, DDPM's")
        same(std**2, (1 - s) / (1 - t) * beta, atol=1e-6, rtol=1e-4, what="the variance for eta = 1, DDPM's")


def _ddim_last(student) -> None:
    y, noise, t = ARC_STEPS[0][:3]
    for eta in (0.0, 1.0):
        mean, std = _pair(student(y, noise, t, torch.tensor(1.0), eta), "mean and standard deviation")
        same(mean, (y - (1 - t).sqrt() * noise) / t.sqrt(), atol=1e-5, what=f"the mean of the last step, eta {eta:g}")
        same(std, torch.tensor(0.0), what=f"the standard deviation of the last step, eta {eta:g}")


def _ddim_rounded(student) -> None:
    """Levels at which, in float32, rounding takes what is under the root below 0."""
    y, noise = ARC_STEPS[0][:2]
    for level, following in ((0.2680889, 0.9999998), (0.14879689, 0.9999996)):
        mean, _ = _pair(student(y, noise, torch.tensor(level), torch.tensor(following), 1.0), "mean and deviation")
        same(mean.isfinite().all(), torch.tensor(True), what=f"whether the mean is finite, from {level} to {following}")


def _ddim_gradients(student) -> None:
    for y, noise, *rest in ARC_STEPS:
        same_gradient(
            lambda a, b, r=rest: student(a, b, *r)[0], lambda a, b, r=rest: _ddim(a, b, *r)[0], (y, noise),
            names=("y", "the noise"), atol=1e-4, rtol=1e-4,
        )  # fmt: skip


def _ddim_like(
    guess=lambda y, n, t: (y - (1 - t).sqrt() * n) / t.sqrt(),
    variance=lambda eta, t, s: eta**2 * (1 - s) / (1 - t) * (1 - t / s),
    kept=lambda s, var: (1 - s - var).clamp_min(0).sqrt(),
    signal=lambda t, s: s.sqrt(),
    spread=torch.sqrt,
):
    def step(y, noise, alpha_bar, alpha_bar_next, eta):
        var = variance(eta, alpha_bar, alpha_bar_next)
        picture = guess(y, noise, alpha_bar)
        mean = signal(alpha_bar, alpha_bar_next) * picture + kept(alpha_bar_next, var) * noise
        return mean, spread(var)

    return step


DDIM = Exercise(
    id="6.5",
    name="ddim_step",
    points=3,
    reference=_ddim_like(),
    forbidden=FORBIDDEN,
    probes=lambda: ARC_STEPS,
    properties=[
        Property("mean and standard deviation are DDIM's", _ddim_values),
        Property("eta = 1 is DDPM's step", _ddim_posterior),
        Property("the last step ends at the guess of the picture, without noise", _ddim_last,
                 "At alpha_bar_next = 1 nothing is kept and nothing drawn; no NaN: clamp_min(0) under the root."),
        Property("rounding makes no NaN", _ddim_rounded, "Rounding can leave a little less than 0 under the root of "
                 "the noise that is kept: clamp_min(0)."),
        Property("gradients reach state and noise", _ddim_gradients),
    ],
    mistakes=[
        Mistake("variance", "You return the variance as the second value. Return its root.",
                wrong=_ddim_like(spread=lambda var: var)),
        Mistake(
            "eta not squared",
            "eta scales the deviation, so it is squared in the variance.",
            wrong=_ddim_like(variance=lambda eta, t, s: eta * (1 - s) / (1 - t) * (1 - t / s)),
        ),
        Mistake(
            "no room",
            "Fresh noise comes on top of all the old. Keep only sqrt(1 - alpha_bar_next - var) of the predicted noise.",
            wrong=_ddim_like(kept=lambda s, var: (1 - s).sqrt()),
        ),
        Mistake(
            "quotient turned",
            "The first quotient is upside down: the level you go to stands above.",
            wrong=_ddim_like(variance=lambda eta, t, s: eta**2 * (1 - t) / (1 - s) * (1 - t / s)),
        ),
        Mistake(
            "old mixture",
            "You mix the guess by the level you come from. The new state has the weights of alpha_bar_next.",
            wrong=_ddim_like(signal=lambda t, s: t.sqrt()),
        ),
        Mistake(
            "guess not divided",
            "The guess of the picture is still shrunken: divide by sqrt(alpha_bar).",
            wrong=_ddim_like(guess=lambda y, n, t: y - (1 - t).sqrt() * n),
        ),
        Mistake(
            "no roots",
            "The weights are the roots of alpha_bar and 1 - alpha_bar, not these numbers themselves.",
            wrong=_ddim_like(guess=lambda y, n, t: (y - (1 - t) * n) / t, signal=lambda t, s: s),
        ),
        Mistake(
            "deviation under the root",
            "Under the root stands the variance: you subtract the deviation.",
            wrong=_ddim_like(kept=lambda s, var: (1 - s - var.sqrt()).clamp_min(0).sqrt()),
        ),
    ],
)  # fmt: skip

# 6.6 The reverse SDE ------------------------------------------------------------------------------------------

SDE_STEPS = [given[:4] for given in ARC_STEPS]


def _reverse(y: Tensor, noise: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    beta = math.log(after.item()) - math.log(before.item())
    return (1 + beta / 2) * y - beta / math.sqrt(1 - before.item()) * noise, torch.tensor(beta**0.5)


def _reverse_values(student) -> None:
    for given in SDE_STEPS:
        got, want = _pair(student(*given), "mean and standard deviation"), _reverse(*given)
        same(got[0], want[0], atol=1e-5, what="the mean")
        same(got[1], want[1], what="the standard deviation")


def _reverse_keeps(student) -> None:
    """Standard normal data stay standard normal on the arc: a small step must keep their variance."""
    before, after = torch.tensor(0.40), torch.tensor(0.404)
    y = torch.ones(1, 4)
    mean, std = _pair(student(y, (1 - before).sqrt() * y, before, after), "mean and standard deviation")
    same(mean[0, 0] ** 2 + std**2, torch.tensor(1.0), atol=1e-3, what="the variance after a small step")


def _reverse_near(student) -> None:
    """For a small step it is DDPM's step, up to terms of the second order."""
    y, noise, before = SDE_STEPS[0][:3]
    after = before * 1.01
    mean, std = _pair(student(y, noise, before, after), "mean and standard deviation")
    want = _ddim(y, noise, before, after, 1.0)
    same(mean, want[0], atol=1e-3, what="the mean of a small step, against DDPM's")
    same(std, want[1], atol=2e-3, what="the deviation of a small step, against DDPM's")


def _reverse_gradients(student) -> None:
    for y, noise, *rest in SDE_STEPS:
        same_gradient(
            lambda a, b, r=rest: student(a, b, *r)[0], lambda a, b, r=rest: _reverse(a, b, *r)[0], (y, noise),
            names=("y", "the noise"), atol=1e-5,
        )  # fmt: skip


def _reversing(
    score=lambda n, t: -n / (1 - t).sqrt(),
    beta=lambda t, s: torch.log(s / t),
    drift=lambda y, s: y / 2 + s,
    spread=torch.sqrt,
):
    def step(y, noise, alpha_bar, alpha_bar_next):
        b = beta(alpha_bar, alpha_bar_next)
        return y + b * drift(y, score(noise, alpha_bar)), spread(b)

    return step


REVERSE = Exercise(
    id="6.6",
    name="reverse_sde_step",
    points=2,
    reference=_reversing(),
    forbidden=FORBIDDEN,
    probes=lambda: SDE_STEPS,
    properties=[
        Property("mean and standard deviation are those of the reverse SDE", _reverse_values),
        Property("standard normal data keep their variance in a small step", _reverse_keeps),
        Property("a small step is DDPM's", _reverse_near),
        Property("gradients reach state and noise", _reverse_gradients),
    ],
    mistakes=[
        Mistake(
            "score upside down",
            "The score points away from the noise: it has a minus.",
            wrong=_reversing(score=lambda n, t: n / (1 - t).sqrt()),
        ),
        Mistake(
            "noise for score",
            "You take the noise for the score: divide it by sqrt(1 - alpha_bar).",
            wrong=_reversing(score=lambda n, t: -n),
        ),
        Mistake(
            "score over the variance",
            "You divide by 1 - alpha_bar. The predicted noise has size 1, so the score is over its root.",
            wrong=_reversing(score=lambda n, t: -n / (1 - t)),
        ),
        Mistake(
            "half a score",
            "Half the score is the drift of the ODE, which draws no noise. You do, so take the whole score.",
            wrong=_reversing(drift=lambda y, s: (y + s) / 2),
        ),
        Mistake(
            "no half",
            "The state is stretched by half of beta: y / 2.",
            wrong=_reversing(drift=lambda y, s: y + s),
        ),
        Mistake(
            "shrinks",
            "You go on shrinking the picture. On the way back y / 2 is added.",
            wrong=_reversing(drift=lambda y, s: s - y / 2),
        ),
        Mistake("variance", "beta is the variance of the fresh noise. Return its root.",
                wrong=_reversing(spread=lambda b: b)),
        Mistake(
            "difference",
            "beta is the logarithm of the quotient of the levels, not their difference.",
            wrong=_reversing(beta=lambda t, s: s - t),
        ),
        Mistake(
            "beta below zero",
            "Your beta is negative: the cleaner level stands above, log(alpha_bar_next / alpha_bar).",
            wrong=_reversing(beta=lambda t, s: torch.log(t / s)),
        ),
    ],
)  # fmt: skip

# 6.7 Guidance -------------------------------------------------------------------------------------------------


def _told(x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """A made-up model that heeds state, level and label."""
    label = labels.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
    return torch.sin(x + label) * (1 + torch.as_tensor(sigma)) + 0.1 * label


WISHES = [
    (_told, _normal(0, 3, 2), torch.tensor(0.7), torch.tensor([3, 0, 9]), 3.0),
    (_told, _normal(1, 2, 1, 2, 2), torch.tensor(0.2), torch.tensor([5, 1]), 1.5),
    (_told, _normal(2, 2, 4), torch.tensor(1.0), torch.tensor([7, 7]), -1.0),
]


def _guidance(velocity, x, sigma, labels, scale) -> Tensor:
    with_, without = velocity(x, sigma, labels), velocity(x, sigma, labels * 0 + NO_LABEL)
    return scale * with_ + (1 - scale) * without


def _guided_values(student) -> None:
    for given in WISHES:
        same(student(*_fresh(given)), _guidance(*given), atol=1e-5)


def _fresh(given: tuple) -> tuple:
    return (*given[:3], given[3].clone(), given[4])


def _guided_marks(student) -> None:
    for velocity, x, sigma, labels, _ in WISHES:
        got = student(velocity, x, sigma, labels.clone(), 1.0)
        same(got, velocity(x, sigma, labels), atol=1e-5, what="scale 1, the plain model")
        got = student(velocity, x, sigma, labels.clone(), 0.0)
        same(got, velocity(x, sigma, torch.full_like(labels, NO_LABEL)), atol=1e-5, what="scale 0, without a label")


def _guided_leaves(student) -> None:
    labels = WISHES[0][3].clone()
    student(*WISHES[0][:3], labels, 3.0)
    same(labels, WISHES[0][3], what="the labels, after the call")


def _guided_gradients(student) -> None:
    for velocity, x, sigma, labels, scale in WISHES:
        same_gradient(
            lambda a, r=(sigma, labels, scale), v=velocity: student(v, a, r[0], r[1].clone(), r[2]),
            lambda a, r=(sigma, labels, scale), v=velocity: _guidance(v, a, *r),
            (x,),
            names=("x",),
            atol=1e-5,
        )


def _guiding(start="without", way=1, empty=NO_LABEL, detach=False, blind=False):
    def guided(velocity, x, sigma, labels, scale):
        without = velocity(x, sigma, torch.full_like(labels, empty))
        with_ = velocity(x, sigma, labels)
        gap = way * (with_ - (without.detach() if detach else without))
        return (without if start == "without" else with_) + (0 if blind else scale * gap)

    return guided


GUIDED = Exercise(
    id="6.7",
    name="guided",
    points=2,
    reference=_guiding(),
    forbidden=FORBIDDEN,
    probes=lambda: [_fresh(given) for given in WISHES],
    properties=[
        Property("from without to with, and on", _guided_values),
        Property("scale 1 is the plain model, scale 0 the one without labels", _guided_marks),
        Property("the labels stay as they were", _guided_leaves,
                 "You write into labels, which the caller still needs. Make a new one: torch.full_like(labels, 10)."),
        Property("gradients reach x through both", _guided_gradients, "Do not detach: later labs train through this."),
    ],
    mistakes=[
        Mistake(
            "from with",
            "You start from the velocity with the label, so your scale is one too high: start from the one without.",
            wrong=_guiding(start="with"),
        ),
        Mistake(
            "turned",
            "You go away from the label: the difference is with minus without.",
            wrong=_guiding(way=-1),
        ),
        Mistake(
            "label 0 for none",
            "Label 0 is the digit zero. No label is NO_LABEL, which is 10.",
            wrong=_guiding(empty=0),
        ),
        Mistake("without only", "The label is not used at all: add scale times the difference.",
                wrong=_guiding(blind=True)),
        Mistake("with only", "You return the plain model, whatever the scale.",
                wrong=lambda velocity, x, sigma, labels, scale: velocity(x, sigma, labels)),
        Mistake("scales the whole", "You scale the whole velocity. Scale the difference that the label makes.",
                wrong=lambda velocity, x, sigma, labels, scale: scale * velocity(x, sigma, labels)),
        Mistake(
            "half detached",
            "No gradient flows through the velocity without a label. Do not detach it.",
            wrong=_guiding(detach=True),
        ),
    ],
)  # fmt: skip

EXERCISES = [MIX, LOSS, FOLLOW, ENDPOINTS, DDIM, REVERSE, GUIDED]
