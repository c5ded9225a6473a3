"""Wrong answers to lab 12, each as a student might write it; its check must refuse it with this hint."""

import numpy as np
import torch

from pixelpolicy.course.proof import Mutant

# 12.1


def advantages_of_the_batch(rewards, groups):
    return (rewards - torch.mean(rewards)) / (torch.sqrt(torch.mean((rewards - rewards.mean()) ** 2)) + 1e-4)


def advantages_with_bessel(rewards, groups):
    out = rewards.clone()
    for g in set(groups.tolist()):
        index = torch.nonzero(groups == g).squeeze(1)
        out[index] = (rewards[index] - rewards[index].mean()) / (torch.std(rewards[index]) + 1e-4)
    return out


def advantages_without_scale(rewards, groups):
    means = {g: rewards[groups == g].mean() for g in groups.tolist()}
    return rewards - torch.stack([means[g] for g in groups.tolist()])


def advantages_with_variance(rewards, groups):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        r = rewards[groups == g]
        out[groups == g] = (r - r.mean()) / (((r - r.mean()) ** 2).mean() + 1e-4)
    return out


def advantages_upside_down(rewards, groups):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        r = rewards[groups == g]
        out[groups == g] = -(r - r.mean()) / (r.std(correction=0) + 1e-4)
    return out


def advantages_in_place(rewards, groups):
    for g in groups.unique():
        r = rewards[groups == g]
        rewards[groups == g] = (r - r.mean()) / (r.std(correction=0) + 1e-4)
    return rewards


# 12.2


def log_prob_summed(x, mean, std):
    return torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)


def log_prob_one_number(x, mean, std):
    return torch.distributions.Normal(mean, std).log_prob(x).mean()


def log_prob_without_constants(x, mean, std):
    return (-0.5 * ((x - mean) / std) ** 2).flatten(1).mean(1)


def log_prob_without_deviation(x, mean, std):
    return (-0.5 * ((x - mean) / std) ** 2 - np.log(np.sqrt(2 * np.pi))).flatten(1).mean(1)


def log_prob_detached(x, mean, std):
    return torch.distributions.Normal(mean.detach(), std).log_prob(x).flatten(1).mean(1)


def log_prob_positive(x, mean, std):
    return (0.5 * ((x - mean) / std) ** 2 - torch.log(std) - np.log(np.sqrt(2 * np.pi))).flatten(1).mean(1)


# 12.3


def objective_minimum(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.min(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)).mean()


def objective_clamped_only(log_probs, old_log_probs, advantages, clip_range):
    return -(advantages * torch.exp(log_probs - old_log_probs).clip(1 - clip_range, 1 + clip_range)).mean()


def objective_unclipped(log_probs, old_log_probs, advantages, clip_range):
    return -(advantages * torch.exp(log_probs - old_log_probs)).mean()


def objective_climbed(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.min(advantages * ratio, advantages * ratio.clamp(1 - clip_range, 1 + clip_range)).mean()


def objective_summed(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.max(-advantages * ratio, -advantages * ratio.clamp(1 - clip_range, 1 + clip_range)).sum()


# 12.4


def kl_without_half(mean, mean_ref, std):
    return (((mean - mean_ref) / std) ** 2).flatten(1).mean(1)


def kl_with_deviation(mean, mean_ref, std):
    return ((mean - mean_ref) ** 2 / (2 * std)).flatten(1).mean(1)


def kl_without_deviation(mean, mean_ref, std):
    return (0.5 * (mean - mean_ref) ** 2).flatten(1).mean(1)


def kl_summed(mean, mean_ref, std):
    return (0.5 * ((mean - mean_ref) / std) ** 2).flatten(1).sum(1)


def kl_one_number(mean, mean_ref, std):
    return (0.5 * ((mean - mean_ref) / std) ** 2).mean()


# 12.5


def steps_from_the_front(available, count, rng):
    return [step for step in available][:count]


def steps_with_replacement(available, count, rng):
    return sorted(int(s) for s in rng.choice(available, size=min(count, len(available))))


def steps_as_positions(available, count, rng):
    return sorted(int(s) for s in rng.choice(len(available), size=min(count, len(available)), replace=False))


def steps_out_of_order(available, count, rng):
    return [int(s) for s in rng.choice(available, size=min(count, len(available)), replace=False)]


def steps_from_anywhere(available, count, rng):
    return sorted(int(s) for s in np.random.choice(available, size=min(count, len(available)), replace=False))


def steps_too_many(available, count, rng):
    return sorted(int(s) for s in rng.choice(available, size=count, replace=False))


MUTANTS = {
    "12.1": [
        Mutant("compares with the whole batch", advantages_of_the_batch, "with the whole batch"),
        Mutant("divides by n - 1", advantages_with_bessel, "correction=0"),
        Mutant("takes the mean only", advantages_without_scale, "divide by the group's standard deviation"),
        Mutant("divides by the variance", advantages_with_variance, "square root"),
        Mutant("turns the sign", advantages_upside_down, "The sign is turned"),
        Mutant("writes into its input", advantages_in_place, "Write into a new tensor"),
    ],
    "12.2": [
        Mutant("sums", log_prob_summed, "here the mean is wanted"),
        Mutant("averages the batch too", log_prob_one_number, "Return one number a sample"),
        Mutant("leaves out both constants", log_prob_without_constants, "log(std) and log(2 pi)/2 are missing"),
        Mutant("leaves out log std", log_prob_without_deviation, "-log(std) is missing"),
        Mutant("detaches", log_prob_detached, "no gradient reaches the mean"),
        Mutant("turns the sign", log_prob_positive, "mind the sign"),
    ],
    "12.3": [
        Mutant("takes the minimum", objective_minimum, "takes the maximum, not the minimum"),
        Mutant("clamps alone", objective_clamped_only, "Clamping alone has no gradient"),
        Mutant("never clips", objective_unclipped, "never clipped"),
        Mutant("climbs", objective_climbed, "the optimiser descends"),
        Mutant("sums", objective_summed, "do not sum"),
    ],
    "12.4": [
        Mutant("forgets the half", kl_without_half, "A factor is off"),
        Mutant("divides by the deviation", kl_with_deviation, "not by 2 std"),
        Mutant("forgets the deviation", kl_without_deviation, "far more telling"),
        Mutant("sums", kl_summed, "Take the mean over the dimensions"),
        Mutant("averages the batch too", kl_one_number, "Return one number a sample"),
    ],
    "12.5": [
        Mutant("takes the first", steps_from_the_front, "You always train the first steps"),
        Mutant("draws with repetition", steps_with_replacement, "pass replace=False"),
        Mutant("returns positions", steps_as_positions, "You return positions"),
        Mutant("does not sort", steps_out_of_order, "Sort them"),
        Mutant("draws from a global source", steps_from_anywhere, "Draw from rng"),
        Mutant("cannot take fewer", steps_too_many, "min(count, len(available))"),
    ],
}
