"""Checks of lab 08: rewards and how they are judged, each against an independent formula."""

from __future__ import annotations

import io
import itertools
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, raises, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

LIBRARY = ("pixelpolicy.rl", "pixelpolicy.rewards")
STATISTICS = (*LIBRARY, "sklearn", "scipy")

# 8.1 The contract of a reward ---------------------------------------------------------------------------------

SAMPLES = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-0.5, 1.5]])
PROMPTS = ["a", "b", "c"]


def _sum(samples: Tensor, prompts: list[str]) -> Tensor:
    return samples.sum(1)


def _square(samples: Tensor, prompts: list[str]) -> Tensor:
    return samples[:, 0] ** 2 + samples[:, 1] * len(prompts)


def _letters(samples: Tensor, prompts: list[str]) -> Tensor:
    return torch.tensor([float(ord(text)) for text in prompts])


TERMS = [(2.0, "sum", _sum), (-0.5, "square", _square), (0.01, "letters", _letters)]
BROKEN = {
    "a column": lambda samples, prompts: samples[:, :1],
    "one number": lambda samples, prompts: samples.sum(),
    "NaN": lambda samples, prompts: samples[:, 0] * torch.tensor([1.0, math.nan, 1.0]),
    "infinity": lambda samples, prompts: samples[:, 0] / torch.tensor([1.0, 1.0, 0.0]),
}


