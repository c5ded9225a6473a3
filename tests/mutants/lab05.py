"""Wrong answers to lab 05, each as a student might write it; its check must refuse it with this hint."""

import torch
from torch.nn import functional as F

from pixelpolicy.course.proof import Mutant

# 5.1


def tilt_without_the_reference(p, rewards, beta):
    raised = torch.exp(rewards / beta)
    return raised / raised.sum()


def tilt_without_normalising(p, rewards, beta):
    return p * torch.exp(rewards / beta)


def tilt_multiplied(p, rewards, beta):
    raised = p * torch.exp(rewards * beta)
    return raised / raised.sum()


def tilt_of_probabilities(p, rewards, beta):
    return torch.softmax(p + rewards / beta, dim=-1)


def tilt_that_overflows(p, rewards, beta):
    raised = p * torch.exp(rewards / beta)
    return raised / raised.sum()


def tilt_downwards(p, rewards, beta):
    raised = p * torch.exp(-rewards / beta)
    return raised / raised.sum()


# 5.2


def weighted_upwards(log_probs, rewards, beta):
    return (F.softmax(rewards / beta, dim=0).detach() * log_probs).sum()


def weighted_raw(log_probs, rewards, beta):
    return -(torch.exp(rewards / beta).detach() * log_probs).sum()


def weighted_averaged_shares(log_probs, rewards, beta):
    weights = torch.exp(rewards / beta).detach()
    return -(weights / weights.sum() * log_probs).mean()


def weighted_multiplied(log_probs, rewards, beta):
    return -(F.softmax(rewards * beta, dim=0).detach() * log_probs).sum()


def weighted_with_gradient(log_probs, rewards, beta):
    return -(F.softmax(rewards / beta, dim=0) * log_probs).sum()


def weighted_that_overflows(log_probs, rewards, beta):
    weights = torch.exp(rewards / beta).detach()
    return -(weights / weights.sum() * log_probs).sum()


# 5.3


def surprise_climbed(reward_winner, reward_loser):
    return torch.log(torch.sigmoid(reward_winner - reward_loser)).mean()


def surprise_for_the_loser(reward_winner, reward_loser):
    return -torch.log(torch.sigmoid(reward_loser - reward_winner)).mean()


def surprise_without_logarithm(reward_winner, reward_loser):
    return -(1 / (1 + torch.exp(reward_loser - reward_winner))).mean()


def surprise_of_the_mean(reward_winner, reward_loser):
    return -F.logsigmoid(reward_winner.mean() - reward_loser.mean())


def surprise_that_overflows(reward_winner, reward_loser):
    return -torch.log(torch.sigmoid(reward_winner - reward_loser)).mean()


def surprise_summed(reward_winner, reward_loser):
    return F.softplus(reward_loser - reward_winner).sum()


# 5.4


def leash_as_bonus(rewards, log_probs, ref_log_probs, beta):
    return (rewards + beta * log_probs - beta * ref_log_probs).detach()


def leash_without_reference(rewards, log_probs, ref_log_probs, beta):
    return (rewards - beta * log_probs).detach()


def leash_of_absolutes(rewards, log_probs, ref_log_probs, beta):
    return (rewards - beta * torch.abs(log_probs - ref_log_probs)).detach()


def leash_averaged(rewards, log_probs, ref_log_probs, beta):
    return (rewards - beta * torch.mean(log_probs - ref_log_probs)).detach()


def leash_with_gradient(rewards, log_probs, ref_log_probs, beta):
    return rewards - beta * log_probs + beta * ref_log_probs


def leash_of_ratios(rewards, log_probs, ref_log_probs, beta):
    return (rewards - beta * log_probs.exp() / ref_log_probs.exp()).detach()


# 5.5


