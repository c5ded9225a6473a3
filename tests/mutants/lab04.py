"""Wrong answers to lab 04, each as a student might write it; its check must refuse it with this hint."""

import math

import torch

from pixelpolicy.course.proof import Mutant

# 4.1


def value_loss_done_is_done(values, rewards, next_values, terminated, truncated, discount):
    dones = torch.logical_or(terminated, truncated).float()
    targets = rewards + discount * (1 - dones) * next_values.detach()
    return 0.5 * torch.mean((targets - values) ** 2)


def value_loss_swapped(values, rewards, next_values, terminated, truncated, discount):
    targets = rewards + discount * (1 - truncated.float()) * next_values.detach()
    return 0.5 * torch.mean((targets - values) ** 2)


def value_loss_endless(values, rewards, next_values, terminated, truncated, discount):
    return 0.5 * torch.mean((rewards + discount * next_values.detach() - values) ** 2)


def value_loss_with_moving_target(values, rewards, next_values, terminated, truncated, discount):
    targets = rewards + discount * torch.where(terminated, torch.zeros_like(next_values), next_values)
    return 0.5 * torch.mean((targets - values) ** 2)


def value_loss_without_half(values, rewards, next_values, terminated, truncated, discount):
    targets = rewards + discount * (1 - terminated.float()) * next_values.detach()
    return torch.nn.functional.mse_loss(values, targets)


def value_loss_undiscounted(values, rewards, next_values, terminated, truncated, discount):
    targets = rewards + (1 - terminated.float()) * next_values.detach()
    return 0.5 * torch.mean((targets - values) ** 2)


# 4.2


def gae_without_ends(rewards, values, dones, last_value, discount, lam):
    out, running, following = torch.zeros_like(rewards), 0.0, last_value
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * following - values[t]
        running = delta + discount * lam * running
        out[t], following = running, values[t]
    return out


def gae_that_runs_on(rewards, values, dones, last_value, discount, lam):
    out, running, following = torch.zeros_like(rewards), 0.0, last_value
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * following * (~dones[t]) - values[t]
        running = delta + discount * lam * running
        out[t], following = running, values[t]
    return out


def gae_with_the_next_episodes_value(rewards, values, dones, last_value, discount, lam):
    out, running, following = torch.zeros_like(rewards), torch.zeros_like(last_value), last_value
    for t in range(len(rewards) - 1, -1, -1):
        delta = rewards[t] + discount * following - values[t]
        running = delta + discount * lam * running * (~dones[t])
        out[t], following = running, values[t]
    return out


def gae_without_lam(rewards, values, dones, last_value, discount, lam):
    out, following = torch.zeros_like(rewards), last_value
    for t in range(len(rewards) - 1, -1, -1):  # lam is never asked for: the discounted return less the value
        out[t] = rewards[t] + discount * (~dones[t]) * following - values[t]
        following = out[t] + values[t]
    return out


def gae_without_the_last_value(rewards, values, dones, last_value, discount, lam):
    out, running = torch.zeros_like(rewards), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        following = values[t + 1] if t + 1 < len(rewards) else 0.0
        running = rewards[t] + (~dones[t]) * (discount * following + discount * lam * running) - values[t]
        out[t] = running
    return out


def gae_forwards(rewards, values, dones, last_value, discount, lam):
    alive = 1.0 - dones.to(rewards.dtype)
    following = torch.cat([values[1:], last_value.unsqueeze(0)])
    deltas = rewards + discount * alive * following - values
    out, running = torch.zeros_like(rewards), 0.0
    for t in range(len(rewards)):
        running = deltas[t] + discount * lam * alive[t] * running
        out[t] = running
    return out


def gae_in_place(rewards, values, dones, last_value, discount, lam):
    alive = (~dones).to(rewards.dtype)
    rewards += discount * alive * torch.cat([values[1:], last_value[None]]) - values
    for t in range(len(rewards) - 2, -1, -1):
        rewards[t] += discount * lam * alive[t] * rewards[t + 1]
    return rewards


# 4.3


