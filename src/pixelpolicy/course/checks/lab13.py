"""Checks of lab 13: the pieces of DiffusionNFT and AWM, and of search, each against an independent formula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies")


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 13.1 From advantages to a degree of goodness --------------------------------------------------------------------

ADVANTAGES = torch.tensor([0.0, 1.0, -1.0, 2.5, 4.9, -4.9, 5.0, -5.0, 8.0, -30.0], dtype=torch.float64)
DEGREES = [(ADVANTAGES, 5.0), (ADVANTAGES, 2.0), (ADVANTAGES[:3], 1.0), (3 * ADVANTAGES.flip(0), 5.0)]


def _degree(advantages: Tensor, clip: float) -> Tensor:
    rows = [1.0 if a >= clip else 0.0 if a <= -clip else (a + clip) / (2 * clip) for a in advantages.tolist()]
    return torch.tensor(rows, dtype=advantages.dtype)


def _degree_values(student) -> None:
    for advantages, clip in DEGREES:
        same(student(advantages.clone(), clip), _degree(advantages, clip))


def _degree_bounds(student) -> None:
    values = student(100 * ADVANTAGES, 5.0)
    if values.min() < 0 or values.max() > 1:
        raise Mismatch(f"came out  values from {values.min():.3g} to {values.max():.3g}\nexpected  within [0, 1]")


def _degree_untouched(student) -> None:
    advantages = ADVANTAGES.clone()
    student(advantages, 5.0)
    same(advantages, ADVANTAGES, what="your function changed the advantages it was given")


OPTIMALITY = Exercise(
    id="13.1",
    name="optimality",
    points=1,
    reference=lambda a, clip: (a / clip).clamp(-1, 1) / 2 + 0.5,
    forbidden=FORBIDDEN,
    probes=lambda: [(advantages.clone(), clip) for advantages, clip in DEGREES],
    properties=[
        Property("a line from 0 at -clip through 1/2 at 0 to 1 at clip, flat outside", _degree_values),
        Property("never below 0 or above 1", _degree_bounds),
        Property("the advantages stay as they were", _degree_untouched, "Make a new tensor; clamp_ writes into one."),
    ],
    mistakes=[
        Mistake("no clamp", "Nothing is clamped: an advantage of 8 gives more than 1. A degree ends at 1.",
                wrong=lambda a, clip: a / clip / 2 + 0.5),
        Mistake("no shift", "Your values lie in [-1, 1]. Halve them, and add one half.",
                wrong=lambda a, clip: (a / clip).clamp(-1, 1)),
        Mistake("half missing", "The half is added, the halving is missing: a good sample gets more than 1.",
                wrong=lambda a, clip: (a / clip).clamp(-1, 1) + 0.5),
        Mistake("bad ones cut", "Every advantage below 0 becomes 0, as if all bad samples were equally bad, and the "
                "average one too.", wrong=lambda a, clip: (a / clip).clamp(0, 1)),
        Mistake("clamped first", "You clamp to 1 before you divide by clip: divide first.",
                wrong=lambda a, clip: a.clamp(-1, 1) / clip / 2 + 0.5),
        Mistake("sigmoid", "A sigmoid goes from 0 to 1 too, but the paper's line is straight and ends at clip.",
                wrong=lambda a, clip: torch.sigmoid(a / clip)),
        Mistake("sign", "The sign is turned: the best sample must be good to the degree 1.",
                wrong=lambda a, clip: 0.5 - (a / clip).clamp(-1, 1) / 2),
    ],
)  # fmt: skip

# 13.2 Two velocities from one ------------------------------------------------------------------------------------

PAIRS = [
    (_normal(0, 2, 3), _normal(1, 2, 3), 0.5),
    (_normal(2, 3, 2, 2, 2), _normal(3, 3, 2, 2, 2), 1.0),
    (_normal(4, 1, 5), _normal(5, 1, 5), 0.1),
    (_normal(6, 2, 4), _normal(6, 2, 4), 2.0),
]


def _mixed(velocity: Tensor, old: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    step = beta * (velocity - old.detach())
    return old.detach() + step, old.detach() - step


def _mixed_values(student) -> None:
    for velocity, old, beta in PAIRS:
        same(student(velocity, old, beta), _mixed(velocity, old, beta))


def _mixed_gradients(student) -> None:
    for velocity, old, beta in PAIRS:
        same_gradient(
            lambda v, o=old, b=beta: torch.stack(tuple(student(v, o, b))),
            lambda v, o=old, b=beta: torch.stack(_mixed(v, o, b)),
            (velocity,),
            names=("velocity",),
        )


def _old_is_fixed(student) -> None:
    for velocity, old, beta in PAIRS:
        same_gradient(
            lambda o, v=velocity, b=beta: torch.stack(tuple(student(v, o, b))),
            lambda o: 0 * o.detach(),
            (old,),
            names=("old",),
        )


def _no_gradient(student) -> bool:
    velocity, old, beta = PAIRS[0]
    outcomes = student(velocity.clone().requires_grad_(), old, beta)
    same(outcomes, _mixed(velocity, old, beta))
    return not any(outcome.requires_grad for outcome in outcomes)


def _mirror(student) -> None:
    for velocity, old, beta in PAIRS:
        positive, negative = student(velocity, old, beta)
        same((positive + negative) / 2, old, what="half way between the two")


MIXED = Exercise(
    id="13.2",
    name="implicit_velocities",
    points=2,
    reference=_mixed,
    forbidden=FORBIDDEN,
    probes=lambda: PAIRS,
    properties=[
        Property("the positive velocity lies beta of the way from the old to the new, the negative as far behind",
                 _mixed_values),
        Property("the old velocity is half way between them", _mirror),
        Property("gradients reach the new velocity, with opposite signs", _mixed_gradients,
                 "Do not detach velocity: it is what training moves."),
        Property("no gradient reaches the old velocity", _old_is_fixed, "The old policy is a fact: old.detach()."),
    ],
    mistakes=[
        Mistake("swapped", "The two are exchanged: first the positive, then the negative.",
                wrong=lambda v, o, b: _mixed(v, o, b)[::-1]),
        Mistake("beta turned", "beta weighs the new velocity, 1 - beta the old.",
                wrong=lambda v, o, b: (b * o.detach() + (1 - b) * v, (1 + b) * o.detach() - b * v)),
        Mistake("no mirror", "The negative one is no mirror image: it is (1 + beta) old - beta velocity.",
                wrong=lambda v, o, b: (b * v + (1 - b) * o.detach(), o.detach() - b * v)),
        Mistake("one minus", "The weight of the old one in the negative is 1 + beta, not 1 - beta: the weights must "
                "add up to 1.", wrong=lambda v, o, b: (b * v + (1 - b) * o.detach(), (1 - b) * o.detach() - b * v)),
        Mistake("minus the positive", "The negative is not minus the positive. Mirror it at the old velocity, not at "
                "zero.", wrong=lambda v, o, b: (b * v + (1 - b) * o.detach(), -(b * v + (1 - b) * o.detach()))),
        Mistake("old not fixed", "The values are right, but a gradient reaches the old velocity. Detach it.",
                wrong=lambda v, o, b: (b * v + (1 - b) * o, (1 + b) * o - b * v)),
        Mistake("new detached", "The values are right, but no gradient reaches the new velocity: do not detach it.",
                when=_no_gradient),
    ],
)  # fmt: skip

# 13.3 NFT's loss -------------------------------------------------------------------------------------------------


def _nft_case(seed: int, *shape: int, beta: float, good: list[float], sigma: list[float]) -> tuple:
    tensor = [_normal(seed + k, *shape) for k in range(4)]
    return *tensor, torch.tensor(sigma).double(), torch.tensor(good).double(), beta


def _exact() -> tuple:
    """The first sample's positive guess is its picture to the bit."""
    positive, negative, state, x0, sigma, good, beta = _nft_case(
        30, 2, 3, beta=1.0, good=[1.0, 0.25], sigma=[0.5, 1.0])  # fmt: skip
    state, positive = state.clone(), positive.clone()
    positive[0] = torch.tensor([1.0, -2.0, 0.5])
    state[0] = x0[0] + 0.5 * positive[0]
    return (
        positive,
        negative,
        state,
        state - sigma[:, None] * positive * torch.tensor([[1.0], [0.0]]),
        sigma,
        good,
        beta,
    )


