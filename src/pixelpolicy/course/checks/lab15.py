"""Checks of lab 15: following an object, Newton's law, DanceGRPO's step, VADER's frame, and DPO by segments."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = (
    "pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards", "pixelpolicy.generators",
)  # fmt: skip


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 15.1 The centre of mass --------------------------------------------------------------------------------------


def _weights() -> list[Tensor]:
    two_points = torch.zeros(1, 2, 6, 8, dtype=torch.float64)
    two_points[0, 0, 2, 5] = 1
    two_points[0, 1, 0, 0], two_points[0, 1, 5, 7] = 1, 3
    return [two_points, _random(1, 3, 4, 6, 8).square(), _random(2, 2, 3, 5, 5).square() * 10]


def _middle_of_mass(weights: Tensor) -> Tensor:
    height, width = weights.shape[-2:]
    total, right, down = weights.new_zeros(weights.shape[:2]), 0.0, 0.0
    for row in range(height):
        for column in range(width):
            here = weights[..., row, column]
            total, right, down = total + here, right + here * (column + 0.5), down + here * (row + 0.5)
    small = 1e-3
    return torch.stack(
        [(right + small * width / 2) / (total + small), (down + small * height / 2) / (total + small)], 2
    )


def _centre(weights: Tensor, half: float = 0.5, small: float = 1e-3, swap: bool = False, middle: bool = True) -> Tensor:
    height, width = weights.shape[-2:]
    mass = weights.sum((-2, -1)) + small
    x = (weights.sum(-2) * (torch.arange(width) + half)).sum(-1) + middle * small * width / 2
    y = (weights.sum(-1) * (torch.arange(height) + half)).sum(-1) + middle * small * height / 2
    return torch.stack([y, x] if swap else [x, y], -1) / mass[..., None]


def _centre_values(student) -> None:
    for weights in _weights():
        same(student(weights), _middle_of_mass(weights))


def _centre_empty(student) -> None:
    same(student(torch.zeros(2, 3, 6, 8)), torch.tensor([4.0, 3.0]).expand(2, 3, 2))


def _centre_gradient(student) -> None:
    for weights in _weights():
        same_gradient(student, _middle_of_mass, [weights])
    same_gradient(student, _middle_of_mass, [torch.zeros(1, 2, 4, 4, dtype=torch.float64)])


CENTRES = Exercise(
    id="15.1",
    name="centres",
    points=2,
    reference="pixelpolicy.rewards.physics:centres",
    forbidden=FORBIDDEN,
    probes=lambda: [(w,) for w in _weights()] + [(torch.zeros(1, 2, 4, 4, dtype=torch.float64),)],
    properties=[
        Property("x and y of each frame, pixels at .5", _centre_values),
        Property("an empty frame has its centre in the middle", _centre_empty, "Add 1e-3 of weight at the middle."),
        Property("the gradient says where weight would move the centre", _centre_gradient, "Detach nothing."),
    ],
    mistakes=[
        Mistake(
            "rows first", "x and y are exchanged: x counts columns, the last axis.", lambda w: _centre(w, swap=True)
        ),
        Mistake(
            "corners", "A pixel's centre lies at .5: the first is at 0.5, not at 0.", lambda w: _centre(w, half=0.0)
        ),
        Mistake(
            "drawn to the corner",
            "The small weight sits at the corner: in the numerator too, put 1e-3 times the middle.",
            lambda w: _centre(w, middle=False),
        ),
        Mistake("no guard", "An empty frame divides 0 by 0: add 1e-3 of weight.", lambda w: _centre(w, small=0.0)),
        Mistake(
            "the brightest pixel",
            "The brightest pixel jumps by whole pixels and has no gradient. Take the weighted mean of all.",
            when=lambda student: not student(_weights()[1].requires_grad_()).requires_grad,
        ),
        Mistake(
            "over all frames",
            "Every frame has a centre of its own: sum over the last two axes only.",
            lambda w: _centre(w.sum(1, keepdim=True)).expand(-1, w.shape[1], -1),
        ),
    ],
)

# 15.2 Newton's residual ---------------------------------------------------------------------------------------

GRAVITY = 1.5


def _tracks() -> list[tuple[Tensor, Tensor]]:
    time = torch.arange(6, dtype=torch.float64)
    fall = torch.stack([4 + 0.7 * time, 3 - 2 * time + GRAVITY * time**2 / 2], 1)[None]
    free = torch.tensor([[True, False, True, True], [False] * 4])
    noisy = torch.cat([fall, fall.flip(1)]) + _random(3, 2, 6, 2)
    return [(fall, torch.ones(1, 4, dtype=torch.bool)), (noisy, free), (_random(4, 3, 5, 2) * 4, _random(5, 3, 3) > 0)]


def _law(track: Tensor, free: Tensor) -> Tensor:
    rows = []
    for path, flies in zip(track, free, strict=True):
        across, down = [], []
        for i in range(1, len(path) - 1):
            bend = path[i + 1] - 2 * path[i] + path[i - 1]
            across.append(bend[0] ** 2)
            if flies[i - 1]:
                down.append((bend[1] - GRAVITY) ** 2)
        rows.append(sum(across) / len(across) + (sum(down) / len(down) if down else 0.0))
    return torch.stack(rows)


def _residual(track: Tensor, free: Tensor, g: float = GRAVITY, every: bool = False, over: str = "free", x: bool = True):
    bend = track[:, 2:] - 2 * track[:, 1:-1] + track[:, :-2]
    gap = (bend[..., 1] - g) ** 2
    down = (
        gap.mean(1) if every else (gap * free).sum(1) / (free.sum(1).clamp_min(1) if over == "free" else gap.shape[1])
    )
    return (bend[..., 0] ** 2).mean(1) * x + down


def _law_values(student) -> None:
    for track, free in _tracks():
        same(student(track, free, GRAVITY), _law(track, free), atol=1e-8)


def _law_zero(student) -> None:
    same(student(*_tracks()[0], GRAVITY), torch.zeros(1, dtype=torch.float64), atol=1e-9)


def _law_gradient(student) -> None:
    for track, free in _tracks()[1:]:
        same_gradient(lambda t, free=free: student(t, free, GRAVITY), lambda t, free=free: _law(t, free), [track])


NEWTON = Exercise(
    id="15.2",
    name="newton_residual",
    points=3,
    reference="pixelpolicy.rewards.physics:newton_residual",
    forbidden=FORBIDDEN,
    probes=lambda: [(*pair, GRAVITY) for pair in _tracks()],
    properties=[
        Property("a throw in free flight has no residual", _law_zero, "The acceleration is y[t+1] - 2 y[t] + y[t-1]."),
        Property("mean squares, downwards over the frames in flight alone", _law_values),
        Property("the gradient bends the track", _law_gradient, "Detach nothing."),
    ],
    mistakes=[
        Mistake("bounces too", "A bounce breaks no law: leave out the frames where free is False.",
                lambda t, f, g: _residual(t, f, g, every=True)),
        Mistake("gravity upwards", "y points down, and so does gravity: take it away, do not add it.",
                lambda t, f, g: _residual(t, f, -g)),
        Mistake("no gravity", "What falls is not at rest: the acceleration downwards should be gravity.",
                lambda t, f, g: _residual(t, f, 0.0)),
        Mistake("divided by all frames", "Downwards, divide by the number of frames in flight, not by that of all.",
                lambda t, f, g: _residual(t, f, g, over="all")),
        Mistake("only downwards", "A ball that jumps sideways breaks the law as well: add the residual across.",
                lambda t, f, g: _residual(t, f, g, x=False)),
        Mistake("speed for acceleration", "You took first differences, which are speeds. Take differences of those.",
                lambda t, f, g: ((t[:, 1:-1] - t[:, :-2])[..., 0] ** 2).mean(1)
                + (((t[:, 1:-1] - t[:, :-2])[..., 1] - g) ** 2 * f).sum(1) / f.sum(1).clamp_min(1)),
        Mistake("the root", "The residual is the mean square; take no root.",
                lambda t, f, g: _residual(t, f, g).clamp_min(1e-12).sqrt()),
    ],
)  # fmt: skip

# 15.3 DanceGRPO's step ----------------------------------------------------------------------------------------


def _levels() -> list[tuple]:
    pairs = [(1.0, 0.875, 0.3), (0.6, 0.5, 0.7), (0.25, 0.0, 0.3)]
    return [
        (_random(6 + i, 2, 3, 4), _random(9 + i, 2, 3, 4), torch.tensor(a).double(), torch.tensor(b).double(), noise)
        for i, (a, b, noise) in enumerate(pairs)
    ]


def _dance(x, velocity, sigma, sigma_next, noise, half=0.5, sign=1.0, root=True, squared=True, ahead=True):
    dt = sigma_next - sigma
    score = -(x + ahead * (1 - sigma) * velocity) / sigma
    g = noise**2 if squared else noise
    return x + (velocity - sign * half * g * score) * dt, noise * (torch.sqrt(-dt) if root else -dt)


def _dance_alone(x, velocity, sigma, sigma_next, noise):
    picture, steps = x - sigma * velocity, float(sigma - sigma_next)
    away = (x - (1 - sigma) * picture) / sigma**2  # minus the score of a Gaussian around (1 - sigma) picture
    return x - steps * velocity - steps * noise**2 / 2 * away, torch.tensor(noise * math.sqrt(steps)).double()


def _dance_values(student) -> None:
    for arguments in _levels():
        same(student(*arguments), _dance_alone(*arguments), atol=1e-7)


def _dance_still(student) -> None:
    x, v, sigma, sigma_next, _ = _levels()[1]
    mean, std = student(x, v, sigma, sigma_next, 0.0)
    same(mean, x + (sigma_next - sigma) * v)
    same(std, torch.zeros(()).double())


def _dance_gradient(student) -> None:
    for x, v, a, b, noise in _levels():
        same_gradient(lambda x, v, r=(a, b, noise): student(x, v, *r)[0],
                      lambda x, v, r=(a, b, noise): _dance_alone(x, v, *r)[0], [x, v])  # fmt: skip


def _answer(x, velocity, sigma, sigma_next, noise):
    from pixelpolicy.policies.transitions import dance_sde

    return dance_sde(x, velocity, sigma, sigma_next, noise=noise)


DANCE = Exercise(
    id="15.3",
    name="dance_step",
    points=2,
    reference=_answer,
    forbidden=FORBIDDEN,
    probes=_levels,
    properties=[
        Property("without noise it is Euler's step", _dance_still, "Noise 0: x + (sigma_next - sigma) v, std 0."),
        Property("mean and deviation at the first, a middle and the last step", _dance_values),
        Property("the gradient passes to state and velocity", _dance_gradient, "Detach nothing."),
    ],
    mistakes=[
        Mistake("no half", "A factor is off: the drift takes half of g squared.", lambda *a: _dance(*a, half=1.0)),
        Mistake("wrong way", "The sign of the score is turned: noise is added, so the drift must remove it.",
                lambda *a: _dance(*a, sign=-1.0)),
        Mistake("deviation without root", "Noise grows with the root of time: std is g sqrt(-dt).",
                lambda *a: _dance(*a, root=False)),
        Mistake("g not squared", "In the drift the noise stands squared.", lambda *a: _dance(*a, squared=False)),
        Mistake("score of the state", "The score needs the noise x + (1 - sigma) v, not x alone.",
                lambda *a: _dance(*a, ahead=False)),
        Mistake("noise without drift", "The mean is Euler's: each step adds noise that nobody removes.",
                lambda *a: _dance(*a, half=0.0)),
    ],
)  # fmt: skip

# 15.4 VADER's frame -------------------------------------------------------------------------------------------


def _latents() -> Tensor:
    return torch.arange(2000 * 3 * 5).double().view(2000, 3, 5, 1, 1)


def _frame_shape(student) -> None:
    for latents in (_latents()[:7], _random(12, 2, 4, 8, 1, 1), _random(13, 1, 2, 1, 3, 3)):
        got = student(latents, np.random.default_rng(0))
        same(tuple(got.shape), (len(latents), latents.shape[1], 1, *latents.shape[3:]), what="the shape")


def _frame_of_its_own(student) -> None:
    latents = _latents()
    got = student(latents, np.random.default_rng(1))
    hits = (got == latents).all(1).flatten(1).sum(1)
    if not (hits == 1).all():
        raise Mismatch(f"{int((hits != 1).sum())} of 2000 frames are none of their own clip's")


def _frame_fair(student) -> None:
    latents = _latents()
    got = student(latents, np.random.default_rng(2))
    counts = (got == latents).all(1).flatten(1).sum(0)
    if counts.min() < 300 or counts.max() > 500:
        raise Mismatch(f"of 5 frames the counts among 2000 clips are {counts.tolist()}, about 400 each were expected")


def _frame_repeats(student) -> None:
    one, two = (student(_latents(), np.random.default_rng(3)) for _ in range(2))
    same(one, two, what="two calls with equal generators")


def _frame_gradient(student) -> None:
    latents = _random(14, 6, 3, 5, 1, 1).requires_grad_()
    student(latents, np.random.default_rng(4)).sum().backward()
    if latents.grad is None:
        raise Mismatch("no gradient reaches the latents")
    same(latents.grad.sum((1, 2, 3, 4)), torch.full((6,), 3.0).double(), what="the gradient of each clip")


def _all_alike(student) -> bool:
    latents = _latents()
    found = [(student(latents, np.random.default_rng(s)) == latents).all(1).flatten(1) for s in range(3)]
    return all(len(hits.double().argmax(1).unique()) == 1 for hits in found)


def _frame_answer(latents, rng):
    from pixelpolicy.generators.video import one_frame

    return one_frame(latents, rng)


FRAME = Exercise(
    id="15.4",
    name="one_frame",
    points=2,
    reference=_frame_answer,
    forbidden=FORBIDDEN,
    probes=lambda: [(_latents()[:50].float(), np.random.default_rng(seed)) for seed in range(3)],
    properties=[
        Property("one frame a clip, and its axis stays", _frame_shape, "Keep a frame axis of length 1."),
        Property("it is a frame of its own clip", _frame_of_its_own),
        Property("every frame has the same chance", _frame_fair, "Draw whole numbers from 0 to frames - 1."),
        Property("the generator alone decides", _frame_repeats, "Draw from rng, not from a global source of chance."),
        Property("the gradient reaches the chosen frame", _frame_gradient, "Detach nothing."),
    ],
    mistakes=[
        Mistake("the first frame", "You always take the first frame, so that the others never learn.",
                lambda latents, rng: latents[:, :, :1]),
        Mistake("the last frame", "You always take the last frame, so that the others never learn.",
                lambda latents, rng: latents[:, :, -1:]),
        Mistake("the mean frame", "You return the mean of the frames, a blur that no frame shows. Choose one.",
                lambda latents, rng: latents.mean(2, keepdim=True)),
        Mistake("the same for all", "All clips get the same frame. Draw one for each clip: the batch then sees all.",
                when=_all_alike),
        Mistake("axis gone", "The frame axis is gone: the decoder wants [batch, code, 1, 1, 1].",
                when=lambda student: student(_latents()[:4], np.random.default_rng(0)).ndim == 4),
    ],
)  # fmt: skip

# 15.5 Labels by segments --------------------------------------------------------------------------------------


def _scores() -> list[tuple]:
    a = torch.tensor([[1.0, 1, 0, 0], [0.2, 0.2, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]]).double()
    b = torch.tensor([[0.0, 0, 1, 1], [0.1, 0.2, 0.9, 0.9], [0.5, 0.5, 0.5, 0.5]]).double()
    wide = (_random(15, 4, 8), _random(16, 4, 8))
    exact = torch.tensor([[0.75, 0.75, 0.5, 0.5]]).double(), torch.tensor([[0.5, 0.5, 0.75, 0.75]]).double()
    return [(a, b, 2, 0.0), (a, b, 2, 0.1), (a, b, 1, 0.0), (*wide, 4, 0.3), (*wide, 8, 0.0), (*wide, 1, 0.05),
            (*exact, 2, 0.25)]  # fmt: skip


def _labels(a: Tensor, b: Tensor, segments: int, margin: float) -> Tensor:
    length = a.shape[1] // segments
    rows = []
    for one, two in zip(a.tolist(), b.tolist(), strict=True):
        gaps = [
            math.fsum(one[i * length : (i + 1) * length]) / length
            - math.fsum(two[i * length : (i + 1) * length]) / length
            for i in range(segments)
        ]
        rows.append([0.0 if abs(gap) <= margin else math.copysign(1.0, gap) for gap in gaps])
    return torch.tensor(rows).double()


def _label(a, b, segments, margin, sums=False, sign=1.0, whole=False, stride=False):
    gap = a - b
    parts = gap.unflatten(1, (-1, segments)).transpose(1, 2) if stride else gap.unflatten(1, (segments, -1))
    gap = parts.sum(2) if sums else parts.mean(2)
    gap = gap.mean(1, keepdim=True).expand_as(gap) if whole else gap
    return sign * gap.sign() * (gap.abs() > margin)


def _label_values(student) -> None:
    for arguments in _scores():
        same(torch.as_tensor(student(*arguments)).double(), _labels(*arguments))


SEGMENTS = Exercise(
    id="15.5",
    name="segment_labels",
    points=2,
    reference="pixelpolicy.finetune.segments:segment_labels",
    forbidden=FORBIDDEN,
    probes=_scores,
    properties=[
        Property("+1 for the first clip, -1 for the second, 0 for a tie, segment by segment", _label_values),
        Property("exchanging the clips turns every label", lambda student: same(
            student(*_scores()[3]), -student(_scores()[3][1], _scores()[3][0], *_scores()[3][2:]))),
        Property("the labels are float numbers", lambda student: same(
            student(*_scores()[0]).is_floating_point(), True, what="is_floating_point")),
    ],
    mistakes=[
        Mistake("one label a clip", "Every segment has the label of the whole clip. Compare segment with segment.",
                lambda *a: _label(*a, whole=True)),
        Mistake("sums", "The margin is one of means: take the mean of a segment's frames, not the sum.",
                lambda *a: _label(*a, sums=True)),
        Mistake("turned", "The sign is turned: +1 is for the first clip.", lambda *a: _label(*a, sign=-1.0)),
        Mistake("interleaved", "A segment is made of neighbouring frames; yours takes every n-th one.",
                lambda *a: _label(*a, stride=True)),
        Mistake("no margin", "Near ties are labelled: within the margin the label is 0.",
                lambda a, b, s, m: _label(a, b, s, 0.0)),
    ],
)  # fmt: skip

# 15.6 The loss by segments ------------------------------------------------------------------------------------


def _cases() -> list[tuple]:
    errors = [_random(20 + i, 3, 8).square() for i in range(4)]
    labels = torch.tensor([[1.0, -1], [0, 1], [-1, 0]]).double()
    four = torch.tensor([[1.0, -1, 0, 0], [0, 0, 0, 1], [1, 1, -1, -1]]).double()
    one = torch.zeros(3, 2).double()
    one[1, 0] = -1.0
    return [
        (*errors, labels, 5.0),
        (*errors, four, 0.7),
        (*errors, torch.zeros(3, 2).double(), 5.0),
        (*errors, one, 2.0),
    ]


def _by_hand(errors_a, errors_b, base_a, base_b, labels, beta):
    length, terms = errors_a.shape[1] // labels.shape[1], []
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            if labels[i, j] == 0:
                continue
            part = slice(j * length, (j + 1) * length)
            a = errors_a[i, part].mean() - base_a[i, part].mean().detach()
            b = errors_b[i, part].mean() - base_b[i, part].mean().detach()
            terms.append(torch.log1p(torch.exp(labels[i, j] * beta / 2 * (a - b))))
    return torch.stack(terms).mean() if terms else errors_a.sum() * 0


def _dpo(ea, eb, ba, bb, labels, beta, sign=1.0, half=0.5, ties=False, base=True, inside=False):
    change = (ea - base * ba.detach()) - (eb - base * bb.detach())
    gap = sign * labels * beta * half * change.unflatten(1, (labels.shape[1], -1)).mean(2)
    if inside:
        return torch.nn.functional.softplus(gap[labels != 0].mean()) if (labels != 0).any() else ea.sum() * 0
    terms = torch.nn.functional.softplus(gap)
    mask = (labels != 0).double()
    return terms.mean() if ties else (terms * mask).sum() / mask.sum().clamp_min(1)


def _dpo_values(student) -> None:
    for arguments in _cases():
        same(student(*arguments), _by_hand(*arguments))


def _dpo_start(student) -> None:
    ea, eb, _, _, labels, beta = _cases()[0]
    same(student(ea, eb, ea.clone(), eb.clone(), labels, beta), torch.tensor(math.log(2)).double())


def _dpo_gradient(student) -> None:
    for arguments in _cases()[:2]:
        labels, beta = arguments[4:]
        same_gradient(lambda *e, r=(labels, beta): student(*e, *r), lambda *e, r=(labels, beta): _by_hand(*e, *r),
                      list(arguments[:4]))  # fmt: skip


SEGMENT_LOSS = Exercise(
    id="15.6",
    name="segment_dpo_loss",
    points=3,
    reference="pixelpolicy.finetune.segments:segment_dpo_loss",
    forbidden=FORBIDDEN,
    probes=_cases,
    properties=[
        Property("before any training it is log 2", _dpo_start, "With e = b all gaps are 0."),
        Property("the mean over the labelled segments; 0 where there is none", _dpo_values),
        Property("gradient to the network's errors, none to the base's", _dpo_gradient, "Detach the base's errors."),
    ],
    mistakes=[
        Mistake("turned", "The sign is turned: the better error should fall.", lambda *a: _dpo(*a, sign=-1.0)),
        Mistake("beta whole", "A factor is off: it is beta / 2.", lambda *a: _dpo(*a, half=1.0)),
        Mistake("ties count", "Segments without a label count as log 2 here. Leave them out of the mean.",
                lambda *a: _dpo(*a, ties=True)),
        Mistake("no base", "The base's errors are missing: only the change against them counts.",
                lambda *a: _dpo(*a, base=False)),
        Mistake("mean inside", "You average before the sigmoid. Take -log sigmoid of each segment, then the mean.",
                lambda *a: _dpo(*a, inside=True)),
    ],
)  # fmt: skip

EXERCISES = [CENTRES, NEWTON, DANCE, FRAME, SEGMENTS, SEGMENT_LOSS]
