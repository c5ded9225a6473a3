"""Wrong answers to lab 16, each as a student might write it; its check must refuse it with this hint."""

import torch
from torch.nn import functional as F

from pixelpolicy.course.proof import Mutant

# 16.1


def _parts(foot, centre):
    edge = torch.roll(foot, -1, dims=1) - foot
    to_centre = centre[:, None, ::2] - foot
    cross = edge[:, :, 0] * to_centre[:, :, 1] - edge[:, :, 1] * to_centre[:, :, 0]
    length = edge.square().sum(-1)
    length = torch.where(length > 0, length, torch.ones_like(length)).sqrt()
    real = (edge != 0).any(-1)
    return cross / length, real


def tilt_in_radians(foot, centre):
    distance, real = _parts(foot, centre)
    return torch.atan2(distance.masked_fill(~real, 9.0).min(1).values, centre[:, 1])


def tilt_largest(foot, centre):
    distance, real = _parts(foot, centre)
    return torch.rad2deg(torch.atan2(distance.masked_fill(~real, -9.0).max(1).values, centre[:, 1]))


def tilt_upside_down(foot, centre):
    distance, real = _parts(foot, centre)
    angle = torch.rad2deg(torch.atan2(centre[:, 1:2].expand_as(distance), distance))
    return angle.masked_fill(~real, 999.0).min(1).values


def tilt_unsigned(foot, centre):
    distance, real = _parts(foot, centre)
    return torch.rad2deg(torch.atan2(distance.abs().masked_fill(~real, 9.0).min(1).values, centre[:, 1]))


def tilt_to_corners(foot, centre):
    nearest = (foot - centre[:, None, ::2]).pow(2).sum(-1).sqrt().min(1).values
    return torch.atan2(nearest, centre[:, 1]) * 180 / torch.pi


def tilt_divides_by_nothing(foot, centre):
    edge = torch.roll(foot, -1, dims=1) - foot
    offset = centre[:, None, ::2] - foot
    distance = (edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]) / edge.norm(dim=-1)
    return torch.rad2deg(torch.atan2(distance.min(1).values, centre[:, 1]))


def tilt_where_alone(foot, centre):
    edge = torch.roll(foot, -1, dims=1) - foot
    offset = centre[:, None, ::2] - foot
    length = edge.square().sum(-1).sqrt()
    distance = (edge[..., 0] * offset[..., 1] - edge[..., 1] * offset[..., 0]) / length
    distance = torch.where(length > 0, distance, torch.inf)
    return torch.rad2deg(torch.atan2(distance.min(1).values, centre[:, 1]))


def tilt_open(foot, centre):
    distance, real = _parts(foot, centre)
    return torch.rad2deg(torch.atan2(distance[:, :-1].masked_fill(~real[:, :-1], 9.0).min(1).values, centre[:, 1]))


# 16.2


def together_some_neighbour(touching, there):
    links = touching & there[:, None] & there[:, :, None]
    links = links & ~torch.eye(links.shape[-1], dtype=torch.bool)
    return torch.where(there, links.any(-1), True).all(1) & there.any(1)


def together_one_step(touching, there):
    first = there.int().argmax(1)
    near = touching[torch.arange(len(there)), first] & there
    return (near == there).all(1) & there.any(1)


def together_absent_hold(touching, there):
    reach = there & (there.cumsum(1) == 1)
    for _ in range(there.shape[1]):
        reach = (touching & reach[:, :, None]).any(1)
    return (reach | ~there).all(1) & there.any(1)


def together_nothing_hangs(touching, there):
    links = touching & there[:, None] & there[:, :, None]
    reach = there & (there.cumsum(1) == 1)
    for _ in range(there.shape[1]):
        reach = reach | (links & reach[:, :, None]).any(1)
    return (reach == there).all(1)


def together_three_steps(touching, there):
    links = touching & there[:, None] & there[:, :, None]
    reach = there & (there.cumsum(1) == 1)
    for _ in range(6):
        reach = reach | (links & reach[:, :, None]).any(1)
    return (reach == there).all(1) & there.any(1)