NFT_CASES = [
    _nft_case(0, 3, 2, 2, 2, beta=1.0, good=[1.0, 0.0, 0.7], sigma=[0.3, 0.9, 0.5]),
    _nft_case(10, 2, 5, beta=0.5, good=[0.5, 0.2], sigma=[1.0, 0.01]),
    _nft_case(20, 1, 4, beta=0.1, good=[0.9], sigma=[0.6]),
    _exact(),
]


def _nft(positive, negative, state, x0, sigma, good, beta) -> Tensor:
    total = positive.new_zeros(())
    for i in range(len(x0)):
        for velocity, share in ((positive, good[i]), (negative, 1 - good[i])):
            gap = (state[i] - sigma[i] * velocity[i] - x0[i]).flatten()
            size = max(math.fsum(abs(x) for x in gap.tolist()) / gap.numel(), 1e-5)
            total = total + share * (gap @ gap) / gap.numel() / size
    return total / len(x0) / beta


def _nft_values(student) -> None:
    for case in NFT_CASES:
        same(student(*case), _nft(*case))


def _nft_gradients(student) -> None:
    for positive, negative, *rest in NFT_CASES:
        same_gradient(lambda p, n, r=rest: student(p, n, *r), lambda p, n, r=rest: _nft(p, n, *r),
                      (positive, negative), names=("positive", "negative"))  # fmt: skip


