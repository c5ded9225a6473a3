"""Wrong answers to lab 03, each as a student might write it; its check must refuse it with this hint."""

import math

import torch
from torch.nn.functional import one_hot

from pixelpolicy.course.proof import Mutant

# 3.1


def score_turned(logits, chosen):
    return torch.softmax(logits, -1) - one_hot(chosen, logits.shape[-1])


def score_without_normaliser(logits, chosen):
    return one_hot(chosen, logits.shape[-1]).float()


def score_of_probability(logits, chosen):
    pi = torch.softmax(logits, -1)
    rows = torch.arange(len(chosen))
    return pi[rows, chosen][:, None] * (one_hot(chosen, logits.shape[-1]) - pi)


def score_of_chosen_alone(logits, chosen):
    pi = torch.softmax(logits, -1)
    return torch.stack([1 - pi[i, k] for i, k in enumerate(chosen)])


def score_less_chosen_probability(logits, chosen):
    pi = torch.softmax(logits, -1)
    return one_hot(chosen, logits.shape[-1]) - pi[torch.arange(len(chosen)), chosen].unsqueeze(-1)


def score_over_batch(logits, chosen):
    return one_hot(chosen, logits.shape[-1]) - torch.softmax(logits, dim=0)


# 3.2


def loss_climbing(log_probs, advantages):
    return torch.mean(advantages.detach() * log_probs)


def loss_summed(log_probs, advantages):
    return -torch.sum(advantages.detach() * log_probs)


def loss_through_advantages(log_probs, advantages):
    return -(log_probs * advantages).mean()


def loss_of_probabilities(log_probs, advantages):
    return -(torch.exp(log_probs) * advantages.detach()).mean()


def loss_per_entry(log_probs, advantages):
    return -advantages.detach() * log_probs


def loss_with_own_baseline(log_probs, advantages):
    with torch.no_grad():
        better = advantages - torch.mean(advantages)
    return -(better * log_probs).mean()


def loss_that_cannot_learn(log_probs, advantages):
    return -(advantages * log_probs.detach()).mean()


# 3.3


def baseline_mean(probabilities, scores, returns):
    return (probabilities * returns).sum()


def baseline_by_length(probabilities, scores, returns):
    weights = probabilities * torch.sqrt((scores**2).sum(-1))
    return (weights * returns).sum() / weights.sum()


def baseline_without_chances(probabilities, scores, returns):
    weights = (scores**2).sum(-1)
    return (weights * returns).sum() / weights.sum()


def baseline_of_summed_score(probabilities, scores, returns):
    weights = probabilities * scores.sum(-1).square()
    return weights @ returns / weights.sum()


def baseline_undivided(probabilities, scores, returns):
    return (probabilities * (scores**2).sum(-1) * returns).sum()


def baseline_with_chances_squared(probabilities, scores, returns):
    weights = ((probabilities.unsqueeze(1) * scores) ** 2).sum(1)
    return (weights * returns).sum() / weights.sum()


# 3.4


def to_go_past_the_end(rewards, dones, discount):
    out = rewards.clone()
    for t in range(len(rewards) - 2, -1, -1):
        out[t] = rewards[t] + discount * out[t + 1]
    return out


def to_go_cut_late(rewards, dones, discount):
    out, following = torch.zeros_like(rewards), 0
    for t in range(len(rewards) - 1, -1, -1):
        cut = dones[t - 1].float() if t > 0 else torch.zeros(rewards.shape[1])
        out[t] = rewards[t] + discount * (1 - cut) * following
        following = out[t]
    return out


def to_go_whole(rewards, dones, discount):
    total = sum(discount**t * rewards[t] for t in range(len(rewards)))
    return torch.stack([total] * len(rewards))


def to_go_undiscounted(rewards, dones, discount):
    out, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in range(len(rewards) - 1, -1, -1):
        following = rewards[t] + torch.where(dones[t], 0.0, following)
        out[t] = following
    return out


def to_go_by_the_clock(rewards, dones, discount):
    out, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in range(len(rewards) - 1, -1, -1):
        following = discount**t * rewards[t] + torch.where(dones[t], 0.0, following)
        out[t] = following
    return out


def to_go_without_the_present(rewards, dones, discount):
    out, following = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in range(len(rewards) - 1, -1, -1):
        out[t] = discount * torch.where(dones[t], torch.zeros_like(following), following)
        following = rewards[t] + out[t]
    return out


def to_come_from(rewards, dones, discount):
    out, so_far = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in range(len(rewards)):
        if t > 0:
            so_far = so_far * (~dones[t - 1])
        so_far = rewards[t] + discount * so_far
        out[t] = so_far
    return out


def to_go_in_place(rewards, dones, discount):
    for t in range(len(rewards) - 2, -1, -1):
        rewards[t] += discount * (~dones[t]) * rewards[t + 1]
    return rewards


# 3.5


def playing_over_all(returns, valid):
    return ((returns * valid).sum(1) / returns.shape[1])[:, None].expand_as(returns)


def playing_plain(returns, valid):
    return returns.mean(dim=1, keepdim=True).repeat(1, returns.shape[1])


def playing_over_time(returns, valid):
    means = [returns[valid[:, i], i].mean() for i in range(returns.shape[1])]
    return torch.stack(means)[None].repeat(len(returns), 1)


def playing_one_for_all(returns, valid):
    return torch.full_like(returns, ((returns * valid).sum() / valid.sum()).item())


def playing_with_nan(returns, valid):
    return ((returns * valid).sum(1) / valid.sum(1))[:, None].expand_as(returns)