def _combined(terms, samples: Tensor, prompts: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
    parts = {name: reward(samples, prompts) for _, name, reward in terms}
    rows = [sum(weight * parts[name][i] for weight, name, _ in terms) for i in range(len(prompts))]
    return torch.stack(rows), parts


def _combine_values(student) -> None:
    for terms in (TERMS, TERMS[:1], TERMS[::-1]):
        got, want = student(terms, SAMPLES, PROMPTS), _combined(terms, SAMPLES, PROMPTS)
        same(got[0], want[0], what="the total")
        same(got[1], want[1], what="the parts")


def _combine_gradients(student) -> None:
    for terms in (TERMS, TERMS[:1], TERMS[1:]):
        same_gradient(
            lambda x, t=terms: student(t, x, PROMPTS)[0], lambda x, t=terms: _combined(t, x, PROMPTS)[0], (SAMPLES,)
        )


def _broken_promises(student) -> None:
    for what, reward in BROKEN.items():
        terms = [TERMS[0], (1.0, "faulty", reward)]
        raises(ValueError, student, terms, SAMPLES, PROMPTS)
        try:
            student(terms, SAMPLES, PROMPTS)
        except ValueError as error:
            if "faulty" not in str(error):
                raise Mismatch(
                    f"{what}: came out  {error}\nexpected  a message that names the reward, 'faulty'"
                ) from error


def _asked_once(student) -> None:
    calls = []

    def counted(samples, prompts):
        calls.append(len(prompts))
        return samples[:, 0]

    student([(1.0, "counted", counted), (1.0, "sum", _sum)], SAMPLES, PROMPTS)
    same(calls, [len(PROMPTS)], what="how often, and with how many prompts, a reward was called")


def _mixed(weigh_parts=False, total_of=lambda weight, values: weight * values):
    def combine(terms, samples, prompts):
        parts, total = {}, torch.zeros(len(prompts))
        for weight, name, reward in terms:
            values = reward(samples, prompts)
            if values.shape != (len(prompts),) or not values.isfinite().all():
                raise ValueError(name)
            parts[name] = weight * values if weigh_parts else values
            total = total + total_of(weight, values)
        return total, parts

    return combine


def _accepts(what: str):
    def when(student) -> bool:
        student([(1.0, "faulty", BROKEN[what])], SAMPLES, PROMPTS)
        return True

    return when


COMBINE = Exercise(
    id="8.1",
    name="combine",
    points=2,
    reference=_mixed(),
    forbidden=LIBRARY,
    probes=lambda: [(TERMS, SAMPLES, PROMPTS), (TERMS[1:], SAMPLES, PROMPTS)],
    properties=[
        Property("the total is the weighted sum, the parts are as the rewards gave them", _combine_values),
        Property("gradients reach the samples through the total", _combine_gradients, "Detach nothing."),
        Property(
            "a reward that breaks its promise stops the run, by name",
            _broken_promises,
            "Raise ValueError with the reward's name unless shape is (len(prompts),) and all is finite.",
        ),
        Property("each reward is asked once", _asked_once, "Keep what it returned; do not call it again."),
    ],
    mistakes=[
        Mistake(
            "weighted parts",
            "The parts are to stay as they are: the weight belongs into the total alone.",
            wrong=_mixed(weigh_parts=True),
        ),
        Mistake("no weights", "The weights are missing from the total.", wrong=_mixed(total_of=lambda w, v: v)),
        Mistake(
            "detached",
            "The values are right, but no gradient reaches the samples: do not detach.",
            wrong=_mixed(total_of=lambda w, v: w * v.detach()),
        ),
        Mistake(
            "a mean",
            "You divide by the number of rewards. A weighted sum does not.",
            wrong=lambda t, s, p: (lambda out: (out[0] / len(t), out[1]))(_mixed()(t, s, p)),
        ),
        Mistake(
            "shape let through",
            "A reward of shape [batch, 1] passes, and would be broadcast to a table. Test the shape.",
            when=_accepts("a column"),
        ),
        Mistake("NaN let through", "A NaN passes: test that all values are finite.", when=_accepts("NaN")),
        Mistake(
            "infinity let through", "NaN is caught and infinity is not: isfinite knows both.", when=_accepts("infinity")
        ),
    ],
)

# 8.2 Bytes as a reward ----------------------------------------------------------------------------------------


def _pictures() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    flat = torch.tensor([-1.0, 0.3, 0.9])[:, None, None].expand(3, 32, 32)
    ramp = torch.linspace(-1, 1, 48).expand(3, 24, 48) * torch.tensor([1.0, -1.0, 0.5])[:, None, None]
    loud = 1.4 * torch.rand(3, 32, 32, generator=generator) * torch.sign(torch.randn(3, 32, 32, generator=generator))
    return [flat, ramp, loud, torch.rand(3, 16, 40, generator=generator) * 2 - 1]


PICTURES = _pictures()


def _jpeg(
    picture: Tensor,
    quality: int = 95,
    levels=lambda x: np.clip(np.rint((x + 1) * 127.5), 0, 255),
    axes=(1, 2, 0),
    format="JPEG",
    unit=1000,
    **options,
) -> float:
    array = levels(picture.detach().numpy().astype(np.float64)).astype(np.int64).astype(np.uint8).transpose(axes)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, format, **{"quality": quality} | options)
    return file.tell() / unit


def _sizes(student) -> None:
    for picture in PICTURES:
        same(student(picture), _jpeg(picture), what=f"kilobytes of a picture of shape {list(picture.shape)}")


def _qualities(student) -> None:
    for quality in (30, 75, 90):
        same(student(PICTURES[2], quality), _jpeg(PICTURES[2], quality), what=f"kilobytes at quality {quality}")


def _picture_stays(student) -> None:
    picture = PICTURES[3].clone().requires_grad_()
    student(picture)
    same(picture, PICTURES[3], what="your function changed the picture it was given")


