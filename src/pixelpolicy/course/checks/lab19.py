"""Checks of lab 19: over-optimisation, its brakes and who decided, each against an independent formula."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Beta, Normal, kl_divergence

from pixelpolicy.course.comparing import Mismatch, same, same_gradient, tensors
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards")


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 19.1 The KL of best-of-n ----------------------------------------------------------------------------------------

COUNTS = [torch.tensor([1.0, 2.0, 4.0, 12.0]), torch.tensor([64.0, 3.0]), torch.tensor([1000.0])]
COUNTS = [count.double() for count in COUNTS]


def _rank_kl(n: Tensor) -> Tensor:
    """The best of n uniform ranks has the density of Beta(n, 1)."""
    one = torch.ones_like(n)
    return kl_divergence(Beta(n, one), Beta(one, one))


def _best_values(student) -> None:
    for n in COUNTS:
        same(student(n), _rank_kl(n), atol=1e-5)


def _best_of_one(student) -> None:
    same(student(torch.ones(2, dtype=torch.float64)), torch.zeros(2), what="keeping the best of one")


def _best_grows(student) -> None:
    values = student(torch.arange(1, 50, dtype=torch.float64))
    if not (values.diff() > 0).all() or not (values[1:] < torch.arange(2, 50).log()).all():
        raise Mismatch("more draws must cost more, and never as much as log n")


BEST_KL = Exercise(
    id="19.1",
    name="best_of_n_kl",
    points=1,
    reference="pixelpolicy.rl:best_of_n_kl",
    forbidden=FORBIDDEN,
    probes=lambda: [(n,) for n in COUNTS],
    properties=[
        Property("values are the KL of the best of n ranks to a uniform rank, in nats", _best_values),
        Property("the best of one is the base itself", _best_of_one),
        Property("it grows with n, and stays below log n", _best_grows),
    ],
    mistakes=[
        Mistake("log n", "log n would be a certain choice among n known pictures. Take away (n - 1) / n.",
                wrong=lambda n: n.log()),
        Mistake("1 / n", "You take away 1 / n. What is taken away is the *rest*, (n - 1) / n.",
                wrong=lambda n: n.log() - 1 / n),
        Mistake("bits", "That is in bits. Nats come of the natural logarithm.", wrong=lambda n: n.log2() - (n - 1) / n),
        Mistake("sign", "The sign is turned: a KL is never below 0.", wrong=lambda n: (n - 1) / n - n.log()),
        Mistake("sum", "Take (n - 1) / n away, do not add it.", wrong=lambda n: n.log() + (n - 1) / n),
        Mistake("n - 1", "Divide n - 1 by n before you take it away.", wrong=lambda n: n.log() - (n - 1)),
    ],
)  # fmt: skip

# 19.2 What best-of-n is worth ------------------------------------------------------------------------------------

POOLS = [
    (_normal(0, 2, 6), _normal(1, 2, 6), 3),
    (_normal(2, 3, 5), _normal(3, 3, 5), 1),
    (_normal(4, 1, 5), _normal(5, 1, 5), 5),
    (_normal(6, 2, 7), _normal(7, 2, 7), 2),
]


def _all_ways(proxy: Tensor, gold: Tensor, n: int) -> Tensor:
    """Every choice of n, one after another."""
    rows = []
    for said, worth in zip(proxy, gold, strict=True):
        ways = itertools.combinations(range(len(said)), n)
        kept = [worth[max(way, key=lambda i: said[i].item())] for way in ways]  # noqa: B023
        rows.append(torch.stack(kept).mean())
    return torch.stack(rows)


def _pool_values(student) -> None:
    for given in POOLS:
        same(student(*given), _all_ways(*given))


def _pool_gradient(student) -> None:
    for proxy, gold, n in POOLS:
        same_gradient(
            lambda g, p=proxy, m=n: student(p, g, m),
            lambda g, p=proxy, m=n: _all_ways(p, g, m),
            (gold,),
            names=("gold",),
        )


def _drawn(chances):
    """Weights of the ranks, lowest proxy first, by a function of rank, count and n."""

    def value(proxy: Tensor, gold: Tensor, n: int) -> Tensor:
        count = proxy.shape[1]
        weights = torch.tensor([chances(i, count, n) for i in range(count)], dtype=gold.dtype)
        return (gold.gather(1, proxy.argsort(1)) * weights).sum(1)

    return value


POOL = Exercise(
    id="19.2",
    name="expected_best",
    points=3,
    reference="pixelpolicy.rl:expected_best",
    forbidden=FORBIDDEN,
    probes=lambda: [(p.clone(), g.clone(), n) for p, g, n in POOLS],
    properties=[
        Property("values are the mean over every choice of n of the samples", _pool_values),
        Property("each sample counts by its chance to be kept", _pool_gradient),
    ],
    mistakes=[
        Mistake("best of all", "That is the best of the whole pool, for every n. Weigh the ranks.",
                wrong=lambda p, g, n: g.gather(1, p.argmax(1, keepdim=True))[:, 0]),
        Mistake("mean", "That is the mean of the pool: what n = 1 gives.", wrong=lambda p, g, n: g.mean(1)),
        Mistake("by gold", "You choose by gold. It is the *proxy* that chooses; gold only says what the choice is "
                "worth.",
                wrong=lambda p, g, n: _drawn(lambda i, c, n: math.comb(i, n - 1) / math.comb(c, n))(g, g, n)),
        Mistake("worth of the proxy", "You average the proxy. Gold of the chosen samples was asked for.",
                wrong=lambda p, g, n: _drawn(lambda i, c, n: math.comb(i, n - 1) / math.comb(c, n))(p, p, n)),
        Mistake("worst", "Turned round: the sample with the *highest* proxy wins.",
                wrong=lambda p, g, n: _drawn(lambda i, c, n: math.comb(i, n - 1) / math.comb(c, n))(-p, g, n)),
        Mistake("first n", "You look at the first n samples only. Average over all ways to choose n: far less noise.",
                wrong=lambda p, g, n: g.gather(1, p[:, :n].argmax(1, keepdim=True))[:, 0]),
        Mistake("put back", "That draws with putting back. Of the pool, n *different* samples are chosen.",
                wrong=_drawn(lambda i, c, n: ((i + 1) / c) ** n - (i / c) ** n)),
        Mistake("one off", "The others, n - 1 of them, come from *below* the winner: i of them where ranks begin at 0.",
                wrong=_drawn(lambda i, c, n: math.comb(i + 1, n - 1) / math.comb(c + 1, n))),
        Mistake("n of them", "The winner is one of the n: only n - 1 others come from below it.",
                wrong=_drawn(lambda i, c, n: math.comb(i, n) / math.comb(c, n + 1) if n < c else 0.0)),
    ],
)  # fmt: skip

# 19.3 Nats along a path ------------------------------------------------------------------------------------------

PATHS = [
    (_normal(10, 2, 3, 4), _normal(11, 2, 3, 4), torch.tensor([0.5, 1.5, 0.0]).double()),
    (_normal(12, 3, 1, 2, 2), _normal(13, 3, 1, 2, 2), torch.tensor([0.3]).double()),
    (_normal(14, 1, 2, 5), _normal(15, 1, 2, 5), torch.tensor([0.0, 0.8]).double()),
    (_normal(16, 2, 2, 3), _normal(16, 2, 2, 3), torch.tensor([1.0, 0.0]).double()),
]


def _path(means: Tensor, base_means: Tensor, stds: Tensor) -> Tensor:
    """Torch's own KL, number by number."""
    total = means.new_zeros(len(means))
    for step, std in enumerate(stds):
        if std > 0:
            gaps = kl_divergence(Normal(means[:, step], std), Normal(base_means[:, step], std))
            total = total + gaps.flatten(1).sum(1)
    return total


