"""Checks of lab 07: sampling as a decision process, each piece against an independent formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies")


def _normal(seed: int, *shape: int, dtype=torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _log_density(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    terms = -(((x - mean) / std) ** 2) / 2 - torch.log(std * math.sqrt(2 * math.pi))
    return terms.flatten(1).sum(1)


# 7.1 A step of the SDE ----------------------------------------------------------------------------------------


def _at(sigma: float, sigma_next: float, g: float) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor(sigma), torch.tensor(sigma_next), torch.tensor(g)


STEPS = [
    (_normal(0, 2, 3), _normal(1, 2, 3), *_at(0.8, 0.6, 0.9)),
    (_normal(2, 3, 4, 2, 2), _normal(3, 3, 4, 2, 2), *_at(1.0, 0.7, 1.4)),
    (_normal(4, 1, 5), _normal(5, 1, 5), *_at(0.15, 0.1, 0.3)),
]


def _sde(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """By the end points of the flow: the step to the next level, with some of the predicted noise taken away."""
    span = sigma - sigma_next
    picture, noise = x - sigma * velocity, x + (1 - sigma) * velocity
    return (1 - sigma_next) * picture + (sigma_next - g**2 * span / (2 * sigma)) * noise, g * span.sqrt()


def _sde_values(student) -> None:
    for given in STEPS:
        mean, std = student(*given)
        want = _sde(*given)
        same(mean, want[0], atol=1e-5, what="the mean")
        same(std, want[1], what="the standard deviation")


def _sde_gradients(student) -> None:
    for x, velocity, *levels in STEPS:
        same_gradient(
            lambda a, b, s=levels: student(a, b, *s)[0],
            lambda a, b, s=levels: _sde(a, b, *s)[0],
            (x, velocity),
            names=("x", "velocity"),
            atol=1e-5,
        )


def _sde_without_noise(student) -> None:
    x, velocity, sigma, sigma_next, _ = STEPS[0]
    mean, std = student(x, velocity, sigma, sigma_next, torch.tensor(0.0))
    same(mean, x + (sigma_next - sigma) * velocity, what="the mean for g = 0")
    same(std, torch.tensor(0.0), what="the standard deviation for g = 0")


def _sde_amount(student) -> None:
    """Of a world whose only picture is black, x is pure noise of size sigma: a small step must keep it so."""
    noise, sigma, sigma_next, g = torch.ones(1, 4), *_at(0.7, 0.69, 1.0)
    mean, std = student(sigma * noise, noise, sigma, sigma_next, g)
    got = torch.sqrt(mean[0, 0] ** 2 + std**2)
    same(got, sigma_next, atol=3e-4, what="the size of the noise after a small step to sigma 0.69")


def _sde_like(correction=lambda g, sigma: g**2 / 2 / sigma, spread=lambda g, span: g * span.sqrt()):
    def step(x, velocity, sigma, sigma_next, g):
        noise = x + (1 - sigma) * velocity
        span = sigma - sigma_next
        return x - span * (velocity + correction(g, sigma) * noise), spread(g, span)

    return step


SDE = Exercise(
    id="7.1",
    name="sde_step",
    points=3,
    reference=_sde_like(),
    forbidden=FORBIDDEN,
    probes=lambda: STEPS,
    properties=[
        Property("mean and standard deviation are those of the reverse SDE", _sde_values),
        Property("gradients reach the velocity", _sde_gradients, "Do not detach: the velocity is what training moves."),
        Property("without noise it is the step of the ODE", _sde_without_noise),
        Property("a small step leaves as much noise as the next level has", _sde_amount),
    ],
    mistakes=[
        Mistake(
            "score upside down",
            "The sign of the score is turned: it points from the noise towards the pictures, so it is negative in x1.",
            wrong=_sde_like(correction=lambda g, sigma: -(g**2) / 2 / sigma),
        ),
        Mistake(
            "no half",
            "The correction of the drift has a factor 1/2: g^2 score / 2.",
            wrong=_sde_like(correction=lambda g, sigma: g**2 / sigma),
        ),
        Mistake(
            "no correction",
            "You add noise and take none away, so the pictures grow noisier at each step: the drift needs its score.",
            wrong=_sde_like(correction=lambda g, sigma: 0.0),
        ),
        Mistake(
            "g, not g squared",
            "The correction takes the square of g: it must undo a variance.",
            wrong=_sde_like(correction=lambda g, sigma: g / 2 / sigma),
        ),
        Mistake(
            "score without sigma",
            "The score is the predicted noise over sigma: the division is missing.",
            wrong=_sde_like(correction=lambda g, sigma: g**2 / 2),
        ),
        Mistake(
            "no root",
            "Variances add up over time, deviations do not: the deviation grows with the square root of -dt.",
            wrong=_sde_like(spread=lambda g, span: g * span),
        ),
        Mistake(
            "variance",
            "You return the variance as the second value. Return its square root, the standard deviation.",
            wrong=_sde_like(spread=lambda g, span: g**2 * span),
        ),
        Mistake(
            "root of dt",
            "dt = sigma_next - sigma is negative and has no square root: take that of -dt.",
            wrong=_sde_like(spread=lambda g, span: g * torch.sqrt(-span)),
        ),
    ],
)

# 7.2 Which steps have a density -------------------------------------------------------------------------------

DENSITY_CASES = [
    (torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]), torch.tensor([0.5, 0.4, 0.3, 0.2])),
    (torch.tensor([1.0, 0.6, 0.3, 0.0]), torch.tensor([0.0, 0.0, 0.0])),
    (torch.tensor([1.0, 0.8, 0.5, 0.3, 0.0]), torch.tensor([0.0, 0.4, 0.2, 0.0])),
    (torch.tensor([1.0, 0.7, 0.4]), torch.tensor([0.3, 0.2])),
]


def _dense(sigmas: Tensor, stds: Tensor) -> Tensor:
    return torch.tensor([bool(s > 0) and bool(n > 0) for s, n in zip(stds, sigmas.tolist()[1:], strict=True)])


def _dense_case(case: int) -> Callable:
    def holds(student) -> None:
        got = student(*DENSITY_CASES[case])
        same(got, _dense(*DENSITY_CASES[case]))

    return holds


def _dense_kind(student) -> None:
    got = student(*DENSITY_CASES[0])
    kind = str(getattr(got, "dtype", type(got).__name__))
    if kind != "torch.bool":
        raise Mismatch(f"came out  a {kind}\nexpected  a tensor of torch.bool")


DENSITY = Exercise(
    id="7.2",
    name="has_density",
    points=1,
    reference=lambda sigmas, stds: (stds > 0) & (sigmas[1:] > 0),
    forbidden=FORBIDDEN,
    probes=lambda: DENSITY_CASES,
    properties=[
        Property("a sampler that draws noise has a density at every step but the last", _dense_case(0)),
        Property("the ODE has none", _dense_case(1)),
        Property("of a mixed sampler, the steps that draw noise", _dense_case(2)),
        Property("a sampler that stops before sigma 0 keeps its last step", _dense_case(3)),
        Property("the answer is a tensor of booleans", _dense_kind, "Return a tensor of dtype bool, one entry a step."),
    ],
    mistakes=[
        Mistake(
            "the last step too",
            "The step to sigma 0 shows: what noise it drew would stay in the picture. It must not count.",
            wrong=lambda sigmas, stds: stds > 0,
        ),
        Mistake(
            "all but the last",
            "You look at the noise levels only. A step whose standard deviation is 0 has no density either.",
            wrong=lambda sigmas, stds: sigmas[1:] > 0,
        ),
        Mistake(
            "always drops one",
            "You drop the last step whatever its level. Drop it where it goes to sigma 0.",
            wrong=lambda sigmas, stds: (stds > 0) & (torch.arange(len(stds)) < len(stds) - 1),
        ),
        Mistake(
            "numbers of steps",
            "You return the numbers of the steps. Return True or False for each of them.",
            wrong=lambda sigmas, stds: ((stds > 0) & (sigmas[1:] > 0)).nonzero().flatten(),
        ),
        Mistake(
            "either",
            "One condition is not enough: both must hold, so join them with &, not with |.",
            wrong=lambda sigmas, stds: (stds > 0) | (sigmas[1:] > 0),
        ),
    ],
)

# 7.3 Roll it out ----------------------------------------------------------------------------------------------

NOISY = torch.tensor([True, False, True, False])
ALWAYS = torch.tensor([True, True])


def _walk(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """A made-up policy; it names a deviation even where nothing is drawn, as a real one may."""
    return 0.8 * torch.sin(x) + 0.1 * (t + 1), torch.tensor(0.5 / (t + 1))


def _still(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """The same without a gradient, which half precision would round in its own way for each way of writing."""
    return _walk(x.detach(), t)


def _streams(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


ROLLOUTS = [
    (_normal(6, 3, 2), NOISY, (11, 12, 13), torch.float32),
    (_normal(7, 2, 4, 2, 2), NOISY, (3, 4), torch.float16),
    (_normal(8, 2, 5), ALWAYS, (9, 5), torch.bfloat16),
]


def _rolled(start: Tensor, noisy: Tensor, seeds: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Sample by sample, each alone with its stream."""
    states, log_probs = [], []
    for row, stream in zip(start, _streams(*seeds), strict=True):
        path, values = [row.to(dtype)], []
        for t, draws in enumerate(noisy):
            mean, std = _walk(path[-1].float(), t)
            drawn = torch.randn(row.shape, generator=stream) if draws else torch.zeros_like(mean)
            path.append((mean + std * drawn).to(dtype))
            value = _log_density(path[-1].float()[None], mean[None], std) if draws else torch.tensor([math.nan])
            values.append(value[0])
        states.append(torch.stack(path)), log_probs.append(torch.stack(values))
    return torch.stack(states), torch.stack(log_probs)