def _nft_shares(student) -> None:
    positive, negative, state, x0, sigma, good, beta = NFT_CASES[0]
    far = negative + 100
    one = torch.ones_like(good)
    same(student(positive, far, state, x0, sigma, one, beta), student(positive, negative, state, x0, sigma, one, beta),
         what="where all samples are good the negative velocity does not count")  # fmt: skip


def _picture_error(norm="detached", leap=True, reduce="mean"):
    def error(velocity, state, x0, sigma):
        level = sigma.reshape(-1, *[1] * (x0.ndim - 1))
        gap = (state - (level * velocity if leap else velocity) - x0).flatten(1)
        squares = gap.square().mean(1) if reduce == "mean" else gap.square().sum(1)
        size = gap.abs().mean(1).clamp_min(1e-5)
        batch = gap.abs().mean().clamp_min(1e-5)
        return squares / {"detached": size.detach(), "live": size, "none": 1.0, "batch": batch.detach()}[norm]

    return error


def _nft_of(error=None, swap=False, over_beta=True):
    error = error or _picture_error()

    def loss(positive, negative, state, x0, sigma, good, beta):
        good = 1 - good if swap else good
        both = good * error(positive, state, x0, sigma) + (1 - good) * error(negative, state, x0, sigma)
        return both.mean() / (beta if over_beta else 1)

    return loss


NFT = Exercise(
    id="13.3",
    name="nft_loss",
    points=3,
    reference=_nft_of(),
    forbidden=FORBIDDEN,
    probes=lambda: NFT_CASES,
    properties=[
        Property("values are those of the two weighed picture errors, over beta", _nft_values),
        Property("gradients reach both velocities, and not through the size that is divided by", _nft_gradients),
        Property("where a sample is good, only the positive velocity counts", _nft_shares),
    ],
    mistakes=[
        Mistake("size not detached", "The values are right, the gradient is not: the size you divide by must be a "
                "plain number to it. Detach it.", wrong=_nft_of(_picture_error("live"))),
        Mistake("no size", "Divide each sample's squared error by its mean absolute error.",
                wrong=_nft_of(_picture_error("none"))),
        Mistake("size of the batch", "The size is each sample's own: average over its numbers, not over the batch.",
                wrong=_nft_of(_picture_error("batch"))),
        Mistake("no sigma", "The guessed picture is state - sigma * velocity; your sigma is missing.",
                wrong=_nft_of(_picture_error(leap=False))),
        Mistake("shares exchanged", "The shares are exchanged: good weighs the positive velocity, 1 - good the "
                "negative.", wrong=_nft_of(swap=True)),
        Mistake("no beta", "Divide by beta, or a small beta would train slowly.", wrong=_nft_of(over_beta=False)),
        Mistake("sum", "Take the mean over a sample's numbers, not the sum.",
                wrong=_nft_of(_picture_error(reduce="sum"))),
        Mistake("good alone", "The bad samples are not used: add (1 - good) times the error of the negative velocity.",
                wrong=lambda p, n, s, x, v, g, b: (g * _picture_error()(p, s, x, v)).mean() / b),
    ],
)  # fmt: skip