def _path_values(student) -> None:
    for given in PATHS:
        same(student(*given), _path(*given))


def _path_gradients(student) -> None:
    for means, base_means, stds in PATHS:
        same_gradient(
            lambda m, b, s=stds: student(m, b, s),
            lambda m, b, s=stds: _path(m, b, s),
            (means, base_means),
            names=("your means", "the base's means"),
        )


def _path_none(student) -> None:
    same(student(PATHS[0][0], PATHS[0][1], torch.zeros(3).double()), torch.zeros(2), what="a path without noise")


def _path_like(reduce=lambda x: x.flatten(1).sum(1), scale=lambda s: 2 * s**2, base=lambda b: b, skip=True):
    def value(means, base_means, stds):
        kept = stds > 0 if skip else torch.ones_like(stds, dtype=torch.bool)
        widths = scale(stds[kept]).reshape(-1, *[1] * (means.dim() - 2))
        return reduce((means[:, kept] - base(base_means[:, kept])) ** 2 / widths)

    return value


PATH = Exercise(
    id="19.3",
    name="path_kl",
    points=2,
    reference=_path,
    forbidden=FORBIDDEN,
    probes=lambda: [tuple(x.clone() for x in case) for case in PATHS],
    properties=[
        Property("values are the KL of whole paths, in nats", _path_values),
        Property("gradients reach both means, and are finite beside steps without noise", _path_gradients),
        Property("a path without noise has no KL to add", _path_none, "Return a zero for each sample."),
    ],
    mistakes=[
        Mistake("mean", "That is per number, as the brake in lab 10. Nats of a whole path are a *sum*, over steps and "
                "numbers.", wrong=_path_like(lambda x: x.flatten(1).mean(1))),
        Mistake("mean of steps", "Sum over the steps too: every step adds its own KL.",
                wrong=_path_like(lambda x: x.flatten(2).sum(2).mean(1))),
        Mistake("mean of numbers", "Sum over the numbers of a latent too.",
                wrong=_path_like(lambda x: x.flatten(2).mean(2).sum(1))),
        Mistake("no half", "A factor is off: divide by *twice* the variance.",
                wrong=_path_like(scale=lambda s: s**2)),
        Mistake("deviation", "Divide by twice the variance, the deviation *squared*.",
                wrong=_path_like(scale=lambda s: 2 * s)),
        Mistake("one number", "Return one number a sample: do not sum over the batch.",
                wrong=_path_like(lambda x: x.sum())),
        Mistake("base detached", "Both means depend on the weights: detach neither.",
                wrong=_path_like(base=lambda b: b.detach())),
        Mistake("no noise", "A step with deviation 0 has no density. Leave it out *before* you divide; a `where` "
                "afterwards keeps NaN in the gradient.",
                when=lambda f: not all(x.isfinite().all() for x in tensors(f(*PATHS[0])))),
    ],
)  # fmt: skip