def _asked(student, case: tuple) -> tuple[Tensor, Tensor]:
    start, noisy, seeds, dtype = case
    got = student(_walk, start.clone(), noisy, _streams(*seeds), dtype)
    if not isinstance(got, tuple | list) or len(got) != 2:
        raise Mismatch(f"came out  {type(got).__name__}\nexpected  two tensors: states and log_probs")
    return got


def _roll_shapes(student) -> None:
    for case in ROLLOUTS:
        start, noisy, _, dtype = case
        states, log_probs = _asked(student, case)
        same(tuple(states.shape), (len(start), len(noisy) + 1, *start.shape[1:]), what="the shape of the states")
        same(tuple(log_probs.shape), (len(start), len(noisy)), what="the shape of the log-probabilities")
        if states.dtype != dtype:
            raise Mismatch(f"came out  states of {states.dtype}\nexpected  {dtype}")
        same(states[:, 0], start.to(dtype), what="the first state")


def _roll_states(student) -> None:
    for case in ROLLOUTS:
        same(_asked(student, case)[0].float(), _rolled(*case)[0].float(), what="the states")


def _roll_log_probs(student) -> None:
    for case in ROLLOUTS:
        same(_asked(student, case)[1], _rolled(*case)[1], atol=1e-5, what=f"log-probabilities, stored as {case[3]}")