# 13.4 AWM's loss -------------------------------------------------------------------------------------------------

MATCHING = [
    (_normal(0, 4, 2, 3), _normal(1, 4, 2, 3), _normal(2, 4, 2, 3), torch.tensor([1.0, -2.0, 0.25, 0.5]).double()),
    (_normal(3, 1, 5), _normal(4, 1, 5), _normal(5, 1, 5), torch.tensor([-1.5]).double()),
    (_normal(6, 2, 2, 2, 2), _normal(7, 2, 2, 2, 2), _normal(8, 2, 2, 2, 2), torch.tensor([3.0, 3.0]).double()),
]


def _awm(velocity, x0, x1, advantages) -> Tensor:
    total = velocity.new_zeros(())
    for i, advantage in enumerate(advantages.tolist()):
        gap = (velocity[i] + x0[i] - x1[i]).flatten()
        total = total + advantage * (gap @ gap) / gap.numel()
    return total / len(x0)


def _awm_values(student) -> None:
    for case in MATCHING:
        same(student(*case), _awm(*case))


def _awm_gradients(student) -> None:
    for velocity, *rest in MATCHING:
        same_gradient(lambda v, r=rest: student(v, *r), lambda v, r=rest: _awm(v, *r), (velocity,), names=("velocity",))


def _errors(velocity, x0, x1):
    return (velocity - (x1 - x0)).square().flatten(1).mean(1)


AWM = Exercise(
    id="13.4",
    name="awm_loss",
    points=2,
    reference=lambda v, x0, x1, a: (a * _errors(v, x0, x1)).mean(),
    forbidden=FORBIDDEN,
    probes=lambda: MATCHING,
    properties=[
        Property("values are the matching errors weighed by the advantages, bad samples included", _awm_values),
        Property("a good sample pulls the velocity, a bad one pushes it", _awm_gradients),
    ],
    mistakes=[
        Mistake("target turned", "The velocity points from the picture to the noise: x1 - x0.",
                wrong=lambda v, x0, x1, a: (a * _errors(v, x1, x0)).mean()),
        Mistake("good only", "Samples with a negative advantage are left out. They push: keep their sign.",
                wrong=lambda v, x0, x1, a: (a.clamp_min(0) * _errors(v, x0, x1)).mean()),
        Mistake("absolute", "Every sample pulls, the bad ones too: do not take the absolute value of the advantage.",
                wrong=lambda v, x0, x1, a: (a.abs() * _errors(v, x0, x1)).mean()),
        Mistake("softmax", "The weight is the advantage itself. A softmax turns bad samples into examples.",
                wrong=lambda v, x0, x1, a: (a.softmax(0) * _errors(v, x0, x1)).sum()),
        Mistake("sign", "The error is a loss already: a good sample's must *fall*. No minus.",
                wrong=lambda v, x0, x1, a: -(a * _errors(v, x0, x1)).mean()),
        Mistake("mean times mean", "Weigh each sample's own error, then average; do not multiply two averages.",
                wrong=lambda v, x0, x1, a: a.mean() * _errors(v, x0, x1).mean()),
        Mistake("sum", "Take the mean over a sample's numbers, not the sum.",
                wrong=lambda v, x0, x1, a: (a * (v - (x1 - x0)).square().flatten(1).sum(1)).mean()),
    ],
)  # fmt: skip

