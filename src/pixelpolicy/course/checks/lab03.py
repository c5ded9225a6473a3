"""Checks of lab 03: the policy gradient, each piece against enumeration or a formula written another way."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.control")


def _normal(seed: int, *shape: int, dtype=torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# 3.1 The score of a choice ------------------------------------------------------------------------------------

CHOICES = [
    (torch.tensor([[1.0, 0.0, -1.5]]).repeat(3, 1), torch.arange(3)),
    (_normal(0, 5, 4).float(), torch.tensor([3, 0, 0, 2, 1])),
    (torch.tensor([[30.0, -30.0], [-30.0, 30.0]]), torch.tensor([0, 0])),
]


def _score_values(student) -> None:
    for logits, chosen in CHOICES:
        leaf = logits.clone().requires_grad_()
        total = sum(row[k] - row.logsumexp(0) for row, k in zip(leaf, chosen.tolist(), strict=True))
        same(student(logits, chosen), torch.autograd.grad(total, leaf)[0])


def _score_mean(student) -> None:
    logits = CHOICES[0][0]
    got = torch.as_tensor(student(*CHOICES[0]))
    mean = sum(p * row for p, row in zip(logits[0].softmax(0), got, strict=True))
    same(mean, torch.zeros(3), what="the expected score, over the policy's own choices")


def _score_rows(student) -> None:
    got = torch.as_tensor(student(*CHOICES[1]))
    same(got.sum(-1), torch.zeros(5), what="the sum of each row")


def _one_hot(logits: Tensor, chosen: Tensor) -> Tensor:
    return (torch.arange(logits.shape[1]) == chosen[:, None]).to(logits)


def _score(logits: Tensor, chosen: Tensor) -> Tensor:
    return _one_hot(logits, chosen) - logits.softmax(1)


SCORE = Exercise(
    id="3.1",
    name="score",
    points=2,
    reference=_score,
    forbidden=FORBIDDEN,
    probes=lambda: CHOICES,
    properties=[
        Property("it is the gradient of the log-probability", _score_values, "It is logit - logsumexp: two slopes."),
        Property("its expectation is zero", _score_mean),
        Property("each row sums to zero", _score_rows),
    ],
    mistakes=[
        Mistake(
            "sign",
            "The sign is turned: along its score the chosen action gets likelier, so its own entry is positive.",
            wrong=lambda logits, chosen: logits.softmax(1) - _one_hot(logits, chosen),
        ),
        Mistake(
            "no normaliser",
            "The sum below the quotient depends on every logit. Its logarithm has a slope too: take the softmax off.",
            wrong=_one_hot,
        ),
        Mistake(
            "of the probability",
            "This is the gradient of the probability. That of its logarithm has no factor of pi in front.",
            wrong=lambda logits, chosen: logits.softmax(1).gather(1, chosen[:, None]) * _score(logits, chosen),
        ),
        Mistake(
            "chosen entry only",
            "Only the chosen action's entry is there. The others fall when it rises: return one number an action.",
            wrong=lambda logits, chosen: 1 - logits.softmax(1).gather(1, chosen[:, None])[:, 0],
        ),
        Mistake(
            "chosen probability",
            "You take the chosen action's probability off every entry. Entry k loses its own probability, pi_k.",
            wrong=lambda logits, chosen: (
                _one_hot(logits, chosen) - logits.softmax(1).gather(1, chosen[:, None])
            ),
        ),
        Mistake(
            "over the batch",
            "The softmax runs over the batch. Each row is a policy of its own: take it along the last dimension.",
            wrong=lambda logits, chosen: _one_hot(logits, chosen) - logits.softmax(0),
        ),
    ],
)  # fmt: skip

# 3.2 The loss -------------------------------------------------------------------------------------------------

BATCHES = [
    (torch.tensor([-1.0, -2.5, -0.3, -1.7]), torch.tensor([1.0, 0.0, -0.5, 2.0])),
    (torch.tensor([[-0.2, -1.1, -3.0], [-2.0, -0.4, -0.9]]), torch.tensor([[1.5, -2.0, 0.0], [3.0, 1.0, -1.0]])),
    (torch.tensor([-0.7]), torch.tensor([5.0])),
]
WIDE = (torch.tensor([[-0.2, -1.1, -3.0], [-2.0, -0.4, -0.9]]), torch.tensor([[2.0], [-1.0]]))
LOGITS, REWARDS = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64), torch.tensor([5.0, 7.0, 4.0]).double()


def _loss(log_probs: Tensor, advantages: Tensor) -> Tensor:
    """Number by number."""
    pairs = zip(log_probs.flatten(), advantages.expand_as(log_probs).flatten().tolist(), strict=True)
    return sum((-a * p for p, a in pairs), log_probs.new_zeros(())) / log_probs.numel()


def _loss_kind(student) -> None:
    same(tuple(torch.as_tensor(student(*BATCHES[0])).shape), (), what="the shape of the loss")


def _loss_slopes(student) -> None:
    for given in BATCHES:
        same_gradient(student, _loss, given, names=("log_probs", "advantages"))


def _loss_wide(student) -> None:
    same(student(*WIDE), _loss(*WIDE), what="advantages [batch, 1] beside log_probs [batch, steps]")


def _loss_exact(student) -> None:
    """All actions, each weighed by its probability: the loss's slope is the slope of the expected reward."""
    probabilities, logits = LOGITS.softmax(0), LOGITS.clone().requires_grad_()
    loss = student(logits.log_softmax(0), 3 * probabilities * REWARDS)
    got = torch.zeros(3).double()
    if torch.is_tensor(loss) and loss.requires_grad:
        got = -torch.autograd.grad(loss.sum(), logits)[0]
    exact = probabilities * (REWARDS - (probabilities * REWARDS).sum())
    same(got, exact, what="minus the gradient over all actions, each weighed by its probability")


