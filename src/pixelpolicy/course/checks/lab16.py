"""Checks of lab 16: what stands and hangs together, which samples to keep, which views agree; values, gradients."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies", "pixelpolicy.rewards")
FORBIDDEN_WORLD = (*FORBIDDEN, "pixelpolicy.worlds")


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _double(cases: list[tuple]) -> list[tuple]:
    """Fresh copies in float64, where two ways to write one formula agree to the last digit that is compared."""

    def fresh(x):
        return x if not isinstance(x, Tensor) else x.double() if x.is_floating_point() else x.clone()

    return [tuple(map(fresh, case)) for case in cases]


# 16.1 The tilt margin ---------------------------------------------------------------------------------------------

SQUARE = [(-0.3, -0.2), (0.3, -0.2), (0.3, 0.2), (-0.3, 0.2)]
TRIANGLE = [(-0.4, -0.4), (0.4, -0.4), (-0.4, 0.4)]
KITE = [(0.1, -0.5), (0.6, 0.1), (0.0, 0.3), (-0.2, 0.0)]


def _ring(*corners: tuple[float, float]) -> list[tuple[float, float]]:
    """Six corners: the first ones repeated, as the fan repeats them."""
    spare = 6 - len(corners)
    return [corner for n, corner in enumerate(corners) for _ in range(1 + (spare if n == 1 else 0))]


FEET = torch.tensor([_ring(*SQUARE), _ring(*SQUARE), _ring(*SQUARE), _ring(*TRIANGLE), _ring(*TRIANGLE), _ring(*KITE)])
CENTRES = torch.tensor(
    [[-0.15, 0.5, 0.01], [0.31, 0.8, 0.1], [0.1, 0.05, -0.05], [-0.1, 0.4, -0.05], [0.15, 0.5, 0.1], [0.1, 1.2, 0.02]]
)
MARGINS = [(FEET, CENTRES), (FEET[:1], CENTRES[:1]), (FEET[3:].double() * 2, CENTRES[3:].double())]


def _margins(foot: Tensor, centre: Tensor, *, pick=min, swap=False, signed=True, unit=math.degrees) -> Tensor:
    """Edge by edge: the distance along the edge's inward normal."""
    rows = []
    for corners, (x, y, z) in zip(foot, centre, strict=True):
        angles = []
        for a, b in pairwise([*corners, corners[0]]):
            if torch.equal(a, b):
                continue
            along = (b - a) / torch.linalg.vector_norm(b - a)
            distance = -along[1] * (x - a[0]) + along[0] * (z - a[1])
            distance = distance if signed else distance.abs()
            angles.append(torch.atan2(y, distance) if swap else torch.atan2(distance, y))
        chosen = angles[pick(range(len(angles)), key=[v.item() for v in angles].__getitem__)]
        rows.append(chosen * unit(1.0))
    return torch.stack(rows)


def _to_corners(foot: Tensor, centre: Tensor) -> Tensor:
    """The distance to the nearest corner in place of the nearest edge."""
    gaps = torch.linalg.vector_norm(foot - centre[:, None, [0, 2]], dim=-1).amin(1)
    return torch.rad2deg(torch.atan2(gaps, centre[:, 1]))


def _from_origin(foot: Tensor, centre: Tensor) -> Tensor:
    return _margins(foot, centre * torch.tensor([0.0, 1.0, 0.0], dtype=centre.dtype))


def _open(foot: Tensor, centre: Tensor) -> Tensor:
    """The last edge, back to the first corner, is left out."""
    rows = []
    for corners, point in zip(foot, centre, strict=True):
        edge, offset = corners[1:] - corners[:-1], point[[0, 2]] - corners[:-1]
        real = edge.detach().abs().sum(1) > 0
        edge, offset = edge[real], offset[real]
        inside = (edge[:, 0] * offset[:, 1] - edge[:, 1] * offset[:, 0]) / edge.square().sum(1).sqrt()
        rows.append(torch.rad2deg(torch.atan2(inside.amin(), point[1])))
    return torch.stack(rows)


def _margin_values(student) -> None:
    for given in MARGINS:
        same(student(*given), _margins(*given), atol=1e-3)