def dpo_of_the_mean(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    margin = log_probs_winner - ref_winner - log_probs_loser + ref_loser
    return -F.logsigmoid(beta * margin.mean())


def dpo_without_reference(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    return -F.logsigmoid(beta * (log_probs_winner - log_probs_loser)).mean()


def dpo_for_the_loser(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    return F.softplus(beta * (log_probs_winner - ref_winner - log_probs_loser + ref_loser)).mean()


def dpo_divided(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    return -F.logsigmoid((log_probs_winner - ref_winner - log_probs_loser + ref_loser) / beta).mean()


def dpo_with_beta_outside(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    return -beta * F.logsigmoid(log_probs_winner - ref_winner - log_probs_loser + ref_loser).mean()


def dpo_climbed(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    return F.logsigmoid(beta * (log_probs_winner - ref_winner - log_probs_loser + ref_loser)).mean()


def dpo_with_turned_reference(log_probs_winner, log_probs_loser, ref_winner, ref_loser, beta):
    return -F.logsigmoid(beta * ((log_probs_winner - log_probs_loser) + (ref_winner - ref_loser))).mean()


# 5.6


def advantages_of_the_batch(rewards, groups, *, scale="group"):
    centred = rewards - rewards.mean()
    return centred / (rewards.std(correction=0) + 1e-4) if scale == "group" else centred


def _in_groups(rewards, groups, change):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        out[groups == g] = change(rewards[groups == g])
    return out


def advantages_with_bessel(rewards, groups, *, scale="group"):
    def change(r):
        return (r - r.mean()) / (r.std() + 1e-4 if scale == "group" else 1)

    return _in_groups(rewards, groups, change)


def advantages_with_variance(rewards, groups, *, scale="group"):
    def change(r):
        return (r - r.mean()) / (((r - r.mean()) ** 2).mean() + 1e-4 if scale == "group" else 1)

    return _in_groups(rewards, groups, change)


def advantages_upside_down(rewards, groups, *, scale="group"):
    def change(r):
        return (r.mean() - r) / (r.std(correction=0) + 1e-4 if scale == "group" else 1)

    return _in_groups(rewards, groups, change)


def advantages_always_scaled(rewards, groups, *, scale="group"):
    return _in_groups(rewards, groups, lambda r: (r - r.mean()) / (r.std(correction=0) + 1e-4))


def advantages_never_scaled(rewards, groups, *, scale="group"):
    return _in_groups(rewards, groups, lambda r: r - r.mean())


def advantages_in_place(rewards, groups, *, scale="group"):
    for g in groups.unique():
        r = rewards[groups == g]
        rewards[groups == g] = (r - r.mean()) / (r.std(correction=0) + 1e-4 if scale == "group" else 1)
    return rewards


# 5.7


def _tilted(p, proxy, betas):
    return torch.softmax(torch.log(p) + proxy / betas[:, None], dim=1)


def frontier_by_the_proxy(p, proxy, gold, betas):
    q = _tilted(p, proxy, betas)
    return (q * torch.log(q / p)).sum(1), q @ proxy


def frontier_of_gold(p, proxy, gold, betas):
    q = _tilted(p, gold, betas)
    return (q * torch.log(q / p)).sum(1), q @ gold


def frontier_from_p_to_q(p, proxy, gold, betas):
    q = _tilted(p, proxy, betas)
    return (p * torch.log(p / q)).sum(1), q @ gold


def frontier_with_entropy(p, proxy, gold, betas):
    q = _tilted(p, proxy, betas)
    return (q * torch.log(q)).sum(1), q @ gold


def frontier_multiplied(p, proxy, gold, betas):
    q = _tilted(p, proxy, 1 / betas)
    return (q * torch.log(q / p)).sum(1), q @ gold


def frontier_without_reference(p, proxy, gold, betas):
    q = torch.softmax(proxy / betas[:, None], dim=1)
    return (q * torch.log(q / p)).sum(1), q @ gold


MUTANTS = {
    "5.1": [
        Mutant("forgets the reference", tilt_without_the_reference, "The reference is missing"),
        Mutant("does not normalise", tilt_without_normalising, "divide by Z"),
        Mutant("multiplies by beta", tilt_multiplied, "A large beta is a short leash"),
        Mutant("adds probabilities to logarithms", tilt_of_probabilities, "log p, not p"),
        Mutant("overflows", tilt_that_overflows, "e^1000 is infinite"),
        Mutant("turns the sign", tilt_downwards, "The sign is turned"),
    ],
    "5.2": [
        Mutant("climbs", weighted_upwards, "the optimiser descends"),
        Mutant("does not normalise", weighted_raw, "by its sum"),
        Mutant("averages shares", weighted_averaged_shares, "Shares add up to 1 already"),
        Mutant("multiplies by beta", weighted_multiplied, "a small beta must imitate the best"),
        Mutant("lets the weights learn", weighted_with_gradient, "Detach the weights"),
        Mutant("overflows", weighted_that_overflows, "A softmax makes shares and is safe"),
    ],
    "5.3": [
        Mutant("climbs", surprise_climbed, "put a minus before it"),
        Mutant("trains the loser", surprise_for_the_loser, "You train the loser to win"),
        Mutant("forgets the logarithm", surprise_without_logarithm, "The logarithm is missing"),
        Mutant("takes the mean inside", surprise_of_the_mean, "Take the mean last"),
        Mutant("overflows", surprise_that_overflows, "stays exact"),
        Mutant("sums", surprise_summed, "do not sum"),
    ],
    "5.4": [
        Mutant("pays for distance", leash_as_bonus, "You pay for distance"),
        Mutant("forgets the reference", leash_without_reference, "a bonus for entropy"),
        Mutant("takes absolutes", leash_of_absolutes, "keeps its sign"),
        Mutant("averages", leash_averaged, "its own distance"),
        Mutant("lets a gradient pass", leash_with_gradient, "end with .detach()"),
        Mutant("takes ratios", leash_of_ratios, "not the ratio of the probabilities"),
    ],
    "5.5": [
        Mutant("takes the mean inside", dpo_of_the_mean, "not logsigmoid of the mean"),
        Mutant("forgets the reference", dpo_without_reference, "the implied reward is beta times"),
        Mutant("trains the loser", dpo_for_the_loser, "prefer what lost"),
        Mutant("divides by beta", dpo_divided, "Multiply the margin by beta"),
        Mutant("takes beta outside", dpo_with_beta_outside, "inside the sigmoid"),
        Mutant("climbs", dpo_climbed, "put a minus before it"),
        Mutant("adds the reference", dpo_with_turned_reference, "The reference has the wrong sign"),
    ],
    "5.6": [
        Mutant("compares with the whole batch", advantages_of_the_batch, "with the whole batch"),
        Mutant("divides by n - 1", advantages_with_bessel, "correction=0"),
        Mutant("divides by the variance", advantages_with_variance, "square root"),
        Mutant("turns the sign", advantages_upside_down, "The sign is turned"),
        Mutant("always scales", advantages_always_scaled, "nothing may be divided"),
        Mutant("never scales", advantages_never_scaled, "does nothing yet"),
        Mutant("writes into its input", advantages_in_place, "Write into a new tensor"),
    ],
    "5.7": [
        Mutant("believes the proxy", frontier_by_the_proxy, "the proxy's own opinion"),
        Mutant("optimises gold", frontier_of_gold, "Nobody has gold to optimise"),
        Mutant("turns the KL", frontier_from_p_to_q, "That is KL(p || q)"),
        Mutant("forgets the reference in the KL", frontier_with_entropy, "missing from the KL"),
        Mutant("multiplies by beta", frontier_multiplied, "You multiply the proxy by beta"),
        Mutant("forgets the reference", frontier_without_reference, "p is missing from the tilt"),
    ],
}
