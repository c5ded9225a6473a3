"""Wrong answers to lab 19, each as a student might write it; its check must refuse it with this hint."""

import itertools
import math

import numpy as np
import torch

from pixelpolicy.course.proof import Mutant

# 19.1


def best_kl_log(n):
    return torch.log(n)


def best_kl_one_over_n(n):
    return torch.log(n) - 1.0 / n


def best_kl_bits(n):
    return torch.log2(n) - 1 + 1 / n


def best_kl_turned(n):
    return 1 - 1 / n - torch.log(n)


def best_kl_added(n):
    return torch.log(n) + 1 - 1 / n


# 19.2


def _ranked(proxy, gold):
    return torch.gather(gold, 1, torch.argsort(proxy, dim=1))


def pool_best_of_all(proxy, gold, n):
    return _ranked(proxy, gold)[:, -1]


def pool_by_gold(proxy, gold, n):
    ways = list(itertools.combinations(range(gold.shape[1]), n))
    return torch.stack([gold[:, way].amax(1) for way in ways]).mean(0)


def pool_worst(proxy, gold, n):
    count = gold.shape[1]
    weights = [math.comb(count - 1 - i, n - 1) / math.comb(count, n) for i in range(count)]
    return _ranked(proxy, gold) @ torch.tensor(weights, dtype=gold.dtype)


def pool_first_n(proxy, gold, n):
    return torch.stack([g[:n][p[:n].argmax()] for p, g in zip(proxy, gold, strict=True)])


def pool_put_back(proxy, gold, n):
    steps = torch.linspace(0, 1, gold.shape[1] + 1, dtype=gold.dtype) ** n
    return _ranked(proxy, gold) @ steps.diff()


def pool_mean(proxy, gold, n):
    return gold.mean(dim=1)


# 19.3


def path_mean(means, base_means, stds):
    on = stds > 0
    shape = (1, -1) + (1,) * (means.dim() - 2)
    return ((means - base_means)[:, on] ** 2 / (2 * stds[on].view(shape) ** 2)).flatten(1).mean(1)


def _path_sum(means, base_means, widths, on):
    shape = (1, -1) + (1,) * (means.dim() - 2)
    return ((means - base_means)[:, on] ** 2 / widths[on].view(shape)).flatten(1).sum(1)


def path_without_half(means, base_means, stds):
    return _path_sum(means, base_means, stds**2, stds > 0)


def path_with_deviation(means, base_means, stds):
    return _path_sum(means, base_means, 2 * stds, stds > 0)


def path_to_a_constant(means, base_means, stds):
    return _path_sum(means, base_means.detach(), 2 * stds**2, stds > 0)


def path_through_zero(means, base_means, stds):
    return _path_sum(means, base_means, 2 * stds**2, stds >= 0)


def path_one_number(means, base_means, stds):
    return _path_sum(means, base_means, 2 * stds**2, stds > 0).sum()


# 19.4


def _solve(columns, gain):
    found = torch.linalg.lstsq(torch.stack(columns, 1), gain[:, None]).solution
    return found[0].item(), found[1].item()


def fit_squares(d, gain):
    return _solve([d, -(d**2)], gain)


def fit_turned(d, gain):
    return _solve([d, torch.xlogy(d, d)], gain)


def fit_divided(d, gain):
    on = d > 0
    return _solve([torch.ones_like(d[on]), -d[on].log()], gain[on] / d[on])


def fit_with_intercept(d, gain):
    return _solve([d, -torch.xlogy(d, d), torch.ones_like(d)], gain)


def fit_through_minus_infinity(d, gain):
    return float("nan") if (d == 0).any() else 0.0, 1.0


def fit_base_ten(d, gain):
    on = d > 0
    return _solve([d[on], -d[on] * d[on].log10()], gain[on])


# 19.5


def bound_added(scores, caution):
    return scores.mean(0) + caution * (scores.var(0, correction=0) + 1e-20).sqrt()


def bound_without_spread(scores, caution):
    return torch.mean(scores, dim=0)


def bound_corrected(scores, caution):
    middle = scores.mean(0)
    return middle - caution * (((scores - middle) ** 2).sum(0) / (len(scores) - 1) + 1e-20).sqrt()


def bound_of_variance(scores, caution):
    return scores.mean(0) - caution * ((scores - scores.mean(0)) ** 2).mean(0)


def bound_worst(scores, caution):
    return scores.min(0).values


def bound_with_plain_std(scores, caution):
    return scores.mean(0) - caution * ((scores - scores.mean(0)) ** 2).mean(0).sqrt()


def bound_detached(scores, caution):
    return scores.mean(0) - caution * scores.detach().std(0, correction=0)


# 19.6


def stop_sees_all(golds, patience):
    return int(np.argmax(golds)), len(golds)


