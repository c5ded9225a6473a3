"""Checks of lab 04: the pieces of PPO, each against an independent formula. The clipped loss is lab 12's exercise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from pixelpolicy.course.checks import lab12
from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.control")


def _fresh(given: tuple) -> list:
    """Copies, for a function that writes into what it is given."""
    return [x.clone() if isinstance(x, Tensor) else x for x in given]


def _normal(seed: int, *shape: int, dtype=torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _bools(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


# 4.1 The critic's loss ----------------------------------------------------------------------------------------

ENDS = (_bools(0, 1, 0, 0, 0), _bools(0, 0, 1, 0, 1))
VALUE_CASES = [
    (_normal(0, 5), _normal(1, 5), _normal(2, 5) + 3, *ENDS, 0.9),
    (_normal(3, 5), _normal(4, 5), _normal(5, 5) * 5, ENDS[1], ENDS[0], 1.0),
    (_normal(6, 1), _normal(7, 1), _normal(8, 1), _bools(0), _bools(0), 0.5),
]


def _value_loss(values, rewards, next_values, terminated, truncated, discount) -> Tensor:
    """Row by row: what a step turned out to be worth is a number, whatever its gradient."""
    total = values.new_zeros(())
    for value, reward, following, over in zip(values, rewards, next_values, terminated.tolist(), strict=True):
        worth = reward.item() + (0.0 if over else discount * following.item())
        total = total + (value - worth) ** 2
    return total / (2 * len(values))


def _value_values(student) -> None:
    for given in VALUE_CASES:
        same(student(*_fresh(given)), _value_loss(*given))


def _value_clock(student) -> None:
    values, rewards, following = torch.zeros(1), torch.ones(1), torch.full((1,), 4.0)
    same(student(values, rewards, following, _bools(0), _bools(1), 0.5), 4.5, what="the loss where the clock ran out")


def _value_end(student) -> None:
    values, rewards, following = torch.zeros(1), torch.ones(1), torch.full((1,), 4.0)
    same(student(values, rewards, following, _bools(1), _bools(0), 0.5), 0.5, what="the loss where the world ended")


def _value_gradients(student) -> None:
    for values, rewards, following, *rest in VALUE_CASES:
        same_gradient(
            lambda v, f, r=rewards, rest=rest: student(v, r, f, *rest),
            lambda v, f, r=rewards, rest=rest: _value_loss(v, r, f, *rest),
            (values, following),
            names=("values", "next_values"),
        )


def _value_like(
    alive: Callable = lambda terminated, truncated: ~terminated,
    measure: Callable = lambda gap: gap.square().mean() / 2,
    fixed: bool = True,
    discounted: bool = True,
) -> Callable:
    def loss(values, rewards, next_values, terminated, truncated, discount):
        following = next_values * alive(terminated, truncated).to(values.dtype)
        target = rewards + (discount if discounted else 1.0) * following
        return measure(values - (target.detach() if fixed else target))

    return loss


VALUE = Exercise(
    id="4.1",
    name="value_loss",
    points=2,
    reference=_value_like(),
    forbidden=FORBIDDEN,
    # whole rewards: whether a gradient would reach them is nobody's question
    probes=lambda: [(v.clone(), (3 * r).round().long(), *_fresh(rest)) for v, r, *rest in VALUE_CASES],
    properties=[
        Property("values are half the mean squared one-step error", _value_values),
        Property("where the clock ran out, the next state still counts", _value_clock),
        Property("where the world ended, nothing comes after", _value_end),
        Property("the critic moves towards the target, not the target towards the critic", _value_gradients),
    ],
    mistakes=[
        Mistake(
            "clock as end",
            "A truncated episode is no ended one: the clock ran out, the state it stopped in is still worth something. "
            "Only `terminated` takes the next value away.",
            wrong=_value_like(alive=lambda terminated, truncated: ~(terminated | truncated)),
        ),
        Mistake(
            "end by the clock alone",
            "You have the two kinds of end the wrong way round: terminated ends all worth, truncated does not.",
            wrong=_value_like(alive=lambda terminated, truncated: ~truncated),
        ),
        Mistake(
            "never ends",
            "Nothing is worth anything after the world ended: take the next value away where `terminated` is True.",
            wrong=_value_like(alive=lambda terminated, truncated: torch.ones_like(terminated)),
        ),
        Mistake(
            "only after the end",
            "The mask is turned: you keep the next value only where the world has ended.",
            wrong=_value_like(alive=lambda terminated, truncated: terminated),
        ),
        Mistake(
            "target with gradient",
            "The values are right, but a gradient runs into the target. It is what happened: detach it.",
            wrong=_value_like(fixed=False),
        ),
        Mistake("no discount", "The next value is not discounted.", wrong=_value_like(discounted=False)),
        Mistake(
            "no half", "A factor is off: take half of the mean.", wrong=_value_like(measure=lambda e: e.square().mean())
        ),
        Mistake(
            "sum",
            "Average over the steps; a sum grows with the batch.",
            wrong=_value_like(measure=lambda e: e.square().sum() / 2),
        ),
        Mistake(
            "absolute",
            "Square the error, do not take its size.",
            wrong=_value_like(measure=lambda e: e.abs().mean() / 2),
        ),
        Mistake(
            "square of the mean",
            "Square first, then average: errors of two signs must not cancel.",
            wrong=_value_like(measure=lambda e: e.mean().square() / 2),
        ),
    ],
)

# 4.2 Generalised advantages -----------------------------------------------------------------------------------

DONES = torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.bool)
PLAYED = (_normal(10, 6, 3), _normal(11, 6, 3), DONES, _normal(12, 3) + 1)
GAE_CASES = [
    (*PLAYED, 0.9, 0.8),
    (*PLAYED, 0.9, 0.0),
    (*PLAYED, 0.9, 1.0),
    (_normal(13, 1, 2), _normal(14, 1, 2), torch.zeros(1, 2, dtype=torch.bool), _normal(15, 2), 0.99, 0.95),
    (
        _normal(16, 8, 1).double(),
        _normal(17, 8, 1).double(),
        torch.zeros(8, 1, dtype=torch.bool),
        _normal(18, 1).double(),
        1.0,
        0.5,
    ),
]


def _gae(rewards, values, dones, last_value, discount, lam) -> Tensor:
    """The weighted sum of later errors, written out for each step, up to the end of its episode."""
    steps, copies = rewards.shape
    out = torch.zeros_like(rewards)
    for copy in range(copies):
        judged = [*values[:, copy].tolist(), last_value[copy].item()]
        over = dones[:, copy].tolist()
        for start in range(steps):
            terms, weight = [], 1.0
            for t in range(start, steps):
                following = 0.0 if over[t] else discount * judged[t + 1]
                terms.append(weight * (rewards[t, copy].item() + following - judged[t]))
                weight *= discount * lam
                if over[t]:
                    break
            out[start, copy] = math.fsum(terms)
    return out


def _gae_values(student) -> None:
    for given in GAE_CASES:
        same(student(*_fresh(given)), _gae(*given), atol=1e-5)


def _gae_one_step(student) -> None:
    rewards, values, dones, last_value = PLAYED
    following = torch.cat([values[1:], last_value[None]])
    want = rewards + torch.where(dones, torch.zeros(()), 0.9 * following) - values
    same(student(*_fresh(PLAYED), 0.9, 0.0), want, atol=1e-5, what="the advantages for lam = 0")


def _gae_return(student) -> None:
    rewards, values, dones, last_value = PLAYED
    want, following = torch.zeros_like(rewards), last_value
    for t in reversed(range(len(rewards))):
        following = rewards[t] + torch.where(dones[t], torch.zeros(()), 0.9 * following)
        want[t] = following - values[t]
    same(student(*_fresh(PLAYED), 0.9, 1.0), want, atol=1e-5, what="the advantages for lam = 1")


def _gae_impulse(student) -> None:
    """One error of size 1, and where it is felt: at itself and before it, less and less, up to the last end."""
    for t in range(6):
        rewards, zero = torch.zeros(6, 3), torch.zeros(6, 3)
        rewards[t] = 1.0
        want = torch.zeros(6, 3)
        for copy in range(3):
            for k in range(t, -1, -1):
                if k < t and DONES[k, copy]:
                    break
                want[k, copy] = 0.72 ** (t - k)
        same(
            student(rewards, zero, DONES.clone(), torch.zeros(3), 0.9, 0.8),
            want,
            what=f"what a reward at step {t} is felt as",
        )


def _gae_untouched(student) -> None:
    given = _fresh(PLAYED)
    student(*given, 0.9, 0.8)
    for name, now, before in zip(("rewards", "values", "dones", "last_value"), given, PLAYED, strict=True):
        same(now, before, what=f"your function changed the {name} it was given")


def _gae_like(
    delta: Callable = lambda r, v, following, alive, discount: r + discount * alive * following - v,
    carry: Callable = lambda alive, discount, lam: discount * lam * alive,
    last: Callable = lambda values, last_value: last_value,
    backwards: bool = True,
    result: Callable = lambda advantages, values: advantages,
) -> Callable:
    def gae(rewards, values, dones, last_value, discount, lam):
        alive = (~dones).to(rewards.dtype)
        following = torch.cat([values[1:], last(values, last_value)[None]])
        deltas = delta(rewards, values, following, alive, discount)
        out, running = [None] * len(rewards), torch.zeros_like(last_value)
        for t in reversed(range(len(rewards))) if backwards else range(len(rewards)):
            running = deltas[t] + carry(alive[t], discount, lam) * running
            out[t] = running
        return result(torch.stack(out), values)

    return gae


GAE = Exercise(
    id="4.2",
    name="gae",
    points=3,
    reference="pixelpolicy.rl:gae",
    forbidden=FORBIDDEN,
    probes=lambda: [tuple(_fresh(given)) for given in GAE_CASES],
    properties=[
        Property("values are the weighted sums of later errors", _gae_values),
        Property("lam = 0 is the one-step error", _gae_one_step),
        Property("lam = 1 is the return minus the value", _gae_return),
        Property("a reward is felt before it, never after it, and not across an end", _gae_impulse),
        Property("the inputs stay as they were", _gae_untouched, "Write into a new tensor."),
    ],
    mistakes=[
        Mistake(
            "ends ignored",
            "`dones` is not used: an episode's end must cut both the next value and the running sum.",
            wrong=_gae_like(
                delta=lambda r, v, following, alive, discount: r + discount * following - v,
                carry=lambda alive, discount, lam: discount * lam,
            ),
        ),
        Mistake(
            "sum runs on",
            "The next value is cut at an end, the running sum is not: it carries the next episode's errors over.",
            wrong=_gae_like(carry=lambda alive, discount, lam: discount * lam),
        ),
        Mistake(
            "value after the end",
            "The running sum is cut at an end, the next value is not: it is that of the next episode's first state.",
            wrong=_gae_like(delta=lambda r, v, following, alive, discount: r + discount * following - v),
        ),
        Mistake(
            "forwards",
            "Your loop runs forwards in time, so each step is praised for what came before it. Begin with the last.",
            wrong=_gae_like(backwards=False),
        ),
        Mistake(
            "no lam",
            "The running sum shrinks by discount times lam a step; lam is missing.",
            wrong=_gae_like(carry=lambda alive, discount, lam: discount * alive),
        ),
        Mistake(
            "lam alone",
            "The running sum shrinks by discount times lam a step; the discount is missing.",
            wrong=_gae_like(carry=lambda alive, discount, lam: lam * alive),
        ),
        Mistake(
            "no last value",
            "The play stopped, the episode did not: after the last step comes a state worth `last_value`.",
            wrong=_gae_like(last=lambda values, last_value: torch.zeros_like(last_value)),
        ),
        Mistake(
            "last value, undiscounted",
            "The next value counts only `discount` times as much as the reward.",
            wrong=_gae_like(delta=lambda r, v, following, alive, discount: r + alive * following - v),
        ),
        Mistake(
            "turned",
            "The sign is turned: a step that did better than its value has a positive advantage.",
            wrong=_gae_like(result=lambda advantages, values: -advantages),
        ),
        Mistake(
            "returns",
            "You return advantages plus values: what the critic is trained towards. Leave the values out here.",
            wrong=_gae_like(result=lambda advantages, values: advantages + values),
        ),
        Mistake(
            "no value",
            "What was expected must come off: the error is reward plus discounted next value *minus* the value.",
            wrong=_gae_like(delta=lambda r, v, following, alive, discount: r + discount * alive * following),
        ),
    ],
)

# 4.3 The clipped surrogate ------------------------------------------------------------------------------------

# One function in two labs: lab 12 puts it to a generator.
SURROGATE = replace(lab12.OBJECTIVE, id="4.3", name="clipped_surrogate", forbidden=FORBIDDEN)

# 4.4 Normalised advantages ------------------------------------------------------------------------------------

RAW = [_normal(20, 7) * 3 + 5, _normal(21, 4, 3) * 0.2 - 1, torch.tensor([1.0, -1.0]), _normal(22, 9).double() * 100]


def _standard(advantages: Tensor) -> Tensor:
    numbers = advantages.flatten().tolist()
    mean = math.fsum(numbers) / len(numbers)
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / len(numbers))
    return torch.tensor([(x - mean) / (deviation + 1e-8) for x in numbers]).to(advantages).view_as(advantages)


def _standard_values(student) -> None:
    for raw in RAW:
        same(student(raw.clone()), _standard(raw), atol=1e-5)


def _standard_flat(student) -> None:
    same(student(torch.full((4,), 2.0)), torch.zeros(4), what="advantages that are all equal")


def _standard_units(student) -> None:
    same(student(10 * RAW[0] + 3), student(RAW[0].clone()), atol=1e-4, what="the same advantages in other units")


def _standard_untouched(student) -> None:
    raw = RAW[0].clone()
    student(raw)
    same(raw, RAW[0], what="your function changed the advantages it was given")


STANDARD = Exercise(
    id="4.4",
    name="normalise",
    points=1,
    reference=lambda advantages: (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8),
    forbidden=FORBIDDEN,
    probes=lambda: [(raw.clone(),) for raw in RAW],
    properties=[
        Property("mean 0 and deviation 1 over the whole batch", _standard_values),
        Property("a batch of equal advantages says nothing", _standard_flat, "Add 1e-8 to the deviation."),
        Property("units do not matter", _standard_units),
        Property("the input stays as it was", _standard_untouched, "Make a new tensor: `-=` writes into it."),
    ],
    mistakes=[
        Mistake(
            "n - 1",
            "Your deviation divides by n - 1. Divide by n: pass correction=0.",
            wrong=lambda a: (a - a.mean()) / (a.std() + 1e-8),
        ),
        Mistake(
            "variance",
            "You divide by the variance. Take its square root.",
            wrong=lambda a: (a - a.mean()) / (a.var(correction=0) + 1e-8),
        ),
        Mistake(
            "mean only", "The mean is gone, the scale is not: divide by the deviation.", wrong=lambda a: a - a.mean()
        ),
        Mistake(
            "scale only",
            "Take the mean off first: half of the batch must come out worse than expected.",
            wrong=lambda a: a / (a.std(correction=0) + 1e-8),
        ),
        Mistake(
            "step by step",
            "You normalise along one dimension only. Take mean and deviation of all at once.",
            wrong=lambda a: (a - a.mean(0)) / (a.std(0, correction=0) + 1e-8),
        ),
        Mistake(
            "largest",
            "Divide by the standard deviation, not by the largest: one outlier would silence the rest.",
            wrong=lambda a: (a - a.mean()) / ((a - a.mean()).abs().max() + 1e-8),
        ),
        Mistake(
            "no small number",
            "Where all are equal you divide 0 by 0. Add 1e-8 to the deviation.",
            when=lambda student: bool(student(torch.full((4,), 2.0)).isnan().any()),
        ),
    ],
)

# 4.5 Entropy --------------------------------------------------------------------------------------------------

LOGITS = [_normal(30, 4, 3) * 2, torch.zeros(2, 5), _normal(31, 1, 2).double()]
EXTREME = torch.tensor([[800.0, 0.0, -800.0], [0.0, 0.0, -1000.0]])


def _entropy(logits: Tensor) -> Tensor:
    """log-sum-exp of the logits less their mean under the policy."""
    return logits.logsumexp(-1) - (logits.softmax(-1) * logits).sum(-1)


def _entropy_values(student) -> None:
    for logits in LOGITS:
        same(student(logits), _entropy(logits))


def _entropy_gradients(student) -> None:
    for logits in (LOGITS[0], LOGITS[2]):
        same_gradient(student, _entropy, (logits,), names=("logits",))


def _entropy_bounds(student) -> None:
    same(student(torch.zeros(1, 4)), torch.tensor([math.log(4)]), what="the entropy of four equal chances")


def _entropy_extreme(student) -> None:
    logits = EXTREME.clone().requires_grad_()
    got = student(logits)
    same(got, torch.tensor([0.0, math.log(2)]), what="the entropy of a policy that is sure")
    if not got.requires_grad:
        raise Mismatch("no gradient reaches the logits")
    (gradient,) = torch.autograd.grad(got.sum(), logits)
    same(gradient, torch.zeros(2, 3), what="its gradient")


def _entropy_like(weigh: Callable = lambda p, logp: -(p * logp).sum(-1)) -> Callable:
    return lambda logits: weigh(logits.softmax(-1), logits.log_softmax(-1))


ENTROPY = Exercise(
    id="4.5",
    name="entropy",
    points=2,
    reference=_entropy_like(),
    forbidden=FORBIDDEN,
    probes=lambda: [(logits.clone(),) for logits in LOGITS],
    properties=[
        Property("values are those of softmax(logits), in nats", _entropy_values),
        Property("gradients reach the logits", _entropy_gradients, "Do not detach: this is trained."),
        Property("the most is log n, where all chances are equal", _entropy_bounds),
        Property(
            "a policy that is sure has finite entropy and gradient",
            _entropy_extreme,
            "log(softmax) is -inf where a chance rounds to 0, and 0 times infinity is NaN. Use log_softmax.",
        ),
    ],
    mistakes=[
        Mistake(
            "sign", "Entropy is not negative: -sum p log p.", wrong=_entropy_like(lambda p, logp: (p * logp).sum(-1))
        ),
        Mistake(
            "bits",
            "That is in bits. Take the natural logarithm.",
            wrong=_entropy_like(lambda p, logp: -(p * logp).sum(-1) / math.log(2)),
        ),
        Mistake(
            "mean over actions",
            "Sum over the actions: their chances already average.",
            wrong=_entropy_like(lambda p, logp: -(p * logp).mean(-1)),
        ),
        Mistake(
            "one number",
            "Return one number a row: sum over the last dimension only.",
            wrong=_entropy_like(lambda p, logp: -(p * logp).sum(-1).mean()),
        ),
        Mistake(
            "unweighted",
            "Weigh each log-probability with its probability.",
            wrong=_entropy_like(lambda p, logp: -logp.sum(-1)),
        ),
        Mistake(
            "logits for logs",
            "Logits are log-probabilities only up to a constant: take log_softmax first.",
            wrong=lambda logits: -(logits.softmax(-1) * logits).sum(-1),
        ),
        Mistake(
            "detached",
            "The values are right, but no gradient reaches the logits. Detach neither chances nor logarithms.",
            wrong=lambda logits: _entropy(logits.detach()),
        ),
    ],
)

# 4.6 The density of a Gaussian action -------------------------------------------------------------------------

ACTIONS = [
    (_normal(40, 4, 3), _normal(41, 4, 3), torch.tensor([-0.5, 0.0, 0.7])),
    (_normal(42, 2, 1), _normal(43, 2, 1), torch.tensor([-1.2])),
    (_normal(44, 1, 6).double(), _normal(45, 1, 6).double(), _normal(46, 6).double()),
]


def _density(actions: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """By the matrix formula of the multivariate Gaussian, whose covariance is diagonal."""
    covariance = torch.diag_embed((2 * log_std).exp())
    gap = actions - mean
    distance = torch.einsum("bi,ij,bj->b", gap, covariance.inverse(), gap)
    return -(distance + covariance.logdet() + len(log_std) * math.log(2 * math.pi)) / 2


def _density_values(student) -> None:
    for given in ACTIONS:
        same(student(*given), _density(*given), atol=1e-5)


def _density_gradients(student) -> None:
    for actions, mean, log_std in ACTIONS:
        same_gradient(
            lambda m, s, a=actions: student(a, m, s),
            lambda m, s, a=actions: _density(a, m, s),
            (mean, log_std),
            names=("mean", "log_std"),
            atol=1e-5,
        )


def _density_parts(student) -> None:
    """Independent numbers: the density of both is the product of the densities of each."""
    actions, mean, log_std = ACTIONS[0]
    parts = [student(actions[:, k : k + 1], mean[:, k : k + 1], log_std[k : k + 1]) for k in range(3)]
    same(student(actions, mean, log_std), sum(parts), atol=1e-5, what="three numbers at once against one by one")


def _density_like(constant=True, spread="std", reduce="sum", sign=-1, power=2) -> Callable:
    def log_prob(actions, mean, log_std):
        std = {"std": log_std.exp(), "itself": log_std}[spread]
        terms = sign * (actions - mean) ** 2 / (2 * std**power)
        if constant is True or constant == "std":
            terms = terms - (log_std if spread == "std" else torch.log(std))
        if constant is True or constant == "pi":
            terms = terms - 0.5 * math.log(2 * math.pi)
        return {"sum": terms.sum(-1), "mean": terms.mean(-1), "all": terms.sum(), "none": terms}[reduce]

    return log_prob


DENSITY = Exercise(
    id="4.6",
    name="gaussian_log_prob",
    points=2,
    reference=_density_like(),
    forbidden=FORBIDDEN,
    probes=lambda: ACTIONS,
    properties=[
        Property("values are those of a Gaussian of independent numbers", _density_values),
        Property("gradients reach the mean and the deviation", _density_gradients, "Detach nothing: both are learnt."),
        Property("the density of several numbers is the product of their densities", _density_parts),
    ],
    mistakes=[
        Mistake(
            "mean",
            "You average over the numbers of an action. Probabilities multiply, so logarithms add: sum.",
            wrong=_density_like(reduce="mean"),
        ),
        Mistake(
            "one number",
            "Return one number an action: sum over the last dimension only.",
            wrong=_density_like(reduce="all"),
        ),
        Mistake(
            "not reduced",
            "An action has one density, however many numbers it has: sum over the last dimension.",
            wrong=_density_like(reduce="none"),
        ),
        Mistake(
            "log_std as std",
            "`log_std` is the logarithm of the deviation. Undo it with exp.",
            wrong=_density_like(spread="itself"),
        ),
        Mistake(
            "no constants",
            "-log_std and -log(2 pi)/2 are missing, for every number of the action.",
            wrong=_density_like(constant=False),
        ),
        Mistake(
            "no log std",
            "The term -log_std is missing: a narrow density is higher.",
            wrong=_density_like(constant="pi"),
        ),
        Mistake(
            "no log 2 pi",
            "The constant -log(2 pi)/2 is missing, for every number.",
            wrong=_density_like(constant="std"),
        ),
        Mistake("std, not variance", "Divide by 2 std^2, not by 2 std.", wrong=_density_like(power=1)),
        Mistake("sign", "An action far from the mean must be less likely: mind the sign.", wrong=_density_like(sign=1)),
        Mistake(
            "detached",
            "The values are right, but no gradient reaches the mean. Remove .detach() or no_grad().",
            wrong=lambda a, m, s: _density(a, m.detach(), s),
        ),
        Mistake(
            "nothing learnt",
            "The values are right, but no gradient reaches mean and deviation: nothing can be learnt.",
            wrong=lambda a, m, s: _density(a, m.detach(), s.detach()),
        ),
    ],
)

# 4.7 The gradient through the action --------------------------------------------------------------------------


def _peak(actions: Tensor) -> Tensor:
    return -((actions - torch.linspace(-1, 1, actions.shape[-1]).to(actions)) ** 2).sum(-1)


def _wave(actions: Tensor) -> Tensor:
    return (torch.sin(3 * actions) + actions).sum(-1)


PATHS = [
    (_normal(50, 2), _normal(51, 2), _normal(52, 8, 2), _peak),
    (_normal(53, 1), torch.tensor([-1.0]), _normal(54, 5, 1), _wave),
    (_normal(55, 3).double(), torch.zeros(3).double(), torch.zeros(4, 3).double(), _peak),
]


def _path(mean: Tensor, log_std: Tensor, noise: Tensor, critic: Callable) -> Tensor:
    total = mean.new_zeros(())
    for row in noise:
        total = total - critic((mean + row * torch.exp(log_std))[None])[0]
    return total / len(noise)


def _path_values(student) -> None:
    for given in PATHS:
        same(student(*given), _path(*given), atol=1e-5)


def _path_gradients(student) -> None:
    for mean, log_std, *rest in PATHS:
        same_gradient(
            lambda m, s, rest=rest: student(m, s, *rest),
            lambda m, s, rest=rest: _path(m, s, *rest),
            (mean, log_std),
            names=("mean", "log_std"),
            atol=1e-5,
        )


def _path_knowledge(student) -> None:
    """On a slope each sample alone knows the slope: no variance at all."""
    mean, slope = torch.zeros(2, requires_grad=True), torch.tensor([2.0, -1.0])
    loss = student(mean, torch.zeros(2), _normal(56, 1, 2), lambda actions: actions @ slope)
    (gradient,) = torch.autograd.grad(loss, mean)
    same(gradient, -slope, what="the gradient in the mean on a critic that is a slope, from one sample")


def _path_like(act=lambda m, s, e: m + s.exp() * e, sign=-1, reduce=torch.mean) -> Callable:
    return lambda mean, log_std, noise, critic: sign * reduce(critic(act(mean, log_std, noise)))


def _score_function(mean, log_std, noise, critic):
    actions = (mean + log_std.exp() * noise).detach()
    return -(critic(actions).detach() * _density_like()(actions, mean, log_std)).mean()


PATHWISE = Exercise(
    id="4.7",
    name="pathwise_loss",
    points=2,
    reference=_path_like(),
    forbidden=FORBIDDEN,
    probes=lambda: PATHS,
    properties=[
        Property("the value is minus the critic's mean over the actions drawn", _path_values),
        Property("gradients run through the action into mean and deviation", _path_gradients),
        Property("on a slope, one sample knows the gradient exactly", _path_knowledge),
    ],
    mistakes=[
        Mistake(
            "score function",
            "That is the score-function loss. Hand the critic an action that carries gradient; no density is needed.",
            wrong=_score_function,
        ),
        Mistake(
            "cut",
            "The value is right, but the action is cut from mean and deviation. Detach nothing.",
            wrong=_path_like(lambda m, s, e: (m + s.exp() * e).detach()),
        ),
        Mistake(
            "deviation cut",
            "No gradient reaches the deviation. It is learnt too: do not detach it.",
            wrong=_path_like(lambda m, s, e: m + s.detach().exp() * e),
        ),
        Mistake(
            "log_std as std",
            "`log_std` is the logarithm of the deviation. Undo it with exp.",
            wrong=_path_like(lambda m, s, e: m + s * e),
        ),
        Mistake(
            "plain noise",
            "The noise has deviation 1: stretch it by the policy's own.",
            wrong=_path_like(lambda m, s, e: m + e),
        ),
        Mistake(
            "no noise",
            "You ask about the mean action alone, as DDPG does. Add the noise, stretched by the deviation.",
            wrong=_path_like(lambda m, s, e: m.expand_as(e)),
        ),
        Mistake("sign", "The critic is to be climbed and an optimiser descends: one minus.", wrong=_path_like(sign=1)),
        Mistake("sum", "Average over the samples, do not sum.", wrong=_path_like(reduce=torch.sum)),
    ],
)

EXERCISES = [VALUE, GAE, SURROGATE, STANDARD, ENTROPY, DENSITY, PATHWISE]
