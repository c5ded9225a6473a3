"""Wrong answers to lab 11, each as a student might write it; its check must refuse it with this hint."""

import torch
from torch.nn import functional as F

from pixelpolicy.course.proof import Mutant

# 11.1


def _per_group(rewards, groups, make):
    pairs = [make(torch.where(groups == g)[0]) for g in dict.fromkeys(groups.tolist())]
    pairs = [pair for pair in pairs if pair is not None]
    return tuple(torch.tensor([pair[i] for pair in pairs], dtype=torch.long) for i in (0, 1))


def pairs_of_flat_groups(rewards, groups):
    return _per_group(
        rewards, groups, lambda rows: (rows[rewards[rows].argmax()].item(), rows[rewards[rows].argmin()].item())
    )


def pairs_within_the_group(rewards, groups):
    def make(rows):
        mine = rewards[rows]
        return None if mine.max() == mine.min() else (mine.argmax().item(), mine.argmin().item())

    return _per_group(rewards, groups, make)


def pairs_turned(rewards, groups):
    def make(rows):
        order = rows[rewards[rows].argsort()].tolist()
        return None if rewards[order[0]] == rewards[order[-1]] else (order[0], order[-1])

    return _per_group(rewards, groups, make)


def pairs_across_prompts(rewards, groups):
    high, low = rewards.argmax().item(), rewards.argmin().item()

    def make(rows):
        return None if rewards[rows].max() == rewards[rows].min() else (high, low)

    return _per_group(rewards, groups, make)


def pairs_in_sorted_groups(rewards, groups):
    best, worst = [], []
    for g in groups.unique():
        rows = torch.where(groups == g)[0]
        if rewards[rows].max() > rewards[rows].min():
            best.append(rows[rewards[rows].argmax()])
            worst.append(rows[rewards[rows].argmin()])
    none = torch.empty(0, dtype=torch.long)
    return (torch.stack(best), torch.stack(worst)) if best else (none, none)


# 11.2


def _mix(x, sigma, noise):
    level = sigma.view(-1, *[1] * (x.ndim - 1))
    return x + level * (noise - x)


def states_with_a_draw_each(winners, losers, draw):
    sigma, noise = draw()
    return _mix(winners, sigma, noise), _mix(losers, *draw()), sigma, noise


def states_with_a_noise_each(winners, losers, draw):
    sigma, noise = draw()
    return _mix(winners, sigma, noise), _mix(losers, sigma, draw()[1]), sigma, noise


def states_turned(winners, losers, draw):
    sigma, noise = draw()
    return _mix(winners, 1 - sigma, noise), _mix(losers, 1 - sigma, noise), sigma, noise


def states_not_faded(winners, losers, draw):
    sigma, noise = draw()
    added = sigma.view(-1, *[1] * (winners.ndim - 1)) * noise
    return winners + added, losers + added, sigma, noise


def states_at_one_level(winners, losers, draw):
    sigma, noise = draw()
    return (1 - sigma[0]) * winners + sigma[0] * noise, (1 - sigma[0]) * losers + sigma[0] * noise, sigma, noise


# 11.3


def _gap(winner, loser, base_winner, base_loser):
    return (winner - base_winner.detach()) - (loser - base_loser.detach())


def dpo_turned(winner, loser, base_winner, base_loser, beta):
    return F.softplus(-beta / 2 * _gap(winner, loser, base_winner, base_loser)).mean()


def dpo_of_the_mean(winner, loser, base_winner, base_loser, beta):
    return F.softplus(beta / 2 * _gap(winner, loser, base_winner, base_loser).mean())


def dpo_without_base(winner, loser, base_winner, base_loser, beta):
    return F.softplus(beta / 2 * (winner - loser)).mean()


def dpo_without_half(winner, loser, base_winner, base_loser, beta):
    return F.softplus(beta * _gap(winner, loser, base_winner, base_loser)).mean()


def dpo_summed(winner, loser, base_winner, base_loser, beta):
    return F.softplus(beta / 2 * _gap(winner, loser, base_winner, base_loser)).sum()


def dpo_that_overflows(winner, loser, base_winner, base_loser, beta):
    return -torch.log(torch.sigmoid(-beta / 2 * _gap(winner, loser, base_winner, base_loser))).mean()


# 11.4


def displacement_of_all(winner, loser, base_winner, base_loser):
    up, down = winner - base_winner, loser - base_loser
    return up.mean(), down.mean(), ((up < down) * (up > 0)).double().mean().to(up.dtype)