KILOBYTES = Exercise(
    id="8.2",
    name="kilobytes",
    points=2,
    reference=_jpeg,
    forbidden=LIBRARY,
    probes=lambda: [(picture, quality) for picture in PICTURES for quality in (95, 60)],
    properties=[
        Property("the size is that of the JPEG, in units of 1,000 bytes", _sizes),
        Property("quality is passed on", _qualities),
        Property(
            "a picture that carries a gradient can be measured, and stays as it is",
            _picture_stays,
            "detach() before numpy().",
        ),
    ],
    mistakes=[
        Mistake(
            "1,024",
            "You divide by 1,024; here a kilobyte has 1,000 bytes.",
            wrong=lambda p, q=95: _jpeg(p, q, unit=1024),
        ),
        Mistake("bytes", "These are bytes: divide by 1,000.", wrong=lambda p, q=95: _jpeg(p, q, unit=1)),
        Mistake(
            "quality ignored",
            "The quality is not passed on to PIL, which takes 75 by itself.",
            wrong=lambda p, q=95: _jpeg(p, 75),
        ),
        Mistake(
            "PNG",
            "This is a PNG: it loses nothing, and is larger. Save with the format JPEG.",
            wrong=lambda p, q=95: _jpeg(p, q, format="PNG"),
        ),
        Mistake(
            "no clamp",
            "Values beyond [-1, 1] wrap around: 256 becomes 0. Clamp to 0 .. 255 before the cast.",
            wrong=lambda p, q=95: _jpeg(p, q, levels=lambda x: np.rint((x + 1) * 127.5)),
        ),
        Mistake(
            "cut off",
            "A cast to uint8 cuts off: round first.",
            wrong=lambda p, q=95: _jpeg(p, q, levels=lambda x: np.clip((x + 1) * 127.5, 0, 255)),
        ),
        Mistake(
            "from 0",
            "You treat the picture as if it went from 0 to 1. It goes from -1 to 1.",
            wrong=lambda p, q=95: _jpeg(p, q, levels=lambda x: np.clip(np.rint(x * 255), 0, 255)),
        ),
    ],
)

# 8.3 Area under the curve -------------------------------------------------------------------------------------

VALUES = torch.tensor([0.3, 0.9, 0.1, 0.7, 0.7, 0.2, 0.5])
ACCEPTED = torch.tensor([False, True, False, True, False, True, False])
AUC_CASES = [
    (VALUES, ACCEPTED),
    (-VALUES * 1000, ACCEPTED),
    (torch.ones(5), torch.tensor([True, False, False, True, False])),
    (torch.tensor([1.0, 2.0, 3.0]), torch.tensor([False, False, True])),
    (torch.tensor([1e8, 1e8 + 8, -1e8]), torch.tensor([True, False, False])),
]


def _auc(values: Tensor, accepted: Tensor, tie=0.5, swap=False) -> float:
    won = []
    for (a, good), (b, bad) in itertools.product(zip(values.tolist(), accepted.tolist(), strict=True), repeat=2):
        if good and not bad:
            won.append(tie if a == b else float((a < b) if swap else (a > b)))
    return math.fsum(won) / len(won)


def _auc_values(student) -> None:
    for case in AUC_CASES:
        same(student(*case), _auc(*case), what="the share")


def _auc_order(student) -> None:
    same(student(VALUES.exp(), ACCEPTED), _auc(VALUES, ACCEPTED), what="after a change that keeps the order")


def _auc_turned(student) -> None:
    same(student(-VALUES, ACCEPTED), 1 - _auc(VALUES, ACCEPTED), what="of minus the values")


def _by_means(values: Tensor, accepted: Tensor) -> float:
    return (values[accepted].mean() - values[~accepted].mean()).item()


def _all_pairs(values: Tensor, accepted: Tensor) -> float:
    gaps = values[accepted][:, None] - values[None, :]
    return ((gaps > 0).double() + 0.5 * (gaps == 0).double()).mean().item()


def _at_median(values: Tensor, accepted: Tensor) -> float:
    return ((values >= values.median()) == accepted).double().mean().item()