def _losing(terms=lambda p, a: a.detach() * p, reduce=torch.mean, sign=-1):
    return lambda log_probs, advantages: sign * reduce(terms(log_probs, advantages))


def _held(log_probs: Tensor, advantages: Tensor) -> Tensor:
    centred = advantages - advantages.mean()
    return -(centred.detach() * log_probs).mean()


def _detached_log_probs(student) -> bool:
    log_probs, advantages = (x.clone().requires_grad_() for x in BATCHES[0])
    loss = student(log_probs, advantages)
    if not torch.allclose(torch.as_tensor(loss).detach(), _loss(*BATCHES[0])):
        return False
    slopes = torch.autograd.grad(loss, log_probs, allow_unused=True) if loss.requires_grad else (None,)
    return slopes[0] is None


LOSS = Exercise(
    id="3.2",
    name="policy_gradient_loss",
    points=3,
    reference="pixelpolicy.rl:policy_gradient_loss",
    forbidden=(*FORBIDDEN, "pixelpolicy.finetune"),
    probes=lambda: [*BATCHES, WIDE],
    properties=[
        Property("a loss is one number", _loss_kind),
        Property("each log-probability is weighed by its advantage, which gets no gradient", _loss_slopes),
        Property("one advantage serves all steps of its row", _loss_wide),
        Property("over all actions it is the exact gradient of the expected reward", _loss_exact),
    ],
    mistakes=[
        Mistake("sign", "Descending this loss would lower the return. Turn the sign.", wrong=_losing(sign=1)),
        Mistake(
            "sum",
            "You add up. Average, or the step grows with the batch.",
            wrong=_losing(reduce=torch.sum),
        ),
        Mistake(
            "gradient through the advantages",
            "A gradient flows into the advantages. They are verdicts: detach them.",
            wrong=_losing(terms=lambda p, a: a * p),
        ),
        Mistake(
            "probabilities",
            "You weigh probabilities. The identity has the gradient of their logarithm: leave out the exponential.",
            wrong=_losing(terms=lambda p, a: a.detach() * p.exp()),
        ),
        Mistake(
            "not averaged",
            "Return one number: the mean over all log-probabilities.",
            wrong=_losing(reduce=lambda terms: terms),
        ),
        Mistake(
            "centred inside",
            "You take a baseline off within the loss. Use the advantages as they are given; who calls it decides.",
            wrong=_held,
        ),
        Mistake(
            "detached log-probabilities",
            "You detach the log-probabilities, so that nothing can learn. Detach the advantages instead.",
            when=_detached_log_probs,
        ),
    ],
)