def displacement_of_every_winner(winner, loser, base_winner, base_loser):
    up, down = winner - base_winner, loser - base_loser
    return up.mean(), down.mean(), (up > 0).sum() / len(up)


def displacement_of_gains(winner, loser, base_winner, base_loser):
    up, down = winner - base_winner, loser - base_loser
    apart = up < down
    return up.mean(), down.mean(), (apart & (up < 0)).sum() / max(int(apart.sum()), 1)


def displacement_of_losers(winner, loser, base_winner, base_loser):
    up, down = winner - base_winner, loser - base_loser
    apart = up < down
    return up.mean(), down.mean(), (apart & (down > 0)).sum() / max(int(apart.sum()), 1)


def displacement_that_is_nan(winner, loser, base_winner, base_loser):
    up, down = winner - base_winner, loser - base_loser
    return up.mean(), down.mean(), (up[up < down] > 0).float().mean()


# 11.5


def anchor_inside(winner, loser, base_winner, base_loser, beta, anchor):
    gap = _gap(winner, loser, base_winner, base_loser) + anchor * F.relu(winner - base_winner.detach())
    return F.softplus(beta / 2 * gap).mean()


def anchor_without_end(winner, loser, base_winner, base_loser, beta, anchor):
    loss = F.softplus(beta / 2 * _gap(winner, loser, base_winner, base_loser)).mean()
    return loss + anchor * beta / 2 * (winner - base_winner.detach()).mean()


def anchor_on_the_mean(winner, loser, base_winner, base_loser, beta, anchor):
    loss = F.softplus(beta / 2 * _gap(winner, loser, base_winner, base_loser)).mean()
    return loss + anchor * beta / 2 * F.relu((winner - base_winner.detach()).mean())


def anchor_on_the_loser(winner, loser, base_winner, base_loser, beta, anchor):
    loss = F.softplus(beta / 2 * _gap(winner, loser, base_winner, base_loser)).mean()
    return loss + anchor * beta / 2 * F.relu(loser - base_loser.detach()).mean()


def anchor_without_beta(winner, loser, base_winner, base_loser, beta, anchor):
    loss = F.softplus(beta / 2 * _gap(winner, loser, base_winner, base_loser)).mean()
    return loss + anchor * F.relu(winner - base_winner.detach()).mean()


# 11.6


def _utility(gain, z, wanted, beta):
    return torch.sigmoid((2 * wanted.to(gain.dtype) - 1) * beta * (gain - z))


def kto_with_moving_point(errors, base_errors, wanted, beta):
    gain = base_errors.detach() - errors
    return (1 - _utility(gain, F.relu(gain.mean()), wanted, beta)).mean()


def kto_with_negative_point(errors, base_errors, wanted, beta):
    gain = base_errors.detach() - errors
    return (1 - _utility(gain, gain.mean().detach(), wanted, beta)).mean()


def kto_without_point(errors, base_errors, wanted, beta):
    gain = base_errors.detach() - errors
    return (1 - _utility(gain, 0, wanted, beta)).mean()


def kto_turned(errors, base_errors, wanted, beta):
    gain = base_errors.detach() - errors
    return _utility(gain, F.relu(gain.mean()).detach(), wanted, beta).mean()


def kto_in_logarithms(errors, base_errors, wanted, beta):
    gain = base_errors.detach() - errors
    return -torch.log(_utility(gain, F.relu(gain.mean()).detach(), wanted, beta)).mean()


# 11.7


def _bounded(new, old, clip_range):
    return torch.clamp(torch.exp(new - old.detach()), 1 - clip_range, 1 + clip_range)


def step_without_clip(winner, loser, base_winner, base_loser, beta, clip_range):
    return F.softplus(-beta * ((winner - base_winner.detach()) - (loser - base_loser.detach()))).mean()


def step_turned(winner, loser, base_winner, base_loser, beta, clip_range):
    won, lost = _bounded(winner, base_winner, clip_range), _bounded(loser, base_loser, clip_range)
    return F.softplus(beta * (won.log() - lost.log())).mean()


def step_of_ratios(winner, loser, base_winner, base_loser, beta, clip_range):
    won, lost = _bounded(winner, base_winner, clip_range), _bounded(loser, base_loser, clip_range)
    return F.softplus(-beta * (won - lost)).mean()


def step_without_base(winner, loser, base_winner, base_loser, beta, clip_range):
    zero = torch.zeros_like(winner)
    won, lost = _bounded(winner, zero, clip_range), _bounded(loser, zero, clip_range)
    return F.softplus(-beta * (won.log() - lost.log())).mean()