# 13.5 Importance weights -----------------------------------------------------------------------------------------

REWARDS = [
    (torch.tensor([[0.2, 0.9, 0.5], [1.0, 1.0, 0.0]]).double(), 0.5),
    (torch.tensor([[3.0, -2.0, 0.0, 1.0]]).double(), 2.0),
    (torch.tensor([[0.7]]).double(), 0.1),
    (torch.tensor([[5.0, 900.0], [-900.0, -901.0]]).double(), 1.0),
]


def _weights(rewards: Tensor, beta: float) -> Tensor:
    rows = []
    for row in rewards.tolist():
        counts = [math.exp(max((r - max(row)) / beta, -700)) for r in row]
        rows.append([count / math.fsum(counts) for count in counts])
    return torch.tensor(rows, dtype=rewards.dtype)


def _weights_values(student) -> None:
    for rewards, beta in REWARDS[:3]:
        same(student(rewards, beta), _weights(rewards, beta))


def _weights_finite(student) -> None:
    same(student(*REWARDS[3]), _weights(*REWARDS[3]), what="rewards of many hundreds")


def _weights_rows(student) -> None:
    for rewards, beta in REWARDS[:3]:
        same(student(rewards, beta).sum(1), torch.ones(len(rewards)), what="the sum of each prompt's weights")


WEIGHTS = Exercise(
    id="13.5",
    name="importance_weights",
    points=1,
    reference="pixelpolicy.finetune.search:importance_weights",
    forbidden=FORBIDDEN,
    probes=lambda: REWARDS[:3],
    properties=[
        Property("weights in proportion to exp(reward / beta)", _weights_values),
        Property("the weights of a prompt add up to 1", _weights_rows),
        Property("large rewards do not overflow", _weights_finite, "Take the largest reward of the row away before "
                 "you take the exponential: it cancels in the quotient. torch.softmax does."),
    ],
    mistakes=[
        Mistake("across prompts", "Normalise along dimension 1, over the draws of one prompt; not over prompts.",
                wrong=lambda r, b: (r / b).softmax(0)),
        Mistake("all together", "Each prompt's weights add up to 1, not those of the whole table.",
                wrong=lambda r, b: (r / b).exp() / (r / b).exp().sum()),
        Mistake("times beta", "Divide the rewards by beta; a small beta must be choosier.",
                wrong=lambda r, b: (r * b).softmax(1)),
        Mistake("no exponential", "The weight grows as the exponential of the reward, not as the reward.",
                wrong=lambda r, b: (r / b) / (r / b).sum(1, keepdim=True)),
        Mistake("not normalised", "Divide by the sum of the row.", wrong=lambda r, b: (r / b).exp()),
        Mistake("sign", "The sign is turned: the best draw must weigh most.", wrong=lambda r, b: (-r / b).softmax(1)),
    ],
)  # fmt: skip

# 13.6 Systematic resampling --------------------------------------------------------------------------------------

COMBS = [
    (torch.tensor([0.1, 0.55, 0.05, 0.3]).double(), 0.3, 8),
    (torch.tensor([0.25, 0.25, 0.25, 0.25]).double(), 0.5, 4),
    (torch.tensor([0.0, 0.7, 0.0, 0.3]).double(), 0.0, 4),
    (torch.tensor([1.0]).double(), 0.9, 3),
    (torch.tensor([0.2, 0.5, 0.3]).double(), 0.95, 5),
    (torch.tensor([0.6, 0.4]).double(), 0.5, 1),
]


def _comb(weights: Tensor, offset: float, count: int) -> list[int]:
    """Walk along the draws, laid end to end, and note at each tooth on which one we stand."""
    chosen, draw, end = [], 0, float(weights[0])
    for tooth in range(count):
        while (tooth + offset) / count >= end and draw < len(weights) - 1:
            draw += 1
            end += float(weights[draw])
        chosen.append(draw)
    return chosen