def _margin_block(student) -> None:
    for half, high in ((0.1, 0.1), (0.2, 1.0), (0.5, 0.25)):
        foot = torch.tensor([[(-half, -1.0), (half, -1.0), (half, 1.0), (-half, 1.0)]])
        same(student(foot, torch.tensor([[0.0, high, 0.0]])), torch.tensor([math.degrees(math.atan(half / high))]),
             atol=1e-3, what=f"a block {2 * half:g} wide with its centre {high:g} high")  # fmt: skip


def _margin_negative(student) -> None:
    got = student(FEET[1:2], CENTRES[1:2])
    if not (got < 0).all():
        raise Mismatch(f"a piece whose centre of mass lies beside its foot came out at {got.tolist()} degrees")


def _margin_gradients(student) -> None:
    for given in MARGINS:
        same_gradient(student, _margins, given, names=("the foot", "the centre"), atol=2e-3, rtol=1e-4)


TILT = Exercise(
    id="16.1",
    name="tilt_margin",
    points=3,
    reference=_margins,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double(MARGINS),
    properties=[
        Property(
            "a repeated corner makes no edge, and no number that is none",
            lambda student: same(student(*MARGINS[0]).isfinite(), torch.ones(6, dtype=torch.bool)),
            "An edge of length 0 divides by 0. Give it the distance infinity, so that it is never the least.",
        ),
        Property("a block tips at the angle of its diagonal", _margin_block),
        Property("the least angle over all edges counts", _margin_values),
        Property("a centre of mass beside the foot gives a negative margin", _margin_negative),
        Property(
            "gradients reach the foot and the centre, and are finite",
            _margin_gradients,
            "Clamp the length before you divide: where() alone still sends a gradient through 0/0.",
        ),
    ],
    mistakes=[
        Mistake("radians", "These are radians. Turn them into degrees.",
                wrong=lambda f, c: _margins(f, c, unit=lambda one: one)),
        Mistake("largest", "You take the largest angle: that is the edge over which it falls last.",
                wrong=lambda f, c: _margins(f, c, pick=max)),
        Mistake("upside down", "The tangent is distance over height, not height over distance.",
                wrong=lambda f, c: _margins(f, c, swap=True)),
        Mistake("unsigned", "Outside the foot the distance must be negative: take no absolute value.",
                wrong=lambda f, c: _margins(f, c, signed=False)),
        Mistake("corners", "You measure to the nearest corner. It tips over an edge.",
                when=lambda student: torch.allclose(student(*MARGINS[0]), _to_corners(*MARGINS[0]), atol=1e-3)),
        Mistake("origin", "You measure from the origin, not from the plumb point of the centre of mass.",
                wrong=_from_origin),
        Mistake("open", "The ring is not closed: the last corner has an edge back to the first. `roll` makes it.",
                wrong=_open),
        Mistake("sign", "The sign is turned: inside an anticlockwise ring the cross product is positive.",
                wrong=lambda f, c: _margins(f.flip(1), c)),
        Mistake("cut", "The values are right, but no gradient comes back. Detach nothing.",
                wrong=lambda f, c: _margins(f, c).detach()),
    ],
)  # fmt: skip

# 16.2 Hanging together --------------------------------------------------------------------------------------------


def _links(count: int, *pairs: tuple[int, int]) -> Tensor:
    touching = torch.eye(count, dtype=torch.bool)
    for a, b in pairs:
        touching[a, b] = touching[b, a] = True
    return touching


CHAIN = _links(6, (0, 3), (3, 1), (1, 5), (5, 2), (2, 4))
ISLANDS = _links(6, (0, 1), (2, 3), (4, 5))
STAR = _links(6, (0, 1), (0, 2), (0, 3), (0, 4), (0, 5))
ALONE = _links(6)
ALL = torch.ones(6, dtype=torch.bool)


def _without(*absent: int) -> Tensor:
    return torch.tensor([n not in absent for n in range(6)])


TOUCHING = [
    (torch.stack([CHAIN, ISLANDS, STAR, ALONE]), torch.stack([ALL] * 4)),
    (
        torch.stack([CHAIN, STAR, ISLANDS, CHAIN]),
        torch.stack([_without(1), _without(0), _without(0, 1, 4, 5), _without(4)]),
    ),
    (
        torch.stack([ALONE, ALONE, CHAIN, STAR]),
        torch.stack([_without(1, 2, 3, 4, 5), _without(*range(6)), _without(0, 3), _without(5)]),
    ),
]
LONG = (_links(12, *pairwise([7, 0, 11, 3, 9, 1, 5, 10, 2, 8, 4, 6]))[None], torch.ones(1, 12, dtype=torch.bool))


