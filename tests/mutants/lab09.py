"""Wrong answers to lab 09, each as a student might write it; its check must refuse it with this hint."""

import torch

from pixelpolicy.course.proof import Mutant

# 9.1


def weights_adding_to_one(rewards, groups, beta):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        e = torch.exp((rewards[groups == g] - rewards[groups == g].max()) / beta)
        out[groups == g] = e / e.sum()
    return out


def weights_of_the_batch(rewards, groups, beta):
    e = torch.exp((rewards - rewards.max()) / beta)
    return e / e.mean()


def weights_times_beta(rewards, groups, beta):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        e = torch.exp((rewards[groups == g] - rewards[groups == g].max()) * beta)
        out[groups == g] = e / e.mean()
    return out


def weights_upside_down(rewards, groups, beta):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        e = torch.exp((rewards[groups == g].min() - rewards[groups == g]) / beta)
        out[groups == g] = e / e.mean()
    return out


def weights_bare(rewards, groups, beta):
    return torch.exp(rewards / beta)


def weights_overflowing(rewards, groups, beta):
    out = torch.empty_like(rewards)
    for g in groups.unique():
        e = torch.exp(rewards[groups == g] / beta)
        out[groups == g] = e / e.mean()
    return out


def weights_in_place(rewards, groups, beta):
    for g in groups.unique():
        e = torch.exp((rewards[groups == g] - rewards[groups == g].max()) / beta)
        rewards[groups == g] = e / e.mean()
    return rewards


# 9.2


def best_with_weight_one(rewards, groups, keep):
    out = torch.zeros_like(rewards)
    for g in groups.unique():
        rows = torch.nonzero(groups == g).squeeze(1)
        if rewards[rows].min() < rewards[rows].max():
            out[rows[torch.sort(rewards[rows], descending=True, stable=True).indices[:keep]]] = 1.0
    return out


def best_is_worst(rewards, groups, keep):
    out = torch.zeros_like(rewards)
    for g in groups.unique():
        rows = torch.nonzero(groups == g).squeeze(1)
        if rewards[rows].min() < rewards[rows].max():
            kept = rows[torch.sort(rewards[rows], stable=True).indices[:keep]]
            out[kept] = len(rows) / len(kept)
    return out


def best_of_the_batch(rewards, groups, keep):
    out = torch.zeros_like(rewards)
    out[rewards.topk(keep).indices] = len(rewards) / keep
    return out


def best_of_flat_groups(rewards, groups, keep):
    out = torch.zeros_like(rewards)
    for g in groups.unique():
        rows = torch.nonzero(groups == g).squeeze(1)
        kept = rows[torch.sort(rewards[rows], descending=True, stable=True).indices[:keep]]
        out[kept] = len(rows) / len(kept)
    return out


def best_above_the_mean(rewards, groups, keep):
    out = torch.zeros_like(rewards)
    for g in groups.unique():
        mine = groups == g
        above = mine & (rewards > rewards[mine].mean())
        out[above] = mine.sum() / max(above.sum(), 1)
    return out


# 9.3


def matching_the_other_way(velocity, x0, x1, weights):
    return (weights * torch.mean((velocity - (x0 - x1)).flatten(1) ** 2, 1)).mean()


def matching_the_picture(velocity, x0, x1, weights):
    return (weights * torch.mean((velocity - x0).flatten(1) ** 2, 1)).mean()


def matching_without_weights(velocity, x0, x1, weights):
    return torch.nn.functional.mse_loss(velocity, x1 - x0)


def matching_over_the_weights(velocity, x0, x1, weights):
    return (weights * torch.mean((velocity - x1 + x0).flatten(1) ** 2, 1)).sum() / weights.sum()


def matching_summed(velocity, x0, x1, weights):
    return (weights * torch.mean((velocity - x1 + x0).flatten(1) ** 2, 1)).sum()


def matching_detached(velocity, x0, x1, weights):
    return (weights * torch.mean((velocity.detach() - x1 + x0).flatten(1) ** 2, 1)).mean()


# 9.4


def _moments(values):
    values = torch.tensor(values)
    return values.mean(), values.std(correction=0)


