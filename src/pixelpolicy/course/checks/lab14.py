"""Checks of lab 14: the pieces of GRPO on tokens, each against an independent formula."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = (
    "pixelpolicy.rl",
    "pixelpolicy.finetune",
    "pixelpolicy.policies",
    "pixelpolicy.generators",
    "pixelpolicy.rewards",
    "pixelpolicy.worlds.layouts",
)
INF = float("inf")


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# 14.1 The nearest code ----------------------------------------------------------------------------------------

PAIRS = [
    (_random(0, 2, 3, 2, 4), _random(1, 5, 3)),
    (_random(2, 1, 2, 3, 3), 3 * _random(3, 7, 2)),
    (torch.tensor([0.4, -0.6, 3.0, 0.6]).reshape(1, 1, 2, 2), torch.tensor([[0.0], [1.0], [-1.0]])),
]


def _nearest(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    batch, dim, height, width = latents.shape
    codes = torch.zeros(batch, height, width, dtype=torch.long)
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                gaps = [math.dist(latents[b, :, i, j].tolist(), code.tolist()) for code in codebook]
                codes[b, i, j] = gaps.index(min(gaps))
    vectors = torch.stack([codebook[code] for code in codes.flatten()]).reshape(batch, height, width, dim)
    return vectors.movedim(-1, 1), codes


def _quantise(latents: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    vectors, codes = _nearest(latents.detach(), codebook.detach())
    return latents + (vectors - latents.detach()), codes


def _parts(answer) -> tuple[Tensor, Tensor]:
    if not (isinstance(answer, tuple | list) and len(answer) == 2):
        raise Mismatch("return two things: the quantised latents, and the numbers of the codes")
    return answer[0], answer[1]


def _codes_are_nearest(student) -> None:
    for latents, codebook in PAIRS:
        codes = torch.as_tensor(_parts(student(latents, codebook))[1])
        same(codes.long(), _nearest(latents, codebook)[1], what="the numbers of the codes")


def _vectors_are_codes(student) -> None:
    for latents, codebook in PAIRS:
        same(_parts(student(latents, codebook))[0], _nearest(latents, codebook)[0], what="the quantised latents")


def _straight_through(student) -> None:
    for latents, codebook in PAIRS:
        same_gradient(
            lambda z, c: _parts(student(z, c))[0],
            lambda z, c: _quantise(z, c)[0],
            (latents, codebook),
            names=("latents", "codebook"),
        )


def _quantiser(distance=lambda z, c: torch.cdist(z, c), pick="argmin", gradient="straight", permute=True):
    def answer(latents, codebook):
        rows = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]) if permute else latents.reshape(
            -1, latents.shape[1]
        )  # fmt: skip
        codes = getattr(distance(rows, codebook), pick)(1).reshape(len(latents), *latents.shape[2:])
        vectors = codebook[codes].permute(0, 3, 1, 2)
        if gradient == "code":
            return vectors, codes
        if gradient == "none":
            return vectors.detach(), codes
        if gradient == "both":
            return latents + vectors - latents.detach(), codes
        return latents + (vectors - latents).detach(), codes

    return answer


QUANTISE = Exercise(
    id="14.1",
    name="quantise",
    points=3,
    reference="pixelpolicy.generators.picture_tokens:quantise",
    forbidden=FORBIDDEN,
    probes=lambda: PAIRS,
    properties=[
        Property("each place gets the number of its nearest code", _codes_are_nearest),
        Property("the quantised latents are those codes, in the shape of the latents", _vectors_are_codes),
        Property(
            "the gradient passes straight through to the latents, and none reaches the codes",
            _straight_through,
            "latents + (codes - latents).detach() has the value of the codes and the gradient of the latents.",
        ),
    ],
    mistakes=[
        Mistake(
            "farthest",
            "You pick the code that is farthest away: take the least distance.",
            wrong=_quantiser(pick="argmax"),
        ),
        Mistake(
            "inner product",
            "You compare by inner product, which favours long codes. Compare by distance.",
            wrong=_quantiser(distance=lambda z, c: z @ c.T, pick="argmax"),
        ),
        Mistake(
            "channels",
            "The numbers of one place lie along dimension 1. Move that dimension to the end before you flatten.",
            wrong=_quantiser(permute=False),
        ),
        Mistake(
            "no gradient to the latents",
            "The values are right, but the gradient goes to the codes. An encoder behind this would never learn: "
            "let it pass straight through to the latents.",
            wrong=_quantiser(gradient="code"),
        ),
        Mistake(
            "detached",
            "The values are right, but no gradient passes at all. Only the difference may be detached.",
            wrong=_quantiser(gradient="none"),
        ),
        Mistake(
            "both",
            "The gradient reaches the latents and the codes as well: detach the whole difference.",
            wrong=_quantiser(gradient="both"),
        ),
    ],
)

# 14.2 Log-probabilities of tokens -----------------------------------------------------------------------------


def _sequences(seed: int, batch: int, steps: int, choices: int) -> tuple[Tensor, Tensor]:
    states = torch.randint(choices, (batch, steps + 1), generator=torch.Generator().manual_seed(seed))
    states[:, 0] = -1
    return 2 * _random(seed, batch, steps + 1, choices), states


def _forced() -> tuple[Tensor, Tensor]:
    logits, states = _sequences(5, 2, 3, 4)
    logits[0, 1] = torch.tensor([-INF, 0.3, -INF, -INF])
    states[0, 2] = 1
    return logits, states


SEQUENCES = [_sequences(0, 2, 4, 5), _sequences(1, 3, 1, 3), _forced()]


def _log_probs(logits: Tensor, states: Tensor) -> Tensor:
    batch, length = states.shape
    rows = []
    for b in range(batch):
        row = [logits[b, t, states[b, t + 1]] - torch.logsumexp(logits[b, t], 0) for t in range(length - 1)]
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _log_prob_values(student) -> None:
    for logits, states in SEQUENCES:
        same(student(logits, states), _log_probs(logits, states))


def _log_prob_gradients(student) -> None:
    for logits, states in SEQUENCES[:2]:
        same_gradient(lambda x, s=states: student(x, s), lambda x, s=states: _log_probs(x, s), (logits,))


def _certain(student) -> None:
    logits, states = _forced()
    same(student(logits, states)[0, 1], torch.tensor(0.0), what="the log-probability of a token without alternative")


def _gathered(logits, tokens, normalise=lambda x: x.log_softmax(-1)):
    return normalise(logits).gather(-1, tokens.clamp_min(0)[..., None]).squeeze(-1)


LOG_PROBS = Exercise(
    id="14.2",
    name="token_log_probs",
    points=3,
    reference="pixelpolicy.rl:token_log_probs",
    forbidden=FORBIDDEN,
    probes=lambda: SEQUENCES,
    properties=[
        Property("each token's log-probability comes from the logits one place before it", _log_prob_values),
        Property("gradients reach the logits", _log_prob_gradients, "Do not detach: the logits are what is trained."),
        Property("a token without alternative has log-probability 0", _certain, "Normalise by log_softmax."),
    ],
    mistakes=[
        Mistake(
            "no shift",
            "You score each token by the logits of its own place, which have already seen it. Shift by one: the "
            "logits at t speak of the token at t + 1.",
            wrong=lambda x, s: _gathered(x[:, 1:], s[:, 1:]),
        ),
        Mistake(
            "wrong way",
            "You score the token at t by the logits at t, with the first and not the last left out: it is the next "
            "token they speak of.",
            wrong=lambda x, s: _gathered(x[:, :-1], s[:, :-1]),
        ),
        Mistake(
            "raw logits",
            "These are logits, not log-probabilities: normalise over the choices.",
            wrong=lambda x, s: _gathered(x[:, :-1], s[:, 1:], lambda y: y),
        ),
        Mistake(
            "probabilities",
            "These are probabilities: the logarithm is missing.",
            wrong=lambda x, s: _gathered(x[:, :-1], s[:, 1:], lambda y: y.softmax(-1)),
        ),
        Mistake(
            "summed",
            "You add up the sequence. Return one log-probability a token: each is a step of its own.",
            wrong=lambda x, s: _gathered(x[:, :-1], s[:, 1:]).sum(1),
        ),
        Mistake(
            "normalised over places",
            "You normalise over the wrong dimension: the choices are the last one.",
            wrong=lambda x, s: _gathered(x[:, :-1], s[:, 1:], lambda y: y.log_softmax(1)),
        ),
    ],
)

# 14.3 Temperature and nucleus ---------------------------------------------------------------------------------

FIVE = torch.tensor([0.05, 0.40, 0.10, 0.25, 0.20]).log()
TWO_ROWS = torch.stack([FIVE, FIVE[[3, 1, 0, 2, 4]]])
NARROWED = [
    (FIVE, 1.0, 1.0),
    (FIVE, 1.0, 0.5),
    (TWO_ROWS, 1.0, 0.7),
    (TWO_ROWS + 3.0, 2.0, 0.7),
    (FIVE, 0.5, 0.85),
    (FIVE, 1.0, 0.01),
    (2 * _random(4, 3, 2, 6), 0.8, 0.9),
    (torch.tensor([0.5, -INF, 0.1, -INF]), 1.0, 0.6),
]


def _narrow(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    if top_p == 1:
        return logits / temperature
    rows, choices = (logits / temperature).detach().double().reshape(-1, logits.shape[-1]), logits.shape[-1]
    out = torch.ones(len(rows), choices, dtype=torch.bool)
    for number, weights in enumerate(rows.exp()):
        total = 0.0
        for k in sorted(range(choices), key=lambda k: -weights[k].item()):  # noqa: B023
            if total >= top_p * weights.sum().item():
                break
            out[number, k] = False
            total += weights[k].item()
    return (logits / temperature).masked_fill(out.reshape(logits.shape), -INF)


def _narrow_values(student) -> None:
    for logits, temperature, top_p in NARROWED:
        same(student(logits, temperature, top_p), _narrow(logits, temperature, top_p))


def _narrow_nothing(student) -> None:
    faint = torch.tensor([0.0, -18.0, -30.0, -50.0])
    same(student(faint, 1.0, 1.0), faint, what="the logits at top_p 1")


def _narrow_border(student) -> None:
    """Of four equal choices, those that reach top_p to the last digit; which of the equals is left open."""
    for top_p in (0.25, 0.5, 0.75):
        stay = student(torch.zeros(4), 1.0, top_p).isfinite().sum()
        same(stay, torch.tensor(round(4 * top_p)), what=f"how many of four equal choices stay at top_p {top_p}")


def _narrow_gradient(student) -> None:
    for top_p in (0.7, 1.0):
        same_gradient(
            lambda x, p=top_p: student(x, 0.7, p).softmax(-1),
            lambda x, p=top_p: _narrow(x, 0.7, p).softmax(-1),
            (TWO_ROWS,),
        )


def _narrow_untouched(student) -> None:
    logits = TWO_ROWS.clone()
    student(logits, 0.5, 0.5)
    same(logits, TWO_ROWS, what="your function changed the logits it was given")


def _nucleus(before=True, shift=True, back=True, hot=True, fill=-INF, first=True):
    def answer(logits, temperature, top_p):
        scaled = logits / temperature if hot else logits * temperature
        probs = (scaled if first else logits).softmax(-1)
        ordered, order = probs.sort(dim=-1, descending=True, stable=True)
        reached = ordered.cumsum(-1)
        beyond = (reached - ordered >= top_p) if shift else (reached > top_p)
        if not before:
            beyond = ordered < top_p
        mask = torch.zeros_like(beyond).scatter(-1, order, beyond) if back else beyond
        return scaled.masked_fill(mask, fill) if top_p < 1 else scaled

    return answer


NUCLEUS = Exercise(
    id="14.3",
    name="nucleus",
    points=3,
    reference="pixelpolicy.generators.sampling:nucleus",
    forbidden=FORBIDDEN,
    probes=lambda: NARROWED,
    properties=[
        Property("the fewest choices that reach top_p stay, all others are at -inf", _narrow_values),
        Property(
            "the choice that brings the sum to top_p is the last that stays",
            _narrow_border,
            "Leave out a choice where those before it add up to top_p already, exactly top_p too.",
        ),
        Property(
            "at top_p 1 nothing is left out, however unlikely",
            _narrow_nothing,
            "Sums of float32 numbers reach 1 before the last choice: treat top_p = 1 by itself.",
        ),
        Property("gradients reach the logits that stay", _narrow_gradient, "Mask the logits; do not detach them."),
        Property("the given logits stay as they were", _narrow_untouched, "Use masked_fill, not masked_fill_."),
    ],
    mistakes=[
        Mistake(
            "hot and cold",
            "A low temperature must make the likely likelier: divide the logits by it.",
            wrong=_nucleus(hot=False),
        ),
        Mistake(
            "one short",
            "You drop the choice that brings the sum over top_p, and with a small top_p even the likeliest. It belongs "
            "to the nucleus: ask what stood before it.",
            wrong=_nucleus(shift=False),
        ),
        Mistake(
            "order",
            "The mask is still in the order of the sorted probabilities. Bring it back with scatter.",
            wrong=_nucleus(back=False),
        ),
        Mistake(
            "zero",
            "A logit of 0 is no probability of 0. What is left out gets -inf.",
            wrong=_nucleus(fill=0.0),
        ),
        Mistake(
            "threshold",
            "You compare each single probability with top_p. Their sum, from the likeliest on, must reach it.",
            wrong=_nucleus(before=False),
        ),
        Mistake(
            "temperature too late",
            "The nucleus is taken before the temperature. Divide first: the shares are those of what is drawn from.",
            wrong=_nucleus(first=False),
        ),
    ],
)

# 14.4 KL of tokens --------------------------------------------------------------------------------------------


def _masked(seed: int) -> tuple[Tensor, Tensor]:
    one, other = _random(seed, 2, 3, 5), _random(seed + 1, 2, 3, 5)
    one[0, :, 3:], other[0, :, 3:] = -INF, -INF
    return one, other


COUPLES = [
    (_random(0, 2, 3, 4), _random(1, 2, 3, 4)),
    (3 * _random(2, 4, 6), 3 * _random(3, 4, 6)),
    _masked(4),
    (_random(6, 3, 4), _random(6, 3, 4) + 7.0),
]


def _kl(logits: Tensor, reference: Tensor) -> Tensor:
    values = []
    for p, q in zip(logits.reshape(-1, logits.shape[-1]), reference.reshape(-1, reference.shape[-1]), strict=True):
        possible = [k for k in range(len(p)) if p[k] > -INF]
        log_p, log_q = p[possible] - torch.logsumexp(p[possible], 0), q[possible] - torch.logsumexp(q, 0)
        values.append((log_p.exp() * (log_p - log_q)).sum())
    return torch.stack(values).reshape(logits.shape[:-1])


def _kl_values(student) -> None:
    for logits, reference in COUPLES[:2]:
        same(student(logits, reference), _kl(logits, reference))
    same(student(*COUPLES[3]), torch.zeros(3), what="the divergence of equal distributions")


def _kl_gradients(student) -> None:
    for logits, reference in COUPLES[:2]:
        same_gradient(lambda x, r=reference: student(x, r), lambda x, r=reference: _kl(x, r), (logits,))


def _kl_masked(student) -> None:
    logits, reference = COUPLES[2]
    same(student(logits, reference), _kl(logits, reference))
    same_gradient(lambda x: student(x, reference), lambda x: _kl(x, reference), (logits,))


def _divergence(forward=True, reduce="sum", normalise=True, safe=True, detach=False):
    def answer(logits, reference):
        logits = logits.detach() if detach else logits
        p, q = (x.log_softmax(-1) if normalise else x for x in (logits, reference))
        if not forward:
            p, q = q, p
        if safe:
            gone = p.isneginf()
            terms = p.exp() * (p.masked_fill(gone, 0) - q.masked_fill(gone, 0))
        else:
            terms = p.exp() * (p - q)
        return {"sum": terms.sum(-1), "mean": terms.mean(-1), "all": terms.sum()}[reduce]

    return answer


KL = Exercise(
    id="14.4",
    name="token_kl",
    points=3,
    reference="pixelpolicy.rl:token_kl",
    forbidden=FORBIDDEN,
    probes=lambda: COUPLES,
    properties=[
        Property("values are the exact divergence, over all choices", _kl_values),
        Property("gradients reach the logits", _kl_gradients, "Do not detach the logits: the leash must pull."),
        Property(
            "a forbidden choice adds nothing, neither to the value nor to the gradient",
            _kl_masked,
            "Where the probability is 0 its logarithm is -inf, and 0 times -inf is nan: fill both logarithms there.",
        ),
    ],
    mistakes=[
        Mistake(
            "reversed",
            "That is the divergence of the base from you. Weigh by your own probabilities.",
            wrong=_divergence(forward=False),
        ),
        Mistake(
            "mean",
            "A divergence is a sum over the choices, weighed by their probabilities; you take their mean.",
            wrong=_divergence(reduce="mean"),
        ),
        Mistake(
            "not normalised",
            "Logits are no log-probabilities yet: both need log_softmax first.",
            wrong=_divergence(normalise=False),
        ),
        Mistake(
            "nan",
            "Where the grammar forbids a choice you compute 0 times (-inf minus -inf), which is nan. Fill the "
            "logarithms of forbidden choices before you subtract.",
            wrong=_divergence(safe=False),
        ),
        Mistake(
            "one number",
            "You add up everything. Return one divergence a token: sum over the last dimension alone.",
            wrong=_divergence(reduce="all"),
        ),
        Mistake(
            "detached",
            "The values are right, but no gradient reaches the logits: the leash would not pull.",
            wrong=_divergence(detach=True),
        ),
    ],
)

# 14.5 The reward of a layout ----------------------------------------------------------------------------------

RED, BLUE, GREEN = ("red", "circle"), ("blue", "square"), ("green", "triangle")
LAYOUTS = [
    ([RED], [RED], True, 1.0),
    ([], [RED], True, 0.0),
    ([BLUE], [RED], True, 0.0),
    ([RED, RED], [RED], True, 0.5),
    ([RED, RED], [RED, RED, RED], True, 2 / 3),
    ([BLUE, RED], [RED, BLUE], True, 1.0),
    ([RED, RED], [RED, BLUE], True, 0.5),
    ([RED, BLUE, GREEN], [RED, BLUE], True, 2 / 3),
    ([RED, BLUE], [RED, BLUE], False, 0.5),
    ([RED], [RED, BLUE], False, 0.25),
    ([("red", "square"), ("blue", "circle")], [RED, BLUE], True, 0.0),
]


def _layout_values(student) -> None:
    for planned, wanted, holds, share in LAYOUTS:
        if holds:
            same(student(list(planned), list(wanted), holds), share, what=f"{planned} for {wanted}")


def _layout_relation(student) -> None:
    for planned, wanted, holds, share in LAYOUTS:
        if not holds:
            same(student(list(planned), list(wanted), holds), share, what=f"{planned} for {wanted}, relation not held")


def _layout_untouched(student) -> None:
    planned, wanted = [RED, BLUE], [RED, BLUE]
    student(planned, wanted, True)
    if planned != [RED, BLUE] or wanted != [RED, BLUE]:
        raise Mismatch("your function changed a list it was given: work on a copy, list(wanted)")


def _shares(matched=None, over=max, wrong=0.5):
    def found(planned, wanted):
        left = list(wanted)
        for pair in planned:
            if pair in left:
                left.remove(pair)
        return len(wanted) - len(left)

    def answer(planned, wanted, holds):
        share = (matched or found)(planned, wanted) / max(over(len(planned), len(wanted)), 1)
        return share if holds else wrong * share

    return answer


LAYOUT = Exercise(
    id="14.5",
    name="layout_share",
    points=3,
    reference="pixelpolicy.worlds.layouts:share_found",
    forbidden=FORBIDDEN,
    probes=lambda: [(list(p), list(w), h) for p, w, h, _ in LAYOUTS],
    properties=[
        Property("objects that were asked for count once each, among all planned and all wanted", _layout_values),
        Property("where the relation does not hold, half is left", _layout_relation, "Halve the share, no more."),
        Property("the lists stay as they were", _layout_untouched, "Work on list(wanted)."),
    ],
    mistakes=[
        Mistake(
            "counted twice",
            "Two planned red circles cannot both answer for one wanted one. Strike each wanted object off once found.",
            wrong=_shares(lambda planned, wanted: sum(pair in wanted for pair in planned)),
        ),
        Mistake(
            "as sets",
            "As sets, three red circles are one. Count how many there are of each.",
            wrong=lambda p, w, h: (len(set(p) & set(w)) / max(len(set(p) | set(w)), 1)) * (1 if h else 0.5),
        ),
        Mistake(
            "surplus is free",
            "A layout with everything in it would get full marks: divide by the longer of the two lists.",
            wrong=_shares(over=lambda p, w: w),
        ),
        Mistake(
            "missing is free",
            "A layout that leaves out the hard object would get full marks: divide by the longer of the two lists.",
            wrong=_shares(over=lambda p, w: p),
        ),
        Mistake(
            "place by place",
            "You compare first with first and second with second. The order of a layout does not matter.",
            wrong=_shares(lambda planned, wanted: sum(a == b for a, b in zip(planned, wanted, strict=False))),
        ),
        Mistake(
            "relation ignored",
            "A relation that does not hold must cost something.",
            wrong=_shares(wrong=1.0),
        ),
        Mistake(
            "all or nothing",
            "A wrong relation takes everything: then right objects in wrong places teach nothing. Leave half.",
            wrong=_shares(wrong=0.0),
        ),
    ],
)

# 14.6 The advantage of a token --------------------------------------------------------------------------------

YES, NO = True, False
CHOICES = [
    (torch.tensor([1.0, -2.0]), torch.tensor([[YES, YES, YES, YES], [YES, NO, NO, YES]])),
    (torch.tensor([0.5, 0.0, -1.5]), torch.tensor([[NO, YES, NO], [YES, YES, YES], [YES, YES, NO]])),
    (torch.tensor([2.0]), torch.tensor([[NO, NO, NO, NO, YES]])),
]


def _per_token(advantages: Tensor, chosen: Tensor) -> Tensor:
    steps = chosen.shape[1]
    rows = [
        [a * steps / sum(row) if mine else 0.0 for mine in row]
        for a, row in zip(advantages.tolist(), chosen.tolist(), strict=True)
    ]
    return torch.tensor(rows)


def _token_values(student) -> None:
    for advantages, chosen in CHOICES:
        same(student(advantages, chosen), _per_token(advantages, chosen))


def _token_mean(student) -> None:
    for advantages, chosen in CHOICES:
        spread = torch.as_tensor(student(advantages, chosen))
        if spread.shape != chosen.shape:
            raise Mismatch(f"shape {list(spread.shape)} came out, {list(chosen.shape)} is expected: one row a sample")
        same(spread.mean(1), advantages, what="the mean over a sample's row")


def _token_unchosen(student) -> None:
    for advantages, chosen in CHOICES:
        spread = torch.as_tensor(student(advantages, chosen))
        same(spread[~chosen], torch.zeros(int((~chosen).sum())), what="the advantages of tokens that nobody chose")


SPREAD = Exercise(
    id="14.6",
    name="token_advantages",
    points=2,
    reference="pixelpolicy.rl:token_advantages",
    forbidden=FORBIDDEN,
    probes=lambda: CHOICES,
    properties=[
        Property("a sample's advantage stands at each token it chose, weighted", _token_values),
        Property("the mean over a sample's row is its advantage, however many tokens it chose", _token_mean),
        Property("a token that was not chosen has 0", _token_unchosen, "Multiply by chosen."),
    ],
    mistakes=[
        Mistake(
            "everywhere",
            "Every token gets it, also those that nobody chose.",
            wrong=lambda a, c: a[:, None].expand(c.shape).clone(),
        ),
        Mistake(
            "unweighted",
            "A sample that plans more objects counts for more: weigh by steps / number of chosen tokens.",
            wrong=lambda a, c: a[:, None] * c,
        ),
        Mistake(
            "steps forgotten",
            "Divided by the number of chosen tokens, but the loss divides by all steps as well: multiply by steps.",
            wrong=lambda a, c: a[:, None] * c / c.sum(1, keepdim=True),
        ),
        Mistake(
            "whole batch",
            "You weigh all rows alike, by the mean number of chosen tokens. Each row has its own.",
            wrong=lambda a, c: a[:, None] * c * c.numel() / c.sum(),
        ),
        Mistake(
            "first chosen",
            "All of it stands at one token. Each token that was chosen had its part in the result.",
            wrong=lambda a, c: a[:, None] * c.shape[1] * (c & (c.cumsum(1) == 1)),
        ),
    ],
)

EXERCISES = [QUANTISE, LOG_PROBS, NUCLEUS, KL, LAYOUT, SPREAD]