def _stop(golds, patience, keep_last=False, equal=False):
    best, waited = 0, 0
    for i in range(1, len(golds)):
        if golds[i] > golds[best] or (equal and golds[i] == golds[best]):
            best, waited = i, 0
        else:
            waited += 1
        if waited == patience:
            return (i if keep_last else best), i + 1
    return (len(golds) - 1 if keep_last else best), len(golds)


def stop_keeps_last(golds, patience):
    return _stop(golds, patience, keep_last=True)


def stop_at_once(golds, patience):
    return _stop(golds, 1)


def stop_keeps_later(golds, patience):
    return _stop(golds, patience, equal=True)


def stop_late(golds, patience):
    return _stop(golds, patience + 1)


# 19.7


def share_biased(rewards):
    between, within = rewards.mean(dim=1).var().item(), rewards.var(dim=1).mean().item()
    return between / (between + within) if between + within else 0.0


def share_within(rewards):
    within = rewards.var(1).mean().item()
    between = rewards.mean(1).var().item() - within / rewards.shape[1]
    return within / (between + within) if between + within > 0 else 0.0


def share_ratio(rewards):
    within = rewards.var(1).mean().item()
    between = rewards.mean(1).var().item() - within / rewards.shape[1]
    return between / within if within > 0 else 0.0


def share_transposed(rewards):
    within = rewards.var(0).mean().item()
    between = rewards.mean(0).var().item() - within / rewards.shape[0]
    return between / (between + within) if between + within > 0 else 0.0


def share_not_a_number(rewards):
    within = rewards.var(1).mean()
    between = rewards.mean(1).var() - within / rewards.shape[1]
    return (between / (between + within)).item()


MUTANTS = {
    "19.1": [
        Mutant("takes log n", best_kl_log, "would be a certain choice"),
        Mutant("takes away one over n", best_kl_one_over_n, "You take away 1 / n"),
        Mutant("counts bits", best_kl_bits, "That is in bits"),
        Mutant("turns the sign", best_kl_turned, "The sign is turned"),
        Mutant("adds", best_kl_added, "do not add it"),
    ],
    "19.2": [
        Mutant("takes the best of all", pool_best_of_all, "best of the whole pool"),
        Mutant("takes the mean", pool_mean, "the mean of the pool"),
        Mutant("chooses by gold", pool_by_gold, "You choose by gold"),
        Mutant("takes the worst", pool_worst, "Turned round"),
        Mutant("looks at the first n", pool_first_n, "the first n samples only"),
        Mutant("puts back", pool_put_back, "draws with putting back"),
    ],
    "19.3": [
        Mutant("averages", path_mean, "Nats of a whole path"),
        Mutant("forgets the half", path_without_half, "*twice* the variance"),
        Mutant("divides by the deviation", path_with_deviation, "the deviation *squared*"),
        Mutant("takes the base for a constant", path_to_a_constant, "detach neither"),
        Mutant("divides by zero", path_through_zero, "has no density"),
        Mutant("sums the batch", path_one_number, "one number a sample"),
    ],
    "19.4": [
        Mutant("fits the other form", fit_squares, "the form for best-of-n"),
        Mutant("turns the sign", fit_turned, "beta has the wrong sign"),
        Mutant("divides first", fit_divided, "Dividing the gain by d"),
        Mutant("fits an intercept", fit_with_intercept, "No third number"),
        Mutant("meets minus infinity", fit_through_minus_infinity, "d log d goes to 0"),
        Mutant("takes base ten", fit_base_ten, "Take the natural one"),
    ],
    "19.5": [
        Mutant("adds the spread", bound_added, "You *add* the spread"),
        Mutant("has no spread", bound_without_spread, "Where is the spread"),
        Mutant("corrects", bound_corrected, "These members are all"),
        Mutant("takes the variance", bound_of_variance, "Take its root"),
        Mutant("takes the worst", bound_worst, "the worst member"),
        Mutant("takes a plain deviation", bound_with_plain_std, "the root's slope is infinite"),
        Mutant("detaches", bound_detached, "no gradient reaches the spread"),
    ],
    "19.6": [
        Mutant("sees all", stop_sees_all, "look at all answers"),
        Mutant("keeps the last", stop_keeps_last, "weights at which you stopped"),
        Mutant("stops at once", stop_at_once, "first query that is no better"),
        Mutant("keeps the later", stop_keeps_later, "Of equal answers keep the first"),
        Mutant("waits too long", stop_late, "one query too many"),
    ],
    "19.7": [
        Mutant("is biased", share_biased, "differ by chance alone"),
        Mutant("takes the rest", share_within, "does *not* decide"),
        Mutant("takes a ratio", share_ratio, "between over within"),
        Mutant("exchanges both", share_transposed, "States and branches are exchanged"),
        Mutant("divides nothing by nothing", share_not_a_number, "return 0"),
    ],
}
