"""Checks of lab 11: pairs and their losses, each against an independent formula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies")


def _log_sigmoid(x: Tensor) -> Tensor:
    return -torch.log1p(torch.exp(-x))


def _values_and_gradients(formula, cases, names, trained: int):
    """Two properties of a loss: its value in all cases, and its gradient in the first so many arguments."""

    def values(student) -> None:
        for case in cases():
            same(student(*case), formula(*case))

    def gradients(student) -> None:
        for case in cases():
            rest = case[trained:]
            same_gradient(
                lambda *moved, r=rest: student(*moved, *r),
                lambda *moved, r=rest: formula(*moved, *r),
                case[:trained],
                names=names[:trained],
            )

    return values, gradients


def _no_gradient_to_the_base(cases, first: int):
    def untouched(student) -> None:
        for case in cases()[:1]:
            given = [x.clone().requires_grad_() if i < first + 2 else x for i, x in enumerate(case)]
            found = torch.autograd.grad(student(*given), given[first : first + 2], allow_unused=True)
            for name, gradient in zip(("first", "second"), found, strict=True):
                if gradient is not None and gradient.abs().max() > 0:
                    raise Mismatch(f"came out  a gradient in the {name} of the base's numbers\nexpected  none")

    return untouched


# 11.1 The best and the worst -------------------------------------------------------------------------------------

REWARDS = torch.tensor([0.4, 0.9, 0.1, 2.0, 2.5, 1.0, 0.3, 0.3, 0.3, -1.0, -3.0])
GROUPS = torch.tensor([5, 5, 5, 0, 0, 0, 3, 3, 3, 8, 8])
MIXED = torch.tensor([4, 0, 8, 2, 6, 1, 5, 10, 3, 7, 9])


def _best_and_worst(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    members: dict[int, list[tuple[float, int]]] = {}
    for row, (reward, group) in enumerate(zip(rewards.tolist(), groups.tolist(), strict=True)):
        members.setdefault(group, []).append((reward, row))
    kept = [sorted(group) for group in members.values() if max(group)[0] > min(group)[0]]
    return torch.tensor([g[-1][1] for g in kept]).long(), torch.tensor([g[0][1] for g in kept]).long()


def _pair_cases() -> list[tuple]:
    return [(REWARDS, GROUPS), (REWARDS[MIXED], GROUPS[MIXED]), (-REWARDS, GROUPS), (REWARDS[:3], GROUPS[:3])]


def _pair_rows(student) -> None:
    for rewards, groups in _pair_cases():
        same(student(rewards, groups), _best_and_worst(rewards, groups), what="rows of (best, worst)")


def _flat_groups(student) -> None:
    flat = torch.full((4,), 0.7)
    none = torch.empty(0, dtype=torch.long)
    best, worst = student(flat, torch.tensor([0, 0, 1, 1]))
    same((torch.as_tensor(best).long(), torch.as_tensor(worst).long()), (none, none), what="where all groups are flat")


def _pairs_by(pick):
    def pairs(rewards, groups):
        best, worst = [], []
        for group in dict.fromkeys(groups.tolist()):
            rows = (groups == group).nonzero().flatten()
            one, two = pick(rewards[rows], rows, rewards)
            if one is not None:
                best.append(int(one)), worst.append(int(two))
        return torch.tensor(best).long(), torch.tensor(worst).long()

    return pairs


def _spread(mine: Tensor) -> bool:
    return bool(mine.max() > mine.min())


def _in_sorted_groups(rewards, groups):
    best, worst = _best_and_worst(rewards, groups)
    order = groups[best].argsort()
    return best[order], worst[order]


PAIRING = Exercise(
    id="11.1",
    name="best_and_worst",
    points=2,
    reference="pixelpolicy.finetune:best_and_worst",
    forbidden=FORBIDDEN,
    probes=_pair_cases,
    properties=[
        Property("the rows of each group's best and worst, in the order in which the groups begin", _pair_rows),
        Property("a group whose rewards are all equal makes no pair", _flat_groups, "Return two empty tensors."),
    ],
    mistakes=[
        Mistake(
            "flat groups",
            "A group whose rewards are all equal has no winner: leave it out, or you teach the model noise.",
            wrong=_pairs_by(lambda mine, rows, _: (rows[mine.argmax()], rows[mine.argmin()])),
        ),
        Mistake(
            "within the group",
            "You return places within the group. Return rows of the whole batch: look up rows[place].",
            wrong=_pairs_by(lambda mine, rows, _: (mine.argmax(), mine.argmin()) if _spread(mine) else (None, None)),
        ),
        Mistake(
            "turned",
            "The two are exchanged: the best comes first.",
            wrong=_pairs_by(
                lambda mine, rows, _: (rows[mine.argmin()], rows[mine.argmax()]) if _spread(mine) else (None, None)
            ),
        ),
        Mistake(
            "whole batch",
            "You compare across prompts. A pair is two pictures of one prompt: search within each group.",
            wrong=_pairs_by(
                lambda mine, rows, every: (every.argmax(), every.argmin()) if _spread(mine) else (None, None)
            ),
        ),
        Mistake(
            "first and last",
            "You take the first and the last of a group. Let the rewards decide.",
            wrong=_pairs_by(lambda mine, rows, _: (rows[0], rows[-1]) if _spread(mine) else (None, None)),
        ),
        Mistake(
            "sorted groups",
            "The pairs are right, their order is not: go through the groups in the order in which they begin.",
            wrong=_in_sorted_groups,
        ),
    ],
)

# 11.2 One noise for both -----------------------------------------------------------------------------------------


def _latents(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class _Draws:
    """Gives new noise at every call, and counts the calls."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0, sigma: list[float] | None = None):
        self.shape, self.sigma, self.calls = shape, sigma, 0
        self.stream = torch.Generator().manual_seed(seed)

    def __call__(self) -> tuple[Tensor, Tensor]:
        self.calls += 1
        sigma = torch.rand(self.shape[0], generator=self.stream)
        noise = torch.randn(self.shape, generator=self.stream)
        return (torch.tensor(self.sigma) if self.sigma else sigma), noise