def _together(touching: Tensor, there: Tensor, *, steps: int | None = None, heed=True, none=False) -> Tensor:
    """A breadth-first walk of each piece."""
    answers = []
    for links, present in zip(touching.tolist(), there.tolist(), strict=True):
        nodes = [n for n, p in enumerate(present) if p]
        walk = nodes if heed else range(len(present))
        found = set(nodes[:1])
        for _ in range(len(present) if steps is None else steps):
            found |= {b for a in found for b in walk if links[a][b]}
        answers.append(set(nodes) <= found if nodes else none)
    return torch.tensor(answers)


def _some_neighbour(touching: Tensor, there: Tensor) -> Tensor:
    links = touching & there[:, :, None] & there[:, None] & ~torch.eye(there.shape[1], dtype=torch.bool)
    return there.any(1) & (links.any(2) | ~there).all(1)


def _all_pairs(touching: Tensor, there: Tensor) -> Tensor:
    return there.any(1) & (touching | ~there[:, :, None] | ~there[:, None]).all((1, 2))


def _together_values(student) -> None:
    for given in TOUCHING:
        same(student(*given), _together(*given))


TOGETHER = Exercise(
    id="16.2",
    name="hangs_together",
    points=3,
    reference=_together,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double([*TOUCHING, LONG]),
    properties=[
        Property("chains hang together, islands do not, absent boxes hold nothing", _together_values),
        Property(
            "a chain of all twelve boxes is followed to its end",
            lambda student: same(student(*LONG), torch.tensor([True])),
            "After one step you know the neighbours, after two theirs. Twelve boxes need eleven.",
        ),
        Property("answers are yes or no", lambda student: same(str(student(*LONG).dtype), "torch.bool", what="dtype")),
    ],
    mistakes=[
        Mistake("some neighbour", "Each box touches another, but two islands do so too. Walk from one box.",
                wrong=_some_neighbour),
        Mistake("all pairs", "Not every two boxes must touch: one may hold the other by way of a third.",
                wrong=_all_pairs),
        Mistake("one step", "You stop after the neighbours of the first box. Repeat the step.",
                wrong=lambda t, p: _together(t, p, steps=1)),
        Mistake("absent hold", "A box that is absent cannot hold others together: walk on `there` only.",
                wrong=lambda t, p: _together(t, p, heed=False)),
        Mistake("nothing hangs", "A piece without a single box does not hang together: answer False.",
                wrong=lambda t, p: _together(t, p, none=True)),
        Mistake("turned", "True and False are exchanged.", wrong=lambda t, p: ~_together(t, p)),
    ],
)  # fmt: skip

# 16.3 A reward with an end ----------------------------------------------------------------------------------------

SCORED = [
    (
        torch.tensor([12.0, 9.0, 3.0, 0.0, -3.0, -90.0, 60.0, 4.5]),
        torch.tensor([True, True, False, True, False, False, True, True]),
        torch.tensor([1.0, 1.25, 0.75, 1.3, 0.6, 0.0, 0.4, 1.6]),
    ),
    (torch.tensor([2.0, 89.0]), torch.tensor([True, True]), torch.tensor([0.7, 0.55])),
    (torch.tensor([-7.5, 5.9]).double(), torch.tensor([False, True]), torch.tensor([1.45, 0.8]).double()),
]

# away from the bounds, where two ways to write a clamp differ in their gradients
SCORE_PROBES = [
    *SCORED[1:],
    (
        torch.tensor([-40.0, 70.0, -3.0, 5.0]),
        torch.tensor([True, False, True, False]),
        torch.tensor([0.65, 1.4, 0.9, 1.6]),
    ),
]


def _score(tilt, connected, height, *, top=1.0, bottom=-1.0, ends=True, low=True, tent=False, weights=(0.5, 1, 0.5)):
    rows = []
    for t, c, h in zip(tilt, connected, height, strict=True):
        steep = t / 9
        if ends:
            steep = steep if bottom < steep < top else torch.full_like(t, top if steep >= top else bottom)
        beyond = abs(h - 1) if low else h - 1
        fall = 1 - beyond / 0.25 if tent else 1 - (beyond - 0.25) / 0.25
        tall = torch.zeros_like(h) if fall <= 0 else torch.ones_like(h) if fall >= 1 else fall
        rows.append(weights[0] * steep + weights[1] * float(c) + weights[2] * tall)
    return torch.stack(rows)