# 19.4 Gao's curve ------------------------------------------------------------------------------------------------

DISTANCES = [
    torch.tensor([0.0, 0.7, 1.0, 2.5, 6.0, 11.0]),
    torch.tensor([0.0, 3.0, 5.0, 20.0]),
    torch.tensor([0.5, 4.0]),
]
TRUE = [(0.3, 0.12), (0.05, 0.02), (-0.1, -0.2)]
DISTANCES = [d.double() for d in DISTANCES]
NOISES = [_normal(20, 6), _normal(21, 4), torch.zeros(2).double()]


def _curves() -> list[tuple[Tensor, Tensor]]:
    cases = []
    for d, (alpha, beta), noise in zip(DISTANCES, TRUE, NOISES, strict=True):
        gain = d * alpha - beta * torch.where(d > 0, d * d.clamp_min(1e-300).log(), 0.0)
        cases.append((d, gain + 0.05 * noise))
    return cases


def _cramer(d: Tensor, gain: Tensor) -> tuple[float, float]:
    """The two normal equations, solved by determinants."""
    one, two = d, -torch.special.xlogy(d, d)
    a, b, c = (one * one).sum(), (one * two).sum(), (two * two).sum()
    e, f = (one * gain).sum(), (two * gain).sum()
    determinant = a * c - b * b
    return ((e * c - b * f) / determinant).item(), ((a * f - b * e) / determinant).item()


def _fit_values(student) -> None:
    for d, gain in _curves():
        alpha, beta = student(d, gain)
        same([float(alpha), float(beta)], list(_cramer(d, gain)), what="alpha and beta")


def _fit_exact(student) -> None:
    for d, (alpha, beta) in zip(DISTANCES, TRUE, strict=True):
        gain = d * alpha - beta * torch.special.xlogy(d, d)
        found = student(d, gain)
        same([float(x) for x in found], [alpha, beta], what="alpha and beta of a curve without noise")


def _least(columns, weights=lambda d: torch.ones_like(d)):
    """Least squares on other columns."""

    def fit(d: Tensor, gain: Tensor) -> tuple[float, float]:
        d, gain = d.detach(), gain.detach()
        weight = weights(d)[:, None]
        solution = np.linalg.lstsq((columns(d) * weight).numpy(), (gain[:, None] * weight).numpy(), rcond=None)[0]
        return float(solution[0, 0]), float(solution[1, 0])

    return fit