def _noise_cases() -> list[tuple]:
    shapes = [(3, 4, 2, 2), (2, 5), (4, 4, 3, 3)]
    cases = [(_latents(i, *shape), _latents(9 + i, *shape), _Draws(shape, i)) for i, shape in enumerate(shapes)]
    edges = (2, 3)
    return [*cases, (_latents(5, *edges), _latents(6, *edges), _Draws(edges, 7, [0.0, 1.0]))]


def _pair_states(winners: Tensor, losers: Tensor, draw) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    sigma, noise = draw()
    mixed = [
        torch.stack([x + s * (e - x) for x, s, e in zip(latents, sigma, noise, strict=True)])
        for latents in (winners, losers)
    ]
    return mixed[0], mixed[1], sigma, noise


def _state_values(student) -> None:
    for case, again in zip(_noise_cases(), _noise_cases(), strict=True):
        same(student(*case), _pair_states(*again), what="(winners' states, losers' states, sigma, noise)")


def _one_draw(student) -> None:
    for winners, losers, draw in _noise_cases():
        student(winners, losers, draw)
        same(draw.calls, 1, what="calls of draw")


def _same_picture(student) -> None:
    for winners, _, draw in _noise_cases():
        won, lost, *_ = student(winners, winners.clone(), draw)
        same(lost, won, what="the states of two equal pictures")


def _mixed(picture, level):
    """States of both with weights of the picture and of the noise that are functions of the noise level."""

    def states(winners, losers, draw):
        sigma, noise = draw()
        keep, add = (f(sigma.reshape(-1, *[1] * (winners.ndim - 1))) for f in (picture, level))
        return keep * winners + add * noise, keep * losers + add * noise, sigma, noise

    return states


def _own_draws(winners, losers, draw):
    (sigma, noise), (second, other) = draw(), draw()
    level, low = (s.reshape(-1, *[1] * (winners.ndim - 1)) for s in (sigma, second))
    return (1 - level) * winners + level * noise, (1 - low) * losers + low * other, sigma, noise


