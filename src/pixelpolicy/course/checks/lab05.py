"""Checks of lab 05: alignment in seven short functions, each against sums written out in plain Python."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pixelpolicy.course.comparing import Mismatch, alike, fingerprint, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.control")


def _numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _chances(count: int, seed: int = 0) -> Tensor:
    return _numbers(count, seed=seed).softmax(0)


# 5.1 The best that a leash allows ------------------------------------------------------------------------------

TILTS = [
    (_chances(4), _numbers(4, seed=1), 0.5),
    (_chances(7, 2), 3 * _numbers(7, seed=3), 2.0),
    (torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), torch.tensor([1.0, 1.0, -2.0], dtype=torch.float64), 0.1),
]


def _tilt(p: Tensor, rewards: Tensor, beta: float) -> Tensor:
    raw = [a * math.exp(r / beta) for a, r in zip(p.tolist(), rewards.tolist(), strict=True)]
    return torch.tensor([value / math.fsum(raw) for value in raw], dtype=p.dtype)


def _tilt_values(student) -> None:
    for p, rewards, beta in TILTS:
        same(student(p, rewards, beta), _tilt(p, rewards, beta))


def _tilt_ends(student) -> None:
    p, rewards = TILTS[0][:2]
    same(student(p, rewards, 1e6), p, atol=1e-5, what="a beta without end changes nothing")
    best = F.one_hot(rewards.argmax(), 4).double()
    same(student(p, rewards, 1e-3), best, atol=1e-5, what="next to no beta leaves the best alone")


def _tilt_impossible(student) -> None:
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    rewards = torch.tensor([0.0, 1.0, 5.0], dtype=torch.float64)
    want = torch.tensor([1 / (1 + math.e), math.e / (1 + math.e), 0.0], dtype=torch.float64)
    same(student(p, rewards, 1.0), want, what="what the reference never draws")


def _tilt_large(student) -> None:
    p, rewards = torch.tensor([0.9, 0.1], dtype=torch.float64), torch.tensor([1000.0, 1001.0], dtype=torch.float64)
    odds = 0.1 / 0.9 * math.e
    want = torch.tensor([1 / (1 + odds), odds / (1 + odds)], dtype=torch.float64)
    same(student(p, rewards, 1.0), want, what="rewards of a thousand")


def _normal(raw: Tensor) -> Tensor:
    return raw / raw.sum()


TILT = Exercise(
    id="5.1",
    name="tilt",
    points=2,
    reference="pixelpolicy.rl:tilted",
    forbidden=FORBIDDEN,
    probes=lambda: [(p.clone(), rewards.clone(), beta) for p, rewards, beta in TILTS],
    properties=[
        Property("every probability is p e^(r / beta), and they add up to 1", _tilt_values),
        Property("a large beta gives p back, a small one the best outcome", _tilt_ends),
        Property("what the reference never draws stays impossible", _tilt_impossible),
        Property(
            "rewards of a thousand do not overflow",
            _tilt_large,
            "e^1000 is infinite. Stay among logarithms: softmax of log p + r / beta divides by Z by itself.",
        ),
    ],
    mistakes=[
        Mistake(
            "no reference",
            "The reference is missing: weigh e^(r / beta) by p, or the policy forgets all it knew.",
            wrong=lambda p, r, b: (r / b + 0 * p).softmax(-1),
        ),
        Mistake("not normalised", "The probabilities do not add up to 1: divide by Z.",
                wrong=lambda p, r, b: p * (r / b).exp()),
        Mistake("times beta", "You multiply the reward by beta. A large beta is a short leash: divide.",
                wrong=lambda p, r, b: (p.log() + r * b).softmax(-1)),
        Mistake("logarithm missing", "Inside the softmax stand logarithms: log p, not p.",
                wrong=lambda p, r, b: (p + r / b).softmax(-1)),
        Mistake("sign", "The sign is turned: a higher reward must make an outcome likelier.",
                wrong=lambda p, r, b: (p.log() - r / b).softmax(-1)),
        Mistake("no exponential", "The reward must be exponentiated: p e^(r / beta), not p (1 + r / beta).",
                wrong=lambda p, r, b: _normal(p * (1 + r / b))),
    ],
)  # fmt: skip

# 5.2 Weighted imitation ----------------------------------------------------------------------------------------

WEIGHTED = [
    (_numbers(5) - 2, _numbers(5, seed=1), 0.5),
    (_numbers(8, seed=2) - 1, 2 * _numbers(8, seed=3), 3.0),
    (torch.tensor([-1.0, -2.0], dtype=torch.float64), torch.tensor([0.3, 0.3], dtype=torch.float64), 0.1),
]


def _weighted(log_probs: Tensor, rewards: Tensor, beta: float) -> Tensor:
    raw = [math.exp(r / beta) for r in rewards.tolist()]
    total = log_probs.new_zeros(())
    for weight, log_prob in zip(raw, log_probs, strict=True):
        total = total - weight / math.fsum(raw) * log_prob
    return total


def _weighted_values(student) -> None:
    for log_probs, rewards, beta in WEIGHTED:
        same(student(log_probs, rewards, beta), _weighted(log_probs, rewards, beta))


def _weighted_gradients(student) -> None:
    for log_probs, rewards, beta in WEIGHTED:
        same_gradient(
            lambda x, r=rewards, b=beta: student(x, r, b),
            lambda x, r=rewards, b=beta: _weighted(x, r, b),
            (log_probs,),
            names=("log_probs",),
        )


def _weighted_frozen(student) -> None:
    log_probs = WEIGHTED[0][0].clone().requires_grad_()
    rewards = (2 * log_probs).exp()  # a reward that depends on the policy, as one that pays for a leash does
    (gradient,) = torch.autograd.grad(student(log_probs, rewards, 1.0), log_probs)
    weights = rewards.detach().softmax(0)
    same(gradient, -weights, what="the gradient where the rewards carry one of their own")


def _weighted_large(student) -> None:
    log_probs, rewards = WEIGHTED[2][0], torch.tensor([1000.0, 1000.0], dtype=torch.float64)
    same(student(log_probs, rewards, 1.0), 1.5, what="rewards of a thousand")


def _imitate(weights, sign=-1, reduce=lambda x: x.sum()):
    return lambda log_probs, rewards, beta: sign * reduce(weights(rewards.detach(), beta) * log_probs)


WEIGHTS = Exercise(
    id="5.2",
    name="weighted_loss",
    points=2,
    reference="pixelpolicy.control.alignment:weighted_loss",
    forbidden=FORBIDDEN,
    probes=lambda: [(x.clone(), r.clone(), b) for x, r, b in WEIGHTED],
    properties=[
        Property("each log-probability counts by its share of e^(r / beta)", _weighted_values),
        Property("gradients reach the log-probabilities", _weighted_gradients, "Do not detach the log-probabilities."),
        Property("the weights carry no gradient", _weighted_frozen, "Detach the weights: they say what to imitate."),
        Property("rewards of a thousand do not overflow", _weighted_large, "A softmax makes shares and is safe."),
    ],
    mistakes=[
        Mistake("sign", "This is an objective to climb; the optimiser descends. Turn the sign.",
                wrong=_imitate(lambda r, b: (r / b).softmax(0), sign=1)),
        Mistake("raw", "The weights must be shares that add up to 1: divide e^(r / beta) by its sum.",
                wrong=_imitate(lambda r, b: (r / b).exp())),
        Mistake("raw mean", "The weights must be shares: do not average e^(r / beta), divide it by its sum.",
                wrong=_imitate(lambda r, b: (r / b).exp(), reduce=torch.mean)),
        Mistake("mean of shares", "Shares add up to 1 already: sum, or the loss shrinks with the batch.",
                wrong=_imitate(lambda r, b: (r / b).softmax(0), reduce=torch.mean)),
        Mistake("times beta", "Divide the reward by beta: a small beta must imitate the best alone.",
                wrong=_imitate(lambda r, b: (r * b).softmax(0))),
        Mistake("rewards as weights", "The weights are exponentials: a negative reward would push a sample away.",
                wrong=_imitate(lambda r, b: r / b, reduce=torch.mean)),
        Mistake("no beta", "beta is not used: the weights are e^(r / beta).",
                wrong=_imitate(lambda r, b: r.softmax(0))),
        Mistake("probabilities", "Weigh the log-probabilities, not the probabilities.",
                wrong=lambda x, r, b: -((r / b).softmax(0) * x.exp()).sum()),
    ],
)  # fmt: skip

# 5.3 Who wins? -------------------------------------------------------------------------------------------------

PAIRS = [
    (_numbers(6), _numbers(6, seed=1)),
    (4 * _numbers(3, seed=2), 4 * _numbers(3, seed=3)),
    (torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)),
]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _surprise(winner: Tensor, loser: Tensor) -> Tensor:
    total = winner.new_zeros(())
    for gap in winner - loser:
        total = total + torch.log1p(torch.exp(-gap))
    return total / len(winner)


def _surprise_values(student) -> None:
    for winner, loser in PAIRS:
        same(student(winner, loser), _surprise(winner, loser))


def _surprise_gradients(student) -> None:
    for pair in PAIRS:
        same_gradient(student, _surprise, pair, names=("reward_winner", "reward_loser"))


def _surprise_shift(student) -> None:
    winner, loser = PAIRS[0]
    same(student(winner + 7, loser + 7), _surprise(winner, loser), what="both rewards raised by 7")


def _surprise_large(student) -> None:
    far = torch.tensor([900.0], dtype=torch.float64)
    same(student(-far, far), 1800.0, what="a pair judged wrong by 1800")


BRADLEY_TERRY = Exercise(
    id="5.3",
    name="bradley_terry_loss",
    points=2,
    reference="pixelpolicy.rl:bradley_terry_loss",
    forbidden=FORBIDDEN,
    probes=lambda: [(w.clone(), lost.clone()) for w, lost in PAIRS],
    properties=[
        Property("the loss is how surprised the rewards are by who won, on average", _surprise_values),
        Property("gradients reach both rewards", _surprise_gradients, "Both rewards come from the model: detach none."),
        Property("only the difference counts", _surprise_shift),
        Property(
            "a pair judged badly wrong gives a large loss, not an infinite one",
            _surprise_large,
            "log(sigmoid(x)) is log(0) far out. torch.nn.functional.logsigmoid stays exact.",
        ),
    ],
    mistakes=[
        Mistake("sign", "A likelihood is climbed, a loss descended: put a minus before it.",
                wrong=lambda w, lost: F.logsigmoid(w - lost).mean()),
        Mistake("turned pair", "You train the loser to win: the difference is winner less loser.",
                wrong=lambda w, lost: -F.logsigmoid(lost - w).mean()),
        Mistake("no logarithm", "The logarithm is missing: without it, pairs judged badly wrong teach next to nothing.",
                wrong=lambda w, lost: -torch.sigmoid(w - lost).mean()),
        Mistake("mean inside", "Each pair has its own sigmoid. Take the mean last, or pairs cancel before they count.",
                wrong=lambda w, lost: -F.logsigmoid((w - lost).mean())),
        Mistake("sum", "Average over the pairs, do not sum.", wrong=lambda w, lost: -F.logsigmoid(w - lost).sum()),
        Mistake("hinge", "This is a hinge. Bradley and Terry have log sigmoid of the difference.",
                wrong=lambda w, lost: F.relu(1 - (w - lost)).mean()),
        Mistake("one side", "No gradient reaches the loser's reward. Leave both as they are.",
                wrong=lambda w, lost: -F.logsigmoid(w - lost.detach()).mean()),
    ],
)  # fmt: skip

# 5.4 A reward with a leash -------------------------------------------------------------------------------------

LEASHED = [
    (_numbers(5), _numbers(5, seed=1) - 2, _numbers(5, seed=2) - 2, 0.5),
    (3 * _numbers(4, seed=3), _numbers(4, seed=4), _numbers(4, seed=5), 2.0),
    (torch.ones(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64), 0.1),
]


def _leashed(rewards: Tensor, log_probs: Tensor, refs: Tensor, beta: float) -> Tensor:
    rows = zip(rewards.tolist(), log_probs.tolist(), refs.tolist(), strict=True)
    return torch.tensor([r - beta * (new - ref) for r, new, ref in rows], dtype=rewards.dtype)


def _leashed_values(student) -> None:
    for case in LEASHED:
        same(student(*case), _leashed(*case))


def _leashed_level(student) -> None:
    p, rewards, beta = TILTS[0]
    q = _tilt(p, rewards, beta)
    level = beta * math.log(
        math.fsum(a * math.exp(r / beta) for a, r in zip(p.tolist(), rewards.tolist(), strict=True))
    )
    same(student(rewards, q.log(), p.log(), beta), torch.full((4,), level, dtype=torch.float64),
         what="at p e^(r / beta) / Z every outcome must be worth beta log Z")  # fmt: skip


def _leashed_frozen(student) -> None:
    rewards, log_probs, refs, beta = LEASHED[0]
    out = student(rewards, log_probs.clone().requires_grad_(), refs, beta)
    if isinstance(out, Tensor) and out.requires_grad:
        raise Mismatch("came out  rewards that carry a gradient\nexpected  numbers that carry none")


LEASH = Exercise(
    id="5.4",
    name="leashed_rewards",
    points=2,
    reference="pixelpolicy.control.alignment:leashed",
    forbidden=FORBIDDEN,
    probes=lambda: [tuple(x.clone() if isinstance(x, Tensor) else x for x in case) for case in LEASHED],
    properties=[
        Property("a nat of distance costs beta", _leashed_values),
        Property("at the closed form all outcomes are worth the same", _leashed_level),
        Property("the result is a reward: no gradient passes", _leashed_frozen, "End with .detach()."),
    ],
    mistakes=[
        Mistake("bonus", "You pay for distance. It must cost: subtract.",
                wrong=lambda r, new, ref, b: (r + b * (new - ref)).detach()),
        Mistake("no reference", "The reference is missing: that is a bonus for entropy, not a leash.",
                wrong=lambda r, new, ref, b: (r - b * new).detach()),
        Mistake("absolute", "The log-ratio keeps its sign: what the policy does less than the reference earns.",
                wrong=lambda r, new, ref, b: (r - b * (new - ref).abs()).detach()),
        Mistake("divided", "beta is a price a nat: multiply the log-ratio by it.",
                wrong=lambda r, new, ref, b: (r - (new - ref) / b).detach()),
        Mistake("no beta", "beta is not used.", wrong=lambda r, new, ref, b: (r - (new - ref)).detach()),
        Mistake("one number", "Each sample pays for its own distance; do not average.",
                wrong=lambda r, new, ref, b: (r - b * (new - ref).mean()).detach()),
        Mistake("ratio", "Take the difference of the logarithms, not the ratio of the probabilities.",
                wrong=lambda r, new, ref, b: (r - b * (new - ref).exp()).detach()),
        Mistake("gradient", "The values are right, but a gradient passes. A reward has none: end with .detach().",
                wrong=lambda r, new, ref, b: r - b * (new - ref)),
    ],
)  # fmt: skip

# 5.5 DPO -------------------------------------------------------------------------------------------------------

CHOICES = [
    (*(_numbers(6, seed=s) - 3 for s in range(4)), 0.5),
    (*(3 * _numbers(4, seed=s) - 5 for s in range(4, 8)), 2.0),
    (*(torch.full((1,), -1.0, dtype=torch.float64) for _ in range(4)), 0.1),
]


def _dpo(winner: Tensor, loser: Tensor, ref_winner: Tensor, ref_loser: Tensor, beta: float) -> Tensor:
    total = winner.new_zeros(())
    for win, lose, ref_win, ref_lose in zip(winner, loser, ref_winner.detach(), ref_loser.detach(), strict=True):
        total = total + torch.log1p(torch.exp(-beta * (win - ref_win) + beta * (lose - ref_lose)))
    return total / len(winner)


def _dpo_values(student) -> None:
    for case in CHOICES:
        same(student(*case), _dpo(*case))


def _dpo_gradients(student) -> None:
    names = ("log_probs_winner", "log_probs_loser")
    for winner, loser, *rest in CHOICES:
        same_gradient(
            lambda won, lost, r=rest: student(won, lost, *r),
            lambda won, lost, r=rest: _dpo(won, lost, *r),
            (winner, loser),
            names=names,
        )


def _dpo_start(student) -> None:
    winner, loser = CHOICES[0][:2]
    same(student(winner, loser, winner.clone(), loser.clone(), 0.3), math.log(2), what="before any training")


def _dpo_cancelling(student) -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    want = (math.log1p(math.exp(-3)) + math.log1p(math.exp(3))) / 2
    same(
        student(torch.tensor([3.0, -3.0], dtype=torch.float64), zero, zero, zero, 1.0), want, what="two opposite pairs"
    )


def _dpo_by(margin, combine=lambda beta, m: -F.logsigmoid(beta * m).mean()):
    """Whether a student's loss is this one; whether a gradient reaches the reference is not asked."""

    def made_by(student) -> bool:
        def answers(loss):
            return [fingerprint(lambda w, lost, r=rest: loss(w, lost, *r), lambda p=pair: [p]) for *pair, rest in cases]

        cases = [(case[0], case[1], case[2:]) for case in CHOICES]
        wrong = answers(lambda w, lost, rw, rl, beta: combine(beta, margin(w, lost, rw, rl)))
        return all(alike(one, other) for one, other in zip(answers(student), wrong, strict=True))

    return made_by