def _columns(bend):
    return lambda d: torch.stack([d, bend(d)], 1)


FIT = Exercise(
    id="19.4",
    name="fit_goodhart",
    points=2,
    reference="pixelpolicy.rl:fit_goodhart",
    forbidden=(*FORBIDDEN, "scipy"),
    probes=_curves,
    properties=[
        Property("alpha and beta are those of least squares", _fit_values),
        Property("a curve without noise is found exactly", _fit_exact),
    ],
    mistakes=[
        Mistake("best-of-n", "That bends with d squared, the form for best-of-n. Here it is d log d.",
                wrong=_least(_columns(lambda d: -d * d))),
        Mistake("sign", "beta has the wrong sign: it is what is taken *away*. Its column is minus d log d.",
                wrong=_least(_columns(lambda d: torch.special.xlogy(d, d)))),
        Mistake("log alone", "The second column is log d, without the d before it: d (alpha - beta log d).",
                wrong=_least(_columns(lambda d: -d.clamp_min(1e-9).log()))),
        Mistake("divided", "Dividing the gain by d first gives small distances more say than they have. Fit the gain "
                "itself.",
                wrong=_least(_columns(lambda d: -torch.special.xlogy(d, d)),
                             lambda d: torch.where(d > 0, 1 / d.clamp_min(1e-9), 0.0))),
        Mistake("intercept", "No third number: at distance 0 the gain is 0, so the curve has no intercept.",
                wrong=_least(lambda d: torch.stack([d, -torch.special.xlogy(d, d), torch.ones_like(d)], 1))),
        Mistake("base 10", "Another base of the logarithm gives another beta. Take the natural one.",
                wrong=_least(_columns(lambda d: -torch.special.xlogy(d, d) / math.log(10)))),
        Mistake("not a number", "At d = 0 the logarithm is minus infinity, but d log d goes to 0: `torch.xlogy(d, d)`.",
                when=lambda f: not all(math.isfinite(float(x)) for x in f(*_curves()[0]))),
    ],
)  # fmt: skip

# 19.5 A cautious committee ---------------------------------------------------------------------------------------

PANELS = [
    (_normal(30, 4, 3), 1.0),
    (_normal(31, 2, 5), 0.3),
    (_normal(32, 3, 2), 0.0),
    (torch.cat([_normal(33, 3, 1), torch.full((3, 2), 0.7, dtype=torch.float64)], 1), 0.5),
    (_normal(34, 1, 4), 2.0),
]


def _cautious(scores: Tensor, caution: float) -> Tensor:
    """Picture by picture, with the gradient of the spread left out where there is none."""
    bounds = []
    for column in scores.T:
        middle = column.sum() / len(column)
        variance = ((column - middle) ** 2).sum() / len(column)
        bounds.append(middle - (caution * variance.sqrt() if variance > 0 else 0.0))
    return torch.stack(bounds)


def _panel_values(student) -> None:
    for given in PANELS:
        same(student(*given), _cautious(*given), atol=2e-5)


def _panel_gradients(student) -> None:
    for scores, caution in PANELS:
        same_gradient(
            lambda s, c=caution: student(s, c),
            lambda s, c=caution: _cautious(s, c),
            (scores,),
            names=("the scores",),
            atol=1e-4,
        )


def _spread_with(spread, sign=-1):
    return lambda scores, caution: scores.mean(0) + sign * caution * spread(scores)


def _safe_std(scores: Tensor, correction: int = 0) -> Tensor:
    return (scores.var(0, correction=correction) + 1e-24).sqrt()


