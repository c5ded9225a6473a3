"""Checks of lab 09: reward weighting, DDPO and DPOK, each piece against an independent formula."""

from __future__ import annotations

import math
import statistics

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.finetune", "pixelpolicy.policies")

REWARDS = torch.tensor([0.1, 0.9, 0.4, 2.0, 2.5, 1.0, 0.3, 0.3, 0.3])
GROUPS = torch.tensor([0, 0, 0, 7, 7, 7, 3, 3, 3])
SHUFFLED = torch.tensor([4, 0, 8, 2, 6, 1, 5, 3, 7])


def _by_group(rule):
    """A function of (rewards, groups, ...) that applies ``rule`` to the rewards of each group."""

    def function(rewards, groups, setting):
        out = torch.zeros_like(rewards)
        for group in groups.unique():
            out[groups == group] = rule(rewards[groups == group], setting)
        return out

    return function


# 9.1 The weights of RWR -----------------------------------------------------------------------------------------


def _weights(rewards: Tensor, groups: Tensor, beta: float) -> Tensor:
    out = []
    for reward, group in zip(rewards.tolist(), groups.tolist(), strict=True):
        mates = [r for r, g in zip(rewards.tolist(), groups.tolist(), strict=True) if g == group]
        top = max(mates)
        total = math.fsum(math.exp((mate - top) / beta) for mate in mates)
        out.append(len(mates) * math.exp((reward - top) / beta) / total)
    return torch.tensor(out, dtype=rewards.dtype)


WEIGHT_CASES = [(REWARDS, GROUPS, 0.5), (REWARDS[SHUFFLED], GROUPS[SHUFFLED], 2.0), (REWARDS[:1], GROUPS[:1], 0.1)]


def _weight_values(student) -> None:
    for rewards, groups, beta in WEIGHT_CASES:
        same(student(rewards.clone(), groups, beta), _weights(rewards, groups, beta), rtol=1e-4)


def _weights_large(student) -> None:
    rewards = torch.tensor([1000.0, 999.9, 0.0])
    got = student(rewards, torch.zeros(3, dtype=torch.long), 0.1)
    if not got.isfinite().all():
        raise Mismatch(f"came out  {got.tolist()}\nexpected  finite weights for rewards {rewards.tolist()}, beta 0.1")
    same(got, torch.tensor([2.1932, 0.8068, 0.0]), atol=2e-3)


def _weights_limits(student) -> None:
    same(student(REWARDS.clone(), GROUPS, 1e5), torch.ones(9), atol=1e-3, what="with a large beta all count alike")
    best = torch.tensor([0.0, 3, 0, 0, 3, 0, 1, 1, 1])
    same(student(REWARDS.clone(), GROUPS, 0.01), best, atol=1e-3, what="with a small beta the best alone count")


def _weights_untouched(student) -> None:
    rewards = REWARDS.clone()
    student(rewards, GROUPS, 0.5)
    same(rewards, REWARDS, what="your function changed the rewards it was given")