def _right(w, lost, rw, rl):  # noqa: E741
    return (w - rw) - (lost - rl)


DPO = Exercise(
    id="5.5",
    name="dpo_loss",
    points=3,
    reference="pixelpolicy.rl:dpo_loss",
    forbidden=FORBIDDEN,
    properties=[
        Property("the reward that the policy implies explains who won", _dpo_values),
        Property("the winner is drawn up, the loser down, most where the order is wrong", _dpo_gradients),
        Property("an untrained policy is undecided: log 2", _dpo_start),
        Property("pairs that cancel still count", _dpo_cancelling),
    ],
    mistakes=[
        Mistake("mean inside", "Each pair has its own sigmoid: the mean of logsigmoid, not logsigmoid of the mean.",
                when=_dpo_by(_right, lambda b, m: -F.logsigmoid((b * m).mean()))),
        Mistake("no reference", "The reference is missing: the implied reward is beta times the log-ratio to it.",
                when=_dpo_by(lambda w, lost, rw, rl: w - lost)),
        Mistake("turned pair", "Winner and loser are exchanged: you train it to prefer what lost.",
                when=_dpo_by(lambda w, lost, rw, rl: (lost - rl) - (w - rw))),
        Mistake("reference turned", "The reference has the wrong sign: compare each sample with its own reference.",
                when=_dpo_by(lambda w, lost, rw, rl: (w + rw) - (lost + rl))),
        Mistake("divided", "Multiply the margin by beta: the implied reward is beta log(p / p_ref).",
                when=_dpo_by(_right, lambda b, m: -F.logsigmoid(m / b).mean())),
        Mistake("beta outside", "beta belongs inside the sigmoid.",
                when=_dpo_by(_right, lambda b, m: -b * F.logsigmoid(m).mean())),
        Mistake("no beta", "beta is not used.", when=_dpo_by(_right, lambda b, m: -F.logsigmoid(m).mean())),
        Mistake("sign", "A likelihood is climbed, a loss descended: put a minus before it.",
                when=_dpo_by(_right, lambda b, m: F.logsigmoid(b * m).mean())),
        Mistake("sum", "Average over the pairs, do not sum.",
                when=_dpo_by(_right, lambda b, m: -F.logsigmoid(b * m).sum())),
        Mistake("no logarithm", "The logarithm is missing before the mean.",
                when=_dpo_by(_right, lambda b, m: -torch.sigmoid(b * m).mean())),
    ],
)  # fmt: skip