PANEL = Exercise(
    id="19.5",
    name="lower_bound",
    points=2,
    reference="pixelpolicy.rewards.ensemble:lower_bound",
    forbidden=FORBIDDEN,
    probes=lambda: [(s.clone(), c) for s, c in PANELS[:3]],
    properties=[
        Property("values are the mean less so many deviations, picture by picture", _panel_values),
        Property("gradients are right, and finite where all members agree", _panel_gradients),
    ],
    mistakes=[
        Mistake("sign", "You *add* the spread: that seeks what the members disagree on.",
                wrong=_spread_with(_safe_std, +1)),
        Mistake("no spread", "Where is the spread? The mean alone does not mind how far apart the members are.",
                wrong=lambda s, c: s.mean(0)),
        Mistake("corrected", "These members are all there are: divide by their number, not by one less "
                "(`correction=0`).", wrong=_spread_with(lambda s: _safe_std(s, 1))),
        Mistake("variance", "That is the variance. Take its root, so that the spread is in units of the score.",
                wrong=_spread_with(lambda s: s.var(0, correction=0))),
        Mistake("worst", "That is the worst member, whatever the caution.", wrong=lambda s, c: s.amin(0)),
        Mistake("of the batch", "The spread is taken over the pictures. Take it over the members, dimension 0.",
                wrong=lambda s, c: s.mean(0) - c * s.std(1, correction=0).mean()),
        Mistake("spread detached", "The value is right, but no gradient reaches the spread: nothing would steer away "
                "from where the members disagree.", wrong=_spread_with(lambda s: _safe_std(s).detach())),
        Mistake("infinite slope", "Where all members agree the root's slope is infinite, and the gradient NaN. Add a "
                "tiny number under the root, such as 1e-12.",
                when=lambda f: not _finite_where_they_agree(f)),
    ],
)  # fmt: skip


def _finite_where_they_agree(function) -> bool:
    scores = torch.full((3, 2), 0.7, requires_grad=True)
    (gradient,) = torch.autograd.grad(function(scores, 0.5).sum(), scores)
    return bool(gradient.isfinite().all())


# 19.6 When to stop asking ----------------------------------------------------------------------------------------

ASKED = [
    ([0.5, 0.6, 0.7, 0.6, 0.65, 0.9], 2),
    ([0.5, 0.6, 0.7, 0.6, 0.65, 0.9], 3),
    ([0.5, 0.5, 0.5, 0.5], 2),
    ([0.4], 1),
    ([0.9, 0.1, 0.2, 0.3, 0.95], 2),
    ([0.1, 0.2, 0.3], 5),
    ([0.5, 0.7, 0.6, 0.8, 0.7, 0.75], 2),
]


def _by_prefixes(golds: list[float], patience: int) -> tuple[int, int]:
    """The first prefix whose best lies ``patience`` queries back, or all."""
    for asked in range(1, len(golds) + 1):
        best = golds[:asked].index(max(golds[:asked]))
        if asked - 1 - best >= patience:
            return best, asked
    return golds.index(max(golds)), len(golds)


def _stop_values(student) -> None:
    for golds, patience in ASKED:
        same(tuple(student(list(golds), patience)), _by_prefixes(golds, patience), what=f"{golds}, patience {patience}")


def _stop_blind(student) -> None:
    """What comes after the stop must not matter: in a real run nobody has asked it."""
    golds = [0.5, 0.8, 0.7, 0.6]
    for later in ([0.0], [9.0, 1.0]):
        same(tuple(student(golds + later, 2)), (1, 4), what="with other answers after the stop")


def _stopping(better=lambda a, b: a > b, off=0, last=False, from_last=False, forever=False):
    def stop(golds: list[float], patience: int) -> tuple[int, int]:
        kept, worse = 0, 0
        for number, gold in enumerate(golds):
            against = golds[number - 1] if from_last and number else golds[kept]
            if number and not better(gold, against):
                worse += 1
            elif number:
                worse = 0
            if better(gold, golds[kept]):
                kept = number
            if worse >= patience and not forever:
                return (number if last else kept), number + 1 + off
        return (len(golds) - 1 if last else kept), len(golds) + (off if forever else 0)

    return stop