def _roll_alone(student) -> None:
    start, noisy, seeds, dtype = ROLLOUTS[0]
    together = _asked(student, ROLLOUTS[0])[0]
    alone = _asked(student, (start[2:], noisy, seeds[2:], dtype))[0]
    same(alone[0], together[2], what="the third sample, drawn without the other two")


def _noise(mean: Tensor, streams: list[torch.Generator]) -> Tensor:
    return torch.stack([torch.randn(row.shape, generator=own) for row, own in zip(mean, streams, strict=True)])


def _rolling(
    noise=_noise,
    spread=lambda std: std,
    draws_always=False,
    onward="stored",
    judged="stored",
    empty=math.nan,
    reduce=lambda value, size: value,
):
    def roll_out(step, start, noisy, streams, dtype):
        stored = [start.to(dtype)]
        present, log_probs = stored[0].float(), []
        for t, draws in enumerate(noisy.tolist()):
            mean, std = step(present, t)
            drawn = noise(mean, streams) if draws or draws_always else None
            exact = mean + spread(std) * drawn if draws else mean
            before, present = present, exact.to(dtype).float()
            stored.append(exact.to(dtype))
            x = {"stored": present, "exact": exact, "before": before}[judged]
            value = _log_density(x, mean, std) if draws else torch.full((len(mean),), empty)
            log_probs.append(reduce(value, mean[0].numel()))
            present = exact if onward == "exact" else present
        return torch.stack(stored, 1), torch.stack(log_probs, 1)

    return roll_out