def _score_values(student) -> None:
    for given in SCORED:
        same(student(*given), _score(*given))


def _score_slab(student) -> None:
    sure = torch.tensor([True])
    chair = student(torch.tensor([16.0]), sure, torch.tensor([1.0]))
    slab = student(torch.tensor([70.0]), sure, torch.tensor([0.4]))
    if not slab < chair:
        raise Mismatch(f"a flat slab scores {slab.item():.2f}, a chair {chair.item():.2f}")


SCORE = Exercise(
    id="16.3",
    name="standing_score",
    points=2,
    reference=_score,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double(SCORE_PROBES),
    properties=[
        Property("a flat slab scores less than a chair", _score_slab),
        Property("values at the bounds, between them and beyond", _score_values),
    ],
    mistakes=[
        Mistake("endless", "The tilt has no end: clamp tilt/9 to [-1, 1], or a slab will be worth everything.",
                wrong=lambda t, c, h: _score(t, c, h, ends=False)),
        Mistake("no lower end", "Clamp the tilt at -1 too: one bad fall must not outweigh ten pieces that stand.",
                wrong=lambda t, c, h: _score(t, c, h, bottom=-math.inf)),
        Mistake("from zero", "Clamp from -1: at 0 a piece that nearly stands and one that falls would be alike.",
                wrong=lambda t, c, h: _score(t, c, h, bottom=0.0)),
        Mistake("low is fine", "Too low must cost as much as too high: take the absolute value of h - 1.",
                wrong=lambda t, c, h: _score(t, c, h, low=False)),
        Mistake("no plateau", "Between 0.75 and 1.25 height costs nothing: take 0.25 away first, and no less than 0.",
                wrong=lambda t, c, h: _score(t, c, h, tent=True)),
        Mistake("equal weights", "The weights are 0.5, 1 and 0.5.",
                wrong=lambda t, c, h: _score(t, c, h, weights=(1, 1, 1))),
    ],
)  # fmt: skip

# 16.4 Keep what stands --------------------------------------------------------------------------------------------

KEPT = [
    (torch.tensor([True, False, False, True, False, False, False, False, True, True]),
     torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])),
    (torch.tensor([True, True, False, True]), torch.tensor([5, 3, 5, 3])),
    (torch.tensor([False, False, True]), torch.tensor([0, 0, 0])),
]  # fmt: skip


def _kept(stands: Tensor, groups: Tensor, *, whole=False, scaled=True, one=False, floor=False) -> Tensor:
    weights = []
    for row, (good, group) in enumerate(zip(stands.tolist(), groups.tolist(), strict=True)):
        mine = list(range(len(stands))) if whole else [n for n, g in enumerate(groups.tolist()) if g == group]
        kept = [n for n in mine if stands[n]]
        kept = kept[:1] if one else kept
        if floor and not kept:
            weights.append(1.0)
        else:
            weights.append((len(mine) / len(kept) if scaled else 1.0) if good and row in kept else 0.0)
    return torch.tensor(weights)


def _kept_values(student) -> None:
    for given in KEPT:
        same(student(*given), _kept(*given))


def _kept_mean(student) -> None:
    for stands, groups in KEPT:
        got = student(stands, groups)
        for group in groups.unique():
            mine = groups == group
            same(got[mine].mean(), torch.tensor(float(stands[mine].any())), what=f"the mean weight of group {group}")


KEEP = Exercise(
    id="16.4",
    name="keep_standing",
    points=2,
    reference=_kept,
    forbidden=FORBIDDEN,
    probes=lambda: _double(KEPT),
    properties=[
        Property("a group has mean weight 1, or 0 where nothing stands", _kept_mean),
        Property("all that stand in a group count alike, the others not at all", _kept_values),
    ],
    mistakes=[
        Mistake("whole batch", "You weigh over the whole batch: a kind that seldom stands would hardly be taught. "
                "Count within each group.", wrong=lambda s, g: _kept(s, g, whole=True)),
        Mistake("plain", "The weights must have mean 1 in a group: divide its size by the number that stand.",
                wrong=lambda s, g: _kept(s, g, scaled=False)),
        Mistake("one only", "Keep all that stand, not the first alone: variety is what you would lose.",
                wrong=lambda s, g: _kept(s, g, one=True)),
        Mistake("fallback", "A group in which nothing stands teaches nothing: weight 0 for all of it.",
                wrong=lambda s, g: _kept(s, g, floor=True)),
        Mistake("the fallen", "You keep those that fall.", wrong=lambda s, g: _kept(~s, g)),
    ],
)  # fmt: skip