def step_of_the_mean(winner, loser, base_winner, base_loser, beta, clip_range):
    won, lost = _bounded(winner, base_winner, clip_range), _bounded(loser, base_loser, clip_range)
    return F.softplus(-beta * (won.log() - lost.log()).mean())


# 11.8


def candidates_of_the_table(scores):
    high, low = divmod(scores.argmax().item(), scores.shape[1])[1], divmod(scores.argmin().item(), scores.shape[1])[1]
    return torch.full((len(scores),), high), torch.full((len(scores),), low)


def candidates_down_the_columns(scores):
    return scores.max(0).indices, scores.min(0).indices


def candidates_turned(scores):
    order = scores.argsort(1)
    return order[:, 0], order[:, -1]


def candidates_as_scores(scores):
    return scores.max(1).values, scores.min(1).values


def candidates_of_flat_rows(scores):
    order = scores.argsort(dim=1, stable=True)
    return order[:, -1], order[:, 0]


MUTANTS = {
    "11.1": [
        Mutant("pairs flat groups", pairs_of_flat_groups, "has no winner"),
        Mutant("returns places within the group", pairs_within_the_group, "rows of the whole batch"),
        Mutant("exchanges the two", pairs_turned, "the best comes first"),
        Mutant("compares across prompts", pairs_across_prompts, "two pictures of one prompt"),
        Mutant("sorts the groups", pairs_in_sorted_groups, "in the order in which they begin"),
    ],
    "11.2": [
        Mutant("draws for each", states_with_a_draw_each, "call draw once for both"),
        Mutant("shares the level alone", states_with_a_noise_each, "Use one noise for both"),
        Mutant("turns the weights", states_turned, "at sigma = 0 the state is the picture"),
        Mutant("lets the picture stand", states_not_faded, "weigh it with 1 - sigma"),
        Mutant("uses one level", states_at_one_level, "a level of its own"),
    ],
    "11.3": [
        Mutant("turns the sign", dpo_turned, "The sign is turned"),
        Mutant("averages first", dpo_of_the_mean, "the mean comes last"),
        Mutant("forgets the base", dpo_without_base, "The base is missing"),
        Mutant("forgets the half", dpo_without_half, "beta / 2, not beta"),
        Mutant("sums", dpo_summed, "do not sum"),
        Mutant("overflows", dpo_that_overflows, "Use F.logsigmoid"),
    ],
    "11.4": [
        Mutant("takes the share of all", displacement_of_all, "not of all pairs"),
        Mutant("counts every winner", displacement_of_every_winner, "Ask first which pairs are told apart"),
        Mutant("counts gains", displacement_of_gains, "its error has grown"),
        Mutant("counts losers", displacement_of_losers, "displaced are winners"),
        Mutant("divides by nothing", displacement_that_is_nan, "return 0 there"),
    ],
    "11.5": [
        Mutant("puts it inside", anchor_inside, "inside the sigmoid"),
        Mutant("rewards gains too", anchor_without_end, "cut it off at 0"),
        Mutant("averages first", anchor_on_the_mean, "cut off each"),
        Mutant("holds the loser", anchor_on_the_loser, "You hold the loser"),
        Mutant("forgets beta", anchor_without_beta, "anchor * beta / 2"),
    ],
    "11.6": [
        Mutant("moves the point", kto_with_moving_point, "carries gradient"),
        Mutant("lets it be negative", kto_with_negative_point, "at least 0"),
        Mutant("has none", kto_without_point, "is missing"),
        Mutant("turns the sign", kto_turned, "The sign is turned"),
        Mutant("takes the logarithm", kto_in_logarithms, "not its logarithm"),
    ],
    "11.7": [
        Mutant("does not clip", step_without_clip, "not clipped"),
        Mutant("turns the sign", step_turned, "The sign is turned"),
        Mutant("subtracts ratios", step_of_ratios, "the logarithm of the clipped ratios"),
        Mutant("forgets the base", step_without_base, "The base is missing"),
        Mutant("averages first", step_of_the_mean, "the mean comes last"),
    ],
    "11.8": [
        Mutant("searches the table", candidates_of_the_table, "row by row"),
        Mutant("goes down the columns", candidates_down_the_columns, "different prompts"),
        Mutant("exchanges the two", candidates_turned, "the best comes first"),
        Mutant("returns scores", candidates_as_scores, "Return which candidate"),
        Mutant("parts equal candidates", candidates_of_flat_rows, "one and the same for both"),
    ],
}