# 3.3 The best baseline ----------------------------------------------------------------------------------------


def _world(seed: int, walks: int, parameters: int) -> tuple[Tensor, Tensor, Tensor]:
    chances = _normal(seed, walks).softmax(0)
    scores = _normal(seed + 1, walks, parameters)
    return chances, scores - (chances @ scores), 3 + 2 * _normal(seed + 2, walks)


WORLDS = [
    _world(10, 6, 3),
    _world(20, 12, 5),
    (torch.tensor([0.9, 0.1]).double(), torch.tensor([[0.1], [-0.9]]).double(), torch.tensor([1.0, 11.0]).double()),
]


def _variance(world: tuple[Tensor, Tensor, Tensor], b: float) -> float:
    """Term by term: the second moment of the estimate, less the square of its mean."""
    chances, scores, returns = world
    rows = list(zip(chances.tolist(), scores.tolist(), returns.tolist(), strict=True))
    second = math.fsum(p * (r - b) ** 2 * math.fsum(x * x for x in s) for p, s, r in rows)
    mean = [math.fsum(p * (r - b) * s[k] for p, s, r in rows) for k in range(scores.shape[1])]
    return second - math.fsum(x * x for x in mean)


def _best(world: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """The bottom of the parabola through three of its points."""
    low, middle, high = (_variance(world, b) for b in (0.0, 1.0, 2.0))
    bend = (high - 2 * middle + low) / 2
    return torch.tensor(-(middle - low - bend) / (2 * bend), dtype=torch.float64)


def _best_values(student) -> None:
    for world in WORLDS:
        same(student(*world), _best(world), what="the bottom of the variance")


def _best_shift(student) -> None:
    chances, scores, returns = WORLDS[0]
    same(student(chances, scores, returns + 100), _best(WORLDS[0]) + 100, atol=1e-4, what="with 100 on every return")


def _best_equal(student) -> None:
    """Where all scores are equally long, the best baseline is the mean return."""
    chances = torch.tensor([0.5, 0.2, 0.3]).double()
    angles = torch.tensor([0.0, 2.0, 4.0]).double()
    returns = torch.tensor([1.0, 2.0, 6.0]).double()
    same(student(chances, torch.stack([angles.cos(), angles.sin()], 1), returns), torch.tensor(2.7).double())


def _weighing(weights=lambda p, s: p * (s * s).sum(1), norm=True, returns=lambda r: r):
    def best(probabilities, scores, given):
        w = weights(probabilities, scores)
        return (w * returns(given)).sum() / (w.sum() if norm else 1)

    return best


BEST = Exercise(
    id="3.3",
    name="best_baseline",
    points=3,
    reference=_weighing(),
    forbidden=FORBIDDEN,
    probes=lambda: WORLDS,
    properties=[
        Property("no other constant makes the variance smaller", _best_values,
                 "Derive V(b) in b: E[(R - b) |g|^2] = 0, with |g|^2 the squared length of a walk's score."),
        Property("100 more on every return makes it 100 larger", _best_shift),
        Property("where all scores are equally long it is the mean return", _best_equal),
    ],
    mistakes=[
        Mistake(
            "mean return",
            "This is the mean return: good, but not the best. Walks with long scores must count for more.",
            wrong=_weighing(weights=lambda p, s: p),
        ),
        Mistake(
            "mean return",
            "This is the mean return: good, but not the best. Walks with long scores must count for more.",
            wrong=lambda p, scores, returns: p @ returns + 0 * scores.sum(),
        ),
        Mistake(
            "length, not its square",
            "The variance has the length of the score squared; your weights have the length itself.",
            wrong=_weighing(weights=lambda p, s: p * s.norm(dim=1)),
        ),
        Mistake(
            "no probabilities",
            "Every walk counts alike here. An expectation weighs each by its probability.",
            wrong=_weighing(weights=lambda p, s: (s * s).sum(1)),
        ),
        Mistake(
            "sum of the score",
            "You square the sum of a score's entries. Its squared length is the sum of their squares.",
            wrong=_weighing(weights=lambda p, s: p * s.sum(1) ** 2),
        ),
        Mistake(
            "not divided",
            "The weights do not sum to 1: divide by their sum.",
            wrong=_weighing(norm=False),
        ),
        Mistake(
            "squared probabilities",
            "The probability counts twice. It weighs each walk once: only the score's length is squared.",
            wrong=_weighing(weights=lambda p, s: (p[:, None] * s).square().sum(1)),
        ),
    ],
)  # fmt: skip

# 3.4 Reward to go ---------------------------------------------------------------------------------------------

_F, _T = False, True
GAMES = [
    (torch.tensor([[1.0], [2.0], [4.0]]), torch.tensor([[_F], [_F], [_T]]), 1.0),
    (torch.tensor([[1.0, 5.0], [2.0, 6.0], [4.0, 7.0], [8.0, 9.0]]),
     torch.tensor([[_F, _T], [_T, _F], [_F, _F], [_F, _T]]), 0.5),
    (_normal(30, 6, 3).float(), torch.tensor([[_F, _F, _T], [_F, _T, _F], [_T, _F, _F]] * 2), 0.9),
    (torch.tensor([[3.0, -1.0], [2.0, 5.0]]), torch.zeros(2, 2, dtype=torch.bool), 0.0),
]  # fmt: skip


def _to_go(rewards: Tensor, dones: Tensor, discount: float) -> Tensor:
    """Forwards, by the definition: every later reward of the same episode, discounted by how much later it came."""
    rows = []
    for t in range(len(rewards)):
        total, alive = torch.zeros_like(rewards[0]), torch.ones_like(rewards[0])
        for k in range(t, len(rewards)):
            total = total + discount ** (k - t) * alive * rewards[k]
            alive = alive * (1 - dones[k].to(rewards))
        rows.append(total)
    return torch.stack(rows)


def _game(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            same(student(*GAMES[case]), _to_go(*GAMES[case]), what=f"discount {GAMES[case][2]}")

    return holds


def _game_kept(student) -> None:
    rewards, dones, discount = (x.clone() if torch.is_tensor(x) else x for x in GAMES[1])
    student(rewards, dones, discount)
    same(rewards, GAMES[1][0], what="the rewards handed in, afterwards")


def _going(cut=lambda dones, t: dones[t], factor=lambda g, t: g, own=True, back=True):
    def to_go(rewards, dones, discount):
        out, following = [None] * len(rewards), torch.zeros_like(rewards[0])
        order = range(len(rewards))
        for t in reversed(order) if back else order:
            kept = factor(discount, t) * (1 - cut(dones, t).to(rewards)) * following
            out[t] = rewards[t] + kept if own else kept
            following = rewards[t] + kept
        return torch.stack(out)

    return to_go


def _before(dones: Tensor, t: int) -> Tensor:
    return dones[t - 1] if t else torch.zeros_like(dones[0])


def _whole(rewards: Tensor, dones: Tensor, discount: float) -> Tensor:
    weights = discount ** torch.arange(len(rewards)).to(rewards)
    return (rewards * weights[:, None]).sum(0).expand_as(rewards)


def _absolute(rewards: Tensor, dones: Tensor, discount: float) -> Tensor:
    """Discounted from the first row on, not from the step that is judged."""
    weights = discount ** torch.arange(len(rewards)).to(rewards)
    return _going(factor=lambda g, t: 1.0)(rewards * weights[:, None], dones, discount)


def _last_only(dones: Tensor, t: int) -> Tensor:
    return torch.zeros_like(dones[0])


TO_GO = Exercise(
    id="3.4",
    name="reward_to_go",
    points=3,
    reference="pixelpolicy.rl:discounted_returns",
    forbidden=FORBIDDEN,
    probes=lambda: GAMES,
    properties=[
        Property("in one episode it is the sum of what is still to come", _game(0)),
        Property("an episode's end cuts it, and what is later counts less", _game(1, 2)),
        Property("with discount 0 only the present counts", _game(3)),
        Property("the rewards handed in stay as they were", _game_kept, "Write into a new tensor, not into rewards."),
    ],
    mistakes=[
        Mistake(
            "ends ignored",
            "The reward of the next episode leaks into this one: where dones is True nothing may follow.",
            wrong=_going(cut=_last_only),
        ),
        Mistake(
            "cut one late",
            "You cut a row too late. dones[t] belongs to the step of rewards[t]: what is in row t + 1 is another game.",
            wrong=_going(cut=_before),
        ),
        Mistake(
            "whole return",
            "Every row has the return of the whole. A step answers only for what came after it.",
            wrong=_whole,
        ),
        Mistake(
            "no discount",
            "The discount is missing: what follows is multiplied by it once a step.",
            wrong=_going(factor=lambda g, t: 1.0),
        ),
        Mistake(
            "discount by the clock",
            "You discount by the row's number. Count from the step that is judged: its own reward counts in full.",
            wrong=_absolute,
        ),
        Mistake(
            "without its own",
            "A step's own reward is missing: it came after the action, so it counts.",
            wrong=_going(own=False),
        ),
        Mistake(
            "what came before",
            "You add up what came before. Begin at the last row and go backwards.",
            wrong=_going(back=False, cut=_before),
        ),
    ],
)

# 3.5 A baseline for each moment -------------------------------------------------------------------------------

RAGGED = [
    (torch.tensor([[3.0, 1.0, 8.0], [2.0, 0.0, 6.0], [1.0, 0.0, 0.0]]),
     torch.tensor([[_T, _T, _T], [_T, _F, _T], [_T, _F, _F]])),
    (torch.tensor([[4.0, 2.0], [3.0, 50.0], [9.0, 70.0]]), torch.tensor([[_T, _T], [_T, _F], [_F, _F]])),
    (_normal(40, 5, 4).float(), torch.arange(5)[:, None] < torch.tensor([5, 1, 3, 4])),
]  # fmt: skip


def _ragged(returns: Tensor, valid: Tensor) -> Tensor:
    """Row by row, as lists."""
    rows = []
    for row, playing in zip(returns.tolist(), valid.tolist(), strict=True):
        kept = [g for g, plays in zip(row, playing, strict=True) if plays]
        rows.append([math.fsum(kept) / len(kept) if kept else 0.0] * len(row))
    return torch.tensor(rows).to(returns)


def _ragged_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            same(student(*RAGGED[case]), _ragged(*RAGGED[case]))

    return holds


def _share(count=lambda valid: valid.sum(1, keepdim=True), kept=lambda g, v: g * v, least=1, whole=True):
    def baseline(returns, valid):
        playing = valid.to(returns)
        mean = kept(returns, playing).sum(1, keepdim=True) / count(playing).clamp_min(least)
        return mean.expand_as(returns) if whole else mean[:, 0]

    return baseline


def _over_time(returns: Tensor, valid: Tensor) -> Tensor:
    playing = valid.to(returns)
    return ((returns * playing).sum(0) / playing.sum(0)).expand_as(returns)


def _over_all(returns: Tensor, valid: Tensor) -> Tensor:
    return returns[valid].mean().expand_as(returns)


PLAYING = Exercise(
    id="3.5",
    name="mean_of_the_playing",
    points=2,
    reference=_share(),
    forbidden=FORBIDDEN,
    probes=lambda: RAGGED,
    properties=[
        Property("each row has the mean of those who still play", _ragged_case(0, 2)),
        Property("what stands where nobody plays is not looked at, and an empty row gives 0", _ragged_case(1)),
    ],
    mistakes=[
        Mistake(
            "divided by all",
            "You divide by all episodes of the batch. Those that are over do not count below either.",
            wrong=_share(count=lambda playing: torch.full((len(playing), 1), float(playing.shape[1]))),
        ),
        Mistake(
            "plain mean",
            "You average the whole row, also what stands there after an episode's end. Ask valid first.",
            wrong=lambda returns, valid: returns.mean(1, keepdim=True).expand_as(returns),
        ),
        Mistake(
            "mean over time",
            "You average each episode over time. That depends on what it did itself: compare it with the *others* of "
            "its row.",
            wrong=_over_time,
        ),
        Mistake(
            "one for all",
            "One number for the whole batch: then late steps, with little still ahead, all look bad. Take one a row.",
            wrong=_over_all,
        ),
        Mistake(
            "one for all",
            "One number for the whole batch: then late steps, with little still ahead, all look bad. Take one a row.",
            wrong=lambda returns, valid: _over_all(returns.detach(), valid),
        ),
        Mistake(
            "nan in an empty row",
            "Zero over zero is nan, and one nan is enough to lose the network. clamp_min(1) under the fraction.",
            wrong=_share(least=0),
        ),
        Mistake(
            "one column",
            "Return it in the shape of the returns: the same number for every episode of the row.",
            wrong=_share(whole=False),
        ),
    ],
)

# 3.6 A sampler's decisions ------------------------------------------------------------------------------------


def _mixture(seed: int, bumps: int, batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    chosen = torch.arange(batch) * 7 % bumps
    return (
        _normal(seed, bumps),
        2 * _normal(seed + 1, bumps),
        0.5 * _normal(seed + 2, bumps),
        chosen,
        _normal(seed + 3, batch),
    )


SAMPLERS = [_mixture(50, 3, 7), _mixture(60, 2, 1), _mixture(70, 5, 9)]


def _decisions(logits, means, log_stds, bumps, x) -> Tensor:
    """Sample by sample, from the densities themselves."""
    rows = []
    for k, place in zip(bumps.tolist(), x, strict=True):
        chance = logits[k].exp() / logits.exp().sum()
        std = log_stds[k].exp()
        density = (-(((place - means[k]) / std) ** 2) / 2).exp() / (std * math.sqrt(2 * math.pi))
        rows.append(torch.stack([chance.log(), density.log()]))
    return torch.stack(rows)


def _decision_values(student) -> None:
    for given in SAMPLERS:
        same(student(*given), _decisions(*given), what="log-probabilities of bump and place")


def _decision_gradients(student) -> None:
    for *parts, bumps, x in SAMPLERS:
        same_gradient(
            lambda a, b, c, k=bumps, x=x: student(a, b, c, k, x),
            lambda a, b, c, k=bumps, x=x: _decisions(a, b, c, k, x),
            parts,
            names=("logits", "means", "log_stds"),
            atol=1e-5,
        )


def _decision_total(student) -> None:
    """Over all bumps and places the probabilities add up to 1."""
    logits, means, log_stds, *_ = SAMPLERS[0]
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for k in range(3):
        got = torch.as_tensor(student(logits, means, log_stds, torch.full((4001,), k), grid))
        if got.shape != (4001, 2):
            raise Mismatch(f"came out  shape {list(got.shape)}\nexpected  [4001, 2]")
        total = total + got.sum(1).exp().sum() * (24 / 4000)
    same(total, torch.ones((), dtype=torch.float64), atol=1e-4, what="all probabilities together")


HALF_LOG_TWO_PI = math.log(2 * math.pi) / 2


def _deciding(
    spread=torch.exp,
    chance=lambda logits: logits.log_softmax(0),
    finish=lambda of: torch.stack(of, 1),
    slope=1.0,
    constant=HALF_LOG_TWO_PI,
):
    def log_probs(logits, means, log_stds, bumps, x):
        std = spread(log_stds[bumps])
        place = -(((x - means[bumps]) / std) ** 2) / 2 - slope * std.log() - constant
        return finish([chance(logits)[bumps], place])

    return log_probs


def _marginal(logits, means, log_stds, bumps, x) -> Tensor:
    every = -(((x[:, None] - means) / log_stds.exp()) ** 2) / 2 - log_stds - 0.5 * math.log(2 * math.pi)
    marginal = (logits.log_softmax(0) + every).logsumexp(1)
    return torch.stack([logits.log_softmax(0)[bumps], marginal], 1)


def _by_order(logits, means, log_stds, bumps, x) -> Tensor:
    """The first samples from the first bumps, whatever was chosen."""
    return _deciding()(logits, means, log_stds, torch.arange(len(x)) % len(logits), x)


SAMPLER = Exercise(
    id="3.6",
    name="decision_log_probs",
    points=3,
    reference=_deciding(),
    forbidden=FORBIDDEN,
    probes=lambda: SAMPLERS,
    properties=[
        Property("log-probability of the bump, log-density of the place in it", _decision_values),
        Property("gradients reach logits, means and deviations", _decision_gradients,
                 "Keep the graph: no detach, no .item(), no no_grad."),
        Property("over all bumps and places the probabilities add up to 1", _decision_total),
    ],
    mistakes=[
        Mistake(
            "logarithm for deviation",
            "log_stds holds logarithms: take their exponential before you divide.",
            wrong=_deciding(spread=lambda log_std: log_std),
        ),
        Mistake(
            "logarithm for deviation",
            "log_stds holds logarithms: take their exponential before you divide.",
            when=lambda student: "scale" in _raised(student),
        ),
        Mistake(
            "variance",
            "You hand over the variance where the deviation is wanted: the exponential of log_stds, not squared.",
            wrong=_deciding(spread=lambda log_std: (2 * log_std).exp()),
        ),
        Mistake(
            "raw logits",
            "Logits are no log-probabilities until they are normalised: log_softmax.",
            wrong=_deciding(chance=lambda logits: logits),
        ),
        Mistake(
            "probability",
            "The first column is a probability. Take its logarithm.",
            wrong=_deciding(chance=lambda logits: logits.softmax(0)),
        ),
        Mistake(
            "added up",
            "You add the two decisions up. Keep them apart, as two columns: an episode has two steps here.",
            wrong=_deciding(finish=sum),
        ),
        Mistake(
            "any bump",
            "The second column is the density of x from *any* bump. The sampler had chosen one: use that one alone.",
            wrong=_marginal,
        ),
        Mistake(
            "squares alone",
            "The square alone is not a log-density: without - log sigma the deviations would grow for ever.",
            wrong=_deciding(slope=0.0),
        ),
        Mistake(
            "squares alone",
            "The square alone is not a log-density: without - log sigma the deviations would grow for ever.",
            wrong=_deciding(slope=0.0, constant=0.0),
        ),
        Mistake(
            "rows for columns",
            "Two rows, but two columns are wanted: [batch, 2]. Stack along dimension 1.",
            wrong=_deciding(finish=torch.stack),
        ),
        Mistake(
            "choices ignored",
            "You do not look at which bump was chosen. Index logits, means and log_stds with bumps.",
            wrong=_by_order,
        ),
    ],
)  # fmt: skip


def _raised(student) -> str:
    try:
        student(*SAMPLERS[0])
    except ValueError as error:
        return str(error)
    return ""


EXERCISES = [SCORE, LOSS, BEST, TO_GO, PLAYING, SAMPLER]