# 16.5 DPO that keeps its winners -----------------------------------------------------------------------------------


def _errors(seed: int, count: int) -> list[Tensor]:
    return [0.3 + 0.2 * torch.rand(count, generator=_random(10 * seed + n)) for n in range(4)]


PAIRS = [
    (*_errors(0, 5), 20.0, 1.0),
    (*[t.double() for t in _errors(1, 3)], 100.0, 0.5),
    (*_errors(2, 4), 5.0, 0.0),
    (
        torch.tensor([0.2, 0.5]),
        torch.tensor([0.4, 0.9]),
        torch.tensor([0.25, 0.4]),
        torch.tensor([0.4, 0.4]),
        10.0,
        2.0,
    ),
]
NAMES = ("the winner", "the loser", "the base's winner", "the base's loser")


def _dpo(
    won,
    lost,
    base_won,
    base_lost,
    beta,
    anchor,
    *,
    relu=True,
    which=0,
    sign=1,
    half=True,
    inside=False,
    late=False,
    moving=False,
):
    if not moving:
        base_won, base_lost = base_won.detach(), base_lost.detach()
    gain = (base_won - won) - (base_lost - lost)
    logit = sign * beta * gain * (0.5 if half else 1.0)
    drift = (won - base_won, lost - base_lost)[which]
    penalty = torch.where(drift > 0, drift, torch.zeros_like(drift)) if relu else drift
    if inside:
        logit = logit - anchor * beta / 2 * penalty
        return torch.log1p(torch.exp(-logit)).mean()
    matched = torch.log1p(torch.exp(-(logit.mean() if late else logit))).mean()
    return matched + anchor * beta / 2 * penalty.mean()


def _dpo_values(student) -> None:
    for given in PAIRS:
        same(student(*given), _dpo(*given), atol=1e-5)


def _dpo_gradients(student) -> None:
    for given in PAIRS:
        same_gradient(student, _dpo, given, names=NAMES, atol=1e-5, rtol=1e-4)


def _dpo_holds(student) -> None:
    """A pair long told apart whose winner has drifted: only the anchor pulls, and it pulls the winner back."""
    won = torch.tensor([0.6], requires_grad=True)
    loss = student(won, torch.tensor([3.0]), torch.tensor([0.4]), torch.tensor([0.4]), 100.0, 1.0)
    (pull,) = torch.autograd.grad(loss, won)
    same(pull, torch.tensor([50.0]), atol=0.1, what="the pull on a displaced winner of a pair that is told apart")


DPO = Exercise(
    id="16.5",
    name="mended_dpo",
    points=3,
    reference=_dpo,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double(PAIRS),
    properties=[
        Property("values agree, with an anchor and without", _dpo_values),
        Property("gradients reach winner and loser and not the base", _dpo_gradients, "Detach the base's errors."),
        Property("the anchor does not fade once a pair is told apart", _dpo_holds, "Add it outside the sigmoid."),
    ],
    mistakes=[
        Mistake("plain", "Where is the anchor? So the winner may drift as long as the loser drifts farther.",
                wrong=lambda *x: _dpo(*x[:5], 0.0)),
        Mistake("sign", "The sign is turned: this prefers the loser. An error is *small* where a sample is likely.",
                wrong=lambda *x: _dpo(*x, sign=-1)),
        Mistake("half", "The factor is beta/2.", wrong=lambda *x: _dpo(*x, half=False)),
        Mistake("no relu", "A winner that is matched better than by the base must not be rewarded for ever: "
                "only a positive drift counts.", wrong=lambda *x: _dpo(*x, relu=False)),
        Mistake("anchored loser", "You hold the loser. It is the winner that must not drift.",
                wrong=lambda *x: _dpo(*x, which=1)),
        Mistake("inside", "Inside the sigmoid the anchor fades as soon as a pair is told apart. Add it outside.",
                wrong=lambda *x: _dpo(*x, inside=True)),
        Mistake("mean first", "Each pair has its own sigmoid: take the mean last.",
                wrong=lambda *x: _dpo(*x, late=True)),
        Mistake("base moves", "The values are right, but the base gets a gradient. Detach its errors.",
                wrong=lambda *x: _dpo(*x, moving=True)),
    ],
)  # fmt: skip