def together_all_pairs(touching, there):
    pairs = there[:, None] & there[:, :, None]
    return (touching | ~pairs).flatten(1).all(1) & there.any(1)


# 16.3


def _tall(height):
    return (1 - ((height - 1).abs() - 0.25).clamp_min(0) / 0.25).clamp(0, 1)


def score_endless(tilt, connected, height):
    return 0.5 * tilt / 9 + connected + 0.5 * _tall(height)


def score_without_lower_end(tilt, connected, height):
    return 0.5 * (tilt / 9).clamp(max=1) + connected + 0.5 * _tall(height)


def score_from_zero(tilt, connected, height):
    return 0.5 * (tilt / 9).clamp(0, 1) + connected + 0.5 * _tall(height)


def score_low_is_fine(tilt, connected, height):
    tall = (1 - (height - 1.25).clamp_min(0) / 0.25).clamp(0, 1)
    return 0.5 * (tilt / 9).clamp(-1, 1) + connected + 0.5 * tall


def score_without_plateau(tilt, connected, height):
    return 0.5 * (tilt / 9).clamp(-1, 1) + connected + 0.5 * (1 - (height - 1).abs() / 0.25).clamp(0, 1)


def score_equal_weights(tilt, connected, height):
    return (tilt / 9).clamp(-1, 1) + connected + _tall(height)


# 16.4


def keep_of_the_batch(stands, groups):
    return stands.float() / stands.float().mean()


def keep_plain(stands, groups):
    return stands.float()


def keep_the_first(stands, groups):
    weights = torch.zeros(len(stands))
    for g in groups.unique():
        rows = torch.nonzero(stands & (groups == g)).flatten()[:1]
        weights[rows] = (groups == g).sum().float()
    return weights


def keep_all_where_none_stands(stands, groups):
    weights = torch.zeros(len(stands))
    for g in groups.unique():
        mine = groups == g
        good = stands[mine].float()
        weights[mine] = good / good.mean() if good.any() else 1.0
    return weights


def keep_the_fallen(stands, groups):
    weights = torch.zeros(len(stands))
    for g in groups.unique():
        mine = groups == g
        bad = (~stands[mine]).float()
        weights[mine] = bad / bad.mean().clamp_min(1e-9)
    return weights


# 16.5


def dpo_plain(winner, loser, base_winner, base_loser, beta, anchor):
    margin = (base_winner.detach() - winner) - (base_loser.detach() - loser)
    return -F.logsigmoid(beta / 2 * margin).mean()


def dpo_sign(winner, loser, base_winner, base_loser, beta, anchor):
    margin = (winner - base_winner.detach()) - (loser - base_loser.detach())
    return -F.logsigmoid(beta / 2 * margin).mean() + anchor * beta / 2 * (winner - base_winner.detach()).relu().mean()


def dpo_without_relu(winner, loser, base_winner, base_loser, beta, anchor):
    drift = winner - base_winner.detach()
    margin = -drift + (loser - base_loser.detach())
    return -F.logsigmoid(beta / 2 * margin).mean() + anchor * beta / 2 * drift.mean()


def dpo_inside(winner, loser, base_winner, base_loser, beta, anchor):
    drift = winner - base_winner.detach()
    margin = -drift + (loser - base_loser.detach()) - anchor * drift.relu()
    return -F.logsigmoid(beta / 2 * margin).mean()


def dpo_moving_base(winner, loser, base_winner, base_loser, beta, anchor):
    margin = (base_winner - winner) - (base_loser - loser)
    return -F.logsigmoid(beta / 2 * margin).mean() + anchor * beta / 2 * (winner - base_winner).relu().mean()


def dpo_holds_the_loser(winner, loser, base_winner, base_loser, beta, anchor):
    drift = loser - base_loser.detach()
    margin = (base_winner.detach() - winner) + drift
    return -F.logsigmoid(beta / 2 * margin).mean() + anchor * beta / 2 * drift.relu().mean()