def _whole(numbers) -> list[int]:
    return [int(number) for number in numbers]


def _comb_values(student) -> None:
    for weights, offset, count in COMBS:
        same(_whole(student(weights, offset, count)), _comb(weights, offset, count), what=f"offset {offset}")


def _comb_counts(student) -> None:
    weights, _, count = COMBS[0]
    for offset in (0.01, 0.37, 0.62, 0.99):
        chosen = _whole(student(weights, offset, count))
        for number, weight in enumerate(weights.tolist()):
            if abs(chosen.count(number) - count * weight) >= 1:
                raise Mismatch(f"came out  draw {number} {chosen.count(number)} times\n"
                               f"expected  {count * weight:.2f} times, rounded down or up")  # fmt: skip


def _comb_dead(student) -> None:
    for offset in (0.0, 0.5):
        chosen = _whole(student(COMBS[2][0], offset, 4))
        if set(chosen) - {1, 3}:
            raise Mismatch(f"came out  {chosen}\nexpected  no draw whose weight is 0")


def _comb_even(student) -> None:
    same(_whole(student(*COMBS[1])), [0, 1, 2, 3], what="equal weights keep everyone")


# A last tooth that rounding puts on the line's end, and a line that rounding ends before its last tooth.
ENDS = [
    (torch.tensor([0.3, 0.7]), 0.99999999, 4),
    (torch.tensor([0.3, 0.6999999]).double(), 0.9999999999, 3),
]


def _comb_end(student) -> None:
    for weights, offset, count in ENDS:
        same(_whole(student(weights, offset, count)), _comb(weights, offset, count), what=f"offset {offset}")


def _comb_no_chance(student) -> None:
    torch.manual_seed(1)
    first = _whole(student(*COMBS[0]))
    torch.manual_seed(2)
    same(_whole(student(*COMBS[0])), first, what="the same offset again")


def _search(weights, teeth, right=True):
    return torch.searchsorted(weights.cumsum(0), teeth, right=right).clamp_max(len(weights) - 1)


def _rounded(weights, offset, count):
    times = (count * weights).round().long().tolist()
    return torch.tensor([number for number, n in enumerate(times) for _ in range(n)])


RESAMPLE = Exercise(
    id="13.6",
    name="systematic_resample",
    points=3,
    reference=lambda w, offset, count: _search(w, (torch.arange(count) + offset).to(w.dtype) / count),
    forbidden=FORBIDDEN,
    probes=lambda: COMBS,
    properties=[
        Property("each tooth of the comb takes the draw it stands on", _comb_values),
        Property("a draw is taken as often as it weighs, rounded down or up", _comb_counts),
        Property("a draw of weight 0 is never taken", _comb_dead, "A tooth on the border belongs to the draw that "
                 "begins there: searchsorted with right=True."),
        Property("equal weights keep every draw once", _comb_even),
        Property("the offset alone decides", _comb_no_chance, "All chance is in offset; draw nothing yourself."),
        Property("a tooth behind the last border takes the last draw", _comb_end, "Rounding can leave the last border "
                 "at 0.9999999: clamp the numbers to the last draw's."),
    ],
    mistakes=[
        Mistake("offset of a whole comb", "The offset moves the comb by a share of the gap between two teeth: "
                "(tooth + offset) / count.",
                wrong=lambda w, o, n: _search(w, (torch.arange(n).to(w.dtype) / n + o) % 1)),
        Mistake("no offset", "The offset is not used: draws at the far ends would never have their chance.",
                wrong=lambda w, o, n: _search(w, torch.arange(n).to(w.dtype) / n)),
        Mistake("borders", "A tooth on the border belongs to the draw that begins there: searchsorted with "
                "right=True.", wrong=lambda w, o, n: _search(w, (torch.arange(n) + o).to(w.dtype) / n, right=False)),
        Mistake("rounded", "You round the expected numbers. They need not add up to count, and a small weight never "
                "has its chance.", wrong=_rounded),
        Mistake("the best", "You take the heaviest draws, each once. Take each as often as it weighs.",
                wrong=lambda w, o, n: w.argsort(descending=True)[:n]),
        Mistake("no sum", "You search among the weights. Lay them end to end first: cumsum.",
                wrong=lambda w, o, n: torch.searchsorted(w, (torch.arange(n) + o).to(w.dtype) / n, right=True)
                .clamp_max(len(w) - 1)),
        Mistake("last tooth", "Your teeth reach from end to end, linspace(0, 1, count); they are (tooth + offset) / "
                "count.", wrong=lambda w, o, n: _search(w, torch.linspace(0, 1, n, dtype=w.dtype))),
    ],
)  # fmt: skip

