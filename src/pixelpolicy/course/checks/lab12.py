"""Checks of lab 12: the pieces of Flow-GRPO, each against an independent formula."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies")

# 12.1 Group-relative advantages -------------------------------------------------------------------------------

REWARDS = torch.tensor([0.1, 0.9, 0.4, 2.0, 2.5, 1.0, 0.3, 0.3, 0.3])
GROUPS = torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3])
SHUFFLED = torch.tensor([4, 0, 8, 2, 6, 1, 5, 3, 7])


def _advantages(rewards: Tensor, groups: Tensor) -> Tensor:
    rows = rewards.double().tolist()
    members = [[r for r, g in zip(rows, groups.tolist(), strict=True) if g == mine] for mine in groups.tolist()]
    means = [math.fsum(group) / len(group) for group in members]
    stds = [math.sqrt(math.fsum((r - m) ** 2 for r in g) / len(g)) for g, m in zip(members, means, strict=True)]
    return torch.tensor([(r - m) / (s + 1e-4) for r, m, s in zip(rows, means, stds, strict=True)], dtype=rewards.dtype)


def _by_group(normalise):
    def advantages(rewards, groups):
        out = torch.zeros_like(rewards)
        for group in groups.unique():
            out[groups == group] = normalise(rewards[groups == group], rewards)
        return out

    return advantages


def _values(student) -> None:
    for rewards, groups in ((REWARDS, GROUPS), (REWARDS[:3] * 10, GROUPS[:3]), (-REWARDS.double(), GROUPS)):
        same(student(rewards.clone(), groups), _advantages(rewards, groups), atol=2e-4)


def _any_order(student) -> None:
    same(student(REWARDS[SHUFFLED], GROUPS[SHUFFLED]), _advantages(REWARDS, GROUPS)[SHUFFLED], atol=2e-4)


def _flat(student) -> None:
    flat = torch.tensor([0.7, 0.7, 0.7, 0.7])
    same(student(flat, torch.zeros(4, dtype=torch.long)), torch.zeros(4), atol=1e-2)


def _untouched(student) -> None:
    rewards, groups = REWARDS.clone(), GROUPS.clone()
    student(rewards, groups)
    same(rewards, REWARDS, what="your function changed the rewards it was given")
    same(groups, GROUPS, what="your function changed the groups it was given")


ADVANTAGES = Exercise(
    id="12.1",
    name="group_advantages",
    points=2,
    reference="pixelpolicy.rl:group_advantages",
    forbidden=FORBIDDEN,
    probes=lambda: [(REWARDS.clone(), GROUPS), (REWARDS[SHUFFLED], GROUPS[SHUFFLED])],
    properties=[
        Property("each sample is compared with its own group", _values),
        Property("the order of the samples does not matter", _any_order, "Find the members by groups == group."),
        Property("a group whose rewards are all equal teaches nothing", _flat, "Add 1e-4 to the standard deviation."),
        Property("the inputs stay as they were", _untouched, "Write into a new tensor, not into rewards."),
    ],
    mistakes=[
        Mistake(
            "whole batch",
            "You compare with the whole batch. A hard prompt then counts as a bad sample: use each group's own mean.",
            wrong=lambda r, g: (r - r.mean()) / (r.std(correction=0) + 1e-4),
        ),
        Mistake(
            "sample deviation",
            "Your standard deviation divides by n - 1. Flow-GRPO divides by n: pass correction=0.",
            wrong=_by_group(lambda mine, _: (mine - mine.mean()) / (mine.std() + 1e-4)),
        ),
        Mistake(
            "mean only",
            "The mean is gone, the scale is not: divide by the group's standard deviation.",
            wrong=_by_group(lambda mine, _: mine - mine.mean()),
        ),
        Mistake(
            "batch deviation",
            "The mean is the group's, the standard deviation the batch's. Take both from the group here.",
            wrong=_by_group(lambda mine, every: (mine - mine.mean()) / (every.std(correction=0) + 1e-4)),
        ),
        Mistake(
            "variance",
            "You divide by the variance. Take its square root.",
            wrong=_by_group(lambda mine, _: (mine - mine.mean()) / (mine.var(correction=0) + 1e-4)),
        ),
        Mistake(
            "sign",
            "The sign is turned: the best sample of a group must have the largest advantage.",
            wrong=_by_group(lambda mine, _: (mine.mean() - mine) / (mine.std(correction=0) + 1e-4)),
        ),
    ],
)

# 12.2 The log-probability of a step ---------------------------------------------------------------------------


def _step(seed: int, *shape: int, dtype=torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(shape, generator=generator, dtype=dtype),
        torch.randn(shape, generator=generator, dtype=dtype),
    )


STEPS = [
    (*_step(0, 2, 3), torch.tensor(0.5)),
    (*_step(1, 3, 4, 2, 2), torch.tensor(1.7)),
    (*_step(2, 1, 5), torch.tensor(0.05)),
]


def _log_prob(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    each = torch.distributions.Normal(mean, std.expand_as(mean)).log_prob(x)
    return torch.stack([row.mean() for row in each])


def _log_prob_values(student) -> None:
    for x, mean, std in STEPS:
        same(student(x, mean, std), _log_prob(x, mean, std))


def _log_prob_gradients(student) -> None:
    for x, mean, std in STEPS:
        same_gradient(lambda m, x=x, s=std: student(x, m, s), lambda m, x=x, s=std: _log_prob(x, m, s), (mean,))


def _log_prob_spread(student) -> None:
    x, mean = STEPS[0][:2]
    wide, narrow = torch.tensor(2.0), torch.tensor(1.0)
    same(student(x, mean, wide) - student(x, mean, narrow), _log_prob(x, mean, wide) - _log_prob(x, mean, narrow))


def _gaussian(constant=True, power=2, reduce="mean", sign=-1, deviation=True):
    def log_prob(x, mean, std):
        terms = sign * (x - mean) ** 2 / (2 * std**power)
        terms = terms - (std.log() if deviation else 0) - (0.5 * math.log(2 * math.pi) if constant else 0)
        return (
            terms.flatten(1).mean(1)
            if reduce == "mean"
            else terms.flatten(1).sum(1)
            if reduce == "sum"
            else terms.mean()
        )

    return log_prob


LOG_PROB = Exercise(
    id="12.2",
    name="step_log_prob",
    points=2,
    reference="pixelpolicy.rl:gaussian_log_prob",
    forbidden=FORBIDDEN,
    probes=lambda: STEPS,
    properties=[
        Property("values agree with torch.distributions.Normal, averaged over a sample's dimensions", _log_prob_values),
        Property("gradients reach the mean", _log_prob_gradients, "Do not detach: the mean is what training moves."),
        Property("a wider step makes every point less likely in the right measure", _log_prob_spread),
    ],
    mistakes=[
        Mistake("sum", "You sum over the dimensions; here the mean is wanted.", wrong=_gaussian(reduce="sum")),
        Mistake("one number", "Return one number a sample: keep dimension 0.", wrong=_gaussian(reduce="all")),
        Mistake(
            "no constants", "log(std) and log(2 pi)/2 are missing.", wrong=_gaussian(constant=False, deviation=False)
        ),
        Mistake("no log std", "The term -log(std) is missing.", wrong=_gaussian(deviation=False)),
        Mistake("no log 2 pi", "The constant -log(2 pi)/2 is missing.", wrong=_gaussian(constant=False)),
        Mistake("std, not variance", "Divide by 2 std^2, not by 2 std.", wrong=_gaussian(power=1)),
        Mistake("sign", "A point far from the mean must be less likely: mind the sign.", wrong=_gaussian(sign=1)),
        Mistake(
            "detached",
            "The values are right, but no gradient reaches the mean. Remove .detach(), .item() or no_grad().",
            wrong=lambda x, mean, std: _log_prob(x, mean.detach(), std),
        ),
    ],
)

# 12.3 The clipped objective -----------------------------------------------------------------------------------

OLD = torch.tensor([-1.0, -0.5, -2.0, -1.5, -0.2, -0.9])
NEW = OLD + torch.tensor([0.0, 0.35, -0.35, 0.30, -0.30, 0.05])
GAINS = torch.tensor([1.0, 2.0, 0.5, -1.0, -2.0, 0.7])


def _objective(log_probs: Tensor, old: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    """Branch by branch, as the paper draws it."""
    total = log_probs.new_zeros(())
    for new, before, gain in zip(log_probs, old, advantages, strict=True):
        ratio = torch.exp(new - before)
        if gain >= 0:
            ratio = 1 + clip_range + 0 * ratio if ratio > 1 + clip_range else ratio
        else:
            ratio = 1 - clip_range + 0 * ratio if ratio < 1 - clip_range else ratio
        total = total - gain * ratio
    return total / len(log_probs)


CASES = [
    (NEW, OLD, GAINS, 0.2),
    (OLD.clone(), OLD, GAINS, 0.2),
    (NEW, OLD, -GAINS, 0.1),
    (NEW[:1] + 3, OLD[:1], GAINS[:1], 0.2),
]


def _objective_values(student) -> None:
    for new, old, gains, clip in CASES:
        same(student(new, old, gains, clip), _objective(new, old, gains, clip))


def _objective_gradients(student) -> None:
    for new, old, gains, clip in CASES:
        same_gradient(
            lambda x, o=old, g=gains, c=clip: student(x, o, g, c),
            lambda x, o=old, g=gains, c=clip: _objective(x, o, g, c),
            (new,),
            names=("log_probs",),
        )


def _first_pass(student) -> None:
    new = OLD.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(student(new, OLD, GAINS, 0.2), new)
    same(gradient, -GAINS / len(GAINS), what="the gradient while the ratio is 1")


def _ratio(log_probs, old):
    return (log_probs - old).exp()


def _pessimist(combine, sign=1):
    def loss(log_probs, old, advantages, clip_range):
        ratio = _ratio(log_probs, old)
        clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
        return combine(-advantages * ratio * sign, -advantages * clipped * sign).mean()

    return loss


OBJECTIVE = Exercise(
    id="12.3",
    name="clipped_objective",
    points=3,
    reference="pixelpolicy.rl:clipped_surrogate",
    forbidden=FORBIDDEN,
    probes=lambda: CASES,
    properties=[
        Property("values are those of PPO's clipped objective, as a loss", _objective_values),
        Property("the gradient vanishes only where the clip says enough", _objective_gradients),
        Property("while the ratio is 1 the gradient is that of the policy gradient", _first_pass),
    ],
    mistakes=[
        Mistake(
            "minimum",
            "A loss is descended: with the minus sign inside, the pessimist takes the maximum, not the minimum.",
            wrong=_pessimist(torch.minimum),
        ),
        Mistake(
            "clamp alone",
            "Clamping alone has no gradient outside the range, even where the policy moved the wrong way. "
            "Take the maximum with the unclipped term.",
            wrong=_pessimist(lambda free, clipped: clipped),
        ),
        Mistake("no clip", "The ratio is never clipped.", wrong=_pessimist(lambda free, clipped: free)),
        Mistake(
            "sign",
            "This is an objective to climb; the optimiser descends. Turn the sign.",
            wrong=lambda n, o, a, c: -_pessimist(torch.maximum)(n, o, a, c),
        ),
        Mistake(
            "difference of logs",
            "The ratio is exp(new - old); you use the difference of the logarithms itself.",
            wrong=lambda n, o, a, c: torch.maximum(-a * (n - o), -a * (n - o).clamp(1 - c, 1 + c)).mean(),
        ),
        Mistake(
            "turned ratio",
            "The ratio is turned over: new policy above, old policy below.",
            wrong=lambda n, o, a, c: _pessimist(torch.maximum)(o, n, a, c),
        ),
        Mistake(
            "sum",
            "Average over the samples, do not sum: the step would grow with the batch.",
            wrong=lambda n, o, a, c: _pessimist(torch.maximum)(n, o, a, c) * len(n),
        ),
    ],
)

# 12.4 The KL to the reference ---------------------------------------------------------------------------------


def _kl(mean: Tensor, mean_ref: Tensor, std: Tensor) -> Tensor:
    normal = torch.distributions.Normal
    each = torch.distributions.kl_divergence(
        normal(mean, std.expand_as(mean)), normal(mean_ref, std.expand_as(mean_ref))
    )
    return torch.stack([row.mean() for row in each])


def _kl_values(student) -> None:
    for mean, reference, std in STEPS:
        same(student(mean, reference, std), _kl(mean, reference, std), atol=1e-6)


def _kl_gradients(student) -> None:
    for mean, reference, std in STEPS:
        same_gradient(
            lambda m, r=reference, s=std: student(m, r, s), lambda m, r=reference, s=std: _kl(m, r, s), (mean,)
        )


def _kl_zero(student) -> None:
    mean, _, std = STEPS[1]
    same(student(mean, mean.clone(), std), torch.zeros(len(mean)), what="the KL of a policy to itself")


def _square(scale=lambda std: 2 * std**2, reduce=lambda t: t.flatten(1).mean(1)):
    return lambda mean, reference, std: reduce((mean - reference) ** 2 / scale(std))


KL = Exercise(
    id="12.4",
    name="step_kl",
    points=2,
    reference="pixelpolicy.rl:gaussian_kl",
    forbidden=FORBIDDEN,
    probes=lambda: STEPS,
    properties=[
        Property("values agree with torch.distributions.kl_divergence, averaged over dimensions", _kl_values),
        Property("gradients pull the mean towards the reference", _kl_gradients),
        Property("a policy is at distance 0 from itself", _kl_zero),
    ],
    mistakes=[
        Mistake("no 2", "A factor is off: the denominator is 2 std^2.", wrong=_square(lambda std: std**2)),
        Mistake("std, not variance", "Divide by 2 std^2, not by 2 std.", wrong=_square(lambda std: 2 * std)),
        Mistake("no std", "Divide by 2 std^2: a step with little noise makes the same gap far more telling.",
                wrong=_square(lambda std: torch.tensor(2.0))),
        Mistake("sum", "Take the mean over the dimensions, as in the log-probability.",
                wrong=_square(reduce=lambda t: t.flatten(1).sum(1))),
        Mistake("one number", "Return one number a sample: keep dimension 0.", wrong=_square(reduce=torch.mean)),
        Mistake("absolute", "Square the difference of the means.",
                wrong=lambda m, r, s: ((m - r).abs() / (2 * s**2)).flatten(1).mean(1)),
    ],
)  # fmt: skip

# 12.5 Which steps to train ------------------------------------------------------------------------------------

AVAILABLE = [0, 2, 3, 5, 6, 8]


def _draws(student, count: int, seeds: int) -> list[list[int]]:
    """Few draws will do: a grader hands each over to another process. Right answers fail by chance once in 100,000."""
    drawn = []
    for seed in range(seeds):
        steps = student(list(AVAILABLE), count, np.random.default_rng(seed))
        if not isinstance(steps, list | tuple | np.ndarray):
            raise Mismatch(f"came out  {steps!r}\nexpected  a list of {count} steps")
        drawn.append([int(step) for step in steps])
    return drawn


def _valid(student) -> None:
    for steps in _draws(student, 3, 20):
        if not set(steps) <= set(AVAILABLE):
            raise Mismatch(f"came out  {steps}\nexpected  steps among {AVAILABLE}")
        same(len(steps), 3, what="how many steps")
        same(len(set(steps)), 3, what="how many different steps")


def _sorted(student) -> None:
    for steps in _draws(student, 3, 20):
        same(steps, sorted(steps), what="in the order of sampling")


def _all_when_few(student) -> None:
    for steps in _draws(student, 10, 2):
        same(sorted(steps), AVAILABLE, what="asked for more steps than there are, take them all")


def _fair(student) -> None:
    counts = {step: 0 for step in AVAILABLE}
    for steps in _draws(student, 2, 150):
        for step in steps:
            counts[step] = counts.get(step, 0) + 1
    if min(counts.values()) < 23 or max(counts.values()) > 77:
        raise Mismatch(f"came out  {counts} choices in 150 draws of 2\nexpected  about 50 of each")


def _repeatable(student) -> None:
    np.random.seed(1)
    first = _draws(student, 2, 10)
    np.random.seed(2)
    same(_draws(student, 2, 10), first, what="the same generator again")


def _positions(available, count, rng):
    return sorted(rng.choice(len(available), min(count, len(available)), replace=False).tolist())


CHOICE = Exercise(
    id="12.5",
    name="choose_steps",
    points=2,
    reference="pixelpolicy.finetune:random_steps",
    forbidden=FORBIDDEN,
    probes=lambda: [(list(AVAILABLE), count, np.random.default_rng(seed)) for count in (2, 3, 10) for seed in range(4)],
    properties=[
        Property("so many different steps, all of them available", _valid),
        Property("in the order in which they are sampled", _sorted),
        Property("all of them where fewer are available", _all_when_few),
        Property("every step has the same chance", _fair),
        Property("the generator alone decides", _repeatable, "Draw from rng, not from a global source of chance."),
    ],
    mistakes=[
        Mistake(
            "first ones",
            "You always train the first steps, so the others never learn. Draw them with rng.",
            wrong=lambda available, count, rng: list(available[:count]),
        ),
        Mistake(
            "with repetition",
            "A step may come twice: pass replace=False.",
            wrong=lambda available, count, rng: sorted(rng.choice(available, min(count, len(available))).tolist()),
        ),
        Mistake(
            "positions",
            "You return positions in the list. Return the steps that stand there.",
            wrong=_positions,
        ),
        Mistake(
            "unsorted",
            "The steps are right but out of order. Sort them.",
            wrong=lambda available, count, rng: rng.choice(
                available, min(count, len(available)), replace=False
            ).tolist(),
        ),
        Mistake(
            "too few available",
            "rng.choice cannot draw more steps than there are: ask for min(count, len(available)).",
            wrong=lambda available, count, rng: sorted(rng.choice(available, count, replace=False).tolist()),
        ),
        Mistake(
            "global chance",
            "You draw from a global source, so that no run can be repeated. Draw from rng.",
            when=lambda student: any(
                student(list(AVAILABLE), 3, np.random.default_rng(0))
                != student(list(AVAILABLE), 3, np.random.default_rng(0))
                for _ in range(5)
            ),
        ),
    ],
)

EXERCISES = [ADVANTAGES, LOG_PROB, OBJECTIVE, KL, CHOICE]