# 5.6 The group as its own measure ------------------------------------------------------------------------------

REWARDS = torch.tensor([0.1, 0.9, 0.4, 2.0, 2.5, 1.0, 0.3, 0.3, 0.3], dtype=torch.float64)
GROUPS = torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3])
SHUFFLED = torch.tensor([4, 0, 8, 2, 6, 1, 5, 3, 7])


def _advantages(rewards: Tensor, groups: Tensor, scale: str = "group") -> Tensor:
    rows, out = list(zip(rewards.tolist(), groups.tolist(), strict=True)), []
    for reward, group in rows:
        mine = [r for r, g in rows if g == group]
        mean = math.fsum(mine) / len(mine)
        spread = math.sqrt(math.fsum((r - mean) ** 2 for r in mine) / len(mine)) + 1e-4
        out.append((reward - mean) / (spread if scale == "group" else 1))
    return torch.tensor(out, dtype=rewards.dtype)


def _centred(student) -> None:
    for rewards, groups in ((REWARDS, GROUPS), (10 * REWARDS[:3], GROUPS[:3]), (-REWARDS, GROUPS)):
        same(student(rewards.clone(), groups, scale="none"), _advantages(rewards, groups, "none"))


def _scaled(student) -> None:
    for rewards, groups in ((REWARDS, GROUPS), (10 * REWARDS[:3], GROUPS[:3]), (-REWARDS, GROUPS)):
        same(student(rewards.clone(), groups, scale="group"), _advantages(rewards, groups), atol=2e-4)