# 16.6


def _hull(silhouettes, where, fuse):
    return fuse(torch.stack([silhouettes[:, v, where[v]] for v in range(len(where))], 1))


def _shadow(silhouettes, where, hull, reduce="amax"):
    shape = silhouettes.shape[0], silhouettes.shape[2]
    empty = silhouettes.new_zeros(shape)
    rows = [w.expand(len(silhouettes), -1) for w in where]
    return torch.stack([empty.scatter_reduce(1, row, hull, reduce, include_self=False) for row in rows], 1)


def _iou(a, b):
    return torch.minimum(a, b).flatten(1).sum(1) / torch.maximum(a, b).flatten(1).sum(1)


def carve_product(silhouettes, where):
    return _iou(silhouettes, _shadow(silhouettes, where, _hull(silhouettes, where, lambda s: s.prod(1))))


def carve_average(silhouettes, where):
    return _iou(silhouettes, _shadow(silhouettes, where, _hull(silhouettes, where, lambda s: s.mean(1))))


def carve_union(silhouettes, where):
    return _iou(silhouettes, _shadow(silhouettes, where, _hull(silhouettes, where, lambda s: s.amax(1))))


def carve_mean_ray(silhouettes, where):
    return _iou(silhouettes, _shadow(silhouettes, where, _hull(silhouettes, where, lambda s: s.amin(1)), "mean"))


def carve_gap(silhouettes, where):
    again = _shadow(silhouettes, where, _hull(silhouettes, where, lambda s: s.amin(1)))
    return 1 - (silhouettes - again).abs().mean((1, 2))


# 16.7


def pool_sum(each):
    return torch.cat([each.sum(1), each.amax(1)], 1)


def pool_least(each):
    return torch.cat([each.mean(1), each.amin(1)], 1)


def pool_size(each):
    largest = each.abs().argmax(1, keepdim=True)
    return torch.cat([each.mean(1), each.gather(1, largest).squeeze(1)], 1)


def pool_added(each):
    return each.mean(1) + each.amax(1)


def pool_other_order(each):
    return torch.cat([each.max(1).values, each.mean(1)], 1)


def pool_features(each):
    return torch.cat([each.mean(-1), each.amax(-1)], -1)


def pool_flat(each):
    return each.flatten(1)


def pool_cut(each):
    return torch.cat([each.mean(1), each.amax(1)], 1).detach()


# 16.8


def _pulls(x0, x1, sigma, velocity):
    level = sigma.view(-1, *[1] * (x0.dim() - 1))
    return level * (velocity + x0 - x1)


def pick_worst(x0, x1, sigma, velocity, values):
    return _pulls(x0, x1, sigma, velocity)[values.argmin(0), torch.arange(len(x0))].detach()


def pick_one_for_all(x0, x1, sigma, velocity, values):
    return _pulls(x0, x1, sigma, velocity)[values.mean(1).argmax()].detach()


def pick_mean(x0, x1, sigma, velocity, values):
    return _pulls(x0, x1, sigma, velocity).mean(0).detach()


def pick_sign(x0, x1, sigma, velocity, values):
    return -_pulls(x0, x1, sigma, velocity)[values.argmax(0), torch.arange(len(x0))].detach()


def pick_unscaled(x0, x1, sigma, velocity, values):
    return (velocity - (x1 - x0))[values.argmax(0), torch.arange(len(x0))].detach()


def pick_moving(x0, x1, sigma, velocity, values):
    return _pulls(x0, x1, sigma, velocity)[values.argmax(0), torch.arange(len(x0))]


def pick_each_with_each(x0, x1, sigma, velocity, values):
    return _pulls(x0, x1, sigma, velocity)[values.argmax(0)].detach()


def pick_one_level(x0, x1, sigma, velocity, values):
    pulls = sigma.mean() * (velocity - (x1 - x0))
    return pulls[values.argmax(0), torch.arange(len(x0))].detach()