WEIGHTS = Exercise(
    id="9.1",
    name="reward_weights",
    points=2,
    reference="pixelpolicy.course.checks.lab09:_weights",
    forbidden=FORBIDDEN,
    probes=lambda: [(REWARDS.clone(), GROUPS, 0.5), (REWARDS[SHUFFLED], GROUPS[SHUFFLED], 2.0)],
    properties=[
        Property("weights are exp(reward / beta), with mean 1 in each group", _weight_values),
        Property("large rewards do not overflow", _weights_large, "Take each group's largest reward away before exp."),
        Property("beta goes from 'the best alone' to 'all alike'", _weights_limits),
        Property("the rewards stay as they were", _weights_untouched, "Write into a new tensor, not into rewards."),
    ],
    mistakes=[
        Mistake(
            "sum 1",
            "Your weights add up to 1 in each group; they should have mean 1, or the step shrinks with the group.",
            wrong=_by_group(lambda mine, beta: (mine / beta).softmax(0)),
        ),
        Mistake(
            "whole batch",
            "You normalise over the whole batch: an easy prompt then takes all the weight. Do it group by group.",
            wrong=lambda r, g, beta: (r / beta).softmax(0) * len(r),
        ),
        Mistake(
            "times beta",
            "Divide by beta: a small beta must make the choice sharper.",
            wrong=_by_group(lambda mine, beta: (mine * beta).softmax(0) * len(mine)),
        ),
        Mistake(
            "sign",
            "The sign is turned: the best sample must have the largest weight.",
            wrong=_by_group(lambda mine, beta: (-mine / beta).softmax(0) * len(mine)),
        ),
        Mistake(
            "no mean",
            "exp is there, but not yet divided by the mean of its group.",
            wrong=_by_group(lambda mine, beta: (mine / beta).exp()),
        ),
        Mistake(
            "linear",
            "You weigh by the reward itself. RWR takes its exponential, which is positive for any reward.",
            wrong=_by_group(lambda mine, beta: mine / mine.mean()),
        ),
    ],
)

# 9.2 The best of a group (RAFT) ---------------------------------------------------------------------------------


def _best(rewards: Tensor, groups: Tensor, keep: int) -> Tensor:
    out = [0.0] * len(rewards)
    for group in sorted(set(groups.tolist())):
        rows = [i for i, g in enumerate(groups.tolist()) if g == group]
        values = [rewards[i].item() for i in rows]
        if max(values) > min(values):
            chosen = sorted(rows, key=lambda i: -rewards[i].item())[:keep]
            for i in chosen:
                out[i] = len(rows) / len(chosen)
    return torch.tensor(out, dtype=rewards.dtype)


def _best_values(student) -> None:
    for keep in (1, 2):
        for order in (torch.arange(6), torch.tensor([4, 0, 2, 1, 5, 3])):
            case = REWARDS[:6][order], GROUPS[:6][order], keep
            same(student(*case), _best(*case))


def _best_mean(student) -> None:
    case = REWARDS[:6], GROUPS[:6], 2
    got = student(*case)
    same(got[:3].mean(), torch.tensor(1.0), what="the mean weight of a group")


def _best_small_group(student) -> None:
    same(student(REWARDS[:3], GROUPS[:3], 12), torch.ones(3), what="asked for more than there are, all count alike")


def _best_flat(student) -> None:
    got = student(REWARDS, GROUPS, 1)
    same(got[6:], torch.zeros(3), what="the weights of a group whose rewards are all equal")


def _ranked(weight, flat=True):
    def rule(mine, keep):
        order = mine.argsort(descending=True, stable=True)[:keep]
        out = torch.zeros_like(mine)
        if flat and mine.max() == mine.min():
            return out
        out[order] = weight(mine, order)
        return out

    return _by_group(rule)


BEST = Exercise(
    id="9.2",
    name="best_of_group",
    points=2,
    reference="pixelpolicy.course.checks.lab09:_best",
    forbidden=FORBIDDEN,
    probes=lambda: [(REWARDS.clone(), GROUPS, 1), (REWARDS.clone(), GROUPS, 2), (REWARDS[:6].clone(), GROUPS[:6], 2)],
    properties=[
        Property("the best of each group count alike, the others not at all", _best_values),
        Property("the mean weight of a group is 1", _best_mean),
        Property("a group smaller than asked for is kept whole", _best_small_group),
        Property("a group whose rewards are all equal has no best", _best_flat, "Where max equals min, leave zeros."),
    ],
    mistakes=[
        Mistake(
            "weight 1",
            "Those kept have weight 1, so that the mean is below 1. Give each (size of group) / (number kept).",
            wrong=_ranked(lambda mine, order: 1.0),
        ),
        Mistake(
            "worst",
            "You keep the worst. Sort from high to low.",
            wrong=_by_group(
                lambda mine, keep: (
                    torch.zeros_like(mine).index_fill(
                        0, mine.argsort(stable=True)[:keep], len(mine) / min(keep, len(mine))
                    )
                    * (mine.max() > mine.min())
                )
            ),
        ),
        Mistake(
            "of the batch",
            "You keep the best of the whole batch, so that easy prompts take all. Keep the best of each group.",
            wrong=lambda r, g, keep: torch.zeros_like(r).index_fill(
                0, r.argsort(descending=True)[:keep], len(r) / keep
            ),
        ),
        Mistake(
            "flat group",
            "A group whose rewards are all equal still picks a winner: by chance. Give it weight 0.",
            wrong=_ranked(lambda mine, order: len(mine) / len(order), flat=False),
        ),
        Mistake(
            "by threshold",
            "You keep whatever is above the mean, not the number asked for.",
            wrong=_by_group(
                lambda mine, keep: (mine > mine.mean()).to(mine) * len(mine) / max(int((mine > mine.mean()).sum()), 1)
            ),
        ),
    ],
)