STOP = Exercise(
    id="19.6",
    name="early_stop",
    points=2,
    reference="pixelpolicy.rl:early_stop",
    forbidden=FORBIDDEN,
    probes=lambda: [(list(golds), patience) for golds, patience in ASKED],
    properties=[
        Property("the best before the stop is kept, and the queries are counted", _stop_values),
        Property("answers after the stop do not matter", _stop_blind),
    ],
    mistakes=[
        Mistake("sees the future", "You look at all answers before you stop. In a run the later ones do not exist yet.",
                wrong=lambda g, p: (g.index(max(g)), len(g))),
        Mistake("keeps the last", "You keep the weights at which you stopped. Keep the *best* you have seen.",
                wrong=_stopping(last=True)),
        Mistake("no patience", "You stop at the first query that is no better. A query has noise: wait for `patience` "
                "of them in a row.", wrong=lambda g, p: _stopping()(g, 1)),
        Mistake("keeps the later", "Of equal answers keep the first: no gain is no reason to go on.",
                wrong=_stopping(better=lambda a, b: a >= b)),
        Mistake("one off", "The count of queries is off by one: the query that made you stop was asked too.",
                wrong=_stopping(off=-1)),
        Mistake("against the last", "You compare with the query before. Compare with the best so far: a slow recovery "
                "is no new best.", wrong=_stopping(from_last=True)),
        Mistake("one too patient", "You wait for one query too many: stop *when* `patience` in a row were no better.",
                wrong=lambda g, p: _stopping()(g, p + 1)),
    ],
)  # fmt: skip

# 19.7 Who decided ------------------------------------------------------------------------------------------------

TREES = [_normal(40, 5, 3), _normal(41, 6, 1) + 0.5 * _normal(42, 6, 4), _normal(43, 3, 1).expand(3, 4).clone(),
         _normal(44, 2, 2), torch.ones(3, 5).double()]  # fmt: skip


def _analysis(rewards: Tensor) -> float:
    """One-way analysis of variance, by sums of squares in NumPy."""
    values = rewards.detach().numpy()
    states, branches = values.shape
    middles = values.mean(1)
    squares_between = branches * ((middles - values.mean()) ** 2).sum() / (states - 1)
    squares_within = ((values - middles[:, None]) ** 2).sum() / (states * (branches - 1))
    between = (squares_between - squares_within) / branches
    total = between + squares_within
    return float(between / total) if total > 0 else 0.0


def _tree_values(student) -> None:
    for rewards in TREES:
        same(float(student(rewards)), _analysis(rewards))


def _tree_chance(student) -> None:
    shares = [float(student(_normal(100 + n, 8, 3))) for n in range(200)]
    same(sum(shares) / len(shares), 0.0, atol=0.03, what="the mean share over 200 tables of pure chance")


def _share(within=lambda r: r.var(1).mean(), middle=lambda r: r.mean(1).var(), less=True, of=lambda b, w: b + w):
    def value(rewards: Tensor) -> float:
        rewards = rewards.detach()
        inner = within(rewards)
        between = middle(rewards) - (inner / rewards.shape[1] if less else 0)
        total = of(between, inner)
        return float(between / total) if total > 0 else 0.0

    return value


TREE = Exercise(
    id="19.7",
    name="explained_share",
    points=3,
    reference="pixelpolicy.rl:explained_share",
    forbidden=FORBIDDEN,
    probes=lambda: [(r.clone(),) for r in TREES],
    properties=[
        Property("values are those of a one-way analysis of variance", _tree_values),
        Property("pure chance gives 0 on average", _tree_chance),
    ],
    mistakes=[
        Mistake("biased", "Means of a few branches differ by chance alone: take the variance within, divided by the "
                "number of branches, away from theirs.", wrong=_share(less=False)),
        Mistake("plain total", "The total is to be the sum of both parts, and the part between states without bias; "
                "the variance of all values together is neither.",
                wrong=lambda r: (r.mean(1).var() / r.var()).item() if r.var() > 0 else 0.0),
        Mistake("within", "That is the share that the state does *not* decide. Take it from 1.",
                wrong=lambda r: 1 - _analysis(r) if r.var() > 0 else 0.0),
        Mistake("ratio", "That is between over within. A share is of the total, their sum.",
                wrong=_share(of=lambda b, w: w)),
        Mistake("transposed", "States and branches are exchanged: a row holds the branches of *one* state.",
                wrong=lambda r: _analysis(r.T)),
        Mistake("uncorrected", "Divide each variance by one less than the number it is taken over (torch's default).",
                wrong=_share(lambda r: r.var(1, correction=0).mean(), lambda r: r.mean(1).var(correction=0))),
        Mistake("not a number", "Where nothing varies at all, 0 / 0 is no number: return 0.",
                when=lambda f: not math.isfinite(float(f(torch.ones(3, 5))))),
    ],
)  # fmt: skip

EXERCISES = [BEST_KL, POOL, PATH, FIT, PANEL, STOP, TREE]
