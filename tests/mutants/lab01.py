"""Wrong answers to lab 01, each as a student might write it; its check must refuse it with this hint."""

import math

import torch

from pixelpolicy.course.proof import Mutant

# 1.1


def return_discounting_the_first(rewards, discount):
    total = 0.0
    for t, reward in enumerate(rewards, start=1):
        total = total + discount**t * reward
    return total


def return_undiscounted(rewards, discount):
    return torch.sum(rewards)


def return_from_the_wrong_end(rewards, discount):
    total = torch.zeros((), dtype=rewards.dtype)
    for reward in rewards:
        total = reward + discount * total
    return total


def return_averaged(rewards, discount):
    return (discount ** torch.arange(len(rewards)) * rewards).mean()


def return_with_a_product(rewards, discount):
    return sum(t * discount * reward for t, reward in enumerate(rewards))


def return_discounted_once(rewards, discount):
    return rewards[0] + discount * rewards[1:].sum()


def return_not_added_up(rewards, discount):
    return torch.stack([discount**t * reward for t, reward in enumerate(rewards)])


def return_as_a_number(rewards, discount):
    return torch.tensor(sum(discount**t * r for t, r in enumerate(rewards.tolist())), dtype=rewards.dtype)


# 1.2


def row_overwriting(landing, action, slip, states):
    row = torch.zeros(states).double()
    row[landing[action]] = 1 - slip
    row[landing[(action + 3) % 4]] = slip / 2
    row[landing[(action + 1) % 4]] = slip / 2
    return row


def row_with_straight_last(landing, action, slip, states):
    row = torch.zeros(states).double()
    for side in (-1, 1):
        row[landing[(action + side) % 4]] = slip / 2
    row[landing[action]] = 1 - slip
    return row


def row(straight, side, sides=(-1, 1)):
    def move_chances(landing, action, slip, states):
        chances = torch.zeros(states).double()
        chances.index_add_(0, landing[action][None], torch.tensor([straight(slip)]).double())
        for turn in sides:
            chances.index_add_(0, landing[(action + turn) % 4][None], torch.tensor([side(slip)]).double())
        return chances

    return move_chances


def row_without_a_circle(landing, action, slip, states):
    row = torch.zeros(states).double()
    row[landing[action]] += 1 - slip
    row[landing[action - 1]] += slip / 2
    row[landing[action + 1]] += slip / 2
    return row


# 1.3


def ahead_by_loops(transitions, rewards, values, discount, now=1.0, later=1.0):
    return now * rewards + later * (transitions * values).sum(-1)


def ahead_undiscounted(transitions, rewards, values, discount):
    return ahead_by_loops(transitions, rewards, values, discount)


def ahead_discounting_all(transitions, rewards, values, discount):
    return discount * ahead_by_loops(transitions, rewards, values, discount)


def ahead_along_the_wrong_dimension(transitions, rewards, values, discount):
    return rewards + discount * (transitions * values[:, None, None]).sum(0).T


def ahead_without_reward(transitions, rewards, values, discount):
    return ahead_by_loops(transitions, rewards, values, discount, now=0.0, later=discount)


def ahead_where_it_stands(transitions, rewards, values, discount):
    return rewards + discount * values.unsqueeze(1)


def ahead_by_the_likeliest(transitions, rewards, values, discount):
    likeliest = transitions.max(-1).indices
    return rewards + discount * torch.take(values, likeliest)


def ahead_by_luck(transitions, rewards, values, discount):
    possible = values.expand_as(transitions).masked_fill(transitions == 0, -math.inf)
    return rewards + discount * possible.amax(-1)


def ahead_detached(transitions, rewards, values, discount):
    return rewards + discount * transitions @ values.detach()


# 1.4 and 1.6


def swept(choose, stop, rewarded=None, start=0.0):
    """A planner in a loop: `choose` makes values of action values, `stop` decides on the change."""

    def plan(transitions, rewards, discount, tolerance, policy=None):
        values = torch.full_like(rewards[:, 0], start)
        while True:
            q = rewards + discount * torch.einsum("san,n->sa", transitions, values)
            q = q if rewarded is None else rewarded(rewards, q, discount)
            old, values = values, choose(q, policy)
            if stop(values - old, discount, tolerance):
                return values

    return plan


def for_a_policy(plan):
    return lambda transitions, rewards, policy, discount, tolerance: plan(
        transitions, rewards, discount, tolerance, policy
    )


def enough(gap, discount, tolerance):
    return discount * gap.abs().max() <= tolerance * (1 - discount)


