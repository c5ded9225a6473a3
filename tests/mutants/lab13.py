"""Wrong answers to lab 13, each as a student might write it; its check must refuse it with this hint."""

import math

import torch

from pixelpolicy.course.proof import Mutant

# 13.1


def degree_unbounded(advantages, clip):
    return 0.5 * (1 + advantages / clip)


def degree_signed(advantages, clip):
    return torch.clip(advantages / clip, -1, 1)


def degree_too_tall(advantages, clip):
    return 0.5 + advantages.clamp(-clip, clip) / clip


def degree_of_the_good(advantages, clip):
    return advantages.clamp(0, clip) / clip


def degree_clamped_first(advantages, clip):
    return 0.5 + torch.clamp(advantages, -1, 1) / (2 * clip)


def degree_by_sigmoid(advantages, clip):
    return 1 / (1 + torch.exp(-advantages / clip))


def degree_upside_down(advantages, clip):
    return (1 - advantages.clamp(-clip, clip) / clip) / 2


def degree_in_place(advantages, clip):
    return advantages.clamp_(-clip, clip) / (2 * clip) + 0.5


# 13.2


def velocities_swapped(velocity, old, beta):
    old = old.detach()
    return (1 + beta) * old - beta * velocity, beta * velocity + (1 - beta) * old


def velocities_with_beta_turned(velocity, old, beta):
    old = old.detach()
    return torch.lerp(velocity, old, beta), (1 + beta) * old - beta * velocity


def velocities_without_mirror(velocity, old, beta):
    old = old.detach()
    return old + beta * (velocity - old), old - beta * velocity


def velocities_one_minus(velocity, old, beta):
    old = old.detach()
    return old + beta * (velocity - old), (1 - beta) * old - beta * velocity


def velocities_mirrored_at_zero(velocity, old, beta):
    positive = old.detach() + beta * (velocity - old.detach())
    return positive, -positive


def velocities_with_a_moving_old(velocity, old, beta):
    return old + beta * (velocity - old), old - beta * (velocity - old)


def velocities_without_gradient(velocity, old, beta):
    with torch.no_grad():
        return old + beta * (velocity - old), old - beta * (velocity - old)


# 13.3


def _gap(velocity, state, x0, sigma):
    return (state - sigma.view(-1, *[1] * (x0.ndim - 1)) * velocity - x0).flatten(1)


def _loss(error, positive, negative, good, beta):
    return (good * error(positive) + (1 - good) * error(negative)).mean() / beta


def _sized(gap):
    return (gap**2).mean(1) / gap.detach().abs().mean(1).clamp(min=1e-5)


def nft_with_a_live_size(positive, negative, state, x0, sigma, good, beta):
    def error(velocity):
        gap = _gap(velocity, state, x0, sigma)
        return (gap**2).mean(1) / gap.abs().mean(1).clamp(min=1e-5)

    return _loss(error, positive, negative, good, beta)


def nft_without_size(positive, negative, state, x0, sigma, good, beta):
    return _loss(lambda v: (_gap(v, state, x0, sigma) ** 2).mean(1), positive, negative, good, beta)


def nft_with_the_batch_as_size(positive, negative, state, x0, sigma, good, beta):
    def error(velocity):
        gap = _gap(velocity, state, x0, sigma)
        return (gap**2).mean(1) / gap.detach().abs().mean().clamp(min=1e-5)

    return _loss(error, positive, negative, good, beta)


def nft_without_sigma(positive, negative, state, x0, sigma, good, beta):
    return _loss(lambda v: _sized((state - v - x0).flatten(1)), positive, negative, good, beta)


def nft_with_shares_exchanged(positive, negative, state, x0, sigma, good, beta):
    return _loss(lambda v: _sized(_gap(v, state, x0, sigma)), negative, positive, good, beta)


def nft_without_beta(positive, negative, state, x0, sigma, good, beta):
    return _loss(lambda v: _sized(_gap(v, state, x0, sigma)), positive, negative, good, 1.0)


def nft_summed(positive, negative, state, x0, sigma, good, beta):
    def error(velocity):
        gap = _gap(velocity, state, x0, sigma)
        return _sized(gap) * gap.shape[1]

    return _loss(error, positive, negative, good, beta)


def nft_of_the_good(positive, negative, state, x0, sigma, good, beta):
    return (good * _sized(_gap(positive, state, x0, sigma))).mean() / beta


# 13.4


def awm_to_the_wrong_end(velocity, x0, x1, advantages):
    return (advantages * ((velocity + x1 - x0) ** 2).flatten(1).mean(1)).mean()


def awm_of_the_good(velocity, x0, x1, advantages):
    return (advantages.relu() * ((velocity - x1 + x0) ** 2).flatten(1).mean(1)).mean()


def awm_absolute(velocity, x0, x1, advantages):
    return (advantages.abs() * ((velocity - x1 + x0) ** 2).flatten(1).mean(1)).mean()


def awm_by_softmax(velocity, x0, x1, advantages):
    return (torch.softmax(advantages, 0) * ((velocity - x1 + x0) ** 2).flatten(1).mean(1)).sum()


