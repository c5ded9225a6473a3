"""Wrong answers to lab 18, each as a student might write it; its check must refuse it with this hint."""

import numpy as np
import torch

from pixelpolicy.course.proof import Mutant

# 18.1


def _painted(x, y, half_x, half_y, radius, low=-1.0, offset=0.5, rim=0.5, hard=False, order="row first"):
    x, y, half_x, half_y, radius = (v.reshape(-1, 1, 1) for v in (x, y, half_x, half_y, radius))
    rows, columns = np.mgrid[0:24, 0:24] + offset
    if order != "row first":
        rows, columns = columns, rows
    share = ((columns - x) * half_x + (rows - y) * half_y) / (half_x**2 + half_y**2 + 1e-6)
    share = np.clip(share, low, np.inf if np.isinf(low) else 1)
    gap = np.hypot(columns - x - share * half_x, rows - y - share * half_y)
    return (gap <= radius).astype(float) if hard else np.clip(radius + rim - gap, 0, 1)


def brush_endless(x, y, half_x, half_y, radius):
    return _painted(x, y, half_x, half_y, radius, low=-np.inf)


def brush_half(x, y, half_x, half_y, radius):
    return _painted(x, y, half_x, half_y, radius, low=0.0)


def brush_hard(x, y, half_x, half_y, radius):
    return _painted(x, y, half_x, half_y, radius, hard=True)


def brush_transposed(x, y, half_x, half_y, radius):
    return _painted(x, y, half_x, half_y, radius, order="column first")


def brush_corner(x, y, half_x, half_y, radius):
    return _painted(x, y, half_x, half_y, radius, offset=0.0)


def brush_thin(x, y, half_x, half_y, radius):
    return _painted(x, y, half_x, half_y, radius, rim=0.0)


# 18.2


def _gap(one, other):
    return np.square(one - other).sum(axis=(1, 2))


def pay_turned(before, after, wanted):
    return (_gap(after, wanted) - _gap(before, wanted)) / _gap(0, wanted)


def pay_unscaled(before, after, wanted):
    return _gap(before, wanted) - _gap(after, wanted)


def pay_of_what_was_left(before, after, wanted):
    return 1 - _gap(after, wanted) / _gap(before, wanted)


def pay_clipped(before, after, wanted):
    return np.maximum((_gap(before, wanted) - _gap(after, wanted)) / _gap(0, wanted), 0)


def pay_for_the_canvas(before, after, wanted):
    return -_gap(after, wanted) / _gap(0, wanted)


def pay_the_batch(before, after, wanted):
    return (np.sum((before - wanted) ** 2) - np.sum((after - wanted) ** 2)) / np.sum(wanted**2)


def pay_absolute(before, after, wanted):
    empty = np.abs(wanted).sum((1, 2))
    return (np.abs(before - wanted).sum((1, 2)) - np.abs(after - wanted).sum((1, 2))) / empty


# 18.3


def _walk(logits):
    return torch.cat([torch.zeros(1, dtype=logits.dtype), torch.cumsum(torch.softmax(logits, 0), 0)])


def schedule_climbing(numbers, span):
    half = len(numbers) // 2
    return span[1] - (span[1] - span[0]) * _walk(numbers[:half]), numbers[half:].exp()


def schedule_without_start(numbers, span):
    half = len(numbers) // 2
    return span[0] - (span[0] - span[1]) * _walk(numbers[:half])[1:], numbers[half:].exp()


def schedule_of_steps(numbers, span):
    half = len(numbers) // 2
    shares = torch.cat([torch.zeros(1, dtype=numbers.dtype), torch.softmax(numbers[:half], 0)])
    return span[0] - (span[0] - span[1]) * shares, numbers[half:].exp()


def schedule_without_span(numbers, span):
    half = len(numbers) // 2
    return 1 - _walk(numbers[:half]), numbers[half:].exp()


def schedule_plain_weights(numbers, span):
    half = len(numbers) // 2
    return span[0] - (span[0] - span[1]) * _walk(numbers[:half]), numbers[half:] * 1


def schedule_shared_weights(numbers, span):
    half = len(numbers) // 2
    return span[0] - (span[0] - span[1]) * _walk(numbers[:half]), torch.softmax(numbers[half:], 0)


def schedule_halves(numbers, span):
    half = len(numbers) // 2
    return span[0] - (span[0] - span[1]) * _walk(numbers[half:]), numbers[:half].exp()


# 18.4


def draws_independent(mean, std, pairs, stream):
    first = mean + std * torch.randn(pairs, len(mean), generator=stream)
    return torch.cat([first, mean + std * torch.randn(pairs, len(mean), generator=stream)])


def draws_mirrored_at_zero(mean, std, pairs, stream):
    first = mean + std * torch.randn(pairs, len(mean), generator=stream)
    return torch.cat([first, -first])


def draws_beside_each_other(mean, std, pairs, stream):
    noise = std * torch.randn(pairs, len(mean), generator=stream)
    return torch.stack([mean + noise, mean - noise], dim=1).reshape(2 * pairs, -1)


def draws_with_variance(mean, std, pairs, stream):
    noise = std * std * torch.randn(pairs, len(mean), generator=stream)
    return torch.cat([mean + noise, mean - noise])


def draws_unscaled(mean, std, pairs, stream):
    noise = torch.randn(pairs, len(mean), generator=stream)
    return torch.cat([mean + noise, mean - noise])


def draws_of_one_number(mean, std, pairs, stream):
    noise = std * torch.randn(pairs, 1, generator=stream)
    return torch.cat([mean + noise, mean - noise])