AUC = Exercise(
    id="8.3",
    name="area_under_curve",
    points=2,
    reference=_auc,
    forbidden=STATISTICS,
    probes=lambda: AUC_CASES,
    properties=[
        Property("values agree with a count over all pairs of accepted and rejected", _auc_values),
        Property("only the order counts", _auc_order, "Compare values; do not average them."),
        Property("turned values give 1 minus it", _auc_turned, "Ties count one half."),
    ],
    mistakes=[
        Mistake(
            "ties lost", "A tie counts as a defeat; let it count one half.", wrong=lambda v, a: _auc(v, a, tie=0.0)
        ),
        Mistake("ties won", "A tie counts as a win; let it count one half.", wrong=lambda v, a: _auc(v, a, tie=1.0)),
        Mistake("turned", "You count how often the rejected one has more.", wrong=lambda v, a: _auc(v, a, swap=True)),
        Mistake("means", "A difference of means depends on the unit. Count pairs instead.", wrong=_by_means),
        Mistake(
            "all pairs",
            "You compare the accepted with everybody. Compare them with the rejected alone.",
            wrong=_all_pairs,
        ),
        Mistake(
            "threshold",
            "You choose a threshold and count hits. No threshold is needed: compare pairs.",
            wrong=_at_median,
        ),
    ],
)

# 8.4 How many letters are right -------------------------------------------------------------------------------

READ = [
    ("CAT", "CAT"), ("cat", "CAT"), ("C A T", "cat"), ("", "CAT"), ("CART", "CAT"), ("ACT", "CAT"), ("COT", "CAT"),
    ("kitten", "sitting"), ("XYZ", "CAT"), ("CATCAT", "CAT"), ("A", "42"), ("reward", "award"), ("AT", "CAT"),
]  # fmt: skip