# 16.6 Views that agree --------------------------------------------------------------------------------------------


def _views(seed: int, batch: int, views: int, pixels: int, points: int) -> tuple[Tensor, Tensor]:
    random = _random(seed)
    return (
        torch.rand(batch, views, pixels, generator=random),
        torch.randint(pixels, (views, points), generator=random),
    )


CARVED = [
    _views(0, 2, 3, 6, 20),
    _views(1, 1, 2, 4, 3),
    (_views(2, 3, 4, 9, 40)[0].double(), _views(2, 3, 4, 9, 40)[1]),
    (torch.tensor([[[1.0, 0, 0, 1], [0, 1, 0, 1]]]), torch.tensor([[0, 1, 2, 3, 3], [1, 1, 2, 3, 0]])),
]


def _agreement(silhouettes: Tensor, where: Tensor, *, fuse="min", shadow=True, cast="max", ratio="iou") -> Tensor:
    rows = []
    for piece in silhouettes:
        seen = torch.stack([view[pixel] for view, pixel in zip(piece, where, strict=True)])
        hull = {"min": lambda s: s.min(0).values, "product": lambda s: s.prod(0), "mean": lambda s: s.mean(0),
                "max": lambda s: s.max(0).values}[fuse](seen)  # fmt: skip
        views = []
        for view, pixel in zip(piece, where, strict=True):
            parts = []
            for number in range(len(view)):
                inside = hull[pixel == number]
                empty = view.sum() * 0
                parts.append(empty if not len(inside) else inside.max() if cast == "max" else inside.mean())
            views.append(torch.stack(parts))
        again = torch.stack(views) if shadow else seen.min(0).values
        least, most = torch.minimum(piece, again).sum(), torch.maximum(piece, again).sum()
        rows.append({"iou": least / most, "gap": 1 - (piece - again).abs().mean()}[ratio])
    return torch.stack(rows)


def _carved_values(student) -> None:
    for given in CARVED:
        same(student(*given), _agreement(*given))


def _carved_gradients(student) -> None:
    for silhouettes, where in CARVED[:3]:
        same_gradient(
            lambda s, w=where: student(s, w), lambda s, w=where: _agreement(s, w), (silhouettes,), names=("the views",)
        )


def _carved_true(student) -> None:
    """One point of a solid, seen in every view: views that show all its points agree wholly."""
    where = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]])
    solid = torch.tensor([[[1.0, 1, 0, 0], [0, 0, 1, 1]]])
    same(student(solid, where), torch.ones(1), what="views of one solid")
    same(student(solid.flip(2) * 0 + torch.tensor([[1.0, 1, 0, 0], [1, 1, 0, 0]]), where), torch.zeros(1),
         what="views that no solid could show together")  # fmt: skip


CARVE = Exercise(
    id="16.6",
    name="hull_agreement",
    points=3,
    reference=_agreement,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double(CARVED[:3]),
    properties=[
        Property("views of one solid agree, contradictory views do not", _carved_true),
        Property("values agree on views that are neither", _carved_values),
        Property("gradients reach every view", _carved_gradients, "Use amin and scatter_reduce."),
    ],
    mistakes=[
        Mistake("product", "You multiply the views. Four views at 0.8 would leave 0.41: carve with the minimum.",
                wrong=lambda s, w: _agreement(s, w, fuse="product")),
        Mistake("mean of views", "You average the views. One view that sees nothing there must carve the point away.",
                wrong=lambda s, w: _agreement(s, w, fuse="mean")),
        Mistake("any view", "You keep what any view shows. The hull is what *all* views show.",
                wrong=lambda s, w: _agreement(s, w, fuse="max")),
        Mistake("mean along the ray", "A pixel shows the densest point on its ray: the maximum, not the mean.",
                wrong=lambda s, w: _agreement(s, w, cast="mean")),
        Mistake("gap", "Empty pixels would count as agreement. Take intersection over union.",
                wrong=lambda s, w: _agreement(s, w, ratio="gap")),
        Mistake("cut", "The values are right, but no gradient comes back to the views.",
                wrong=lambda s, w: _agreement(s, w).detach()),
    ],
)  # fmt: skip

