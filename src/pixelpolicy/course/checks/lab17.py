"""Checks of lab 17: the pieces of a reward for motion, each against an independent formula, values and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, gradients, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rewards", "pixelpolicy.worlds")


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# 17.1 Where the feet are ---------------------------------------------------------------------------------------


def _shins(seed: int, batch: int, frames: int) -> Tensor:
    shins = _normal(seed, batch, frames, 2, 7)
    angle = _normal(seed + 100, batch, frames, 2)
    shins[..., 4], shins[..., 5] = angle.sin(), angle.cos()
    shins[..., 6] = 0.2 + 0.05 * shins[..., 6]
    return shins


UPRIGHT = torch.tensor([[[[1.0, 0.3, 0.22, 0.1, 0.0, 1.0, 0.22], [1.0, -0.1, 0.4, -0.1, 1.0, 0.0, 0.2]]]]).double()
SHINS = [(UPRIGHT,), (_shins(0, 3, 8),), (_shins(1, 1, 2),)]


def _feet(shins: Tensor) -> Tensor:
    """By the angle: half a length below the middle of a part that hangs, turned by the pitch."""
    angle = torch.atan2(shins[..., 4], shins[..., 5])
    size = torch.hypot(shins[..., 4], shins[..., 5]) * shins[..., 6]
    return torch.stack([shins[..., 1] - size * angle.sin(), shins[..., 2] - size * angle.cos()], -1)


def _feet_values(student) -> None:
    for (shins,) in SHINS:
        same(student(shins), _feet(shins))


def _feet_gradients(student) -> None:
    for given in SHINS[1:]:
        same_gradient(student, _feet, given, names=("shins",))


def _foot(x=1, y=2, along=(4, 5), factor=1.0, sign=-1):
    return lambda s: torch.stack(
        [s[..., x] + sign * factor * s[..., 6] * s[..., along[0]],
         s[..., y] + sign * factor * s[..., 6] * s[..., along[1]]], -1)  # fmt: skip


FEET = Exercise(
    id="17.1",
    name="foot_positions",
    points=2,
    reference="pixelpolicy.rewards.gait:foot_positions",
    forbidden=FORBIDDEN,
    probes=lambda: SHINS,
    properties=[
        Property("feet are the lower ends of the shins", _feet_values),
        Property("gradients reach the places, the pitch and the lengths", _feet_gradients),
    ],
    mistakes=[
        Mistake("upper end", "That is the knee. The direction points up; the foot lies against it.",
                wrong=_foot(sign=1)),
        Mistake("whole length", "Number 6 is *half* a length, the way from the middle to an end.",
                wrong=_foot(factor=2.0)),
        Mistake("sine and cosine", "Sine and cosine are exchanged: a shin that stands straight has sine 0.",
                wrong=_foot(along=(5, 4))),
        Mistake("middle", "That is the middle of the shin. Go half a length further down.", wrong=_foot(factor=0.0)),
        Mistake("first column", "Column 0 says whether the part is there. x is column 1, y is column 2.",
                wrong=_foot(x=0, y=1)),
        Mistake("detached", "The values are right, but no gradient reaches the shins. Detach nothing.",
                wrong=lambda s: _foot()(s.detach())),
    ],
)  # fmt: skip

# 17.2 Feet that slide ------------------------------------------------------------------------------------------


def _tracks() -> list[tuple]:
    first = torch.zeros(2, 4, 2, 2, dtype=torch.float64)
    first[0, :, 0, 0] = torch.tensor([0.0, 0.1, 0.1, -0.2])  # planted all the time, slides 0.1, 0, then 0.3 back
    first[0, :, 1, 1] = 0.5
    first[1, :, :, 1] = 0.3  # both in the air
    first[1, :, 0, 0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    second = _normal(2, 3, 8, 2, 2)
    second[..., 1] = 0.1 * second[..., 1].abs()
    edge = [[[0.0, 0.035], [0.0, 0.0351]], [[0.2, 0.035], [0.4, 0.0]], [[0.5, 0.2], [0.5, -0.01]]]
    once = [
        [[0.0, 0.0], [0.0, 0.3]],
        [[0.3, 0.01], [0.4, 0.3]],
        [[0.5, 0.2], [0.5, 0.3]],
    ]  # one pair of frames, no more
    return [(first, 0.035), (second, 0.05), (torch.tensor([edge, once], dtype=torch.float64), 0.035)]


TRACKS = _tracks()


def _skate(feet: Tensor, contact: float) -> Tensor:
    means = []
    for walker in feet:
        slides = [
            (walker[t + 1, f, 0] - walker[t, f, 0]).abs()
            for t in range(len(walker) - 1)
            for f in range(2)
            if walker[t, f, 1] <= contact and walker[t + 1, f, 1] <= contact
        ]
        means.append(sum(slides) / len(slides) if slides else 0 * walker.sum())
    return torch.stack(means)


def _skate_values(student) -> None:
    for feet, contact in TRACKS:
        same(student(feet, contact), _skate(feet, contact))


def _skate_gradients(student) -> None:
    feet, contact = TRACKS[1]
    same_gradient(lambda f: student(f, contact), lambda f: _skate(f, contact), (feet,), names=("feet",))


def _slides(planted="both", mean="planted", use=torch.abs, rate=1.0):
    def skate(feet, contact=0.035):
        down = feet[..., 1] <= contact
        masks = {"both": down[:, 1:] & down[:, :-1], "first": down[:, :-1], "either": down[:, 1:] | down[:, :-1],
                 "all": torch.ones_like(down[:, 1:])}  # fmt: skip
        mask = masks[planted].to(feet.dtype)
        slide = use(feet[:, 1:, :, 0] - feet[:, :-1, :, 0]) * mask * rate
        count = {"planted": mask.sum((1, 2)).clamp_min(1), "all": torch.tensor(mask[0].numel()), "sum": 1}[mean]
        return slide.sum((1, 2)) / count

    return skate


SKATE = Exercise(
    id="17.2",
    name="foot_skate",
    points=3,
    reference="pixelpolicy.rewards.gait:foot_skate",
    forbidden=FORBIDDEN,
    probes=lambda: TRACKS,
    properties=[
        Property("the mean slide of feet that are planted in two frames running", _skate_values),
        Property("gradients reach where the feet are", _skate_gradients, "Detach nothing, and count with a mask."),
    ],
    mistakes=[
        Mistake("no mask", "A foot in the air may move as it likes: count it only while it is planted.",
                wrong=_slides("all", "all")),
        Mistake("first frame", "A foot that lifts off is planted in the first frame only. It must be in both.",
                wrong=_slides("first")),
        Mistake("either frame", "One frame on the ground is not enough: take `&`, not `|`.", wrong=_slides("either")),
        Mistake("mean over all", "Divide by how many slides you counted, not by how many there could have been.",
                wrong=_slides(mean="all")),
        Mistake("sum", "Take the mean, or one who takes more steps would slide more.", wrong=_slides(mean="sum")),
        Mistake("signed", "A slide back does not undo a slide forth: take the absolute value.",
                wrong=_slides(use=lambda x: x)),
        Mistake("squared", "The slide itself is asked for, in metres, not its square.",
                wrong=_slides(use=torch.square)),
    ],
)  # fmt: skip

# 17.3 Progress -------------------------------------------------------------------------------------------------

ROADS = [
    (0.08 * torch.arange(8.0).double().expand(5, 8) * torch.tensor([[1.0], [1.2], [-1.0], [0.55], [2.0]]).double(),
     torch.full((5,), 0.8).double(), 0.1),
    (-0.3 * torch.arange(4.0).double()[None] + _normal(3, 2, 4) * 0.01, torch.tensor([-2.9, -2.0]).double(), 0.1),
    (torch.tensor([[0.0, 5.0, 1.1]]).double(), torch.tensor([1.0]).double(), 0.5),
]  # fmt: skip


def _progress(torso: Tensor, wanted: Tensor, seconds: float) -> Tensor:
    scores = []
    for road, goal in zip(torso, wanted, strict=True):
        missed = abs((road[-1] - road[0]) / (seconds * (len(road) - 1)) / goal - 1)
        scores.append(1 - 2 * missed if missed < 0.5 else 0 * road.sum())
    return torch.stack(scores)


def _progress_values(student) -> None:
    for given in ROADS:
        same(student(*given), _progress(*given))


def _progress_gradients(student) -> None:
    torso, wanted, seconds = ROADS[0]
    rows = torch.tensor([1, 3])  # away from where the score has a corner
    same_gradient(
        lambda x: student(x, wanted[rows], seconds), lambda x: _progress(x, wanted[rows], seconds), (torso[rows],),
        names=("torso",),
    )  # fmt: skip


def _tent(speed=lambda x, s: (x[:, -1] - x[:, 0]) / (s * (x.shape[1] - 1)), width=0.5, signed=True, floor=True):
    def score(torso, wanted, seconds=0.1):
        mine, goal = speed(torso, seconds), wanted
        if not signed:
            mine, goal = mine.abs(), goal.abs()
        value = 1 - (mine - goal).abs() / (width * wanted.abs() if width else 0.5)
        return value.clamp(0, 1) if floor else value

    return score


PROGRESS = Exercise(
    id="17.3",
    name="progress",
    points=2,
    reference="pixelpolicy.rewards.gait:progress",
    forbidden=FORBIDDEN,
    probes=lambda: ROADS,
    properties=[
        Property("1 at the wanted speed, 0 from half of it away on, straight between", _progress_values),
        Property("gradients reach the road", _progress_gradients),
    ],
    mistakes=[
        Mistake("frames", "Between n frames lie n - 1 steps.",
                wrong=_tent(lambda x, s: (x[:, -1] - x[:, 0]) / (s * x.shape[1]))),
        Mistake("a step", "That is the way a frame. Divide by the seconds between frames too.",
                wrong=_tent(lambda x, s: (x[:, -1] - x[:, 0]) / (x.shape[1] - 1))),
        Mistake("unsigned", "One who runs the other way makes no progress: keep the sign.",
                wrong=_tent(signed=False)),
        Mistake("no floor", "Nobody is paid less than 0: clamp the score.", wrong=_tent(floor=False)),
        Mistake("whole width", "The score is 0 once the speed misses by *half* of the wanted one.",
                wrong=_tent(width=1.0)),
        Mistake("fixed width", "How much may be missed is a share of the wanted speed, not a fixed number.",
                wrong=_tent(width=0)),
    ],
)  # fmt: skip

# 17.4 Feet that pass each other --------------------------------------------------------------------------------


def _passing() -> list[tuple]:
    hop = torch.zeros(1, 5, 2, 2, dtype=torch.float64)
    hop[0, :, :, 0] = torch.linspace(0, 1, 5).double()[:, None]  # both feet go together
    stiff = hop.clone()
    stiff[..., 1, 0] += 0.4  # one foot always leads
    walk = hop.clone()
    walk[0, :, 0, 0] += torch.tensor([0.3, 0.1, -0.2, -0.1, 0.25]).double()
    return [(torch.cat([hop, stiff, walk]),), (_normal(4, 3, 8, 2, 2),), (-torch.cat([walk, stiff]),)]


PASSING = _passing()


def _lead(feet: Tensor) -> Tensor:
    out = []
    for walker in feet:
        leads = sorted(frame[0, 0] - frame[1, 0] for frame in walker)
        out.append(leads[-1] - leads[0])
    return torch.stack(out)


def _lead_values(student) -> None:
    for (feet,) in PASSING:
        same(student(feet), _lead(feet))


def _lead_gradients(student) -> None:
    same_gradient(student, _lead, PASSING[1], names=("feet",))


def _stiff(student) -> None:
    same(student(PASSING[0][0])[:2], torch.zeros(2).double(), what="one who hops, and one whose legs are stiff")


def _leads(of):
    return lambda feet: of(feet[:, :, 0, 0] - feet[:, :, 1, 0])


ALTERNATION = Exercise(
    id="17.4",
    name="alternation",
    points=2,
    reference="pixelpolicy.rewards.gait:alternation",
    forbidden=FORBIDDEN,
    probes=lambda: PASSING[1:2] + [(-PASSING[2][0][:1],)],  # no ties, whose gradients may be shared out in two ways
    properties=[
        Property("the largest lead of the left foot less the smallest", _lead_values),
        Property("stiff legs and feet that stay together have none", _stiff),
        Property("gradients reach the feet", _lead_gradients),
    ],
    mistakes=[
        Mistake("largest lead", "A stiff leg that always leads would pass. Take the smallest lead away.",
                wrong=_leads(lambda lead: lead.amax(1))),
        Mistake("absolute lead", "Stiff legs lead too. What counts is how the lead *changes*.",
                wrong=_leads(lambda lead: lead.abs().amax(1))),
        Mistake("each foot's range", "That is how far a foot gets, which grows with the speed. Compare the two feet.",
                wrong=lambda f: (f[..., 0].amax(1) - f[..., 0].amin(1)).mean(1)),
        Mistake("heights", "You compare heights. Places along the road are number 0.",
                wrong=lambda f: _leads(lambda lead: lead.amax(1) - lead.amin(1))(f.flip(-1))),
        Mistake("deviation", "The range is asked for, not the standard deviation.",
                wrong=_leads(lambda lead: lead.std(1, correction=0))),
        Mistake("over the batch", "Dimension 1 counts the frames. One number a motion.",
                wrong=_leads(lambda lead: (lead.amax() - lead.amin()).expand(len(lead)))),
    ],
)  # fmt: skip

# 17.5 Gates ----------------------------------------------------------------------------------------------------

GATES = [
    (torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.5, 0.5, 1.0], [0.0, 0.0, 0.0]]).double(),
     torch.tensor([1.0, 1.0, 0.5, 1.0]).double()),
    (torch.sigmoid(_normal(9, 5, 4)), torch.sigmoid(_normal(10, 5))),
    (torch.sigmoid(_normal(11, 2, 1)), torch.zeros(2).double()),
]  # fmt: skip


def _gated(gates: Tensor, bonus: Tensor) -> Tensor:
    out = []
    for row, extra in zip(gates, bonus, strict=True):
        product = extra
        for gate in row:
            product = product * gate
        out.append((sum(row) / len(row) + product) / 2)
    return torch.stack(out)


def _gated_values(student) -> None:
    for given in GATES:
        same(student(*given), _gated(*given))


def _gated_gradients(student) -> None:
    for given in GATES[1:]:
        same_gradient(student, _gated, given, names=("gates", "bonus"))


GATED = Exercise(
    id="17.5",
    name="gated",
    points=2,
    reference="pixelpolicy.rewards.gait:gated",
    forbidden=FORBIDDEN,
    probes=lambda: GATES[1:],
    properties=[
        Property("half the mean of the gates, and half their product times the bonus", _gated_values),
        Property("gradients reach the gates and the bonus", _gated_gradients),
    ],
    mistakes=[
        Mistake("mean alone", "Where is the product? A mean lets a good score buy off a bad one.",
                wrong=lambda g, b: g.mean(1) + 0 * b),
        Mistake("product alone", "With the product alone, one shut gate hides all progress at the others.",
                wrong=lambda g, b: g.prod(1) * b),
        Mistake("bonus added", "The bonus must pass through the gates: multiply it, do not add it.",
                wrong=lambda g, b: 0.5 * g.mean(1) + 0.5 * b),
        Mistake("no bonus", "The product is multiplied with the bonus.",
                wrong=lambda g, b: 0.5 * g.mean(1) + 0.5 * g.prod(1) + 0 * b),
        Mistake("no halves", "Halve both terms, so that the score stays below 1.",
                wrong=lambda g, b: g.mean(1) + g.prod(1) * b),
        Mistake("least gate", "Take the product of the gates, not the least of them.",
                wrong=lambda g, b: 0.5 * g.mean(1) + 0.5 * g.amin(1) * b),
        Mistake("sum", "The mean of the gates, not their sum.",
                wrong=lambda g, b: 0.5 * g.sum(1) + 0.5 * g.prod(1) * b),
    ],
)  # fmt: skip

# 17.6 Smoothness -----------------------------------------------------------------------------------------------

GLIDE = (torch.arange(6.0).double()[:, None, None] * torch.tensor([0.3, -0.1]).double())[None]
FLIGHTS = [
    (torch.cat([GLIDE, GLIDE + 0.02 * _normal(6, 1, 6, 1, 2)]),),
    (0.05 * _normal(7, 3, 8, 6, 2),),
    (0.01 * _normal(8, 1, 3, 2, 2),),
]


def _smooth(centres: Tensor) -> Tensor:
    out = []
    for motion in centres:
        squares = [
            (motion[t + 1, p, k] - motion[t, p, k] - (motion[t, p, k] - motion[t - 1, p, k])) ** 2
            for t in range(1, len(motion) - 1)
            for p in range(motion.shape[1])
            for k in range(2)
        ]
        out.append(torch.exp(-torch.sqrt(sum(squares) / len(squares) + 1e-12) / 0.03))
    return torch.stack(out)


def _smooth_values(student) -> None:
    for (centres,) in FLIGHTS:
        same(student(centres), _smooth(centres), atol=1e-4)


def _smooth_gradients(student) -> None:
    for given in FLIGHTS[1:]:
        same_gradient(student, _smooth, given, names=("centres",), atol=1e-4)


def _smooth_at_rest(student) -> None:
    """The root of 0 has no slope: a body at rest must not make one that is no number."""
    for gradient in gradients(student, (torch.zeros(1, 4, 2, 2, dtype=torch.float64),)):
        if gradient is None or not torch.isfinite(gradient).all():
            raise Mismatch("came out  a gradient that is not finite\nexpected  a finite one, for a body at rest")


def _second(difference=2, scale=0.03, root=True, mean=True, sign=-1, safe=1e-12):
    def smooth(centres):
        change = torch.diff(centres, n=difference, dim=1).square().flatten(1)
        size = (change.mean(1) if mean else change.sum(1)) + safe
        return torch.exp(sign * (size.sqrt() if root else size) / scale)

    return smooth


SMOOTHNESS = Exercise(
    id="17.6",
    name="smoothness",
    points=2,
    reference="pixelpolicy.rewards.gait:smoothness",
    forbidden=FORBIDDEN,
    probes=lambda: FLIGHTS,
    properties=[
        Property("exp(-rms / 0.03) of the second differences over the frames", _smooth_values),
        Property("gradients reach the places", _smooth_gradients),
        Property("a body at rest has a finite gradient", _smooth_at_rest,
                 "Put the 1e-12 under the root: at exactly 0 its slope is infinite."),
    ],
    mistakes=[
        Mistake("first differences", "That asks for bodies that stand still. Take the difference of differences.",
                wrong=_second(1)),
        Mistake("third differences", "One difference too many.", wrong=_second(3)),
        Mistake("no root", "Take the root of the mean square before you divide by 0.03.", wrong=_second(root=False)),
        Mistake("sum", "Take the mean over frames, parts and both directions, not the sum.", wrong=_second(mean=False)),
        Mistake("sign", "The jerkier, the lower: mind the sign in the exponent.", wrong=_second(sign=1)),
        Mistake("no exponential", "The score lies between 0 and 1: `exp` of minus the size over 0.03.",
                wrong=lambda c: -(torch.diff(c, n=2, dim=1).square().flatten(1).mean(1) + 1e-12).sqrt() / 0.03),
    ],
)  # fmt: skip

EXERCISES = [FEET, SKATE, PROGRESS, ALTERNATION, GATED, SMOOTHNESS]