def surrogate_minimum(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    clipped = torch.clamp(ratio, 1 - clip_range, 1 + clip_range)
    return torch.min(-advantages * ratio, -advantages * clipped).mean()


def surrogate_clamped(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return -(advantages * torch.clip(ratio, 1 - clip_range, 1 + clip_range)).mean()


def surrogate_free(log_probs, old_log_probs, advantages, clip_range):
    return -(torch.exp(log_probs - old_log_probs) * advantages).mean()


def surrogate_climbed(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(log_probs - old_log_probs)
    return torch.min(ratio * advantages, ratio.clip(1 - clip_range, 1 + clip_range) * advantages).mean()


def surrogate_old_over_new(log_probs, old_log_probs, advantages, clip_range):
    ratio = torch.exp(old_log_probs - log_probs)
    return torch.max(-ratio * advantages, -ratio.clip(1 - clip_range, 1 + clip_range) * advantages).mean()


# 4.4


def normalise_with_bessel(advantages):
    return (advantages - torch.mean(advantages)) / (torch.std(advantages) + 1e-8)


def normalise_by_variance(advantages):
    centred = advantages - advantages.mean()
    return centred / (centred.square().mean() + 1e-8)


def normalise_without_mean(advantages):
    return advantages / (torch.sqrt(((advantages - advantages.mean()) ** 2).mean()) + 1e-8)


def normalise_rows(advantages):
    mean = torch.mean(advantages, dim=0, keepdim=True)
    return (advantages - mean) / (torch.std(advantages, dim=0, keepdim=True, correction=0) + 1e-8)


def normalise_without_floor(advantages):
    return (advantages - advantages.mean()) / advantages.std(correction=0)


def normalise_in_place(advantages):
    advantages -= advantages.mean()
    advantages /= advantages.square().mean().sqrt() + 1e-8
    return advantages


# 4.5


def entropy_negative(logits):
    log_probs = torch.log_softmax(logits, -1)
    return torch.sum(log_probs.exp() * log_probs, -1)


def entropy_averaged(logits):
    log_probs = torch.log_softmax(logits, -1)
    return -torch.mean(log_probs.exp() * log_probs, -1)


def entropy_one_number(logits):
    log_probs = torch.log_softmax(logits, -1)
    return -torch.sum(log_probs.exp() * log_probs, -1).mean()


def entropy_of_logits(logits):
    return -(torch.softmax(logits, -1) * logits).sum(-1)


def entropy_unstable(logits):
    chances = torch.softmax(logits, -1)
    return -(chances * torch.log(chances)).sum(-1)


def entropy_detached(logits):
    with torch.no_grad():
        log_probs = torch.log_softmax(logits, -1)
        return -(log_probs.exp() * log_probs).sum(-1)


# 4.6


def density_averaged(actions, mean, log_std):
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(actions).mean(-1)


def density_of_each(actions, mean, log_std):
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(actions)


def density_of_all(actions, mean, log_std):
    return torch.distributions.Normal(mean, log_std.exp()).log_prob(actions).sum()


def density_of_the_log(actions, mean, log_std):
    z = (actions - mean) / log_std
    return (-z * z / 2 - torch.log(log_std) - math.log(2 * math.pi) / 2).sum(-1)


def density_without_width(actions, mean, log_std):
    z = (actions - mean) / log_std.exp()
    return (-0.5 * z**2 - 0.5 * math.log(2 * math.pi)).sum(-1)


def density_without_constants(actions, mean, log_std):
    z = (actions - mean) / log_std.exp()
    return (-0.5 * z**2).sum(-1)


def density_upside_down(actions, mean, log_std):
    z = (actions - mean) / log_std.exp()
    return (0.5 * z**2 - log_std - 0.5 * math.log(2 * math.pi)).sum(-1)


# 4.7


def pathwise_by_score(mean, log_std, noise, critic):
    actions = (mean + torch.exp(log_std) * noise).detach()
    log_probs = torch.distributions.Normal(mean, log_std.exp()).log_prob(actions).sum(-1)
    return -(critic(actions).detach() * log_probs).mean()


def pathwise_cut(mean, log_std, noise, critic):
    with torch.no_grad():
        actions = mean + torch.exp(log_std) * noise
    return -critic(actions).mean()


def pathwise_of_the_log(mean, log_std, noise, critic):
    return -critic(mean + noise * log_std).mean()


def pathwise_unstretched(mean, log_std, noise, critic):
    return -critic(mean + noise).mean()


def pathwise_climbed(mean, log_std, noise, critic):
    return critic(mean + torch.exp(log_std) * noise).mean()


def pathwise_deterministic(mean, log_std, noise, critic):
    return -critic(mean.repeat(len(noise), 1)).mean()


MUTANTS = {
    "4.1": [
        Mutant("takes the clock for an end", value_loss_done_is_done, "the clock ran out, the state it stopped in"),
        Mutant("swaps the two ends", value_loss_swapped, "the wrong way round"),
        Mutant("knows no end", value_loss_endless, "Nothing is worth anything after the world ended"),
        Mutant("moves the target", value_loss_with_moving_target, "a gradient runs into the target"),
        Mutant("forgets the half", value_loss_without_half, "A factor is off"),
        Mutant("forgets the discount", value_loss_undiscounted, "The next value is not discounted"),
    ],
    "4.2": [
        Mutant("knows no end", gae_without_ends, "`dones` is not used"),
        Mutant("runs on past an end", gae_that_runs_on, "the running sum is not"),
        Mutant("takes the next episode's value", gae_with_the_next_episodes_value, "the next value is not"),
        Mutant("forgets lam", gae_without_lam, "lam is missing"),
        Mutant("forgets the last value", gae_without_the_last_value, "comes a state worth `last_value`"),
        Mutant("runs forwards", gae_forwards, "Your loop runs forwards"),
        Mutant("writes into its input", gae_in_place, "Write into a new tensor"),
    ],
    "4.3": [
        Mutant("takes the minimum", surrogate_minimum, "takes the maximum, not the minimum"),
        Mutant("clamps alone", surrogate_clamped, "Clamping alone has no gradient"),
        Mutant("never clips", surrogate_free, "never clipped"),
        Mutant("climbs", surrogate_climbed, "the optimiser descends"),
        Mutant("turns the ratio over", surrogate_old_over_new, "The ratio is turned over"),
    ],
    "4.4": [
        Mutant("divides by n - 1", normalise_with_bessel, "correction=0"),
        Mutant("divides by the variance", normalise_by_variance, "Take its square root"),
        Mutant("leaves the mean", normalise_without_mean, "Take the mean off first"),
        Mutant("goes step by step", normalise_rows, "one dimension only"),
        Mutant("divides by zero", normalise_without_floor, "you divide 0 by 0"),
        Mutant("writes into its input", normalise_in_place, "writes into it"),
    ],
    "4.5": [
        Mutant("turns the sign", entropy_negative, "Entropy is not negative"),
        Mutant("averages over actions", entropy_averaged, "Sum over the actions"),
        Mutant("averages the batch", entropy_one_number, "Return one number a row"),
        Mutant("takes logits for logarithms", entropy_of_logits, "only up to a constant"),
        Mutant("takes the log of a softmax", entropy_unstable, "0 times infinity"),
        Mutant("detaches", entropy_detached, "no gradient reaches the logits"),
    ],
    "4.6": [
        Mutant("averages", density_averaged, "logarithms add: sum"),
        Mutant("returns one a number", density_of_each, "An action has one density"),
        Mutant("sums the batch too", density_of_all, "Return one number an action"),
        Mutant("takes log_std for std", density_of_the_log, "Undo it with exp"),
        Mutant("forgets the width", density_without_width, "a narrow density is higher"),
        Mutant("forgets the constants", density_without_constants, "-log_std and -log(2 pi)/2 are missing"),
        Mutant("turns the sign", density_upside_down, "mind the sign"),
    ],
    "4.7": [
        Mutant("takes the score function", pathwise_by_score, "the score-function loss"),
        Mutant("cuts the path", pathwise_cut, "the action is cut"),
        Mutant("takes log_std for std", pathwise_of_the_log, "Undo it with exp"),
        Mutant("forgets the width", pathwise_unstretched, "stretch it by the policy's own"),
        Mutant("turns the sign", pathwise_climbed, "The critic is to be climbed"),
        Mutant("draws nothing", pathwise_deterministic, "as DDPG does"),
    ],
}