def _default(student) -> None:
    same(student(REWARDS.clone(), GROUPS), _advantages(REWARDS, GROUPS), atol=2e-4, what="without a word on the scale")


def _any_order(student) -> None:
    for scale in ("none", "group"):
        got = student(REWARDS[SHUFFLED], GROUPS[SHUFFLED], scale=scale)
        same(got, _advantages(REWARDS, GROUPS, scale)[SHUFFLED], atol=2e-4)


def _untouched(student) -> None:
    rewards = REWARDS.clone()
    student(rewards, GROUPS.clone(), scale="none")
    same(rewards, REWARDS, what="your function changed the rewards it was given")


def _by_group(centre, spread):
    def advantages(rewards, groups, scale="group"):
        out = torch.zeros_like(rewards)
        for group in groups.unique():
            mine = rewards[groups == group]
            divisor = spread(mine, rewards) if scale == "group" else 1
            out[groups == group] = centre(mine, rewards) / divisor
        return out

    return advantages


def _deviation(mine, _):
    return mine.std(correction=0) + 1e-4


def _less_mean(mine, _):
    return mine - mine.mean()


ADVANTAGES = Exercise(
    id="5.6",
    name="group_advantages",
    points=2,
    reference="pixelpolicy.rl:group_advantages",
    forbidden=FORBIDDEN,
    probes=lambda: [(REWARDS.clone(), GROUPS), (REWARDS[SHUFFLED], GROUPS[SHUFFLED])],
    properties=[
        Property("scale='none': the mean of its group is taken from each reward", _centred),
        Property("scale='group': and the rest is divided by the group's deviation", _scaled),
        Property("scale='group' is what happens if nobody says anything", _default),
        Property("the order of the samples does not matter", _any_order, "Find the members by groups == group."),
        Property("the rewards stay as they were", _untouched, "Write into a new tensor, not into rewards."),
    ],
    mistakes=[
        Mistake("whole batch", "You compare with the whole batch: use the mean of each sample's own group.",
                wrong=lambda r, g, scale="group": (r - r.mean()) / (_deviation(r, r) if scale == "group" else 1)),
        Mistake("sample deviation", "Your standard deviation divides by n - 1. Divide by n: pass correction=0.",
                wrong=_by_group(_less_mean, lambda mine, _: mine.std() + 1e-4)),
        Mistake("batch deviation", "The mean is the group's, the deviation the batch's. Take both from the group.",
                wrong=_by_group(_less_mean, lambda _, every: every.std(correction=0) + 1e-4)),
        Mistake("variance", "You divide by the variance. Take its square root.",
                wrong=_by_group(_less_mean, lambda mine, _: mine.var(correction=0) + 1e-4)),
        Mistake("sign", "The sign is turned: the best of a group must have the largest advantage.",
                wrong=_by_group(lambda mine, _: mine.mean() - mine, _deviation)),
        Mistake("mean kept", "The deviation is divided out, the mean is still there.",
                wrong=_by_group(lambda mine, _: mine, _deviation)),
        Mistake("never scaled", "scale='group' does nothing yet: divide by the group's standard deviation there.",
                wrong=_by_group(_less_mean, lambda mine, _: 1)),
        Mistake("always scaled", "With scale='none' nothing may be divided: only the mean goes.",
                when=lambda f: torch.allclose(f(REWARDS.clone(), GROUPS, scale="none"), f(REWARDS.clone(), GROUPS))
                and torch.allclose(f(REWARDS.clone(), GROUPS), _advantages(REWARDS, GROUPS), atol=1e-3)),
    ],
)  # fmt: skip