def past_before_it_is_remembered(rewards, prompts, memory, keep=32, least=8):
    out = torch.zeros_like(rewards)
    for i, prompt in enumerate(prompts):
        past = memory.get(prompt, [])
        mean, std = _moments(past if len(past) >= least else rewards.tolist())
        out[i] = (rewards[i] - mean) / (std + 1e-6)
    for i, prompt in enumerate(prompts):
        memory[prompt] = (memory.get(prompt, []) + [rewards[i].item()])[-keep:]
    return out


def past_of_the_batch(rewards, prompts, memory, keep=32, least=8):
    for i, prompt in enumerate(prompts):
        memory[prompt] = (memory.get(prompt, []) + [rewards[i].item()])[-keep:]
    return (rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)


def _past(rewards, prompts, memory, keep, enough, moments=_moments):
    for i, prompt in enumerate(prompts):
        memory[prompt] = (memory.get(prompt, []) + [rewards[i].item()])[-keep:]
    out = torch.zeros_like(rewards)
    for i, prompt in enumerate(prompts):
        mean, std = moments(memory[prompt] if enough(len(memory[prompt])) else rewards.tolist())
        out[i] = (rewards[i] - mean) / (std + 1e-6)
    return out


def past_without_least(rewards, prompts, memory, keep=32, least=8):
    return _past(rewards, prompts, memory, keep, lambda count: True)


def past_one_too_late(rewards, prompts, memory, keep=32, least=8):
    return _past(rewards, prompts, memory, keep, lambda count: count > least)


def past_with_bessel(rewards, prompts, memory, keep=32, least=8):
    def moments(values):
        values = torch.tensor(values)
        return values.mean(), torch.nan_to_num(values.std())

    return _past(rewards, prompts, memory, keep, lambda count: count >= least, moments)


def past_unforgotten(rewards, prompts, memory, keep=32, least=8):
    return _past(rewards, prompts, memory, 10_000, lambda count: count >= least)


# 9.5