# 13.7 Potentials -------------------------------------------------------------------------------------------------

HISTORY = torch.tensor([[0.1, 0.8, 0.4], [0.6, 0.5, 0.4], [0.3, 0.9, 0.2], [0.7, 0.2, 0.5]], dtype=torch.float64)
LOOKS = [
    (HISTORY[:looks], kind, strength, last)
    for kind in ("difference", "max", "sum")
    for looks, strength in ((1, 10.0), (2, 3.0), (4, 10.0))
    for last in (False, True)
]


def _potential(history: Tensor, kind: str, strength: float, last: bool) -> Tensor:
    columns = []
    for column in history.T.tolist():
        running = {"max": lambda seen: max(seen), "sum": lambda seen: math.fsum(seen)}
        if kind == "difference":
            value = column[-1] - (column[-2] if len(column) > 1 else 0)
        elif last:
            value = column[-1] - math.fsum(running[kind](column[: k + 1]) for k in range(len(column) - 1))
        else:
            value = running[kind](column)
        columns.append(strength * value)
    return torch.tensor(columns, dtype=history.dtype)


def _potential_values(student, wanted) -> None:
    for history, kind, strength, last in LOOKS:
        if wanted(kind, last):
            same(student(history.clone(), kind, strength, last), _potential(history, kind, strength, last),
                 what=f"{kind}, {len(history)} looks{', the last' if last else ''}")  # fmt: skip


def _target(student) -> None:
    for kind in ("difference", "max", "sum"):
        total = sum(student(HISTORY[: k + 1], kind, 10.0, k == 3) for k in range(4))
        same(total, 10 * HISTORY[-1], what=f"{kind}: all potentials of a particle together")


def _wrong_potential(first=True, corrected=True, strength_used=True, running=None):
    def potential(history, kind, strength, last):
        strength = strength if strength_used else 1.0
        if kind == "difference":
            before = history[-2] if len(history) > 1 else (0 * history[-1] if first else history[-1])
            return strength * (history[-1] - before)
        found = running(history, kind) if running else (
            history.cummax(0).values if kind == "max" else history.cumsum(0))  # fmt: skip
        return strength * (history[-1] - found[:-1].sum(0) if last and corrected else found[-1])

    return potential


POTENTIAL = Exercise(
    id="13.7",
    name="log_potential",
    points=3,
    reference="pixelpolicy.finetune.search:log_potential",
    forbidden=FORBIDDEN,
    probes=lambda: LOOKS,
    properties=[
        Property("difference: what was gained since the look before",
                 lambda s: _potential_values(s, lambda kind, last: kind == "difference")),
        Property("max and sum: the best look, all looks together",
                 lambda s: _potential_values(s, lambda kind, last: kind != "difference" and not last)),
        Property("at the last look, what was counted before is taken away",
                 lambda s: _potential_values(s, lambda kind, last: kind != "difference" and last)),
        Property("over its whole history a particle is weighed by its last reward alone", _target),
    ],
    mistakes=[
        Mistake("first look", "At the first look there is nothing before: difference compares it with 0.",
                wrong=_wrong_potential(first=False)),
        Mistake("not corrected", "At the last look, max and sum must take away all that earlier looks have counted.",
                wrong=_wrong_potential(corrected=False)),
        Mistake("no strength", "Multiply with strength.", wrong=_wrong_potential(strength_used=False)),
        Mistake("max of all", "The maximum runs over the looks of one particle: history.cummax(0), or max over "
                "dimension 0.", wrong=_wrong_potential(running=lambda h, kind: h.cumsum(0) if kind == "sum" else
                torch.stack([h[: k + 1].max().expand(h.shape[1]) for k in range(len(h))]))),
        Mistake("mean", "You take the mean over the looks; sum means the sum.",
                wrong=_wrong_potential(running=lambda h, kind: h.cummax(0).values if kind == "max" else
                h.cumsum(0) / torch.arange(1, len(h) + 1)[:, None])),
        Mistake("present only", "max and sum look at the whole history, not at the latest look alone.",
                wrong=_wrong_potential(running=lambda h, kind: h)),
        Mistake("since the first", "difference compares with the look just before, not with the first.",
                wrong=lambda h, kind, s, last: s * (h[-1] - h[0] if len(h) > 1 else h[-1])
                if kind == "difference" else _wrong_potential()(h, kind, s, last)),
    ],
)  # fmt: skip