def awm_climbed(velocity, x0, x1, advantages):
    return (-advantages * ((velocity - x1 + x0) ** 2).flatten(1).mean(1)).mean()


def awm_of_means(velocity, x0, x1, advantages):
    return advantages.mean() * ((velocity - x1 + x0) ** 2).mean()


def awm_summed(velocity, x0, x1, advantages):
    return (advantages * ((velocity - x1 + x0) ** 2).flatten(1).sum(1)).mean()


# 13.5


def weights_across_prompts(rewards, beta):
    return torch.softmax(rewards / beta, 0)


def weights_of_the_table(rewards, beta):
    return torch.softmax((rewards / beta).flatten(), 0).view_as(rewards)


def weights_times_beta(rewards, beta):
    return torch.softmax(beta * rewards, -1)


def weights_without_exponential(rewards, beta):
    return rewards / rewards.sum(-1, keepdim=True)


def weights_not_normalised(rewards, beta):
    return torch.exp(rewards / beta)


def weights_that_overflow(rewards, beta):
    counts = torch.exp(rewards / beta)
    return counts / counts.sum(-1, keepdim=True)


# 13.6


def _ends(weights):
    return torch.cumsum(weights, 0)


def comb_moved_too_far(weights, offset, count):
    teeth = (torch.linspace(0, 1, count + 1, dtype=weights.dtype)[:-1] + offset) % 1
    return torch.searchsorted(_ends(weights), teeth, right=True).clamp(max=len(weights) - 1)


def comb_that_stands_still(weights, offset, count):
    teeth = torch.arange(count, dtype=weights.dtype) / count
    return torch.searchsorted(_ends(weights), teeth, right=True).clamp(max=len(weights) - 1)


def comb_with_borders_to_the_left(weights, offset, count):
    teeth = (torch.arange(count, dtype=weights.dtype) + offset) / count
    return torch.searchsorted(_ends(weights), teeth).clamp(max=len(weights) - 1)


def comb_by_rounding(weights, offset, count):
    return torch.repeat_interleave(torch.arange(len(weights)), torch.round(count * weights).long())


def comb_of_the_heaviest(weights, offset, count):
    return torch.sort(weights, descending=True).indices[:count]


def comb_by_lot(weights, offset, count):
    return torch.multinomial(weights, count, replacement=True).sort().values


def comb_from_end_to_end(weights, offset, count):
    teeth = torch.linspace(0, 1, count, dtype=weights.dtype)
    return torch.searchsorted(_ends(weights), teeth, right=True).clamp(max=len(weights) - 1)


# 13.7


def _running(history, kind):
    return torch.cummax(history, 0).values if kind == "max" else torch.cumsum(history, 0)


def potential_without_a_first(history, kind, strength, last):
    if kind == "difference":
        return strength * (history[-1] - history[max(len(history) - 2, 0)])
    found = _running(history, kind)
    return strength * (history[-1] - found[:-1].sum(0)) if last else strength * found[-1]


def potential_uncorrected(history, kind, strength, last):
    if kind == "difference":
        return strength * (history[-1] - (history[-2] if len(history) > 1 else 0))
    return strength * _running(history, kind)[-1]


def potential_without_strength(history, kind, strength, last):
    if kind == "difference":
        return history[-1] - (history[-2] if len(history) > 1 else 0)
    found = _running(history, kind)
    return history[-1] - found[:-1].sum(0) if last else found[-1]


def potential_of_the_present(history, kind, strength, last):
    if kind == "difference":
        return strength * (history[-1] - (history[-2] if len(history) > 1 else 0))
    return strength * (history[-1] - history[:-1].sum(0)) if last else strength * history[-1]


def potential_since_the_first(history, kind, strength, last):
    if kind == "difference":
        return strength * (history[-1] - (history[0] if len(history) > 1 else 0))
    found = _running(history, kind)
    return strength * (history[-1] - found[:-1].sum(0)) if last else strength * found[-1]


def potential_by_mean(history, kind, strength, last):
    if kind == "difference":
        return strength * (history[-1] - (history[-2] if len(history) > 1 else 0))
    found = _running(history, kind)
    if kind == "sum":
        found = torch.stack([history[: k + 1].mean(0) for k in range(len(history))])
    return strength * (history[-1] - found[:-1].sum(0)) if last else strength * found[-1]


# 13.8


def _length(noise):
    return noise.flatten(1).norm(dim=1)


def density_of_the_point(noise):
    return -0.5 * noise.flatten(1).square().mean(1)


def density_with_d(noise):
    d = noise[0].numel()
    return _length(noise).log() - _length(noise) ** 2 / 2 / d


def density_without_half(noise):
    d = noise[0].numel()
    return ((d - 1) * _length(noise).log() - _length(noise) ** 2) / d


def density_without_square(noise):
    d = noise[0].numel()
    return ((d - 1) * _length(noise).log() - _length(noise) / 2) / d


def density_of_the_whole(noise):
    d = noise[0].numel()
    return (d - 1) * _length(noise).log() - _length(noise) ** 2 / 2