def small_change(gap, discount, tolerance):
    return gap.abs().max() <= tolerance


def small_signed_change(gap, discount, tolerance):
    return discount * gap.max() <= tolerance * (1 - discount)


def small_mean_change(gap, discount, tolerance):
    return discount * gap.abs().mean() <= tolerance * (1 - discount)


def by_policy(q, policy):
    return torch.einsum("sa,sa->s", policy, q)


def by_best(q, policy):
    return torch.amax(q, dim=-1)


def discounting_all(rewards, q, discount):
    return q - rewards + discount * rewards


def in_one_tensor(choose):
    """The old values are a second name of the new ones."""

    def plan(transitions, rewards, discount, tolerance, policy=None):
        values = torch.zeros_like(rewards[:, 0])
        while True:
            old = values
            values += choose(rewards + discount * transitions @ values, policy) - values
            if enough(values - old, discount, tolerance):
                return values

    return plan


def twenty_sweeps(choose):
    def plan(transitions, rewards, discount, tolerance, policy=None):
        values = torch.zeros_like(rewards[:, 0])
        for _ in range(20):
            values = choose(rewards + discount * transitions @ values, policy)
        return values

    return plan


def lucky_plan(transitions, rewards, discount, tolerance):
    values = torch.zeros_like(rewards[:, 0])
    while True:
        possible = values.expand_as(transitions).masked_fill(transitions == 0, -math.inf)
        old, values = values, (rewards + discount * possible.amax(-1)).amax(-1)
        if enough(values - old, discount, tolerance):
            return values


# 1.5


def greedy_first(q, tie):
    policy = torch.zeros_like(q)
    policy[torch.arange(len(q)), q.argmax(-1)] = 1
    return policy


def greedy_exact(q, tie):
    best = (q == q.amax(-1, keepdim=True)).double()
    return best / best.sum(-1, keepdim=True)


def greedy_unshared(q, tie):
    return torch.where(q >= q.amax(-1, keepdim=True) - tie, 1.0, 0.0).double()


def greedy_soft(q, tie):
    return q.exp() / q.exp().sum(-1, keepdim=True)


def greedy_for_the_worst(q, tie):
    worst = (q - q.amin(-1, keepdim=True) <= tie).double()
    return worst / worst.sum(-1, keepdim=True)


def greedy_over_all(q, tie):
    best = (q >= q.amax() - tie).double()
    return best / best.sum(-1, keepdim=True)


def greedy_numbers(q, tie):
    return q.max(-1).indices


# 1.7


def leash(weigh, value):
    def soft_backup(q, base, beta):
        weights = weigh(q, base, beta)
        total = torch.logsumexp(weights, -1)
        policy = torch.exp(weights - total[:, None])
        return value(total, policy, q, beta), policy

    return soft_backup


def honest_weight(q, base, beta):
    return torch.log(base) + q / beta


def honest_value(total, policy, q, beta):
    return total * beta


def leash_overflowing(q, base, beta):
    value = beta * torch.log((base * torch.exp(q / beta)).sum(-1))
    return value, base * torch.exp((q - value[:, None]) / beta)


def leash_without_leash(q, base, beta):
    return q.amax(-1), torch.nn.functional.one_hot(q.argmax(-1), q.shape[-1]).double()


def leash_detached(q, base, beta):
    weights = honest_weight(q, base, beta).detach()
    return beta * weights.logsumexp(-1), weights.softmax(-1)