# 13.8 Noise that stays noise -------------------------------------------------------------------------------------

NOISES = [_normal(0, 3, 2, 3, 3), 2 * _normal(1, 1, 8), 0.2 * _normal(2, 2, 4, 4), 5 * _normal(3, 2, 20)]


def _density(noise: Tensor) -> Tensor:
    rows = [row.flatten() for row in noise]
    return torch.stack([((len(z) - 1) * z.norm().log() - z @ z / 2) / len(z) for z in rows])


def _density_values(student) -> None:
    for noise in NOISES:
        same(student(noise), _density(noise))


def _density_gradients(student) -> None:
    for noise in NOISES:
        same_gradient(student, _density, (noise,), names=("noise",))


def _density_peak(student) -> None:
    direction = _normal(4, 1, 50)
    direction = direction / direction.norm()
    lengths = torch.tensor([3.0, 6.0, 7.0, 8.0, 12.0]).double()
    values = torch.cat([student(length * direction) for length in lengths])
    same(int(values.argmax()), 2, what="of 50 numbers, the likeliest of the lengths 3, 6, 7, 8, 12 is number")


def _of_length(log=True, size=lambda d: d - 1, square=True, per=True, half=True):
    def density(noise):
        rows = noise.flatten(1)
        d, n = rows.shape[1], rows.norm(dim=1)
        value = (size(d) * n.log() if log else 0) - (n**2 if square else n) / (2 if half else 1)
        return value / (d if per else 1)

    return density


DENSITY = Exercise(
    id="13.8",
    name="noise_log_density",
    points=2,
    reference="pixelpolicy.finetune.search:noise_log_density",
    forbidden=FORBIDDEN,
    probes=lambda: [(noise,) for noise in NOISES],
    properties=[
        Property("values are those of the density of a normal vector's length, per dimension", _density_values),
        Property("the likeliest length is sqrt(d - 1), not 0", _density_peak),
        Property("gradients make noise that is too long shorter, and too short longer", _density_gradients),
    ],
    mistakes=[
        Mistake("point, not length", "That is the density of the point: greatest at zero, a picture of nothing. The "
                "length has (d - 1) log |z| besides.", wrong=_of_length(log=False)),
        Mistake("d", "The power of the length is d - 1.", wrong=_of_length(size=lambda d: d)),
        Mistake("no square", "The length is squared in the second term.", wrong=_of_length(square=False)),
        Mistake("no half", "The squared length is halved.", wrong=_of_length(half=False)),
        Mistake("not per dimension", "Divide by the number of dimensions.", wrong=_of_length(per=False)),
        Mistake("one number", "Return one number a sample: keep dimension 0.",
                wrong=lambda noise: _of_length()(noise).mean()),
        Mistake("detached", "The values are right, but no gradient reaches the noise.",
                wrong=lambda noise: _density(noise.detach())),
    ],
)  # fmt: skip

EXERCISES = [OPTIMALITY, MIXED, NFT, AWM, WEIGHTS, RESAMPLE, POTENTIAL, DENSITY]