ROLL_OUT = Exercise(
    id="7.3",
    name="roll_out",
    points=3,
    reference=_rolling(),
    forbidden=FORBIDDEN,
    probes=lambda: [(_still, start.clone(), noisy, _streams(*seeds), kind) for start, noisy, seeds, kind in ROLLOUTS],
    properties=[
        Property("shapes and dtype: every state is kept, the first too", _roll_shapes),
        Property("each state is drawn around the mean that the stored state before it gives", _roll_states),
        Property("log-probabilities are those of the stored states", _roll_log_probs),
        Property("a sample does not depend on its neighbours", _roll_alone),
    ],
    mistakes=[
        Mistake(
            "unrounded",
            "You take the log-probability of the state before it is rounded. Round first: state.to(dtype), then judge.",
            wrong=_rolling(judged="exact"),
        ),
        Mistake(
            "goes on unrounded",
            "The next step starts from the unrounded state. A replay sees only what was stored: go on from that.",
            wrong=_rolling(onward="exact"),
        ),
        Mistake(
            "no deviation",
            "The noise has size 1 at each step: multiply it by std.",
            wrong=_rolling(spread=lambda std: 1.0),
        ),
        Mistake(
            "draws where nothing is needed",
            "You draw at steps without noise too, which moves the streams on. Draw only where noisy says so.",
            wrong=_rolling(draws_always=True),
        ),
        Mistake(
            "one stream",
            "All samples draw from the first stream, so each depends on the batch. Sample i draws from streams[i].",
            wrong=_rolling(noise=lambda mean, streams: torch.randn(mean.shape, generator=streams[0])),
        ),
        Mistake(
            "number for no density",
            "A step without a density has no log-probability: put nan there, not a number that a sum would swallow.",
            wrong=_rolling(empty=0.0),
        ),
        Mistake(
            "state before",
            "You judge the state the step came from. The action is the state that the step leads to.",
            wrong=_rolling(judged="before"),
        ),
        Mistake(
            "averaged",
            "You average over the dimensions. Here the sum is wanted: step_log_prob gives it.",
            wrong=_rolling(reduce=lambda value, size: value / size),
        ),
    ],
)

# 7.4 The ratio of a trajectory --------------------------------------------------------------------------------


