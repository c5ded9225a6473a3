"""Checks of lab 18: a brush and its reward, and the pieces of a schedule's search, each against an own formula."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

CANVAS = tuple(f"pixelpolicy.worlds.canvas.{name}" for name in ("line", "covers", "add", "errors", "improvement"))
SCHEDULE = ("pixelpolicy.finetune",)
SIZE = 24

# 18.1 The brush -----------------------------------------------------------------------------------------------

STROKES = np.array(
    [
        [12, 12, 5, 0, 2.5],
        [8, 14, 2, -4, 1.5],
        [3, 3, 0, 0, 3],
        [20, 9, -3, 5, 1.0],
        [12.5, 6.5, 0, 4, 0.8],
    ],
    dtype=np.float32,
)


def _brush(distance=None, rim=lambda d, r: (r + 0.5 - d).clip(0, 1), turned=False):
    """Pixel by pixel: the distance to the nearer end, or to the line where the foot of the pixel lies on the stroke."""

    def nearest(px, py, x, y, hx, hy):
        length = math.hypot(hx, hy)
        if length < 1e-6:
            return math.hypot(px - x, py - y)
        along = ((px - x) * hx + (py - y) * hy) / length
        if abs(along) <= length:
            return abs((px - x) * hy - (py - y) * hx) / length
        sign = math.copysign(1, along)
        return math.hypot(px - x - sign * hx, py - y - sign * hy)

    measure = distance or nearest

    def brush(x, y, half_x, half_y, radius):
        out = np.zeros((len(x), SIZE, SIZE))
        for n, row, column in np.ndindex(len(x), SIZE, SIZE):
            d = measure(column + 0.5, row + 0.5, *(float(v[n]) for v in (x, y, half_x, half_y)))
            value = rim(np.float64(d), np.float64(radius[n]))
            out[(n, column, row) if turned else (n, row, column)] = value
        return out

    return brush


def _columns(rows) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(rows, dtype=np.float32).T.copy())


def _brush_values(student) -> None:
    for rows in (STROKES[:2], STROKES[2:3], STROKES[3:]):
        same(np.asarray(student(*_columns(rows))), _brush()(*_columns(rows)), atol=2e-3, rtol=1e-3)


def _brush_dot(student) -> None:
    got = np.asarray(student(*_columns([[12, 12, 0, 0, 2], [6, 6, 1e-4, 0, 2]])))
    if not np.isfinite(got).all():
        raise Mismatch("came out  NaN or infinity for a stroke of no length\nexpected  a dot")
    same(got, _brush()(*_columns([[12, 12, 0, 0, 2], [6, 6, 0, 0, 2]])), atol=2e-2, what="strokes of no length")


def _brush_range(student) -> None:
    got = np.asarray(student(*_columns(STROKES)))
    same([float(got.min()), float(got.max())], [0.0, 1.0], what="the least and the largest share")


def _on_the_infinite_line(px, py, x, y, hx, hy):
    return abs((px - x) * hy - (py - y) * hx) / max(math.hypot(hx, hy), 1e-3)


def _from_the_start(px, py, x, y, hx, hy):
    share = ((px - x) * hx + (py - y) * hy) / (hx * hx + hy * hy + 1e-6)
    share = min(max(share, 0), 1)
    return math.hypot(px - x - share * hx, py - y - share * hy)


def _corner(px, py, x, y, hx, hy):
    share = min(max(((px - 0.5 - x) * hx + (py - 0.5 - y) * hy) / (hx * hx + hy * hy + 1e-6), -1), 1)
    return math.hypot(px - 0.5 - x - share * hx, py - 0.5 - y - share * hy)


BRUSH = Exercise(
    id="18.1",
    name="brush",
    points=3,
    reference="pixelpolicy.worlds.canvas:line",
    forbidden=CANVAS,
    probes=lambda: [_columns(STROKES[:2]), _columns(STROKES[3:])],
    properties=[
        Property("a pixel is covered by its distance to the stroke", _brush_values, "Draw the distances as a picture."),
        Property("a stroke of no length is a dot", _brush_dot, "Keep the division from 0: add 1e-6 below."),
        Property("shares of a pixel lie from 0 to 1", _brush_range, "Clip at both ends."),
    ],
    mistakes=[
        Mistake("endless", "Your strokes never end: clip the share along the stroke to [-1, 1].",
                wrong=_brush(_on_the_infinite_line)),
        Mistake("half", "Only one half is painted: (x, y) is the middle, so the share runs from -1 to 1.",
                wrong=_brush(_from_the_start)),
        Mistake("hard rim", "The rim is hard: a pixel is in or out. Let the share fall from 1 to 0 around the radius.",
                when=lambda student: set(np.unique(np.asarray(student(*_columns(STROKES))))) == {0, 1}),
        Mistake("transposed", "Rows and columns are exchanged: the row of a pixel is its y.",
                wrong=_brush(turned=True)),
        Mistake("corner", "The stroke is half a pixel off: the middle of pixel 0 lies at 0.5.", wrong=_brush(_corner)),
        Mistake("shifted rim", "The stroke is half a pixel too thin: at the radius itself the share is 0.5.",
                wrong=_brush(rim=lambda d, r: (r - d).clip(0, 1))),
    ],
)  # fmt: skip

# 18.2 The reward of a stroke ----------------------------------------------------------------------------------


def _pictures(seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    wanted = rng.random((count, 6, 6)).astype(np.float32) * np.arange(1, count + 1, dtype=np.float32)[:, None, None]
    before = rng.random((count, 6, 6)).astype(np.float32) * 0.5
    return before, np.maximum(before, rng.random((count, 6, 6)).astype(np.float32)), wanted


PICTURES = [_pictures(0, 3), _pictures(1, 5), (np.zeros((2, 6, 6), np.float32), *_pictures(2, 2)[1:])]


def _pay(before, after, wanted):
    out = []
    for one, other, target in zip(before.astype(float), after.astype(float), wanted.astype(float), strict=True):
        empty = math.fsum((target**2).ravel())
        gap = math.fsum(((one - target) ** 2).ravel()) - math.fsum(((other - target) ** 2).ravel())
        out.append(gap / empty)
    return np.array(out)


def _pay_values(student) -> None:
    for given in PICTURES:
        same(np.asarray(student(*(x.copy() for x in given))), _pay(*given), atol=1e-5, rtol=1e-4)


def _pay_adds_up(student) -> None:
    before, after, wanted = PICTURES[1]
    empty, last = np.zeros_like(before), np.maximum(after, 0.7)
    states = [empty, before, after, last]
    total = sum(np.asarray(student(a, b, wanted)) for a, b in zip(states[:-1], states[1:], strict=True))
    same(total, _pay(empty, last, wanted), atol=1e-5, rtol=1e-4, what="the sum along an episode")


def _pay_harm(student) -> None:
    before, after, wanted = PICTURES[0]
    same(np.asarray(student(after, before, wanted)), -_pay(before, after, wanted), atol=1e-5, rtol=1e-4,
         what="the reward of the way back")  # fmt: skip


def _pay_as(make):
    return lambda before, after, wanted: make(
        lambda p: ((p - wanted) ** 2).sum((1, 2)), before, after, wanted, (wanted**2).sum((1, 2))
    )


IMPROVEMENT = Exercise(
    id="18.2",
    name="improvement",
    points=2,
    reference="pixelpolicy.worlds.canvas:improvement",
    forbidden=CANVAS,
    probes=lambda: [tuple(x.copy() for x in given) for given in PICTURES],
    properties=[
        Property("the error that a stroke removed, as a share of that of an empty canvas", _pay_values),
        Property("along an episode the rewards sum to the share removed", _pay_adds_up),
        Property("harm costs what its repair would earn", _pay_harm, "Do not clip the reward at 0."),
    ],
    mistakes=[
        Mistake("sign", "The sign is turned: an error that falls is good.",
                wrong=_pay_as(lambda e, b, a, w, z: (e(a) - e(b)) / z)),
        Mistake("no share", "Divide by the error of an empty canvas: a heavy target would count for more.",
                wrong=_pay_as(lambda e, b, a, w, z: e(b) - e(a))),
        Mistake("of what was left", "You divide by the error before the stroke, so the rewards do not add up: the "
                "last strokes would count for more than the first.",
                wrong=_pay_as(lambda e, b, a, w, z: (e(b) - e(a)) / e(b))),
        Mistake("clipped", "A stroke that harms must cost: do not clip the reward at 0.",
                wrong=_pay_as(lambda e, b, a, w, z: ((e(b) - e(a)) / z).clip(0))),
        Mistake("error alone", "That is how good the canvas is, not what the stroke did: compare with the one before.",
                wrong=_pay_as(lambda e, b, a, w, z: -e(a) / z)),
        Mistake("whole batch", "Return one number a picture: sum over rows and columns only.",
                wrong=_pay_as(lambda e, b, a, w, z: (e(b).sum() - e(a).sum()) / z.sum())),
        Mistake("absolute", "Square the differences: you take their absolute values.",
                wrong=lambda b, a, w: (abs(b - w).sum((1, 2)) - abs(a - w).sum((1, 2))) / abs(w).sum((1, 2))),
    ],
)  # fmt: skip

# 18.3 A schedule from numbers ---------------------------------------------------------------------------------

NUMBERS = [
    (torch.tensor([0.3, -0.2, 0.5, 0.1, 0.0, 0.4, 0.9, -0.3], dtype=torch.float64), (1.0, 0.0)),
    (torch.tensor([2.0, -1.0, 0.7, 0.2, 0.1, 1.1], dtype=torch.float64), (0.95, 0.05)),
    (torch.tensor([0.4, -0.6], dtype=torch.float64), (1.0, 0.0)),
    (torch.tensor([0.0, 0.0, 0.0, 0.0], dtype=torch.float64), (1.0, 0.0)),
]


def _schedule(numbers: Tensor, span) -> tuple[Tensor, Tensor]:
    steps = len(numbers) // 2
    widths = [torch.exp(number) for number in numbers[:steps]]
    total = sum(widths)
    levels, walked = [numbers.new_tensor(span[0])], numbers.new_zeros(())
    for width in widths:
        walked = walked + width / total
        levels.append(span[0] + (span[1] - span[0]) * walked)
    return torch.stack(levels), torch.stack([torch.exp(number) for number in numbers[steps:]])


def _parts(student, numbers, span) -> tuple[Tensor, Tensor]:
    got = student(numbers, span)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mismatch(f"came out  a {type(got).__name__}\nexpected  two tensors: noise levels and guidance weights")
    return tuple(got)


def _levels(student) -> None:
    for given in NUMBERS:
        same(_parts(student, *given)[0], _schedule(*given)[0], atol=2e-6, what="the noise levels")


def _weights(student) -> None:
    for given in NUMBERS:
        same(_parts(student, *given)[1], _schedule(*given)[1], what="the guidance weights")


def _schedule_gradients(student) -> None:
    for numbers, span in NUMBERS:
        same_gradient(
            lambda n, s=span: list(_parts(student, n, s)), lambda n, s=span: list(_schedule(n, s)), (numbers,),
            atol=1e-5, names=("numbers",),
        )  # fmt: skip


def _schedule_as(levels=None, weights=torch.exp, halves=lambda n: n.chunk(2)):
    def wrong(numbers, span):
        first, second = halves(numbers)
        default = _schedule(torch.cat([first, second]), span)
        return (levels(first, span) if levels else default[0]), weights(second)

    return wrong


def _climbing(first, span):
    return span[1] + (span[0] - span[1]) * torch.cat([first.new_zeros(1), first.softmax(0).cumsum(0)])


def _no_start(first, span):
    return span[0] + (span[1] - span[0]) * first.softmax(0).cumsum(0)


def _not_summed(first, span):
    return span[0] + (span[1] - span[0]) * torch.cat([first.new_zeros(1), first.softmax(0)])


def _whole_way(first, span):
    return 1 - torch.cat([first.new_zeros(1), first.softmax(0).cumsum(0)])


SCHEDULE_OF = Exercise(
    id="18.3",
    name="schedule_of",
    points=2,
    reference="pixelpolicy.finetune.schedule:schedule_of",
    forbidden=SCHEDULE,
    probes=lambda: [(numbers.clone(), span) for numbers, span in NUMBERS[:2]],
    properties=[
        Property("noise levels fall from the first to the last by shares of a softmax", _levels),
        Property("guidance weights are exponentials of the second half", _weights),
        Property("gradients reach every number", _schedule_gradients, "Stay with tensors: no .item(), no detach()."),
    ],
    mistakes=[
        Mistake("climbing", "Your noise rises. Sampling begins at span[0], where all is noise, and goes down.",
                wrong=_schedule_as(_climbing)),
        Mistake("no start", "A level is missing: T steps have T + 1 levels, and the first is span[0].",
                wrong=_schedule_as(_no_start)),
        Mistake("not summed", "The softmax gives how far each step goes; a level is where all steps so far lead.",
                wrong=_schedule_as(_not_summed)),
        Mistake("span", "You walk from 1 to 0 whatever the span: some models begin below 1 or end above 0.",
                wrong=_schedule_as(_whole_way)),
        Mistake("plain weights", "Take the exponential of the second half: a weight must be positive.",
                wrong=_schedule_as(weights=lambda n: n)),
        Mistake("softmax weights", "Guidance weights share nothing: each is an exponential of its own, no softmax.",
                wrong=_schedule_as(weights=lambda n: n.softmax(0))),
        Mistake("halves", "The halves are exchanged: increments come first, guidance second.",
                wrong=_schedule_as(halves=lambda n: n.chunk(2)[::-1])),
    ],
)  # fmt: skip

# 18.4 Antithetic draws ----------------------------------------------------------------------------------------

MEANS = [torch.tensor([0.5, -1.0, 2.0]), torch.zeros(5), torch.tensor([10.0, 0.0])]


def _stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _mirrored(student) -> None:
    for seed, mean in enumerate(MEANS):
        drawn = torch.as_tensor(student(mean.clone(), 0.3, 4, _stream(seed)))
        same(list(drawn.shape), [8, len(mean)], what="the shape for 4 pairs")
        same(drawn[:4] + drawn[4:], (2 * mean).expand(4, -1), atol=1e-5, what="a draw and its mirror image, summed")


def _spread(student) -> None:
    for seed, std in ((0, 0.2), (1, 1.5)):
        drawn = student(MEANS[0].clone(), std, 4000, _stream(seed))[:4000] - MEANS[0]
        same(drawn.std(0), torch.full((3,), std), rtol=0.08, what="the deviation of the draws from the mean")
        across = torch.corrcoef(drawn.T) - torch.eye(3)
        same(across, torch.zeros(3, 3), atol=0.08, what="the correlation of different numbers of a draw")


def _differ(student) -> None:
    drawn = student(MEANS[0].clone(), 0.3, 6, _stream(0))
    same(len({tuple(row.tolist()) for row in drawn}), 12, what="how many different schedules in 6 pairs")


def _stream_alone(student) -> None:
    torch.manual_seed(1)
    first = student(MEANS[1].clone(), 0.3, 3, _stream(5))
    torch.manual_seed(2)
    same(student(MEANS[1].clone(), 0.3, 3, _stream(5)), first, what="the same stream again")


def _drawn(combine):
    def wrong(mean, std, pairs, stream):
        return combine(mean, std, torch.randn(pairs, len(mean), generator=stream), stream)

    return wrong


ANTITHETIC = Exercise(
    id="18.4",
    name="antithetic",
    points=2,
    reference="pixelpolicy.finetune.schedule:antithetic",
    forbidden=SCHEDULE,
    probes=lambda: [(mean.clone(), 0.3, 4, _stream(seed)) for seed, mean in enumerate(MEANS)],
    properties=[
        Property("the second half are mirror images of the first", _mirrored),
        Property("the draws have the deviation that was asked for, number by number", _spread),
        Property("pairs differ", _differ, "Draw a deviation for each pair and each number."),
        Property("the stream alone decides", _stream_alone, "Pass generator=stream to torch.randn."),
    ],
    mistakes=[
        Mistake("independent", "The second half is drawn anew. Use the deviations of the first half with a minus.",
                wrong=_drawn(lambda m, s, e, g: torch.cat([m + s * e, m + s * torch.randn(e.shape, generator=g)]))),
        Mistake("at zero", "Mirror in the mean, not in 0: mean - d, not -(mean + d).",
                wrong=_drawn(lambda m, s, e, g: torch.cat([m + s * e, -(m + s * e)]))),
        Mistake("neighbours", "The right schedules in another order: first all of mean + d, then all of mean - d.",
                wrong=_drawn(lambda m, s, e, g: torch.stack([m + s * e, m - s * e], 1).flatten(0, 1))),
        Mistake("variance", "You scale the noise by std squared: a deviation is multiplied as it is.",
                wrong=_drawn(lambda m, s, e, g: torch.cat([m + s**2 * e, m - s**2 * e]))),
        Mistake("unscaled", "The noise has deviation 1: multiply it with std.",
                wrong=_drawn(lambda m, s, e, g: torch.cat([m + e, m - e]))),
        Mistake("one number", "One draw moves all numbers alike. Draw a deviation for each number.",
                wrong=lambda m, s, p, g: torch.cat([m + s * (e := torch.randn(p, 1, generator=g)), m - s * e])),
        Mistake("global chance", "You draw from a global source, so that no run can be repeated: pass "
                "generator=stream.", when=lambda student: not torch.equal(
                    student(MEANS[1].clone(), 0.3, 3, _stream(0)), student(MEANS[1].clone(), 0.3, 3, _stream(0)))),
    ],
)  # fmt: skip

# 18.5 The advantages of a pair --------------------------------------------------------------------------------

SCORES = [
    torch.tensor([0.9, 0.2, 0.5, 0.4, 0.8, 0.5]),
    torch.tensor([3.0, 1.0]),
    torch.tensor([-1.0, 2.0, 0.0, 5.0, 5.0, -3.0, 0.0, 4.0], dtype=torch.float64),
]


def _against(scores: Tensor) -> Tensor:
    pairs, rows = len(scores) // 2, scores.tolist()
    return torch.tensor(
        [rows[i] - (rows[i] + rows[(i + pairs) % (2 * pairs)]) / 2 for i in range(2 * pairs)], dtype=scores.dtype
    )


def _pair_values(student) -> None:
    for scores in SCORES:
        same(student(scores.clone()), _against(scores))


def _pair_level(student) -> None:
    shift = torch.tensor([10.0, -4.0, 1.0]).repeat(2)
    same(student(SCORES[0] + shift), _against(SCORES[0]), atol=1e-5, what="after both of a pair gained alike")


def _pair_untouched(student) -> None:
    scores = SCORES[0].clone()
    student(scores)
    same(scores, SCORES[0], what="your function changed the scores it was given")


def _paired(make):
    return lambda scores: make(*scores.chunk(2))


PAIRS = Exercise(
    id="18.5",
    name="pair_advantages",
    points=2,
    reference="pixelpolicy.finetune.schedule:pair_advantages",
    forbidden=SCHEDULE,
    probes=lambda: [(scores.clone(),) for scores in SCORES],
    properties=[
        Property("a schedule is held against the mean of its pair", _pair_values),
        Property("what both of a pair gain does not count", _pair_level),
        Property("the scores stay as they were", _pair_untouched, "Make a new tensor."),
    ],
    mistakes=[
        Mistake("batch mean", "You compare with the mean of all. The baseline of a schedule is the mean of its pair.",
                wrong=lambda s: s - s.mean()),
        Mistake("whole difference", "Twice too large: the distance to the pair's mean is half the difference.",
                wrong=_paired(lambda a, b: torch.cat([a - b, b - a]))),
        Mistake("sign", "The sign is turned: the better of a pair must have the positive advantage.",
                wrong=_paired(lambda a, b: torch.cat([(b - a) / 2, (a - b) / 2]))),
        Mistake("same sign", "Both of a pair get the same: the worse one must get the negative.",
                wrong=_paired(lambda a, b: torch.cat([(a - b) / 2, (a - b) / 2]))),
        Mistake("neighbours", "A schedule's mirror image stands half a batch away, not beside it.",
                wrong=lambda s: torch.stack([(s[::2] - s[1::2]) / 2, (s[1::2] - s[::2]) / 2], 1).flatten()),
        Mistake("half a batch", "One advantage is missing for each second: return as many as there are scores.",
                wrong=_paired(lambda a, b: (a - b) / 2)),
    ],
)  # fmt: skip

# 18.6 The score of a schedule ---------------------------------------------------------------------------------

JUDGED = [
    (torch.tensor([0.5, 0.6, 0.4]), torch.tensor([0.1, 0.2, 0.4]), 0.25, 0.3),
    (torch.tensor([0.2, 0.9]), torch.tensor([0.0, 0.5]), 0.5, 2.0),
    (torch.tensor([0.7, 0.7, 0.1, 0.0]), torch.tensor([0.05, 0.35, 0.35001, 7.0]), 0.35, 1.0),
]
UNMEASURED = (torch.tensor([0.3, 0.4]), torch.tensor([float("nan"), 0.1]), 0.2, 0.5)


def _scored(rewards: Tensor, diversities: Tensor, usual: float, weight: float) -> Tensor:
    out = []
    for reward, diversity in zip(rewards.tolist(), diversities.tolist(), strict=True):
        share = 0.0 if diversity != diversity else 1.0 if diversity >= usual else diversity / usual
        out.append(reward + weight * share)
    return torch.tensor(out, dtype=rewards.dtype)


def _score_values(student) -> None:
    for given in JUDGED:
        same(student(*given), _scored(*given))


def _score_unmeasured(student) -> None:
    same(student(*UNMEASURED), _scored(*UNMEASURED), what="where no diversity could be measured (NaN)")


def _score_weight(student) -> None:
    rewards, diversities, usual, _ = JUDGED[0]
    same(student(rewards, diversities, usual, 0.0), rewards, what="the score without a weight for diversity")


SCORE = Exercise(
    id="18.6",
    name="score_of",
    points=2,
    reference="pixelpolicy.finetune.schedule:score_of",
    forbidden=SCHEDULE,
    probes=lambda: [*JUDGED, UNMEASURED],
    properties=[
        Property("diversity counts as a share of the usual, up to 1", _score_values),
        Property("what could not be measured counts as none", _score_unmeasured, "Tensor.nan_to_num replaces NaN."),
        Property("without a weight the reward is left", _score_weight),
    ],
    mistakes=[
        Mistake("no cap", "You pay for more diversity than usual, which disorder can buy: let a share count up to 1.",
                wrong=lambda r, d, u, w: r + w * (d / u).nan_to_num(0.0)),
        Mistake("no share", "Divide by the usual diversity: the weight must mean the same in every world.",
                wrong=lambda r, d, u, w: r + w * d.nan_to_num(0.0).clamp(max=u)),
        Mistake("cap before the share", "The cap comes after the division: it is the share that counts up to 1.",
                wrong=lambda r, d, u, w: r + w * d.nan_to_num(0.0).clamp(max=1) / u),
        Mistake("penalty", "The sign is turned: diversity is wanted.",
                wrong=lambda r, d, u, w: r - w * (d / u).nan_to_num(0.0).clamp(max=1)),
        Mistake("unmeasured", "A NaN runs through to the score, and from there into every weight. Count it as 0.",
                wrong=lambda r, d, u, w: r + w * (d / u).clamp(max=1)),
        Mistake("unmeasured is best", "A diversity that could not be measured counts as full: count it as 0.",
                when=lambda student: abs(float(student(*UNMEASURED)[0]) - 0.8) < 1e-5),
        Mistake("product", "Add the bonus to the reward: as a factor it vanishes with the reward.",
                wrong=lambda r, d, u, w: r * w * (d / u).nan_to_num(0.0).clamp(max=1)),
    ],
)  # fmt: skip

EXERCISES = [BRUSH, IMPROVEMENT, SCHEDULE_OF, ANTITHETIC, PAIRS, SCORE]