def playing_column(returns, valid):
    return (returns * valid).sum(1) / valid.sum(1).clamp(min=1)


# 3.6


def normal(x, mean, std):
    return -((x - mean) ** 2) / (2 * std**2) - torch.log(std) - math.log(math.sqrt(2 * math.pi))


def decisions_by_log_std(logits, means, log_stds, bumps, x):
    place = torch.distributions.Normal(means[bumps], log_stds[bumps]).log_prob(x)
    return torch.stack([torch.log_softmax(logits, 0)[bumps], place], dim=-1)


def decisions_by_variance(logits, means, log_stds, bumps, x):
    place = normal(x, means[bumps], log_stds[bumps].exp() ** 2)
    return torch.stack([torch.log_softmax(logits, 0)[bumps], place], dim=-1)


def decisions_unnormalised(logits, means, log_stds, bumps, x):
    return torch.stack([logits[bumps], normal(x, means[bumps], log_stds[bumps].exp())], dim=-1)


def decisions_by_probability(logits, means, log_stds, bumps, x):
    return torch.stack([torch.softmax(logits, 0)[bumps], normal(x, means[bumps], log_stds[bumps].exp())], dim=-1)


def decisions_added(logits, means, log_stds, bumps, x):
    return torch.log_softmax(logits, 0)[bumps] + normal(x, means[bumps], log_stds[bumps].exp())


def decisions_of_any_bump(logits, means, log_stds, bumps, x):
    weights = torch.log_softmax(logits, 0)
    every = torch.stack([weights[k] + normal(x, means[k], log_stds[k].exp()) for k in range(len(means))])
    return torch.stack([weights[bumps], torch.logsumexp(every, 0)], dim=-1)


def decisions_by_squares(logits, means, log_stds, bumps, x):
    place = -((x - means[bumps]) ** 2) / (2 * log_stds[bumps].exp() ** 2)
    return torch.stack([torch.log_softmax(logits, 0)[bumps], place], dim=-1)


def decisions_in_rows(logits, means, log_stds, bumps, x):
    return torch.stack([torch.log_softmax(logits, 0)[bumps], normal(x, means[bumps], log_stds[bumps].exp())])


MUTANTS = {
    "3.1": [
        Mutant("turns the sign", score_turned, "sign is turned"),
        Mutant("forgets the normaliser", score_without_normaliser, "The sum below the quotient"),
        Mutant("differentiates the probability", score_of_probability, "gradient of the probability"),
        Mutant("returns the chosen entry", score_of_chosen_alone, "Only the chosen action's entry is there"),
        Mutant("takes off the chosen probability", score_less_chosen_probability, "Entry k loses its own"),
        Mutant("normalises over the batch", score_over_batch, "The softmax runs over the batch"),
    ],
    "3.2": [
        Mutant("turns the sign", loss_climbing, "would lower the return"),
        Mutant("sums", loss_summed, "the step grows with the batch"),
        Mutant("differentiates the advantages", loss_through_advantages, "flows into the advantages"),
        Mutant("weighs probabilities", loss_of_probabilities, "You weigh probabilities"),
        Mutant("does not average", loss_per_entry, "Return one number"),
        Mutant("takes its own baseline", loss_with_own_baseline, "You take a baseline off"),
        Mutant("detaches the wrong one", loss_that_cannot_learn, "nothing can learn"),
    ],
    "3.3": [
        Mutant("takes the mean", baseline_mean, "This is the mean return"),
        Mutant("weighs by length", baseline_by_length, "your weights have the length itself"),
        Mutant("leaves out the chances", baseline_without_chances, "Every walk counts alike"),
        Mutant("squares the sum", baseline_of_summed_score, "You square the sum"),
        Mutant("does not divide", baseline_undivided, "divide by their sum"),
        Mutant("squares the chances", baseline_with_chances_squared, "The probability counts twice"),
    ],
    "3.4": [
        Mutant("plays past the end", to_go_past_the_end, "leaks into this one"),
        Mutant("cuts a row late", to_go_cut_late, "a row too late"),
        Mutant("gives everyone the whole", to_go_whole, "Every row has the return of the whole"),
        Mutant("does not discount", to_go_undiscounted, "The discount is missing"),
        Mutant("discounts by the clock", to_go_by_the_clock, "by the row's number"),
        Mutant("leaves out the present", to_go_without_the_present, "own reward is missing"),
        Mutant("adds up what came before", to_come_from, "You add up what came before"),
        Mutant("writes into the rewards", to_go_in_place, "Write into a new tensor"),
    ],
    "3.5": [
        Mutant("divides by all", playing_over_all, "You divide by all episodes"),
        Mutant("averages the row", playing_plain, "You average the whole row"),
        Mutant("averages over time", playing_over_time, "each episode over time"),
        Mutant("takes one number", playing_one_for_all, "One number for the whole batch"),
        Mutant("makes nan", playing_with_nan, "Zero over zero"),
        Mutant("returns a column", playing_column, "in the shape of the returns"),
    ],
    "3.6": [
        Mutant("takes the logarithm for the deviation", decisions_by_log_std, "holds logarithms"),
        Mutant("takes the variance", decisions_by_variance, "You hand over the variance"),
        Mutant("does not normalise", decisions_unnormalised, "until they are normalised"),
        Mutant("takes no logarithm", decisions_by_probability, "first column is a probability"),
        Mutant("adds up", decisions_added, "Keep them apart"),
        Mutant("takes any bump", decisions_of_any_bump, "from *any* bump"),
        Mutant("takes squares alone", decisions_by_squares, "The square alone"),
        Mutant("stacks rows", decisions_in_rows, "Two rows, but two columns"),
    ],
}