def _shifted(shift: Tensor) -> Callable[[Tensor, int], tuple[Tensor, Tensor]]:
    def step(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        mean, std = _walk(x, t)
        return mean + shift * (t + 1), std

    return step


def _replayed(case: int, shift: float) -> tuple[Callable, Tensor, Tensor, Tensor]:
    states, log_probs = _rolled(*ROLLOUTS[case])
    return _shifted(torch.tensor(shift)), states, ROLLOUTS[case][1], log_probs


def _log_ratio(step, states, noisy, log_probs) -> Tensor:
    """From the squares alone: at equal deviations all else cancels."""
    total = torch.zeros(len(states))
    for t in noisy.nonzero().flatten().tolist():
        x, (mean, std) = states[:, t + 1].float(), step(states[:, t].float(), t)
        old_mean = _walk(states[:, t].float(), t)[0]
        total = total + (((x - old_mean) ** 2 - (x - mean) ** 2) / (2 * std**2)).flatten(1).sum(1)
    return total


def _ratio_zero(student) -> None:
    for case in range(3):
        got = student(*_replayed(case, 0.0))
        same(got, torch.zeros(len(ROLLOUTS[case][0])), atol=2e-5, what="the log-ratio of a policy to itself")


def _ratio_values(student) -> None:
    for case, shift in itertools.product(range(3), (0.05, -0.3)):
        given = _replayed(case, shift)
        same(student(*given), _log_ratio(*given), atol=1e-4, rtol=1e-4)


def _ratio_gradients(student) -> None:
    for case in range(3):
        _, states, noisy, log_probs = _replayed(case, 0.0)
        same_gradient(
            lambda shift, s=states, n=noisy, p=log_probs: student(_shifted(shift), s, n, p),
            lambda shift, s=states, n=noisy, p=log_probs: _log_ratio(_shifted(shift), s, n, p),
            (torch.tensor(0.1),),
            names=("the policy's parameters",),
            atol=1e-3,
            rtol=1e-4,
        )


def _replaying(present="stored", at=1, select=True, combine=lambda new, old: (new - old).sum(1), detach=False):
    def log_ratio(step, states, noisy, log_probs):
        steps = [t for t in range(len(noisy)) if noisy[t] or not select]
        x, new = states[:, 0].float(), {}
        for t in range(len(noisy)):
            mean, std = step(states[:, t].float() if present == "stored" else x, t)
            x = mean
            new[t] = _log_density(states[:, t + at].float(), mean.detach() if detach else mean, std)
        return combine(torch.stack([new[t] for t in steps], 1), log_probs[:, steps])

    return log_ratio


RATIO = Exercise(
    id="7.4",
    name="log_ratio",
    points=2,
    reference=_replaying(),
    forbidden=FORBIDDEN,
    probes=lambda: [_replayed(case, shift) for case in range(3) for shift in (0.1, -0.3)],
    properties=[
        Property("a policy's ratio to itself is 1, its logarithm 0", _ratio_zero),
        Property("values are those of two Gaussians, summed over the steps with a density", _ratio_values),
        Property("gradients reach the policy", _ratio_gradients, "Keep the graph: no detach, no .item(), no no_grad."),
    ],
    mistakes=[
        Mistake(
            "walks by itself",
            "You let the new policy walk by itself. Each step must start from the *stored* state: states[:, t].",
            wrong=_replaying(present="own"),
        ),
        Mistake(
            "state before",
            "You judge states[:, t]. The action of step t is the state it led to: states[:, t + 1].",
            wrong=_replaying(at=0),
        ),
        Mistake(
            "every step",
            "You add up every step, and nan with them. Only steps where noisy is True have a log-probability.",
            wrong=_replaying(select=False),
        ),
        Mistake(
            "turned ratio",
            "New over old: take the old log-probability away from the new one.",
            wrong=_replaying(combine=lambda new, old: (old - new).sum(1)),
        ),
        Mistake(
            "mean of steps",
            "Independent steps multiply, so their logarithms add up: take the sum over the steps, not the mean.",
            wrong=_replaying(combine=lambda new, old: (new - old).mean(1)),
        ),
        Mistake(
            "one number",
            "Return one log-ratio a sample: sum over the steps only.",
            wrong=_replaying(combine=lambda new, old: (new - old).sum()),
        ),
        Mistake(
            "ratio itself",
            "You return the ratio. Its logarithm is wanted: leave out the exponential.",
            wrong=_replaying(combine=lambda new, old: (new - old).sum(1).exp()),
        ),
        Mistake(
            "detached",
            "The values are right, but no gradient reaches the policy. Remove .detach(), .item() or no_grad().",
            when=lambda student: not any(
                gradient.abs().sum() > 0 for gradient in _ratio_slopes(student)
            ),
        ),
    ],
)  # fmt: skip


def _ratio_slopes(student) -> list[Tensor]:
    shift = torch.tensor(0.1, requires_grad=True)
    _, states, noisy, log_probs = _replayed(0, 0.0)
    got = student(_shifted(shift), states, noisy, log_probs)
    if not torch.allclose(got.detach(), _log_ratio(_shifted(shift), states, noisy, log_probs).detach(), atol=1e-4):
        return [torch.ones(1)]  # the values are wrong already: another hint is due
    return [torch.autograd.grad(got.sum(), shift)[0]] if got.requires_grad else []


# 7.5 The score-function estimator -----------------------------------------------------------------------------

SAMPLES = [
    (torch.tensor([-1.0, -2.5, -0.3, -1.7]), torch.tensor([1.0, 0.0, 0.5, 2.0])),
    (torch.tensor([-3.0, -0.5]), torch.tensor([5.0, 6.0])),
    (torch.tensor([-0.2, -0.4, -4.0]), torch.tensor([-1.0, 7.0, -1.0])),
]
LOGITS, REWARDS = torch.tensor([0.3, -0.4, 1.1], dtype=torch.float64), torch.tensor([5.0, 7.0, 4.0]).double()


def _estimate(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Sample by sample, each against the mean of the others."""
    count, total = len(rewards), log_probs.new_zeros(())
    for i in range(count):
        others = math.fsum(rewards[j].item() for j in range(count) if j != i) / (count - 1)
        total = total - (rewards[i].item() - others) * log_probs[i]
    return total / count


def _estimate_slopes(student) -> None:
    for log_probs, rewards in SAMPLES:
        same_gradient(student, _estimate, (log_probs, rewards), names=("log_probs", "rewards"))


def _estimate_kind(student) -> None:
    got = student(*SAMPLES[0])
    same(tuple(torch.as_tensor(got).shape), (), what="the shape of the loss")


def _estimate_unbiased(student) -> None:
    """All pairs of outcomes, each with its probability: the mean estimate must be the exact gradient."""
    probabilities = LOGITS.softmax(0)
    logits, mean = LOGITS.clone().requires_grad_(), torch.zeros_like(LOGITS)
    for i, j in itertools.product(range(3), repeat=2):
        loss = student(logits.log_softmax(0)[[i, j]], REWARDS[[i, j]])
        if torch.is_tensor(loss) and loss.requires_grad:
            (slope,) = torch.autograd.grad(loss, logits)
            mean = mean - probabilities[i] * probabilities[j] * slope
    exact = probabilities * (REWARDS - (probabilities * REWARDS).sum())
    same(mean, exact, what="the mean of all estimates from two samples, descending turned into climbing")


def _estimate_shift(student) -> None:
    log_probs, rewards = SAMPLES[0]

    def shifted(x: Tensor) -> Tensor:
        return student(x, rewards + 100)

    same_gradient(shifted, lambda x: _estimate(x, rewards), (log_probs,), atol=1e-4, names=("log_probs",))


def _others(rewards: Tensor) -> Tensor:
    return (rewards.sum() - rewards) / (len(rewards) - 1)


def _estimator(advantages=lambda r: r - _others(r), reduce=torch.mean, sign=-1, detach=True):
    def loss(log_probs, rewards):
        weights = advantages(rewards)
        return sign * reduce((weights.detach() if detach else weights) * log_probs)

    return loss


SCORE_FUNCTION = Exercise(
    id="7.5",
    name="score_function_loss",
    points=3,
    reference=_estimator(),
    forbidden=FORBIDDEN,
    probes=lambda: SAMPLES,
    properties=[
        Property("a loss is one number", _estimate_kind),
        Property("each log-probability is weighed by how much better its sample is than the others", _estimate_slopes),
        Property("the estimate is unbiased: over all outcomes its mean is the exact gradient", _estimate_unbiased),
        Property("adding 100 to every reward changes nothing", _estimate_shift),
    ],
    mistakes=[
        Mistake(
            "no baseline",
            "You use the rewards as they are. Unbiased, but noisy: take away the mean of the other samples.",
            wrong=_estimator(advantages=lambda r: r),
        ),
        Mistake(
            "own reward in the baseline",
            "A sample's own reward is in its baseline, which shrinks the estimate by (n - 1) / n. Leave it out.",
            wrong=_estimator(advantages=lambda r: r - r.mean()),
        ),
        Mistake(
            "standard deviation",
            "You divide by the standard deviation. It depends on the samples, so the estimate is no longer unbiased.",
            wrong=_estimator(advantages=lambda r: (r - r.mean()) / (r.std(correction=0) + 1e-4)),
        ),
        Mistake(
            "sign",
            "Descending this loss would lower the reward. Turn the sign.",
            wrong=_estimator(sign=1),
        ),
        Mistake("sum", "Average over the samples: a sum grows with the batch.", wrong=_estimator(reduce=torch.sum)),
        Mistake(
            "gradient through the reward",
            "A gradient flows into the rewards. They are verdicts, not functions to differentiate: detach them.",
            wrong=_estimator(detach=False),
        ),
        Mistake(
            "probabilities",
            "You weigh probabilities. The estimator weighs log-probabilities: leave out the exponential.",
            wrong=lambda p, r: -((r - _others(r)).detach() * p.exp()).mean(),
        ),
        Mistake(
            "not averaged",
            "Return one number: the mean over the samples.",
            wrong=_estimator(reduce=lambda terms: terms),
        ),
    ],
)  # fmt: skip

# 7.6 DDIM, carried over to the flow ---------------------------------------------------------------------------

DDIM_STEPS = [
    (_normal(0, 2, 3), _normal(1, 2, 3), *_at(0.8, 0.6, 0.5)),
    (_normal(2, 3, 4, 2, 2), _normal(3, 3, 4, 2, 2), *_at(0.5, 0.2, 1.0)),
    (_normal(4, 1, 5), _normal(5, 1, 5), *_at(0.15, 0.1, 0.0)),
]
EDGES = [
    (_normal(6, 2, 3), _normal(7, 2, 3), *_at(1.0, 0.7, 1.0)),
    (_normal(8, 2, 3), _normal(9, 2, 3), *_at(0.2, 0.0, 1.0)),
]


def _ddim(x: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """By the ratio of the noise-to-signal odds: nothing is carried over and back."""
    picture, noise = x - sigma * velocity, x + (1 - sigma) * velocity
    odds = (sigma_next * (1 - sigma) / (sigma * (1 - sigma_next))).double() ** 2
    variance = eta.double() ** 2 * (1 - odds)
    kept = (sigma_next * (1 - variance).clamp_min(0).sqrt()).to(x.dtype)
    return (1 - sigma_next) * picture + kept * noise, (sigma_next * variance.sqrt()).to(x.dtype)


def _ddim_values(student) -> None:
    for given in DDIM_STEPS:
        (mean, std), want = student(*given), _ddim(*given)
        same(mean, want[0], atol=1e-5, rtol=1e-4, what="the mean")
        same(std, want[1], atol=1e-5, rtol=1e-4, what="the standard deviation")


def _ddim_edges(student) -> None:
    for given, where in zip(EDGES, ("from pure noise, sigma 1", "to the picture, sigma 0"), strict=True):
        (mean, std), want = student(*given), _ddim(*given)
        same(mean, want[0], atol=2e-3, what=f"the mean of the step {where}")
        same(std, want[1], atol=1e-4, what=f"the standard deviation of the step {where}")


def _ddim_gradients(student) -> None:
    for x, velocity, *levels in DDIM_STEPS:
        same_gradient(
            lambda a, b, s=levels: student(a, b, *s)[0],
            lambda a, b, s=levels: _ddim(a, b, *s)[0],
            (x, velocity),
            names=("x", "velocity"),
            atol=1e-4,
            rtol=1e-4,
        )


def _ddim_ode(student) -> None:
    x, velocity, sigma, sigma_next, _ = DDIM_STEPS[0]
    mean, std = student(x, velocity, sigma, sigma_next, torch.tensor(0.0))
    same(mean, x + (sigma_next - sigma) * velocity, atol=1e-5, what="the mean for eta = 0")
    same(std, torch.tensor(0.0), what="the standard deviation for eta = 0")


def _alpha_bar(sigma: Tensor) -> Tensor:
    return (1 - sigma) ** 2 / ((1 - sigma) ** 2 + sigma**2)


def _carried(
    alpha_bar=_alpha_bar,
    variance=lambda eta, t, s: eta**2 * (1 - s) / (1 - t) * (1 - t / s),
    kept=lambda s, var: (1 - s - var).clamp_min(0).sqrt(),
    back=lambda s: torch.sqrt((1 - s) ** 2 + s**2),
    back_std=None,
    spread=torch.sqrt,
):
    def step(x, velocity, sigma, sigma_next, eta):
        picture, noise = x - sigma * velocity, x + (1 - sigma) * velocity
        t, s = alpha_bar(sigma), alpha_bar(sigma_next)
        var = variance(eta, t, s)
        mean = s.sqrt() * picture + kept(s, var) * noise
        return back(sigma_next) * mean, (back_std or back)(sigma_next) * spread(var)

    return step


DDIM = Exercise(
    id="7.6",
    name="ddim_step",
    points=3,
    reference=_carried(),
    forbidden=FORBIDDEN,
    probes=lambda: DDIM_STEPS,
    properties=[
        Property("mean and standard deviation are DDIM's, carried over and back", _ddim_values),
        Property("both ends of the road hold: pure noise, and the picture", _ddim_edges,
                 "Rounding may put a number just below 0 under the root: clamp_min(0) before it."),
        Property("gradients reach the velocity", _ddim_gradients),
        Property("eta = 0 is the step of the ODE", _ddim_ode),
    ],
    mistakes=[
        Mistake(
            "not carried back",
            "The step is DDIM's, but in DDIM's units. Multiply mean and deviation by the scale at sigma_next.",
            wrong=_carried(back=lambda s: torch.ones(())),
        ),
        Mistake(
            "deviation not carried back",
            "The mean is back in the flow's units, the deviation is not: it scales as x does.",
            wrong=_carried(back_std=lambda s: torch.ones(())),
        ),
        Mistake(
            "signal without noise",
            "abar is the share of the signal: (1 - sigma)^2 over (1 - sigma)^2 + sigma^2, not 1 - sigma alone.",
            wrong=_carried(alpha_bar=lambda sigma: 1 - sigma),
        ),
        Mistake(
            "signal squared",
            "abar is a share: divide (1 - sigma)^2 by (1 - sigma)^2 + sigma^2.",
            wrong=_carried(alpha_bar=lambda sigma: (1 - sigma) ** 2),
        ),
        Mistake(
            "nothing makes room",
            "Fresh noise is added to all of the predicted noise. Keep only sqrt(1 - abar_s - std^2) of it.",
            wrong=_carried(kept=lambda s, var: (1 - s).sqrt()),
        ),
        Mistake(
            "levels turned",
            "The first quotient is turned over: (1 - abar_s) / (1 - abar_t), the level you go to above.",
            wrong=_carried(variance=lambda eta, t, s: eta**2 * (1 - t) / (1 - s) * (1 - t / s)),
        ),
        Mistake(
            "variance",
            "You return the variance as the second value. Return its square root, the standard deviation.",
            wrong=_carried(spread=lambda var: var),
        ),
        Mistake(
            "eta not squared",
            "eta scales the deviation, so it is squared in the variance.",
            wrong=_carried(variance=lambda eta, t, s: eta * (1 - s) / (1 - t) * (1 - t / s)),
        ),
    ],
)  # fmt: skip

EXERCISES = [SDE, DENSITY, ROLL_OUT, RATIO, SCORE_FUNCTION, DDIM]