# 9.3 The weighted matching loss ---------------------------------------------------------------------------------


def _latents(seed: int, *shape: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    velocity, x0, x1 = (torch.randn(shape, generator=stream) for _ in range(3))
    return velocity, x0, x1, torch.rand(shape[0], generator=stream) * 2


def _zeroed(case):
    velocity, x0, x1, weights = case
    return velocity, x0, x1, torch.where(torch.arange(len(weights)) == 1, 0.0, weights)


MATCHES = [_latents(0, 3, 5), _zeroed(_latents(1, 4, 2, 3, 3)), _latents(2, 1, 4)]


def _match(velocity: Tensor, x0: Tensor, x1: Tensor, weights: Tensor) -> Tensor:
    total = velocity.new_zeros(())
    for v, picture, noise, weight in zip(velocity, x0, x1, weights, strict=True):
        total = total + weight * torch.nn.functional.mse_loss(v, noise - picture)
    return total / len(velocity)


def _match_values(student) -> None:
    for case in MATCHES:
        same(student(*case), _match(*case))


def _match_gradients(student) -> None:
    for velocity, *rest in MATCHES:
        same_gradient(lambda v, r=rest: student(v, *r), lambda v, r=rest: _match(v, *r), (velocity,))


def _match_zero(student) -> None:
    velocity, x0, x1, weights = MATCHES[0]
    same(student(x1 - x0, x0, x1, weights), torch.tensor(0.0), what="the loss of a perfect velocity")


def _matched(target=lambda x0, x1: x1 - x0, weigh=lambda w, each: (w * each).mean()):
    return lambda v, x0, x1, w: weigh(w, (v - target(x0, x1)).square().flatten(1).mean(1))


MATCHING = Exercise(
    id="9.3",
    name="weighted_matching",
    points=2,
    reference="pixelpolicy.finetune.reward_weighted:weighted_matching",
    forbidden=FORBIDDEN,
    probes=lambda: MATCHES,
    properties=[
        Property("values are those of the flow-matching loss, weighed sample by sample", _match_values),
        Property("the gradient moves the velocity of the samples that count", _match_gradients),
        Property("a perfect velocity costs nothing", _match_zero),
    ],
    mistakes=[
        Mistake(
            "turned target",
            "The velocity points from the picture to the noise: its target is x1 - x0.",
            wrong=_matched(lambda x0, x1: x0 - x1),
        ),
        Mistake("picture as target", "The target is the velocity x1 - x0, not the picture.",
                wrong=_matched(lambda x0, x1: x0)),
        Mistake("no weights", "The weights are not used.", wrong=_matched(weigh=lambda w, each: each.mean())),
        Mistake(
            "weighted mean",
            "You divide by the sum of the weights. Divide by the number of samples: a group of weight 0 must not make "
            "the others louder.",
            wrong=_matched(weigh=lambda w, each: (w * each).sum() / w.sum()),
        ),
        Mistake("sum", "Average over the samples, do not sum.", wrong=_matched(weigh=lambda w, each: (w * each).sum())),
        Mistake(
            "sum over dimensions",
            "Within a sample, take the mean over its dimensions, not the sum.",
            wrong=lambda v, x0, x1, w: (w * (v - x1 + x0).square().flatten(1).sum(1)).mean(),
        ),
        Mistake(
            "weights inside",
            "You weigh the error before squaring it, so that each weight is squared too.",
            wrong=lambda v, x0, x1, w: (w[:, None] * (v - x1 + x0).flatten(1)).square().mean(),
        ),
        Mistake(
            "detached",
            "The value is right, but no gradient reaches the velocity. Remove .detach(), .item() or no_grad().",
            wrong=lambda v, x0, x1, w: _match(v.detach(), x0, x1, w),
        ),
    ],
)  # fmt: skip

# 9.4 Per-prompt statistics --------------------------------------------------------------------------------------

BATCHES = [
    (torch.tensor([1.0, 0.0, 0.5, 0.2]), ["easy", "hard", "easy", "hard"]),
    (torch.tensor([0.9, 0.1, 0.7, 0.8, 0.4]), ["easy", "hard", "easy", "new", "easy"]),
    (torch.tensor([0.5, 0.6, 0.3]), ["hard", "easy", "new"]),
    (torch.tensor([0.5, 0.5, 0.5]), ["easy", "hard", "new"]),
]


def _play(function, keep: int, least: int, batches=BATCHES) -> tuple[list[Tensor], dict]:
    memory: dict[str, list[float]] = {}
    return [function(rewards.clone(), list(prompts), memory, keep, least) for rewards, prompts in batches], memory


def _compare(rewards: Tensor, prompts: list[str], memory: dict, keep: int = 32, least: int = 8) -> Tensor:
    for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
        memory[prompt] = [*memory.get(prompt, []), reward][-keep:]
    out = []
    for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
        values = memory[prompt] if len(memory[prompt]) >= least else rewards.tolist()
        out.append((reward - statistics.fmean(values)) / (statistics.pstdev(values) + 1e-6))
    return torch.tensor(out, dtype=rewards.dtype)


def _statistics_values(student) -> None:
    for keep, least in ((32, 2), (32, 1), (32, 4)):
        for number, (got, want) in enumerate(
            zip(_play(student, keep, least)[0], _play(_compare, keep, least)[0], strict=True)
        ):
            same(got, want, atol=1e-4, what=f"batch {number + 1}, least {least}")


def _statistics_forget(student) -> None:
    got, want = _play(student, 3, 2), _play(_compare, 3, 2)
    for number, (one, other) in enumerate(zip(got[0], want[0], strict=True)):
        same(one, other, atol=1e-4, what=f"batch {number + 1}, the latest 3 remembered")
    sizes = {prompt: len(values) for prompt, values in got[1].items()}
    same(sizes, {"easy": 3, "hard": 3, "new": 3}, what="how many rewards of each prompt are remembered")


def _statistics_flat(student) -> None:
    flat = torch.full((4,), 0.5)
    got = student(flat, ["a"] * 4, {}, 32, 2)
    same(got, torch.zeros(4), atol=1e-2, what="equal rewards")


def _statistics_untouched(student) -> None:
    rewards = BATCHES[0][0].clone()
    student(rewards, BATCHES[0][1], {}, 32, 2)
    same(rewards, BATCHES[0][0], what="your function changed the rewards it was given")


def _remembering(moments, whose=lambda memory, prompt, rewards, least: (
    memory[prompt] if len(memory[prompt]) >= least else rewards), forget=True, early=False):  # fmt: skip
    """Variants of the statistics: which numbers a reward is compared with, and how."""

    def function(rewards, prompts, memory, keep=32, least=8):
        def store():
            for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
                memory[prompt] = [*memory.get(prompt, []), reward][-keep if forget else 0 :]

        def compare():
            out = []
            for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
                memory.setdefault(prompt, [])
                values = torch.tensor(list(whose(memory, prompt, rewards.tolist(), least)))
                out.append(moments(reward, values))
            return torch.stack(out).to(rewards.dtype)

        if early:
            found = compare()
            store()
            return found
        store()
        return compare()

    return function


def _standard(reward, values):
    return (reward - values.mean()) / (values.std(correction=0) + 1e-6)


def _first(reward, values):
    return (reward - values.mean()) / (values.std(correction=1) + 1e-6)


def _statistics_probes() -> list[tuple]:
    return [
        (rewards.clone(), list(prompts), {"easy": [0.2, 0.9, 1.0, 0.7], "hard": [0.1, 0.0, 0.3]}, keep, least)
        for rewards, prompts in BATCHES[:2]
        for keep, least in ((32, 3), (32, 5), (3, 2))
    ]


def _answers_like(*arguments, **named):
    """Whether a student's answers, whatever their gradients, are those of this variant."""
    wrong = _remembering(*arguments, **named)

    def when(student) -> bool:
        pairs = zip(_statistics_probes(), _statistics_probes(), strict=True)
        return all(torch.allclose(student(*one), wrong(*other), atol=1e-4, equal_nan=True) for one, other in pairs)

    return when


STATISTICS = Exercise(
    id="9.4",
    name="compare_with_past",
    points=3,
    reference="pixelpolicy.course.checks.lab09:_compare",
    forbidden=FORBIDDEN,
    probes=_statistics_probes,
    changes=(2,),  # the memory
    properties=[
        Property("each reward is compared with those of its own prompt, or, of a new prompt, with the batch's",
                 _statistics_values),
        Property("the oldest rewards are forgotten", _statistics_forget, "Keep memory[prompt][-keep:]."),
        Property("equal rewards teach nothing", _statistics_flat, "Add 1e-6 to the standard deviation."),
        Property("the rewards stay as they were", _statistics_untouched, "Write into a new tensor, not into rewards."),
    ],
    mistakes=[
        Mistake(
            "compares first",
            "You compare before you remember. DDPO adds the new rewards to the memory first.",
            when=_answers_like(_standard, early=True),
        ),
        Mistake(
            "always the batch",
            "You compare with the whole batch, always. A hard prompt then counts as a bad sample.",
            when=_answers_like(_standard, lambda memory, prompt, rewards, least: rewards),
        ),
        Mistake(
            "no least",
            "A prompt seen once is compared with itself, which says nothing. Below `least` rewards, take the batch's.",
            when=_answers_like(_standard, lambda memory, prompt, rewards, least: memory[prompt]),
        ),
        Mistake(
            "more than least",
            "A prompt with exactly `least` rewards may already use its own: compare with >=.",
            when=_answers_like(
                _standard,
                lambda memory, prompt, rewards, least: memory[prompt] if len(memory[prompt]) > least else rewards,
            ),
        ),
        Mistake(
            "sample deviation",
            "Your standard deviation divides by n - 1. DDPO divides by n: pass correction=0.",
            when=_answers_like(_first),
        ),
        Mistake(
            "mean only",
            "The mean is gone, the scale is not: divide by the standard deviation of the same numbers.",
            when=_answers_like(lambda reward, values: reward - values.mean()),
        ),
        Mistake(
            "never forgets",
            "You remember everything. The policy improves, so that old rewards mislead: keep the latest `keep`.",
            when=_answers_like(_standard, forget=False),
        ),
    ],
)  # fmt: skip

# 9.5 The objective of a whole episode ---------------------------------------------------------------------------

OLD = torch.tensor([[-1.0, -0.5, -2.0], [-1.5, -0.2, -0.9], [-0.3, -0.7, -1.1]])
MOVED = torch.tensor([[0.0, 0.35, -0.35], [0.30, -0.30, 0.05], [-0.5, 0.1, 0.02]])
GAINS = torch.tensor([1.5, -1.0, 0.7])
EPISODES = [
    (OLD + MOVED, OLD, GAINS, 0.2),  # as many steps as pictures, so that a wrong broadcast goes unseen but for values
    (OLD.clone(), OLD, GAINS, 0.2),
    ((OLD + MOVED)[:2], OLD[:2], -GAINS[:2], 0.1),
    ((OLD + MOVED)[:, :1], OLD[:, :1], GAINS, 0.2),
]


def _episode(log_probs: Tensor, old: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    total, count = log_probs.new_zeros(()), 0
    for row, (new_row, old_row) in enumerate(zip(log_probs, old, strict=True)):
        gain = advantages[row]
        for new, before in zip(new_row, old_row, strict=True):
            ratio = torch.exp(new - before)
            if gain >= 0 and ratio > 1 + clip_range:
                ratio = 1 + clip_range + 0 * ratio
            if gain < 0 and ratio < 1 - clip_range:
                ratio = 1 - clip_range + 0 * ratio
            total, count = total - gain * ratio, count + 1
    return total / count


def _episode_values(student) -> None:
    for case in EPISODES:
        same(student(*case), _episode(*case))


def _episode_gradients(student) -> None:
    for new, old, gains, clip in EPISODES:
        same_gradient(
            lambda x, o=old, g=gains, c=clip: student(x, o, g, c),
            lambda x, o=old, g=gains, c=clip: _episode(x, o, g, c),
            (new,),
            names=("log_probs",),
        )


def _episode_first(student) -> None:
    new = OLD.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(student(new, OLD, GAINS, 0.2), new)
    same(gradient, (-GAINS / 9)[:, None].expand(3, 3), what="the gradient while every ratio is 1")


def _clipped(combine=torch.maximum, gains=lambda a: a[:, None], reduce=torch.mean, ratio=lambda n, o: (n - o).exp()):
    def loss(log_probs, old, advantages, clip_range):
        rho, a = ratio(log_probs, old), gains(advantages)
        return reduce(combine(-a * rho, -a * rho.clamp(1 - clip_range, 1 + clip_range)))

    return loss


def _square_only(advantages):
    """What broadcasting makes of [batch] beside [batch, steps]: an advantage a step."""
    return advantages


OBJECTIVE = Exercise(
    id="9.5",
    name="episode_objective",
    points=3,
    reference="pixelpolicy.course.checks.lab09:_episode",
    forbidden=FORBIDDEN,
    probes=lambda: EPISODES[:2],
    properties=[
        Property("values are PPO's clipped loss, step by step, with one advantage a picture", _episode_values),
        Property("the gradient vanishes only where a step has gone far enough", _episode_gradients),
        Property("while every ratio is 1 the gradient is that of the policy gradient", _episode_first),
    ],
    mistakes=[
        Mistake(
            "advantage a step",
            "advantages is [batch] and log_probs [batch, steps]: side by side, they align the advantages with the "
            "STEPS. Write advantages[:, None].",
            wrong=_clipped(gains=_square_only),
        ),
        Mistake(
            "one ratio an episode",
            "You clip the ratio of the whole trajectory. Each step is an action of its own: clip step by step.",
            wrong=_clipped(ratio=lambda n, o: (n - o).sum(1, keepdim=True).exp()),
        ),
        Mistake(
            "minimum",
            "A loss is descended: with the minus sign inside, the pessimist takes the maximum, not the minimum.",
            wrong=_clipped(torch.minimum),
        ),
        Mistake(
            "clamp alone",
            "Clamping alone has no gradient outside the range, even where the policy moved the wrong way. "
            "Take the maximum with the unclipped term.",
            wrong=_clipped(lambda free, clipped: clipped),
        ),
        Mistake("no clip", "The ratio is never clipped.", wrong=_clipped(lambda free, clipped: free)),
        Mistake(
            "sum over steps",
            "You sum over the steps. Take the mean, or the step of the optimiser grows with the sampler's steps.",
            wrong=_clipped(reduce=lambda each: each.sum(-1).mean()),
        ),
        Mistake(
            "sign",
            "This is an objective to climb; the optimiser descends. Turn the sign.",
            wrong=lambda n, o, a, c: -_clipped()(n, o, a, c),
        ),
    ],
)

# 9.6 The critic's loss ------------------------------------------------------------------------------------------

EXPECTED = [
    (torch.tensor([[0.2, 0.5, 0.9], [0.0, 0.3, -0.4], [1.0, 1.0, 1.0]]), torch.tensor([1.0, 0.0, 0.5])),
    (torch.tensor([[0.7], [0.1]]), torch.tensor([0.7, -2.0])),
    (torch.tensor([[0.5, 0.25, 0.0, 3.0]]), torch.tensor([0.5])),
]


def _critic(expected: Tensor, rewards: Tensor) -> Tensor:
    total, count = expected.new_zeros(()), 0
    for row, reward in zip(expected, rewards.tolist(), strict=True):
        for value in row:
            total, count = total + (value - reward) ** 2, count + 1
    return total / count


def _critic_values(student) -> None:
    for case in EXPECTED:
        same(student(*case), _critic(*case))


def _critic_gradients(student) -> None:
    for expected, rewards in EXPECTED:
        same_gradient(lambda x, r=rewards: student(x, r), lambda x, r=rewards: _critic(x, r), (expected,),
                      names=("expected",))  # fmt: skip


def _critic_zero(student) -> None:
    rewards = torch.tensor([0.3, 0.9])
    same(student(rewards[:, None].expand(2, 4), rewards), torch.tensor(0.0), what="the loss of a perfect critic")


CRITIC = Exercise(
    id="9.6",
    name="critic_loss",
    points=2,
    reference="pixelpolicy.finetune.ddpo:critic_loss",
    forbidden=FORBIDDEN,
    probes=lambda: EXPECTED[:1],
    properties=[
        Property("values are the mean squared distance of every state's expectation to the final reward",
                 _critic_values),
        Property("the gradient pulls every expectation towards the reward", _critic_gradients),
        Property("a critic that is right everywhere costs nothing", _critic_zero),
    ],
    mistakes=[
        Mistake(
            "reward a step",
            "rewards is [batch] and expected [batch, steps]: side by side, they align the rewards with the STEPS. "
            "Write rewards[:, None].",
            wrong=lambda e, r: (e - r).square().mean(),
        ),
        Mistake(
            "last state",
            "You fit the last state alone. The critic is asked at every step: fit them all.",
            wrong=lambda e, r: (e[:, -1] - r).square().mean(),
        ),
        Mistake(
            "mean first",
            "You average the expectations before comparing, so that their errors cancel. Square each error first.",
            wrong=lambda e, r: (e.mean(1) - r).square().mean(),
        ),
        Mistake("absolute", "Square the error; the absolute value finds the median, not the mean.",
                wrong=lambda e, r: (e - r[:, None]).abs().mean()),
        Mistake("sum", "Take the mean over pictures and steps, not the sum.",
                wrong=lambda e, r: (e - r[:, None]).square().sum()),
        Mistake("half", "A factor is off: the mean of the squares, without a half.",
                wrong=lambda e, r: 0.5 * (e - r[:, None]).square().mean()),
        Mistake(
            "detached",
            "The value is right, but no gradient reaches the critic. Detach the rewards if anything, not `expected`.",
            when=lambda student: not student(EXPECTED[0][0].clone().requires_grad_(), EXPECTED[0][1]).requires_grad,
        ),
    ],
)  # fmt: skip

# 9.7 Who is silent ----------------------------------------------------------------------------------------------


def _silent(log_probs: Tensor, old: Tensor, advantages: Tensor, clip_range: float) -> Tensor:
    out = []
    for step in range(log_probs.shape[1]):
        count = 0
        for new, before, gain in zip(
            log_probs[:, step].tolist(), old[:, step].tolist(), advantages.tolist(), strict=True
        ):
            ratio = math.exp(new - before)
            count += (gain > 0 and ratio > 1 + clip_range) or (gain < 0 and ratio < 1 - clip_range)
        out.append(count / len(log_probs))
    return torch.tensor(out)


SILENT_CASES = [
    *EPISODES[:3],
    (OLD - MOVED, OLD, GAINS, 0.1),
]
BORDERS = [
    (OLD + 0.5, OLD, torch.zeros(3), 0.2),  # neither good nor bad
    (OLD - 0.5, OLD, torch.zeros(3), 0.2),
    (OLD, OLD, GAINS, 0.0),  # at both ends of the range, and beyond neither
    (OLD + 0.5, OLD, torch.tensor([-0.5, -0.2, 0.3]), 0.2),  # a little bad, a little good
    (OLD - 0.5, OLD, torch.tensor([-0.5, 0.2, 0.3]), 0.2),
]


def _silent_values(student) -> None:
    for case in SILENT_CASES[:4]:
        same(student(*case), _silent(*case))


def _silent_gradients(student) -> None:
    """A step is silent exactly where the objective of 9.5 has no gradient."""
    for new, old, gains, clip in SILENT_CASES[:4]:
        leaf = new.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(_episode(leaf, old, gains, clip), leaf)
        want = (gradient == 0).float().mean(0)
        same(student(new, old, gains, clip), want, what="the share of pictures without a gradient, step by step")


def _silent_borders(student) -> None:
    for case in BORDERS:
        same(student(*case), _silent(*case))


def _silent_first(student) -> None:
    same(student(OLD, OLD, GAINS, 0.2), torch.zeros(3), what="while every ratio is 1")


def _share(test):
    return lambda n, o, a, c: test((n - o).exp(), a[:, None], c).float().mean(0)


SILENT = Exercise(
    id="9.7",
    name="silent_share",
    points=2,
    reference="pixelpolicy.course.checks.lab09:_silent",
    forbidden=FORBIDDEN,
    probes=lambda: [SILENT_CASES[0], SILENT_CASES[3]],
    properties=[
        Property("the share, step by step, of pictures that the clip has silenced", _silent_values),
        Property("those are the ones without a gradient", _silent_gradients),
        Property("before any update nobody is silent", _silent_first),
        Property(
            "an advantage of 0 is neither good nor bad, and the end of the range is not beyond it",
            _silent_borders,
            "Ask for A > 0 and A < 0, above 1 + c and below 1 - c: with none of the four is equality meant.",
        ),
    ],
    mistakes=[
        Mistake(
            "outside the range",
            "You count every ratio outside the range. One that moved the wrong way is outside too, and still has its "
            "gradient: ask for the sign of the advantage.",
            wrong=_share(lambda ratio, a, c: (ratio > 1 + c) | (ratio < 1 - c)),
        ),
        Mistake(
            "turned",
            "It is turned round: a good picture is silenced when it is likely enough, a bad one when it is unlikely "
            "enough.",
            wrong=_share(lambda ratio, a, c: ((a < 0) & (ratio > 1 + c)) | ((a > 0) & (ratio < 1 - c))),
        ),
        Mistake(
            "upper only",
            "You count good pictures alone. Bad ones fall silent below 1 - c.",
            wrong=_share(lambda ratio, a, c: (a > 0) & (ratio > 1 + c)),
        ),
        Mistake(
            "one number",
            "Return one share a step: average over the pictures, dimension 0.",
            wrong=lambda n, o, a, c: _silent(n, o, a, c).mean(),
        ),
        Mistake(
            "log ratio",
            "You compare the logarithm of the ratio with 1 ± c. Take exp first.",
            wrong=lambda n, o, a, c: (
                (((a[:, None] > 0) & (n - o > 1 + c)) | ((a[:, None] < 0) & (n - o < 1 - c))).float().mean(0)
            ),
        ),
    ],
)

EXERCISES = [WEIGHTS, BEST, MATCHING, STATISTICS, OBJECTIVE, CRITIC, SILENT]