def _own_noise(winners, losers, draw):
    (sigma, noise), (_, other) = draw(), draw()
    level = sigma.reshape(-1, *[1] * (winners.ndim - 1))
    return (1 - level) * winners + level * noise, (1 - level) * losers + level * other, sigma, noise


def _first_level(winners, losers, draw):
    sigma, noise = draw()
    return (1 - sigma[0]) * winners + sigma[0] * noise, (1 - sigma[0]) * losers + sigma[0] * noise, sigma, noise


NOISE = Exercise(
    id="11.2",
    name="pair_states",
    points=2,
    reference="pixelpolicy.finetune:pair_states",
    forbidden=FORBIDDEN,
    probes=_noise_cases,
    properties=[
        Property("two equal pictures of a pair give equal states", _same_picture, "Call draw once, and use it twice."),
        Property("states are (1 - sigma) x0 + sigma noise, each pair at its own level", _state_values),
        Property("draw is called once", _one_draw, "Call draw once, and use what it gave for both."),
    ],
    mistakes=[
        Mistake(
            "a draw each",
            "Winner and loser got noise of their own. Their errors then differ by luck: call draw once for both.",
            wrong=_own_draws,
        ),
        Mistake(
            "a noise each",
            "The levels are shared, the noise is not. Use one noise for both.",
            wrong=_own_noise,
        ),
        Mistake(
            "turned",
            "The weights are exchanged: at sigma = 0 the state is the picture, at sigma = 1 it is the noise.",
            wrong=_mixed(lambda s: s, lambda s: 1 - s),
        ),
        Mistake(
            "not faded",
            "The picture must fade as noise comes in: weigh it with 1 - sigma.",
            wrong=_mixed(lambda s: 1 + 0 * s, lambda s: s),
        ),
        Mistake("one level", "Each pair has a level of its own: use all of sigma, not its first.", wrong=_first_level),
    ],
)

# 11.3 The loss of Diffusion-DPO ----------------------------------------------------------------------------------

ERRORS = ("winner", "loser", "base_winner", "base_loser", "beta")