# 16.7 Several views, one verdict ----------------------------------------------------------------------------------


def _features(seed: int, batch: int, views: int, features: int) -> Tensor:
    return torch.randn(batch, views, features, generator=_random(70 + seed))


POOLED = [
    (_features(0, 3, 4, 5),),
    (_features(1, 2, 1, 3),),
    (_features(2, 1, 6, 2).double() - 3,),  # every number negative
    (torch.tensor([[[1.0, -2.0], [3.0, -5.0]], [[0.0, 0.5], [0.0, -0.25]]]),),
]
TWICE = torch.tensor([[[1.0, 5.0, -2.0], [3.0, -1.0, -4.0]]])


def _pooled(each: Tensor, *, middle="mean", worst=max, joined=True, size=False) -> Tensor:
    rows = []
    for piece in each:
        columns = piece.unbind(1)
        key = (lambda one: abs(one.item())) if size else (lambda one: one.item())
        total = [sum(column.unbind()) for column in columns]
        average = [value if middle == "sum" else value / len(piece) for value in total]
        extreme = [worst(column.unbind(), key=key) for column in columns]
        rows.append(
            torch.stack(average + extreme if joined else [a + b for a, b in zip(average, extreme, strict=True)])
        )
    return torch.stack(rows)


def _per_view(each: Tensor) -> Tensor:
    """Over the features of each view in place of over the views: the wrong axis."""
    return torch.cat([each.mean(2), each.amax(2)], 1)


def _swapped(each: Tensor) -> Tensor:
    return torch.cat([each.amax(1), each.mean(1)], 1)


def _pooled_values(student) -> None:
    for given in POOLED:
        same(student(*given), _pooled(*given))


def _pooled_gradients(student) -> None:
    for given in POOLED[:3]:
        same_gradient(student, _pooled, given, names=("the features",))


def _pooled_order(student) -> None:
    each = POOLED[0][0]
    same(student(each[:, [2, 0, 3, 1]]), student(each), what="the same views in another order")


def _pooled_count(student) -> None:
    """A view shown twice tells nothing new."""
    same(student(TWICE.repeat(1, 3, 1)), student(TWICE), what="the same two views, each shown three times")


POOL = Exercise(
    id="16.7",
    name="pool_views",
    points=2,
    reference=_pooled,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double(POOLED[:3]),  # without ties, whose gradient may fall on either
    properties=[
        Property("two numbers a feature, whatever the number of views",
                 lambda student: same([list(student(*given).shape) for given in POOLED],
                                      [[3, 10], [2, 6], [1, 4], [2, 4]], what="shapes"),
                 "Join mean and maximum along the features: `torch.cat([...], 1)`."),
        Property("the order of the views does not count", _pooled_order),
        Property("views shown again change nothing", _pooled_count,
                 "A sum grows with the number of views. Take the mean."),
        Property("first the means, then the maxima", _pooled_values),
        Property("gradients reach every view by the mean and one view by the maximum", _pooled_gradients,
                 "Detach nothing, and compute with tensors throughout."),
    ],
    mistakes=[
        Mistake("sum", "A sum grows with the number of views: three would not compare with four. Take the mean.",
                wrong=lambda e: _pooled(e, middle="sum")),
        Mistake("least", "You take the minimum. The network finds its own signs; here the maximum is asked for.",
                wrong=lambda e: _pooled(e, worst=min)),
        Mistake("size", "Take the maximum as it stands, not of the absolute values: a feature has a sign.",
                wrong=lambda e: _pooled(e, size=True)),
        Mistake("added", "Mean and maximum are joined, not added: the head shall weigh them by itself.",
                wrong=lambda e: _pooled(e, joined=False)),
        Mistake("other order", "First the means, then the maxima.", wrong=_swapped),
        Mistake("features", "You go over the features of each view. Go over the views: that is axis 1.",
                wrong=_per_view),
        Mistake("cut", "The values are right, but no gradient comes back to the views.",
                wrong=lambda e: _pooled(e).detach()),
    ],
)  # fmt: skip

# 16.8 Distilled, with a choice ------------------------------------------------------------------------------------