MUTANTS = {
    "1.1": [
        Mutant("discounts the first reward", return_discounting_the_first, "You discount the first reward too"),
        Mutant("adds up", return_undiscounted, "as they are"),
        Mutant("begins at the wrong end", return_from_the_wrong_end, "from the wrong end"),
        Mutant("averages", return_averaged, "You average over the steps"),
        Mutant("multiplies by t", return_with_a_product, "You multiply by t"),
        Mutant("discounts once", return_discounted_once, "discounted once"),
        Mutant("does not add up", return_not_added_up, "one by one"),
        Mutant("leaves torch", return_as_a_number, "cut the gradient"),
    ],
    "1.2": [
        Mutant("overwrites", row_overwriting, "the second overwrites the first"),
        Mutant("overwrites the sides", row_with_straight_last, "the later one overwrites the earlier"),
        Mutant("slips wholly to each side", row(lambda s: 1 - s, lambda s: s), "add up to more than 1"),
        Mutant("turns slip round", row(lambda s: s, lambda s: (1 - s) / 2), "are exchanged"),
        Mutant("slips backwards", row(lambda s: 1 - s, lambda s: s / 3, (1, 2, 3)), "three directions"),
        Mutant("takes the way back", row(lambda s: 1 - s, lambda s: s / 2, (1, 2)), "which is the way back"),
        Mutant("leaves the circle", row_without_a_circle, "round the circle"),
        Mutant("slips to one side", row(lambda s: 1 - s, lambda s: s, (1,)), "All the slip goes to one side"),
    ],
    "1.3": [
        Mutant("does not discount", ahead_undiscounted, "The discount is missing"),
        Mutant("discounts all", ahead_discounting_all, "You discount the reward too"),
        Mutant("sums over the present", ahead_along_the_wrong_dimension, "sum over the present state"),
        Mutant("forgets the reward", ahead_without_reward, "The reward of the action itself"),
        Mutant("looks nowhere", ahead_where_it_stands, "the value of the present state"),
        Mutant("takes the likeliest", ahead_by_the_likeliest, "likeliest next state alone"),
        Mutant("is lucky", ahead_by_luck, "The ice decides"),
        Mutant("detaches", ahead_detached, "do not detach"),
    ],
    "1.4": [
        Mutant("keeps one tensor", for_a_policy(in_one_tensor(by_policy)), "You stop after one sweep"),
        Mutant("stops by the change", for_a_policy(swept(by_policy, small_change)), "when the change is below"),
        Mutant("takes a signed change", for_a_policy(swept(by_policy, small_signed_change)), "Values that fall"),
        Mutant("takes the mean change", for_a_policy(swept(by_policy, small_mean_change)), "the mean change"),
        Mutant("takes the best action", for_a_policy(swept(by_best, enough)), "You take the best action"),
        Mutant(
            "forgets the policy", for_a_policy(swept(lambda q, _: q.mean(-1), enough)), "You average all actions alike"
        ),
        Mutant(
            "discounts the reward",
            for_a_policy(swept(by_policy, enough, discounting_all)),
            "You discount the reward too",
        ),
        Mutant("sweeps twenty times", for_a_policy(twenty_sweeps(by_policy)), "Too early"),
    ],
    "1.5": [
        Mutant("takes the first", greedy_first, "the first of the best"),
        Mutant("compares exactly", greedy_exact, "You compare exactly"),
        Mutant("does not share", greedy_unshared, "Divide each row"),
        Mutant("takes softmax", greedy_soft, "by softmax"),
        Mutant("takes the worst", greedy_for_the_worst, "the worst action"),
        Mutant("takes the best of all", greedy_over_all, "whole table"),
        Mutant("returns numbers", greedy_numbers, "the numbers of the best actions"),
    ],
    "1.6": [
        Mutant("keeps one tensor", in_one_tensor(by_best), "You stop after one sweep"),
        Mutant("averages actions", swept(lambda q, _: q.mean(-1), enough), "You average over the actions"),
        Mutant("takes the worst", swept(lambda q, _: q.amin(-1), enough), "You take the worst action"),
        Mutant("is lucky", lucky_plan, "You choose the next state"),
        Mutant("stops by the change", swept(by_best, small_change), "when the change is below"),
        Mutant("takes a signed change", swept(by_best, small_signed_change), "Values that fall"),
        Mutant("takes the mean change", swept(by_best, small_mean_change), "the mean change"),
        Mutant("discounts the reward", swept(by_best, enough, discounting_all), "You discount the reward too"),
        Mutant("sweeps twenty times", twenty_sweeps(by_best), "Too early"),
    ],
    "1.7": [
        Mutant("forgets the base", leash(lambda q, base, beta: q / beta, honest_value), "The base is missing"),
        Mutant("multiplies by beta", leash(lambda q, b, beta: b.log() + q * beta, honest_value), "You multiply"),
        Mutant("drops beta", leash(honest_weight, lambda total, policy, q, beta: total), "lacks its beta"),
        Mutant("overflows", leash_overflowing, "Stay in logarithms"),
        Mutant(
            "forgets what the leash costs",
            leash(honest_weight, lambda total, policy, q, beta: (policy * q).sum(-1)),
            "The leash costs",
        ),
        Mutant("adds probabilities", leash(lambda q, base, beta: base + q / beta, honest_value), "their logarithm"),
        Mutant("has no leash", leash_without_leash, "as if there were no leash"),
        Mutant("detaches", leash_detached, "Do not detach"),
    ],
}