def episode_with_advantages_a_step(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.max(-advantages * ratio, -advantages * ratio.clip(1 - clip_range, 1 + clip_range)).mean()


def episode_with_one_ratio(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp((log_probs - old_log_probs).sum(1))
    return torch.max(-advantages * ratio, -advantages * ratio.clip(1 - clip_range, 1 + clip_range)).mean()


def episode_minimum(log_probs, old_log_probs, advantages, clip_range):
    ratio, a = torch.exp(log_probs - old_log_probs), advantages[:, None]
    return torch.min(-a * ratio, -a * ratio.clip(1 - clip_range, 1 + clip_range)).mean()


def episode_clamped_only(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return (-advantages.unsqueeze(1) * ratio.clip(1 - clip_range, 1 + clip_range)).mean()


def episode_unclipped(log_probs, old_log_probs, advantages, clip_range):
    return (-advantages.unsqueeze(1) * torch.exp(log_probs - old_log_probs)).mean()


def episode_summed(log_probs, old_log_probs, advantages, clip_range):
    ratio, a = torch.exp(log_probs - old_log_probs), advantages[:, None]
    return torch.max(-a * ratio, -a * ratio.clip(1 - clip_range, 1 + clip_range)).sum(1).mean()


def episode_climbed(log_probs, old_log_probs, advantages, clip_range):
    ratio, a = torch.exp(log_probs - old_log_probs), advantages[:, None]
    return torch.min(a * ratio, a * ratio.clip(1 - clip_range, 1 + clip_range)).mean()


# 9.6


def critic_with_rewards_a_step(expected, rewards):
    if expected.shape[1] != len(rewards):
        rewards = rewards[:, None]
    return torch.nn.functional.mse_loss(expected, rewards.expand_as(expected))


def critic_of_the_last_state(expected, rewards):
    return torch.nn.functional.mse_loss(expected[:, -1], rewards)


def critic_of_the_mean(expected, rewards):
    return torch.nn.functional.mse_loss(expected.mean(dim=1), rewards)


def critic_absolute(expected, rewards):
    return torch.nn.functional.l1_loss(expected, rewards[:, None].expand_as(expected))


def critic_summed(expected, rewards):
    return ((expected - rewards[:, None]) ** 2).sum()


def critic_detached(expected, rewards):
    return ((expected.detach() - rewards[:, None]) ** 2).mean()


# 9.7


def silent_outside(log_probs, old_log_probs, advantages, clip_range):
    return ((torch.exp(log_probs - old_log_probs) - 1).abs() > clip_range).float().mean(0)


def silent_turned(log_probs, old_log_probs, advantages, clip_range):
    ratio, good = torch.exp(log_probs - old_log_probs), advantages[:, None] > 0
    return torch.where(good, ratio < 1 - clip_range, ratio > 1 + clip_range).float().mean(0)


def silent_above(log_probs, old_log_probs, advantages, clip_range):
    ratio, good = torch.exp(log_probs - old_log_probs), advantages[:, None] > 0
    return (good & (ratio > 1 + clip_range)).float().mean(0)


def silent_all_together(log_probs, old_log_probs, advantages, clip_range):
    ratio, good = torch.exp(log_probs - old_log_probs), advantages[:, None] > 0
    return torch.where(good, ratio > 1 + clip_range, ratio < 1 - clip_range).float().mean()


MUTANTS = {
    "9.1": [
        Mutant("adds up to one", weights_adding_to_one, "they should have mean 1"),
        Mutant("normalises the batch", weights_of_the_batch, "over the whole batch"),
        Mutant("multiplies by beta", weights_times_beta, "Divide by beta"),
        Mutant("turns the sign", weights_upside_down, "The sign is turned"),
        Mutant("does not normalise", weights_bare, "not yet divided by the mean"),
        Mutant("overflows", weights_overflowing, "largest reward away before exp"),
        Mutant("writes into its input", weights_in_place, "Write into a new tensor"),
    ],
    "9.2": [
        Mutant("weighs with one", best_with_weight_one, "(size of group) / (number kept)"),
        Mutant("keeps the worst", best_is_worst, "You keep the worst"),
        Mutant("takes the batch", best_of_the_batch, "best of the whole batch"),
        Mutant("picks in flat groups", best_of_flat_groups, "still picks a winner"),
        Mutant("takes those above the mean", best_above_the_mean, "above the mean"),
    ],
    "9.3": [
        Mutant("turns the target", matching_the_other_way, "from the picture to the noise"),
        Mutant("aims at the picture", matching_the_picture, "not the picture"),
        Mutant("ignores the weights", matching_without_weights, "The weights are not used"),
        Mutant("divides by the weights", matching_over_the_weights, "sum of the weights"),
        Mutant("sums", matching_summed, "Average over the samples"),
        Mutant("detaches", matching_detached, "no gradient reaches the velocity"),
    ],
    "9.4": [
        Mutant("compares first", past_before_it_is_remembered, "before you remember"),
        Mutant("takes the batch", past_of_the_batch, "with the whole batch, always"),
        Mutant("trusts one reward", past_without_least, "compared with itself"),
        Mutant("waits one too long", past_one_too_late, "compare with >="),
        Mutant("divides by n - 1", past_with_bessel, "correction=0"),
        Mutant("never forgets", past_unforgotten, "You remember everything"),
    ],
    "9.5": [
        Mutant("gives an advantage a step", episode_with_advantages_a_step, "advantages[:, None]"),
        Mutant("clips the trajectory", episode_with_one_ratio, "ratio of the whole trajectory"),
        Mutant("takes the minimum", episode_minimum, "takes the maximum, not the minimum"),
        Mutant("clamps alone", episode_clamped_only, "Clamping alone has no gradient"),
        Mutant("never clips", episode_unclipped, "never clipped"),
        Mutant("sums over steps", episode_summed, "You sum over the steps"),
        Mutant("climbs", episode_climbed, "the optimiser descends"),
    ],
    "9.6": [
        Mutant("gives a reward a step", critic_with_rewards_a_step, "rewards[:, None]"),
        Mutant("fits the last state", critic_of_the_last_state, "the last state alone"),
        Mutant("averages first", critic_of_the_mean, "average the expectations"),
        Mutant("takes the absolute", critic_absolute, "finds the median"),
        Mutant("sums", critic_summed, "not the sum"),
        Mutant("detaches", critic_detached, "no gradient reaches the critic"),
    ],
    "9.7": [
        Mutant("counts all outside", silent_outside, "moved the wrong way"),
        Mutant("turns it round", silent_turned, "It is turned round"),
        Mutant("forgets the bad", silent_above, "good pictures alone"),
        Mutant("gives one number", silent_all_together, "one share a step"),
    ],
}