# 5.7 What a proxy is worth -------------------------------------------------------------------------------------

FRONTIERS = [
    (_chances(5), _numbers(5, seed=1), _numbers(5, seed=2), torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64)),
    (_chances(9, 3), 2 * _numbers(9, seed=4), _numbers(9, seed=5), torch.tensor([0.5], dtype=torch.float64)),
]


def _frontier(p: Tensor, proxy: Tensor, gold: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    kls, values = [], []
    for beta in betas.tolist():
        q = _tilt(p, proxy, beta).tolist()
        kls.append(math.fsum(a * math.log(a / b) for a, b in zip(q, p.tolist(), strict=True)))
        values.append(math.fsum(a * g for a, g in zip(q, gold.tolist(), strict=True)))
    return torch.tensor(kls, dtype=p.dtype), torch.tensor(values, dtype=p.dtype)


def _parts(student, case) -> tuple[Tensor, Tensor]:
    found = student(*case)
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise Mismatch(
            f"came out  {type(found).__name__}\nexpected  two tensors: KL and gold, one number a beta in each"
        )
    return found


def _frontier_gold(student) -> None:
    for case in FRONTIERS:
        same(_parts(student, case)[1], _frontier(*case)[1], what="the mean of gold")


def _frontier_kl(student) -> None:
    for case in FRONTIERS:
        same(_parts(student, case)[0], _frontier(*case)[0], what="the KL to p")


def _frontier_start(student) -> None:
    p, proxy, gold, _ = FRONTIERS[0]
    kl, value = _parts(student, (p, proxy, gold, torch.tensor([1e7], dtype=torch.float64)))
    same(kl, torch.zeros(1, dtype=torch.float64), atol=1e-6, what="the KL where nothing is optimised")
    same(value, (p * gold).sum()[None], atol=1e-5, what="gold where nothing is optimised")


def _frontier_honest(student) -> None:
    p, _, gold, _ = FRONTIERS[1]
    betas = torch.tensor([8.0, 2.0, 0.5, 0.1], dtype=torch.float64)
    kl, value = _parts(student, (p, gold, gold, betas))
    if (torch.as_tensor(kl).diff() <= 0).any() or (torch.as_tensor(value).diff() <= 0).any():
        raise Mismatch("with gold as its own proxy, both must rise as beta falls")


def _walk(q_of, kl_of, value_of):
    def frontier(p, proxy, gold, betas):
        q = q_of(p, proxy, gold, betas[:, None])
        return kl_of(q, p), value_of(q, proxy, gold)

    return frontier


def _q(p, proxy, gold, betas):
    return (p.log() + proxy / betas).softmax(-1)


def _kl(q, p):
    return (q * (q / p).log()).sum(-1)


def _gold(q, proxy, gold):
    return (q * gold).sum(-1)


FRONTIER = Exercise(
    id="5.7",
    name="frontier",
    points=3,
    reference=_walk(_q, _kl, _gold),
    forbidden=FORBIDDEN,
    probes=lambda: [tuple(x.clone() for x in case) for case in FRONTIERS],
    properties=[
        Property("gold is averaged over the policy that the proxy made", _frontier_gold),
        Property("KL is the distance of that policy from p", _frontier_kl),
        Property("without pressure nothing changes", _frontier_start),
        Property("an honest proxy is never over-optimised", _frontier_honest),
    ],
    mistakes=[
        Mistake("proxy judged", "You report the proxy's own opinion. Average gold: the proxy is what may be fooled.",
                wrong=_walk(_q, _kl, lambda q, proxy, gold: (q * proxy).sum(-1))),
        Mistake("gold optimised", "You tilt by gold. Nobody has gold to optimise: tilt by the proxy, judge by gold.",
                wrong=_walk(lambda p, proxy, gold, b: _q(p, gold, gold, b), _kl, _gold)),
        Mistake("other way", "That is KL(p || q). The distance travelled is KL(q || p), averaged over q.",
                wrong=_walk(_q, lambda q, p: (p * (p / q).log()).sum(-1), _gold)),
        Mistake("sign of KL", "Your KL is negative: it is the mean of log(q / p).",
                wrong=_walk(_q, lambda q, p: -_kl(q, p), _gold)),
        Mistake("entropy", "The reference is missing from the KL: average log q - log p.",
                wrong=_walk(_q, lambda q, p: (q * q.log()).sum(-1), _gold)),
        Mistake("times beta", "You multiply the proxy by beta; divide.",
                wrong=_walk(lambda p, proxy, gold, b: (p.log() + proxy * b).softmax(-1), _kl, _gold)),
        Mistake("no reference", "p is missing from the tilt: q is p e^(proxy / beta) / Z.",
                wrong=_walk(lambda p, proxy, gold, b: (proxy / b).softmax(-1), _kl, _gold)),
        Mistake("turned round", "The two are exchanged: KL first, then gold.",
                wrong=lambda *case: _walk(_q, _kl, _gold)(*case)[::-1]),
    ],
)  # fmt: skip

EXERCISES = [TILT, WEIGHTS, BRADLEY_TERRY, LEASH, DPO, ADVANTAGES, FRONTIER]