def _distilled(seed: int, tries: int, batch: int, *shape: int) -> tuple[Tensor, ...]:
    random = _random(80 + seed)
    x0, x1 = torch.randn(batch, *shape, generator=random), torch.randn(tries, batch, *shape, generator=random)
    velocity = torch.randn(tries, batch, *shape, generator=random)
    sigma = 0.05 + 0.9 * torch.rand(batch, generator=random)
    return x0, x1, sigma, velocity, torch.randn(tries, batch, generator=random)


DISTILLED = [
    _distilled(0, 3, 4, 2, 3),
    _distilled(1, 1, 2, 3),  # nothing to choose
    tuple(t.double() for t in _distilled(2, 5, 3, 12, 10)),
    tuple(t.double() for t in _distilled(3, 4, 4, 4)),  # as many tries as objects as numbers
]
DISTILLED_NAMES = ("the object", "the noise", "the noise level", "the velocity", "the values")


def _picked(x0, x1, sigma, velocity, values, *, best=max, own=True, sign=1, scaled=True, mean=False, moving=False):
    rows = []
    for n, x in enumerate(x0):
        scores = [row[n].item() for row in values] if own else [row.sum().item() for row in values]
        tried = range(len(values)) if mean else [best(range(len(values)), key=scores.__getitem__)]
        pulls = []
        for k in tried:
            state = (1 - sigma[n]) * x + sigma[n] * x1[k, n]
            guess = state - sigma[n] * velocity[k, n]
            pulls.append(sign * (x - guess) if scaled else (x - guess) / sigma[n])
        rows.append(sum(pulls) / len(pulls))
    pull = torch.stack(rows)
    return pull if moving else pull.detach()


def _picked_values(student) -> None:
    for given in DISTILLED:
        same(student(*given), _picked(*given), atol=1e-5)


def _picked_arrives(student) -> None:
    """A generator that always guesses one object: a step against the pull of size one lands on it."""
    x0, x1, sigma, _, values = DISTILLED[0]
    goal = torch.full_like(x0, 0.5)
    level = sigma[:, None, None]
    velocity = ((1 - level) * x0 + level * x1 - goal) / level
    same(x0 - student(x0, x1, sigma, velocity, values), goal, atol=1e-5, what="the object minus the pull")


def _picked_no_gradient(student) -> None:
    for given in DISTILLED[:3]:
        same_gradient(student, _picked, given, names=DISTILLED_NAMES)


PICK = Exercise(
    id="16.8",
    name="picked_pull",
    points=3,
    reference=_picked,
    forbidden=FORBIDDEN_WORLD,
    probes=lambda: _double(DISTILLED),
    properties=[
        Property("one number for each of the object's own, however many tries",
                 lambda student: same([list(student(*given).shape) for given in DISTILLED],
                                      [[4, 2, 3], [2, 3], [3, 12, 10], [4, 4]], what="shapes"),
                 "Index the tries and the objects together: `pulls[best, torch.arange(batch)]`."),
        Property("against the pull lies what the generator guesses", _picked_arrives),
        Property("each object is pulled by its own best try", _picked_values,
                 "Give sigma axes of length 1 for all but the objects, so that each has its own noise level."),
        Property("no gradient passes: the pull is a number, not a loss", _picked_no_gradient, "Detach the pull."),
    ],
    mistakes=[
        Mistake("worst", "You pick the try of least value.", wrong=lambda *x: _picked(*x, best=min)),
        Mistake("one for all", "You pick one try for all objects. What is best for a chair may fell a lamp: each has "
                "its own.", wrong=lambda *x: _picked(*x, own=False)),
        Mistake("mean", "You average the tries: then the reward has no say.", wrong=lambda *x: _picked(*x, mean=True)),
        Mistake("sign", "The sign is turned: descent would lead away from the guess.",
                wrong=lambda *x: _picked(*x, sign=-1)),
        Mistake("unscaled", "The factor sigma is missing: a pull is as long as the way to the guess.",
                wrong=lambda *x: _picked(*x, scaled=False)),
        Mistake("moving", "The values are right, but a gradient passes. Score distillation does not differentiate the "
                "generator: detach.", wrong=lambda *x: _picked(*x, moving=True)),
    ],
)  # fmt: skip

EXERCISES = [TILT, TOGETHER, SCORE, KEEP, DPO, CARVE, POOL, PICK]