def _edits(a: str, b: str, replace: int = 1) -> int:
    """By the definition, from the end of both words, remembered."""
    known: dict[tuple[int, int], int] = {}

    def left(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        if (i, j) not in known:
            same_letter = a[i - 1] == b[j - 1]
            known[i, j] = min(
                left(i - 1, j) + 1, left(i, j - 1) + 1, left(i - 1, j - 1) + (0 if same_letter else replace)
            )
        return known[i, j]

    return left(len(a), len(b))


def _score(read: str, word: str, *, plain=lambda t: "".join(t.split()).casefold(), longest=max, edits=_edits) -> float:
    a, b = plain(read), plain(word)
    return 1 - edits(a, b) / longest(len(a), len(b))


def _scores(student) -> None:
    for read, word in READ:
        same(student(read, word), _score(read, word), what=f"the score of {read!r} for {word!r}")


def _score_range(student) -> None:
    for read, word in (("ABCDEFGH", "CAT"), ("", "policy"), ("policy", "policy")):
        same(student(read, word), _score(read, word), what=f"the score of {read!r} for {word!r}")


def _two_ways(student) -> None:
    for read, word in (("kitten", "sitting"), ("CART", "CAT"), ("flaw", "lawn")):
        same(student(read, word), student(word, read), what=f"{read} for {word} and the other way round")


def _hamming(a: str, b: str) -> int:
    return sum(x != y for x, y in zip(a, b, strict=False)) + abs(len(a) - len(b))


SCORE = Exercise(
    id="8.4",
    name="text_score",
    points=3,
    reference=_score,
    forbidden=(*LIBRARY, "difflib", "rapidfuzz", "Levenshtein"),
    probes=lambda: READ,
    properties=[
        Property("values agree with the definition, case and spaces left out", _scores),
        Property(
            "from 0, where nothing is right, to 1", _score_range, "Divide by the length of the longer of the two."
        ),
        Property("it does not matter which of two texts was read", _two_ways),
    ],
    mistakes=[
        Mistake(
            "case",
            "Letter case should not count: casefold both.",
            wrong=lambda r, w: _score(r, w, plain=lambda t: "".join(t.split())),
        ),
        Mistake(
            "spaces",
            "Spaces should not count: take them out of both.",
            wrong=lambda r, w: _score(r, w, plain=str.casefold),
        ),
        Mistake(
            "place by place",
            "You compare letters at the same place. One letter too many shifts all the others: count "
            "insertions and deletions too.",
            wrong=lambda r, w: _score(r, w, edits=_hamming),
        ),
        Mistake(
            "word's length",
            "You divide by the length of the word, so that a long text scores below 0. Divide by that of the longer.",
            wrong=lambda r, w: _score(r, w, longest=lambda a, b: b),
        ),
        Mistake(
            "replacing costs 2",
            "Replacing a letter is one edit, not a deletion and an insertion.",
            wrong=lambda r, w: _score(r, w, edits=lambda a, b: _edits(a, b, 2)),
        ),
        Mistake("distance", "That is the share that is wrong: take it from 1.", wrong=lambda r, w: 1 - _score(r, w)),
        Mistake(
            "edits",
            "That is the number of edits. Divide by the longer length, and take it from 1.",
            wrong=lambda r, w: _edits("".join(r.split()).casefold(), "".join(w.split()).casefold()),
        ),
    ],
)

# 8.5 Ridge regression -----------------------------------------------------------------------------------------


def _problem(seed: int, rows: int, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator, dtype=torch.float64)
    return x, torch.randn(rows, outputs, generator=generator, dtype=torch.float64)


REGRESSIONS = [(*_problem(0, 12, 4, 2), 0.5), (*_problem(1, 5, 9, 3), 2.0), (*_problem(2, 3, 1, 1), 10.0)]


def _ridge(x: Tensor, y: Tensor, strength: float) -> Tensor:
    """By least squares on the data with the root of the strength below it."""
    more = math.sqrt(strength) * torch.eye(x.shape[1], dtype=x.dtype)
    tall, wide = torch.cat([x, more]), torch.cat([y, torch.zeros(x.shape[1], y.shape[1], dtype=y.dtype)])
    return torch.linalg.lstsq(tall, wide).solution


def _ridge_values(student) -> None:
    for x, y, strength in REGRESSIONS:
        same(student(x, y, strength), _ridge(x, y, strength), atol=1e-8, rtol=1e-7)


def _ridge_minimum(student) -> None:
    for x, y, strength in REGRESSIONS:
        weights = student(x, y, strength)
        slope = x.T @ (x @ weights - y) + strength * weights
        same(slope, torch.zeros_like(slope), atol=1e-8, what="the slope of the penalised error at your weights")


def _ridge_strong(student) -> None:
    x, y, _ = REGRESSIONS[0]
    same(student(x, y, 1e9), torch.zeros(4, 2, dtype=torch.float64), atol=1e-6, what="under a very large strength")


def _solved(ridge=lambda gram, eye, s, n: gram + s * eye):
    def fit(x, y, strength):
        eye = torch.eye(x.shape[1], dtype=x.dtype)
        return torch.linalg.solve(ridge(x.T @ x, eye, strength, len(x)), x.T @ y)

    return fit


RIDGE = Exercise(
    id="8.5",
    name="ridge",
    points=2,
    reference=_ridge,
    forbidden=STATISTICS,
    probes=lambda: REGRESSIONS,
    properties=[
        Property(
            "the weights are those of least squares with the penalty, also with fewer samples than inputs",
            _ridge_values,
        ),
        Property("no small change makes the penalised error less", _ridge_minimum),
        Property("a large strength leaves nothing", _ridge_strong),
    ],
    mistakes=[
        Mistake(
            "no strength",
            "The strength is not used: add it to the diagonal.",
            wrong=lambda x, y, s: torch.linalg.lstsq(x, y, driver="gelsd").solution,
        ),
        Mistake(
            "strength everywhere",
            "You add the strength to every entry of the matrix. Add it to the diagonal: times torch.eye.",
            wrong=_solved(lambda gram, eye, s, n: gram + s),
        ),
        Mistake(
            "squared strength",
            "The strength is squared; the formula has it as it is.",
            wrong=_solved(lambda gram, eye, s, n: gram + s**2 * eye),
        ),
        Mistake(
            "mean of squares",
            "You take the mean over the samples in one place and not in the other: X^T X and X^T Y are both sums.",
            wrong=lambda x, y, s: torch.linalg.solve(
                x.T @ x / len(x) + s * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y / len(x)
            ),
        ),
        Mistake(
            "minus",
            "The penalty has the wrong sign: it is added.",
            wrong=_solved(lambda gram, eye, s, n: gram - s * eye),
        ),
        Mistake(
            "transposed",
            "The result should be [inputs, outputs]; yours is turned.",
            wrong=lambda x, y, s: _ridge(x, y, s).T,
        ),
    ],
)

# 8.6 Retrieval ------------------------------------------------------------------------------------------------


def _vectors(seed: int, count: int, width: int, noise: float) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randn(count, width, generator=generator)
    pictures = texts + noise * torch.randn(count, width, generator=generator)
    lengths = torch.rand(2, count, 1, generator=generator) * 5 + 0.2
    return pictures * lengths[0], texts * lengths[1]


RETRIEVALS = [
    (*_vectors(seed, count, width, noise), within)
    for seed, count, width, noise in ((0, 24, 5, 1.2), (1, 12, 3, 0.8), (2, 30, 4, 2.0))
    for within in (1, 3, 5)
]


def _recall(pictures: Tensor, texts: Tensor, within: int, *, cosine=True, by_text=False) -> float:
    hits = 0
    rows = list(zip(pictures.double(), texts.double(), strict=True))
    for i in range(len(rows)):
        marks = []
        for j in range(len(rows)):
            a, b = (rows[j][0], rows[i][1]) if by_text else (rows[i][0], rows[j][1])
            dot = torch.dot(a, b).item()
            marks.append(dot / (a.norm() * b.norm()).item() if cosine else dot)
        hits += sum(mark > marks[i] for mark in marks) < within
    return hits / len(rows)


def _recall_values(student) -> None:
    for case in RETRIEVALS:
        same(student(*case), _recall(*case), what=f"recall at {case[2]}")


def _recall_all(student) -> None:
    pictures, texts, _ = RETRIEVALS[0]
    same(student(pictures, texts, len(texts)), 1.0, what="recall among all")


def _recall_lengths(student) -> None:
    pictures, texts, _ = RETRIEVALS[0]
    scale = torch.linspace(0.01, 100, len(texts))[:, None]
    same(
        student(pictures, texts * scale, 1),
        _recall(pictures, texts, 1),
        what="after the texts were made longer or shorter",
    )


def _exactly(pictures: Tensor, texts: Tensor, within: int) -> float:
    cosines = torch.nn.functional.normalize(pictures, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    places = cosines.argsort(dim=1, descending=True)[:, within - 1]
    return (places == torch.arange(len(pictures))).double().mean().item()


def _share_of_hits(pictures: Tensor, texts: Tensor, within: int) -> float:
    return _recall(pictures, texts, within) / within


RECALL = Exercise(
    id="8.6",
    name="recall_at",
    points=2,
    reference=_recall,
    forbidden=STATISTICS,
    probes=lambda: RETRIEVALS,
    properties=[
        Property(
            "values agree with counting, for each picture, the texts that are nearer than its own", _recall_values
        ),
        Property("among all texts, every picture finds its own", _recall_all),
        Property("only directions count, not lengths", _recall_lengths, "Divide each row by its length."),
    ],
    mistakes=[
        Mistake(
            "dot product",
            "Long vectors win in your ranking. A cosine needs both sides divided by their lengths.",
            wrong=lambda p, t, k: _recall(p, t, k, cosine=False),
        ),
        Mistake(
            "by text",
            "You look for the picture of each text. Here each picture looks for its text.",
            wrong=lambda p, t, k: _recall(p, t, k, by_text=True),
        ),
        Mistake(
            "exactly there",
            "You count a picture only if its text is exactly at that place. Among the nearest is enough.",
            wrong=_exactly,
        ),
        Mistake("always one", "`within` is not used.", wrong=lambda p, t, k: _recall(p, t, 1)),
        Mistake(
            "share of hits",
            "You average over the nearest as well: a picture is a hit if any of them is its own.",
            wrong=_share_of_hits,
        ),
        Mistake(
            "farthest",
            "You take the farthest texts: topk takes the largest, so give it cosines, not distances.",
            wrong=lambda p, t, k: _recall(-p, t, k),
        ),
    ],
)

# 8.7 A rater with faults --------------------------------------------------------------------------------------

LEFT = torch.tensor([0.2, 0.9, 0.5, 1.0, 0.0, 0.45], dtype=torch.float64)
RIGHT = torch.tensor([0.7, 0.1, 0.5, 0.0, 1.0, 0.4], dtype=torch.float64)
RATERS = [
    (LEFT, RIGHT, 0.1, 0.0, 0.05),
    (LEFT, RIGHT, 0.4, 0.8, 0.0),
    (RIGHT, LEFT, 1.0, -0.5, 0.3),
    (LEFT, RIGHT, 1e-3, 0, 1.0),
]


def _rated(left, right, temperature, bias, slips, *, inside=True, slip=0.5, divide=True) -> Tensor:
    rows = []
    for a, b in zip(left, right, strict=True):
        gap = (a - b) / temperature if divide else (a - b) * temperature
        look = 0.5 * (1 + torch.tanh((gap + bias if inside else gap) / 2))
        rows.append((1 - slips) * look + slips * slip + (0 if inside else bias))
    return torch.stack(rows)


def _rater_values(student) -> None:
    for case in RATERS:
        same(student(*case), _rated(*case))


def _rater_gradients(student) -> None:
    for left, right, *rest in RATERS[:3]:
        same_gradient(lambda a, b, r=rest: student(a, b, *r), lambda a, b, r=rest: _rated(a, b, *r), (left, right))


def _rater_far(student) -> None:
    far = torch.tensor([1000.0, -1000.0])
    same(student(far, -far, 0.1, 0.0, 0.1), torch.tensor([0.95, 0.05]), what="where one picture is far better")


def _rater_swapped(student) -> None:
    both = student(LEFT, RIGHT, 0.2, 0.0, 0.1) + student(RIGHT, LEFT, 0.2, 0.0, 0.1)
    same(both, torch.ones_like(LEFT), what="without a habit, P(left) and P(left) of the swapped pair add up")


RATER = Exercise(
    id="8.7",
    name="prefers_left",
    points=2,
    reference=_rated,
    forbidden=LIBRARY,
    probes=lambda: RATERS,
    properties=[
        Property("values agree with the formula, written with a hyperbolic tangent", _rater_values),
        Property("gradients reach both scores", _rater_gradients, "Detach nothing."),
        Property("large differences give no infinities", _rater_far, "Use torch.sigmoid."),
        Property("without a habit it does not matter which side is which", _rater_swapped),
    ],
    mistakes=[
        Mistake(
            "turned",
            "This is the probability of the right picture: take left less right.",
            wrong=lambda a, b, t, h, s: _rated(b, a, t, h, s),
        ),
        Mistake(
            "no slips",
            "The slips are missing: a share of the answers is a coin.",
            wrong=lambda a, b, t, h, s: _rated(a, b, t, h, 0.0),
        ),
        Mistake(
            "whole slips",
            "Of the answers given without looking, half go to the left: add slips / 2, not slips.",
            wrong=lambda a, b, t, h, s: _rated(a, b, t, h, s, slip=1.0),
        ),
        Mistake(
            "slips to the right",
            "Answers given without looking all go to the right: add slips / 2.",
            wrong=lambda a, b, t, h, s: _rated(a, b, t, h, s, slip=0.0),
        ),
        Mistake(
            "habit outside",
            "The habit is added to the probability, which may then leave [0, 1]. It belongs inside the sigmoid.",
            wrong=lambda a, b, t, h, s: _rated(a, b, t, h, s, inside=False),
        ),
        Mistake(
            "times temperature",
            "Divide by the temperature: a hot rater sees less, not more.",
            wrong=lambda a, b, t, h, s: _rated(a, b, t, h, s, divide=False),
        ),
        Mistake(
            "habit divided",
            "The habit is divided by the temperature too: add it after the division.",
            wrong=lambda a, b, t, h, s: _rated(a, b, t, h / t, s),
        ),
    ],
)

# 8.8 Calibration ----------------------------------------------------------------------------------------------


def _cases(seed: int, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    said = torch.rand(count, generator=generator, dtype=torch.float64)
    return said, torch.rand(count, generator=generator, dtype=torch.float64) < 0.2 + 0.5 * said


EDGES = torch.tensor([1.0, 0.0, 0.97, 0.5, 0.05, 0.99], dtype=torch.float64)
CALIBRATIONS = [
    (*_cases(0, 60), 10),
    (*_cases(1, 37), 5),
    (EDGES, torch.tensor([False, False, True, True, True, True]), 10),
    (torch.full((4,), 0.7, dtype=torch.float64), torch.tensor([True, True, False, False]), 4),
]


def _ece(said: Tensor, came: Tensor, bins: int = 10, *, weight=None, power=1, inner=False, top=True) -> float:
    total, used = 0.0, 0
    cases = list(zip(said.tolist(), came.tolist(), strict=True))
    for place in range(bins):
        low, high = place / bins, (place + 1) / bins
        mine = [(p, y) for p, y in cases if low <= p < high or (top and place == bins - 1 and p == 1)]
        if not mine:
            continue
        used += 1
        if inner:
            gap = math.fsum(abs(p - y) for p, y in mine) / len(mine)
        else:
            gap = abs(math.fsum(p - y for p, y in mine)) / len(mine)
        total += gap**power * (len(mine) / len(cases) if weight is None else weight)
    return total / used if weight is not None and weight == 1 else total


def _ece_values(student) -> None:
    for case in CALIBRATIONS:
        same(student(*case), _ece(*case), atol=1e-9)


def _ece_default(student) -> None:
    said, came, _ = CALIBRATIONS[0]
    same(student(said, came), _ece(said, came), atol=1e-9, what="with ten bins, the default")


def _ece_perfect(student) -> None:
    said = torch.tensor([0.75] * 4 + [0.25] * 4 + [0.0, 1.0], dtype=torch.float64)
    came = torch.tensor([True, True, True, False, False, False, False, True, False, True])
    same(student(said, came, 4), 0.0 + _ece(said, came, 4), atol=1e-9, what="of well calibrated cases")
    same(student(torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.bool), 10), 1.0, what="sure and wrong")


def _signed(said: Tensor, came: Tensor, bins: int = 10) -> float:
    return (said - came.to(said.dtype)).mean().item()


CALIBRATION = Exercise(
    id="8.8",
    name="calibration_error",
    points=3,
    reference=_ece,
    forbidden=STATISTICS,
    probes=lambda: CALIBRATIONS,
    properties=[
        Property("values agree with a count over the bins, boundaries and all", _ece_values),
        Property("ten bins unless told otherwise", _ece_default),
        Property("0 for what is calibrated, 1 for what is sure and wrong", _ece_perfect),
    ],
    mistakes=[
        Mistake(
            "equal weights",
            "You average over the bins. Weigh each by the share of the cases in it.",
            wrong=lambda p, y, b=10: _ece(p, y, b, weight=1),
        ),
        Mistake(
            "squares",
            "The gaps are squared: take their absolute values.",
            wrong=lambda p, y, b=10: _ece(p, y, b, power=2),
        ),
        Mistake(
            "case by case",
            "The absolute value is taken case by case, so that chance counts as error. Average within the bin first.",
            wrong=lambda p, y, b=10: _ece(p, y, b, inner=True),
        ),
        Mistake(
            "1 left out",
            "A probability of exactly 1 falls out of all bins; it belongs to the last.",
            wrong=lambda p, y, b=10: _ece(p, y, b, top=False),
        ),
        Mistake(
            "no bins",
            "Without bins, errors up and down cancel: average within each bin, take the absolute value, then add.",
            wrong=_signed,
        ),
        Mistake(
            "one bin",
            "Take the absolute value bin by bin, not once at the end.",
            wrong=lambda p, y, b=10: abs(_signed(p, y)),
        ),
    ],
)

EXERCISES = [COMBINE, KILOBYTES, AUC, SCORE, RIDGE, RECALL, RATER, CALIBRATION]