def _errors(seed: int, count: int, scale: float = 0.3) -> list[Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return [scale * torch.rand(count, generator=stream) for _ in range(4)]


def _dpo_cases() -> list[tuple]:
    same_base = _errors(2, 3)[:2]
    return [
        (*_errors(0, 5), 10.0),
        (*_errors(1, 1), 3.0),
        (*same_base, *(e.clone() for e in same_base), 100.0),
        (*_errors(3, 4, 2.0), 2.0),
    ]


def _dpo(winner, loser, base_winner, base_loser, beta) -> Tensor:
    total = winner.new_zeros(())
    for w, worse, bw, bl in zip(winner, loser, base_winner.detach(), base_loser.detach(), strict=True):
        total = total - _log_sigmoid(beta / 2 * ((bw - w) - (bl - worse)))
    return total / len(winner)


_dpo_values, _dpo_gradients = _values_and_gradients(_dpo, _dpo_cases, ERRORS, 2)


def _dpo_start(student) -> None:
    case = _dpo_cases()[2]
    same(student(*case), torch.tensor(math.log(2.0)), what="the loss before any training")


def _dpo_far(student) -> None:
    far = [torch.tensor([x]) for x in (50.0, 0.0, 0.0, 0.0)]
    same(student(*far, 100.0), torch.tensor(2500.0), what="the loss of a pair that is far on the wrong side")


def _margin(sign=1.0, half=True, base=True):
    def margin(winner, loser, base_winner, base_loser, beta):
        bases = (base_winner.detach() - base_loser.detach()) if base else 0.0
        return -sign * (beta / 2 if half else beta) * ((winner - loser) - bases)

    return margin


def _dpo_like(outside=True, **how):
    def loss(winner, loser, base_winner, base_loser, beta):
        margin = _margin(**how)(winner, loser, base_winner, base_loser, beta)
        log = torch.nn.functional.logsigmoid
        return -log(margin).mean() if outside else -log(margin.mean())

    return loss


DPO = Exercise(
    id="11.3",
    name="diffusion_dpo",
    points=3,
    reference=_dpo_like(),
    forbidden=FORBIDDEN,
    probes=_dpo_cases,
    properties=[
        Property("values are those of Diffusion-DPO, averaged over pairs", _dpo_values),
        Property("gradients reach the errors of winner and loser", _dpo_gradients),
        Property("before any training the loss is log 2", _dpo_start),
        Property("the base's errors carry no gradient", _no_gradient_to_the_base(_dpo_cases, 2), "Detach them."),
        Property(
            "it stays finite where a pair is far on the wrong side", _dpo_far, "Use logsigmoid, not log of sigmoid."
        ),
    ],
    mistakes=[
        Mistake(
            "sign",
            "The sign is turned: an error is minus a log-probability. The winner's must fall, the loser's may rise.",
            wrong=_dpo_like(sign=-1.0),
        ),
        Mistake(
            "sigmoid of the mean",
            "You average before the sigmoid. Each pair has a sigmoid of its own; the mean comes last.",
            wrong=_dpo_like(outside=False),
        ),
        Mistake(
            "no base",
            "The base is missing. Only what was gained against it counts; a hard picture is no bad picture.",
            wrong=_dpo_like(base=False),
        ),
        Mistake("no half", "A factor is off: beta / 2, not beta.", wrong=_dpo_like(half=False)),
        Mistake(
            "sum",
            "Average over the pairs, do not sum.",
            wrong=lambda w, lo, bw, bl, beta: _dpo_like()(w, lo, bw, bl, beta) * len(w),
        ),
        Mistake(
            "overflow",
            "The formula is right, but log(sigmoid(x)) is minus infinity for a very negative x. Use F.logsigmoid.",
            when=lambda student: (
                not math.isfinite(float(student(*[torch.tensor([x]) for x in (50.0, 0.0, 0.0, 0.0)], 100.0)))
            ),
        ),
    ],
)

# 11.4 Displacement -----------------------------------------------------------------------------------------------


def _displacement_cases() -> list[tuple]:
    tensors = [[0.3, 0.1, 0.5, 0.2], [0.9, 0.5, 0.2, 0.2], [0.2] * 4, [0.2] * 4]
    first = tuple(torch.tensor(t) for t in tensors)
    one = tuple(torch.tensor([x]) for x in (0.1, 0.4, 0.3, 0.1))
    unmoved = tuple(torch.tensor(x) for x in ([0.2, 0.3], [0.5, 0.5], [0.2, 0.2], [0.2, 0.2]))  # the first winner
    return [first, tuple(_errors(4, 7)), tuple(_errors(5, 12)), one, unmoved]


def _displacement(winner, loser, base_winner, base_loser) -> tuple[Tensor, Tensor, Tensor]:
    ups, downs, displaced, told = [], [], 0, 0
    for w, worse, bw, bl in zip(*(e.double().tolist() for e in (winner, loser, base_winner, base_loser)), strict=True):
        ups.append(w - bw), downs.append(worse - bl)
        told += ups[-1] < downs[-1]
        displaced += ups[-1] < downs[-1] and ups[-1] > 0
    share = displaced / told if told else 0.0
    return tuple(torch.tensor(x) for x in (math.fsum(ups) / len(ups), math.fsum(downs) / len(downs), share))


def _displacement_values(student) -> None:
    for case in _displacement_cases():
        same(student(*case), _displacement(*case), what="(winner's change, loser's change, share displaced)")


def _none_apart(student) -> None:
    ones = [torch.ones(3)] * 4
    same(student(*ones), tuple(torch.zeros(3).unbind()), what="where no pair is told apart")
    turned = tuple(torch.tensor(x) for x in ([0.5, 0.6], [0.1, 0.1], [0.2, 0.2], [0.2, 0.2]))
    same(student(*turned), _displacement(*turned), what="where no pair is told apart")


def _share(which):
    def measure(winner, loser, base_winner, base_loser):
        won, lost = winner - base_winner, loser - base_loser
        return won.mean(), lost.mean(), which(won, lost)

    return measure


def _among(chosen: Tensor, rows: Tensor) -> Tensor:
    return chosen[rows].float().mean() if rows.any() else torch.zeros(())


DISPLACEMENT = Exercise(
    id="11.4",
    name="displacement",
    points=2,
    reference="pixelpolicy.finetune:displacement",
    forbidden=FORBIDDEN,
    probes=_displacement_cases,
    properties=[
        Property("mean changes against the base, and the share displaced among pairs told apart", _displacement_values),
        Property(
            "where no pair is told apart the share is 0", _none_apart, "A mean of nothing is NaN: return 0 there."
        ),
    ],
    mistakes=[
        Mistake(
            "of all pairs",
            "The share is of the pairs that are told apart, not of all pairs.",
            wrong=_share(lambda won, lost: ((won < lost) & (won > 0)).float().mean()),
        ),
        Mistake(
            "whoever got worse",
            "You count every winner that got worse. Ask first which pairs are told apart: won < lost.",
            wrong=_share(lambda won, lost: (won > 0).float().mean()),
        ),
        Mistake(
            "winners that gained",
            "Displaced is a winner that is matched *worse* than by the base: its error has grown.",
            wrong=_share(lambda won, lost: _among(won < 0, won < lost)),
        ),
        Mistake(
            "losers",
            "You count losers that got worse. That is what the loss wants; displaced are winners.",
            wrong=_share(lambda won, lost: _among(lost > 0, won < lost)),
        ),
        Mistake(
            "sign",
            "The signs are turned: a change is the error now less the base's, so that worse is positive.",
            wrong=lambda w, lo, bw, bl: (
                (bw - w).mean(),
                (bl - lo).mean(),
                _among(w - bw > 0, w - bw < lo - bl),
            ),
        ),
    ],
)

# 11.5 The anchor -------------------------------------------------------------------------------------------------

MENDED = (*ERRORS, "anchor")


def _mended_cases() -> list[tuple]:
    return [(*case, anchor) for case, anchor in zip(_dpo_cases(), (0.5, 2.0, 1.0, 0.0), strict=True)]


def _mended(winner, loser, base_winner, base_loser, beta, anchor) -> Tensor:
    penalty = winner.new_zeros(())
    for w, base in zip(winner, base_winner.detach(), strict=True):
        penalty = penalty + (w - base if w > base else 0 * w)
    return _dpo(winner, loser, base_winner, base_loser, beta) + anchor * beta / 2 * penalty / len(winner)


_mended_values, _mended_gradients = _values_and_gradients(_mended, _mended_cases, MENDED, 2)


def _mended_apart(student) -> None:
    """A pair long told apart, by spoiling both: the pull on its winner must not fade."""
    winner = torch.tensor([0.6]).requires_grad_()
    given = [torch.tensor([3.0]), torch.tensor([0.5]), torch.tensor([0.5])]
    (pull,) = torch.autograd.grad(student(winner, *given, 100.0, 1.0), winner)
    same(pull, torch.tensor([50.0]), what="the pull on a displaced winner", rtol=1e-3)


def _mended_like(penalty, scale=lambda beta: beta / 2, inside=False):
    def loss(winner, loser, base_winner, base_loser, beta, anchor):
        bases = base_winner.detach(), base_loser.detach()
        extra = penalty(winner, loser, *bases)
        if inside:
            margin = _margin()(winner, loser, *bases, beta) - anchor * scale(beta) * extra
            return -torch.nn.functional.logsigmoid(margin).mean()
        return _dpo_like()(winner, loser, *bases, beta) + anchor * scale(beta) * extra.mean()

    return loss


ANCHOR = Exercise(
    id="11.5",
    name="anchored_dpo",
    points=3,
    reference=_mended_like(lambda w, lo, bw, bl: (w - bw).relu()),
    forbidden=FORBIDDEN,
    probes=_mended_cases,
    properties=[
        Property("values are the loss of 11.3 and the penalty on displaced winners", _mended_values),
        Property("gradients pull displaced winners back and leave the others", _mended_gradients),
        Property("the pull does not fade where the pair is told apart", _mended_apart, "Add it outside the sigmoid."),
        Property("the base's errors carry no gradient", _no_gradient_to_the_base(_mended_cases, 2), "Detach them."),
    ],
    mistakes=[
        Mistake(
            "inside",
            "The penalty is inside the sigmoid, where it fades once the pair is told apart. Add it outside.",
            wrong=_mended_like(lambda w, lo, bw, bl: (w - bw).relu(), inside=True),
        ),
        Mistake(
            "no relu",
            "A winner that is matched better than by the base needs no penalty: cut it off at 0.",
            wrong=_mended_like(lambda w, lo, bw, bl: w - bw),
        ),
        Mistake(
            "the mean first",
            "You cut off the mean, and one displaced winner hides behind another's gain: cut off each, then average.",
            wrong=_mended_like(lambda w, lo, bw, bl: (w - bw).mean().relu()),
        ),
        Mistake(
            "the loser",
            "You hold the loser. It is the winner that must not be matched worse than by the base.",
            wrong=_mended_like(lambda w, lo, bw, bl: (lo - bl).relu()),
        ),
        Mistake(
            "no beta",
            "The penalty must be on the scale of the margin: weigh it with anchor * beta / 2.",
            wrong=_mended_like(lambda w, lo, bw, bl: (w - bw).relu(), scale=lambda beta: 1.0),
        ),
        Mistake(
            "turned",
            "The difference is turned: displaced is a winner whose error is *above* the base's.",
            wrong=_mended_like(lambda w, lo, bw, bl: (bw - w).relu()),
        ),
    ],
)

# 11.6 Single labels ----------------------------------------------------------------------------------------------

KTO_NAMES = ("errors", "base_errors", "wanted", "beta")


def _kto_cases() -> list[tuple]:
    wanted = torch.tensor([True, False, True, True, False, False])
    gained, lost = _errors(6, 6), _errors(7, 6)
    return [
        (gained[0], gained[1] + 0.2, wanted, 5.0),  # the batch has gained
        (lost[0] + 0.2, lost[1], wanted, 5.0),  # the batch has lost
        (gained[2], gained[3], torch.ones(6).bool(), 20.0),
        (gained[0].clone(), gained[0].clone(), ~wanted, 100.0),
    ]


def _kto(errors, base_errors, wanted, beta) -> Tensor:
    gains = [base - error for base, error in zip(base_errors.detach(), errors, strict=True)]
    z = max(0.0, math.fsum(float(gain.detach()) for gain in gains) / len(gains))
    total = errors.new_zeros(())
    for gain, good in zip(gains, wanted.tolist(), strict=True):
        total = total + (1 / (1 + torch.exp(beta * (gain - z))) if good else 1 / (1 + torch.exp(-beta * (gain - z))))
    return total / len(gains)


_kto_values, _kto_gradients = _values_and_gradients(_kto, _kto_cases, KTO_NAMES, 2)


def _kto_start(student) -> None:
    same(student(*_kto_cases()[3]), torch.tensor(0.5), what="the loss before any training")


def _kto_like(point=lambda gain: gain.detach().mean().clamp_min(0), sign=1.0, outside=lambda s: 1 - s):
    def loss(errors, base_errors, wanted, beta):
        gain = base_errors.detach() - errors
        signs = torch.where(wanted, sign, -sign)
        return outside(torch.sigmoid(signs * beta * (gain - point(gain)))).mean()

    return loss


def _kto_one_sign(errors, base_errors, wanted, beta):
    gain = base_errors.detach() - errors
    return (1 - torch.sigmoid(beta * (gain - gain.detach().mean().clamp_min(0)))).mean()


KTO = Exercise(
    id="11.6",
    name="kto_loss",
    points=3,
    reference=_kto_like(),
    forbidden=FORBIDDEN,
    probes=_kto_cases,
    properties=[
        Property("values are those of Diffusion-KTO, for batches that gained and that lost", _kto_values),
        Property(
            "gradients pass the samples, not the point of reference nor the base",
            _kto_gradients,
            "Detach the point z, and the base's errors.",
        ),
        Property("before any training the loss is 1/2", _kto_start),
    ],
    mistakes=[
        Mistake(
            "z carries gradient",
            "The point of reference carries gradient. It is what the batch has gained anyway: detach it.",
            wrong=_kto_like(point=lambda gain: gain.mean().clamp_min(0)),
        ),
        Mistake(
            "z may be negative",
            "The point of reference is at least 0: clamp the mean from below.",
            wrong=_kto_like(point=lambda gain: gain.detach().mean()),
        ),
        Mistake("no z", "The point of reference is missing.", wrong=_kto_like(point=lambda gain: 0.0)),
        Mistake(
            "sign",
            "The sign is turned: a gain is the base's error less the network's, and wanted samples are to gain.",
            wrong=_kto_like(sign=-1.0),
        ),
        Mistake(
            "labels ignored",
            "Unwanted samples are treated as wanted ones: they need the other sign.",
            wrong=_kto_one_sign,
        ),
        Mistake(
            "logarithm",
            "KTO's utility is the sigmoid itself, not its logarithm.",
            wrong=_kto_like(outside=lambda s: -s.log()),
        ),
    ],
)

# 11.7 D3PO -------------------------------------------------------------------------------------------------------

STEPS = ("winner", "loser", "base_winner", "base_loser", "beta", "clip_range")


def _step_cases() -> list[tuple]:
    stream = torch.Generator().manual_seed(8)

    def some(count: int, moved: float) -> list[Tensor]:
        base = [torch.randn(count, generator=stream) - 1 for _ in range(2)]
        return [b + moved * torch.randn(count, generator=stream) for b in base] + base

    zeros = torch.zeros(4)
    edge = torch.tensor([0.5, -0.5, 0.05, -0.05]), torch.tensor([-0.5, 0.5, -0.05, 0.5]), zeros, zeros
    return [(*some(6, 0.05), 0.1, 0.1), (*edge, 10.0, 0.1), (*some(5, 0.4), 3.0, 0.3), (*some(1, 0.0), 0.1, 0.1)]


def _step(winner, loser, base_winner, base_loser, beta, clip_range) -> Tensor:
    def bounded(new: Tensor, old: Tensor) -> Tensor:
        ratio = torch.exp(new - old.detach())
        return ratio if 1 - clip_range < ratio < 1 + clip_range else ratio.detach().clip(1 - clip_range, 1 + clip_range)

    total = winner.new_zeros(())
    for w, worse, bw, bl in zip(winner, loser, base_winner, base_loser, strict=True):
        total = total - _log_sigmoid(beta * torch.log(bounded(w, bw) / bounded(worse, bl)))
    return total / len(winner)


_step_values, _step_gradients = _values_and_gradients(_step, _step_cases, STEPS, 2)


def _step_bounds(student) -> None:
    far = [torch.tensor([x]) for x in (9.0, -9.0, 0.0, 0.0)]
    bound = beta = 0.1
    gap = math.log((1 + bound) / (1 - bound))
    for sign in (1, -1):
        given = [sign * x for x in far[:2]] + far[2:]
        wanted = torch.tensor(math.log1p(math.exp(-sign * beta * gap)))
        same(student(*given, beta, bound), wanted, what="the loss of a pair beyond its bounds")


def _step_like(clip="ratio", sign=1.0, base=True, outside=True, logs=True):
    def loss(winner, loser, base_winner, base_loser, beta, clip_range):
        won = winner - base_winner.detach() if base else winner
        lost = loser - base_loser.detach() if base else loser
        won, lost = (x.exp() for x in (won, lost))
        if clip == "ratio":
            won, lost = (x.clamp(1 - clip_range, 1 + clip_range) for x in (won, lost))
        margin = sign * beta * ((won.log() - lost.log()) if logs else (won - lost))
        log = torch.nn.functional.logsigmoid
        return -log(margin).mean() if outside else -log(margin.mean())

    return loss


STEP = Exercise(
    id="11.7",
    name="step_loss",
    points=2,
    reference=_step_like(),
    forbidden=FORBIDDEN,
    probes=_step_cases,
    properties=[
        Property("values are those of D3PO, averaged over pairs", _step_values),
        Property("gradients reach winner and loser, and vanish beyond the bounds", _step_gradients),
        Property("the loss is bounded on both sides", _step_bounds, "Clip ratios to 1 - clip_range .. 1 + clip_range."),
        Property("the base's log-probabilities carry no gradient", _no_gradient_to_the_base(_step_cases, 2), "Detach."),
    ],
    mistakes=[
        Mistake("no clip", "The ratios are not clipped.", wrong=_step_like(clip="")),
        Mistake(
            "sign",
            "The sign is turned: here are log-probabilities, not errors. The winner's are to rise.",
            wrong=_step_like(sign=-1.0),
        ),
        Mistake("ratios", "Take the logarithm of the clipped ratios, then subtract.", wrong=_step_like(logs=False)),
        Mistake(
            "no base",
            "The ratio is exp(log-probability less that of the base). The base is missing.",
            wrong=_step_like(base=False),
        ),
        Mistake(
            "sigmoid of the mean",
            "You average before the sigmoid. Each pair has a sigmoid of its own; the mean comes last.",
            wrong=_step_like(outside=False),
        ),
    ],
)  # fmt: skip

# 11.8 SPO's choice -----------------------------------------------------------------------------------------------

SCORES = torch.tensor([[0.2, 0.9, 0.1, 0.4], [3.0, 1.0, 2.0, 2.5], [-1.0, -4.0, -2.0, -0.5]])


def _score_cases() -> list[tuple]:
    return [(SCORES,), (-SCORES,), (SCORES[:1, :2],), (SCORES.flip(1),)]


def _choice(scores: Tensor) -> tuple[Tensor, Tensor]:
    ranked = [sorted(range(len(row)), key=row.__getitem__) for row in scores.tolist()]
    return torch.tensor([row[-1] for row in ranked]), torch.tensor([row[0] for row in ranked])


def _choice_rows(student) -> None:
    for (scores,) in _score_cases():
        same(student(scores), _choice(scores), what="(best, worst) of each row")


def _choice_ties(student) -> None:
    """All equal: one and the same candidate; two that share the top: either is right."""
    best, worst = student(torch.full((3, 4), 0.3))
    same(torch.as_tensor(worst), torch.as_tensor(best), what="best and worst of equal candidates")
    top = torch.tensor([[0.5, 0.9, 0.9, 0.1]])
    best, worst = student(top)
    same((top[0, best], worst), (torch.tensor([0.9]), torch.tensor([3])), what="where two share the top")


def _parts_equals(student) -> bool:
    best, worst = student(torch.full((2, 3), 0.3))
    return bool((best != worst).any())


CHOICE = Exercise(
    id="11.8",
    name="choose_candidates",
    points=1,
    reference="pixelpolicy.finetune:best_and_worst_candidates",
    forbidden=FORBIDDEN,
    probes=_score_cases,
    properties=[
        Property("the best and the worst candidate of each row", _choice_rows),
        Property("equal candidates make a pair of one with itself", _choice_ties, "In a flat row return best twice."),
    ],
    mistakes=[
        Mistake(
            "of the whole table",
            "You search the whole table. Candidates are compared with those that left from the same state: row by row.",
            wrong=lambda s: (s.argmax().expand(len(s)) % s.shape[1], s.argmin().expand(len(s)) % s.shape[1]),
        ),
        Mistake(
            "down the columns",
            "You compare candidates of different prompts: dimension 1 is the one to search.",
            wrong=lambda s: (s.argmax(0), s.argmin(0)),
        ),
        Mistake("turned", "The two are exchanged: the best comes first.", wrong=lambda s: (s.argmin(1), s.argmax(1))),
        Mistake(
            "scores",
            "You return scores. Return which candidate has them.",
            wrong=lambda s: (s.amax(1), s.amin(1)),
        ),
        Mistake(
            "flat rows",
            "Where all candidates are equal none is best. Return one and the same for both, so that nothing is learnt.",
            when=_parts_equals,
        ),
    ],
)  # fmt: skip

EXERCISES = [PAIRING, NOISE, DPO, DISPLACEMENT, ANCHOR, KTO, STEP, CHOICE]