MUTANTS = {
    "16.1": [
        Mutant("radians", tilt_in_radians, "Turn them into degrees"),
        Mutant("largest", tilt_largest, "over which it falls last"),
        Mutant("upside down", tilt_upside_down, "distance over height"),
        Mutant("unsigned", tilt_unsigned, "take no absolute value"),
        Mutant("corners", tilt_to_corners, "measure to the nearest corner"),
        Mutant("divides by nothing", tilt_divides_by_nothing, "divides by 0"),
        Mutant("where alone", tilt_where_alone, "Clamp the length before"),
        Mutant("open ring", tilt_open, "ring is not closed"),
    ],
    "16.2": [
        Mutant("some neighbour", together_some_neighbour, "two islands"),
        Mutant("one step", together_one_step, "You stop after the neighbours"),
        Mutant("absent hold", together_absent_hold, "absent cannot hold"),
        Mutant("nothing hangs", together_nothing_hangs, "without a single box"),
        Mutant("too few steps", together_three_steps, "need eleven"),
        Mutant("all pairs", together_all_pairs, "by way of a third"),
    ],
    "16.3": [
        Mutant("endless", score_endless, "The tilt has no end"),
        Mutant("no lower end", score_without_lower_end, "at -1 too"),
        Mutant("from zero", score_from_zero, "Clamp from -1"),
        Mutant("low is fine", score_low_is_fine, "take the absolute value of"),
        Mutant("no plateau", score_without_plateau, "take 0.25 away first"),
        Mutant("equal weights", score_equal_weights, "The weights are"),
    ],
    "16.4": [
        Mutant("whole batch", keep_of_the_batch, "Count within each group"),
        Mutant("plain", keep_plain, "divide its size by"),
        Mutant("the first", keep_the_first, "variety is what"),
        Mutant("fallback", keep_all_where_none_stands, "teaches nothing: weight 0"),
        Mutant("the fallen", keep_the_fallen, "You keep those that fall"),
    ],
    "16.5": [
        Mutant("plain", dpo_plain, "Where is the anchor?"),
        Mutant("sign", dpo_sign, "this prefers the loser"),
        Mutant("no relu", dpo_without_relu, "only a positive drift counts"),
        Mutant("inside", dpo_inside, "Inside the sigmoid the anchor"),
        Mutant("moving base", dpo_moving_base, "the base gets a gradient"),
        Mutant("holds the loser", dpo_holds_the_loser, "You hold the loser"),
    ],
    "16.6": [
        Mutant("product", carve_product, "carve with the minimum"),
        Mutant("average", carve_average, "You average the views"),
        Mutant("union", carve_union, "what *all* views show"),
        Mutant("mean ray", carve_mean_ray, "the maximum, not the mean"),
        Mutant("gap", carve_gap, "Empty pixels would count"),
    ],
    "16.7": [
        Mutant("sum", pool_sum, "three would not compare with four"),
        Mutant("least", pool_least, "You take the minimum"),
        Mutant("size", pool_size, "not of the absolute values"),
        Mutant("added", pool_added, "joined, not added"),
        Mutant("other order", pool_other_order, "First the means, then the maxima"),
        Mutant("features", pool_features, "that is axis 1"),
        Mutant("flat", pool_flat, "Join mean and maximum along the features"),
        Mutant("cut", pool_cut, "no gradient comes back to the views"),
    ],
    "16.8": [
        Mutant("worst", pick_worst, "try of least value"),
        Mutant("one for all", pick_one_for_all, "may fell a lamp"),
        Mutant("mean", pick_mean, "the reward has no say"),
        Mutant("sign", pick_sign, "lead away from the guess"),
        Mutant("unscaled", pick_unscaled, "The factor sigma is missing"),
        Mutant("moving", pick_moving, "does not differentiate"),
        Mutant("each with each", pick_each_with_each, "Index the tries and the objects together"),
        Mutant("one level", pick_one_level, "each has its own noise level"),
    ],
}