def density_one_number(noise):
    d = noise[0].numel()
    return (((d - 1) * _length(noise).log() - _length(noise) ** 2 / 2) / d).mean()


def density_by_numbers(noise):
    lengths = [math.sqrt(math.fsum(z * z for z in row.flatten().tolist())) for row in noise]
    d = noise[0].numel()
    return torch.tensor([((d - 1) * math.log(n) - n * n / 2) / d for n in lengths], dtype=noise.dtype)


MUTANTS = {
    "13.1": [
        Mutant("has no bounds", degree_unbounded, "Nothing is clamped"),
        Mutant("keeps the sign", degree_signed, "Halve them"),
        Mutant("forgets the half", degree_too_tall, "the halving is missing"),
        Mutant("cuts off the bad", degree_of_the_good, "equally bad"),
        Mutant("clamps first", degree_clamped_first, "divide first"),
        Mutant("takes a sigmoid", degree_by_sigmoid, "straight"),
        Mutant("turns the sign", degree_upside_down, "The sign is turned"),
        Mutant("writes into its input", degree_in_place, "clamp_ writes"),
    ],
    "13.2": [
        Mutant("exchanges the two", velocities_swapped, "first the positive"),
        Mutant("turns beta", velocities_with_beta_turned, "1 - beta the old"),
        Mutant("has no mirror", velocities_without_mirror, "no mirror image"),
        Mutant("takes 1 - beta", velocities_one_minus, "not 1 - beta"),
        Mutant("mirrors at zero", velocities_mirrored_at_zero, "not at zero"),
        Mutant("moves the old one", velocities_with_a_moving_old, "Detach it"),
        Mutant("has no gradient", velocities_without_gradient, "do not detach it"),
    ],
    "13.3": [
        Mutant("differentiates the size", nft_with_a_live_size, "must be a plain number"),
        Mutant("has no size", nft_without_size, "mean absolute error"),
        Mutant("takes the size of the batch", nft_with_the_batch_as_size, "each sample's own"),
        Mutant("forgets sigma", nft_without_sigma, "your sigma is missing"),
        Mutant("exchanges the shares", nft_with_shares_exchanged, "shares are exchanged"),
        Mutant("forgets beta", nft_without_beta, "Divide by beta"),
        Mutant("sums", nft_summed, "not the sum"),
        Mutant("uses the good alone", nft_of_the_good, "bad samples are not used"),
    ],
    "13.4": [
        Mutant("points the wrong way", awm_to_the_wrong_end, "from the picture to the noise"),
        Mutant("leaves out the bad", awm_of_the_good, "They push"),
        Mutant("takes the absolute value", awm_absolute, "absolute value"),
        Mutant("takes a softmax", awm_by_softmax, "turns bad samples into examples"),
        Mutant("climbs", awm_climbed, "No minus"),
        Mutant("multiplies means", awm_of_means, "two averages"),
        Mutant("sums", awm_summed, "not the sum"),
    ],
    "13.5": [
        Mutant("normalises over prompts", weights_across_prompts, "not over prompts"),
        Mutant("normalises the table", weights_of_the_table, "not those of the whole table"),
        Mutant("multiplies by beta", weights_times_beta, "must be choosier"),
        Mutant("takes the reward itself", weights_without_exponential, "not as the reward"),
        Mutant("does not normalise", weights_not_normalised, "sum of the row"),
        Mutant("overflows", weights_that_overflow, "largest reward of the row"),
    ],
    "13.6": [
        Mutant("moves the comb too far", comb_moved_too_far, "gap between two teeth"),
        Mutant("does not move it", comb_that_stands_still, "The offset is not used"),
        Mutant("gives borders to the left", comb_with_borders_to_the_left, "right=True"),
        Mutant("rounds", comb_by_rounding, "You round"),
        Mutant("takes the heaviest", comb_of_the_heaviest, "heaviest draws"),
        Mutant("draws lots", comb_by_lot, "draw nothing yourself"),
        Mutant("reaches from end to end", comb_from_end_to_end, "from end to end"),
    ],
    "13.7": [
        Mutant("has nothing to begin with", potential_without_a_first, "nothing before"),
        Mutant("does not correct", potential_uncorrected, "must take away"),
        Mutant("forgets the strength", potential_without_strength, "Multiply with strength"),
        Mutant("looks at the present", potential_of_the_present, "not at the latest look alone"),
        Mutant("compares with the first", potential_since_the_first, "not with the first"),
        Mutant("takes the mean", potential_by_mean, "sum means the sum"),
    ],
    "13.8": [
        Mutant("is of the point", density_of_the_point, "greatest at zero"),
        Mutant("takes d", density_with_d, "is d - 1"),
        Mutant("forgets the half", density_without_half, "is halved"),
        Mutant("forgets the square", density_without_square, "squared in the second term"),
        Mutant("sums", density_of_the_whole, "number of dimensions"),
        Mutant("averages the batch", density_one_number, "keep dimension 0"),
        Mutant("loses the gradient", density_by_numbers, "no gradient reaches the noise"),
    ],
}