def draws_from_anywhere(mean, std, pairs, stream):
    noise = std * torch.randn(pairs, len(mean))
    return torch.cat([mean + noise, mean - noise])


# 18.5


def pairs_against_all(scores):
    return scores - torch.mean(scores)


def pairs_whole(scores):
    half = len(scores) // 2
    return torch.cat([scores[:half] - scores[half:], scores[half:] - scores[:half]])


def pairs_turned(scores):
    half = len(scores) // 2
    gap = (scores[half:] - scores[:half]) / 2
    return torch.cat([gap, -gap])


def pairs_alike(scores):
    half = len(scores) // 2
    return ((scores[:half] - scores[half:]) / 2).repeat(2)


def pairs_of_neighbours(scores):
    two = scores.reshape(-1, 2)
    return (two - two.mean(1, keepdim=True)).flatten()


def pairs_short(scores):
    half = len(scores) // 2
    return 0.5 * (scores[:half] - scores[half:])


# 18.6


def score_uncapped(rewards, diversities, usual, weight):
    return rewards + weight * torch.nan_to_num(diversities) / usual


def score_unshared(rewards, diversities, usual, weight):
    return rewards + weight * torch.clamp(torch.nan_to_num(diversities), max=usual)


def score_capped_first(rewards, diversities, usual, weight):
    return rewards + weight * torch.clamp(torch.nan_to_num(diversities), max=1.0) / usual


def score_penalised(rewards, diversities, usual, weight):
    return rewards - weight * torch.clamp(torch.nan_to_num(diversities) / usual, max=1.0)


def score_of_nothing(rewards, diversities, usual, weight):
    return rewards + weight * torch.clamp(diversities / usual, max=1.0)


def score_full_for_nothing(rewards, diversities, usual, weight):
    share = torch.where(diversities < usual, diversities / usual, torch.ones_like(diversities))
    return rewards + weight * share


def score_multiplied(rewards, diversities, usual, weight):
    return rewards * weight * torch.clamp(torch.nan_to_num(diversities) / usual, max=1.0)


MUTANTS = {
    "18.1": [
        Mutant("never ends", brush_endless, "Your strokes never end"),
        Mutant("paints one half", brush_half, "Only one half is painted"),
        Mutant("has a hard rim", brush_hard, "The rim is hard"),
        Mutant("exchanges rows and columns", brush_transposed, "Rows and columns are exchanged"),
        Mutant("measures from corners", brush_corner, "half a pixel off"),
        Mutant("is too thin", brush_thin, "half a pixel too thin"),
    ],
    "18.2": [
        Mutant("turns the sign", pay_turned, "The sign is turned"),
        Mutant("does not divide", pay_unscaled, "a heavy target would count for more"),
        Mutant("divides by what was left", pay_of_what_was_left, "so the rewards do not add up"),
        Mutant("clips", pay_clipped, "A stroke that harms must cost"),
        Mutant("pays for the canvas", pay_for_the_canvas, "not what the stroke did"),
        Mutant("sums the batch", pay_the_batch, "Return one number a picture"),
        Mutant("takes absolute values", pay_absolute, "Square the differences"),
    ],
    "18.3": [
        Mutant("climbs", schedule_climbing, "Your noise rises"),
        Mutant("leaves out the first level", schedule_without_start, "A level is missing"),
        Mutant("does not sum", schedule_of_steps, "where all steps so far lead"),
        Mutant("ignores the span", schedule_without_span, "whatever the span"),
        Mutant("leaves out the exponential", schedule_plain_weights, "a weight must be positive"),
        Mutant("shares the weights", schedule_shared_weights, "Guidance weights share nothing"),
        Mutant("exchanges the halves", schedule_halves, "The halves are exchanged"),
    ],
    "18.4": [
        Mutant("draws twice", draws_independent, "The second half is drawn anew"),
        Mutant("mirrors at zero", draws_mirrored_at_zero, "Mirror in the mean"),
        Mutant("puts pairs beside each other", draws_beside_each_other, "The right schedules in another order"),
        Mutant("squares the deviation", draws_with_variance, "by std squared"),
        Mutant("does not scale", draws_unscaled, "The noise has deviation 1"),
        Mutant("moves all numbers alike", draws_of_one_number, "One draw moves all numbers alike"),
        Mutant("draws from a global source", draws_from_anywhere, "You draw from a global source"),
    ],
    "18.5": [
        Mutant("compares with all", pairs_against_all, "The baseline of a schedule is the mean of its pair"),
        Mutant("takes the whole difference", pairs_whole, "Twice too large"),
        Mutant("turns the sign", pairs_turned, "The sign is turned"),
        Mutant("gives both the same", pairs_alike, "Both of a pair get the same"),
        Mutant("pairs neighbours", pairs_of_neighbours, "half a batch away"),
        Mutant("returns half", pairs_short, "return as many as there are scores"),
    ],
    "18.6": [
        Mutant("has no cap", score_uncapped, "You pay for more diversity than usual"),
        Mutant("does not divide", score_unshared, "must mean the same in every world"),
        Mutant("caps first", score_capped_first, "The cap comes after the division"),
        Mutant("turns the sign", score_penalised, "diversity is wanted"),
        Mutant("lets NaN through", score_of_nothing, "A NaN runs through"),
        Mutant("counts NaN as full", score_full_for_nothing, "counts as full"),
        Mutant("multiplies", score_multiplied, "as a factor it vanishes"),
    ],
}
