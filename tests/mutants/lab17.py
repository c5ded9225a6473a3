"""Wrong answers to lab 17, each as a student might write it; its check must refuse it with this hint."""

import torch

from pixelpolicy.course.proof import Mutant


# 17.1
def feet_knees(shins):
    along = shins[..., [4, 5]]
    return shins[..., [1, 2]] + shins[..., 6:7] * along


def feet_whole(shins):
    along = torch.stack((shins[..., 4], shins[..., 5]), dim=-1)
    return shins[..., 1:3] - 2 * shins[..., 6, None] * along


def feet_turned(shins):
    along = torch.stack((shins[..., 5], shins[..., 4]), dim=-1)
    return shins[..., 1:3] - shins[..., 6, None] * along


def feet_middles(shins):
    return shins[..., 1:3].clone()


def feet_without_gradient(shins):
    with torch.no_grad():
        return shins[..., 1:3] - shins[..., 6, None] * shins[..., 4:6]


# 17.2
def skate_everywhere(feet, contact=0.035):
    return (feet[:, 1:, :, 0] - feet[:, :-1, :, 0]).abs().mean((1, 2))


def skate_lifting(feet, contact=0.035):
    slide = feet[..., 0].diff(dim=1).abs()
    down = (feet[:, :-1, :, 1] <= contact).double()
    return (slide * down).sum((1, 2)) / down.sum((1, 2)).clamp(min=1)


def skate_either(feet, contact=0.035):
    slide = feet[..., 0].diff(dim=1).abs()
    on = feet[..., 1] <= contact
    down = (on[:, :-1] | on[:, 1:]).double()
    return (slide * down).sum((1, 2)) / down.sum((1, 2)).clamp(min=1)


def skate_diluted(feet, contact=0.035):
    slide = feet[..., 0].diff(dim=1).abs()
    on = feet[..., 1] <= contact
    return (slide * (on[:, :-1] & on[:, 1:])).mean((1, 2))


def skate_summed(feet, contact=0.035):
    slide = feet[..., 0].diff(dim=1).abs()
    on = feet[..., 1] <= contact
    return (slide * (on[:, :-1] & on[:, 1:])).sum((1, 2))


def skate_back_and_forth(feet, contact=0.035):
    slide = feet[..., 0].diff(dim=1)
    on = feet[..., 1] <= contact
    down = on[:, :-1] & on[:, 1:]
    return (slide * down).sum((1, 2)) / down.sum((1, 2)).clamp(min=1)


# 17.3
def progress_by_frames(torso, wanted, seconds=0.1):
    speed = (torso[:, -1] - torso[:, 0]) / (torso.shape[1] * seconds)
    return (1 - (speed - wanted).abs() / (0.5 * wanted.abs())).clamp(0, 1)


def progress_a_frame(torso, wanted, seconds=0.1):
    speed = torso.diff(dim=1).mean(1)
    return (1 - (speed - wanted).abs() / (0.5 * wanted.abs())).clamp(0, 1)


def progress_either_way(torso, wanted, seconds=0.1):
    speed = torso.diff(dim=1).mean(1) / seconds
    return (1 - (speed.abs() - wanted.abs()).abs() / (0.5 * wanted.abs())).clamp(0, 1)


def progress_without_floor(torso, wanted, seconds=0.1):
    speed = torso.diff(dim=1).mean(1) / seconds
    return 1 - (speed - wanted).abs() / (0.5 * wanted.abs())


def progress_too_kind(torso, wanted, seconds=0.1):
    speed = torso.diff(dim=1).mean(1) / seconds
    return (1 - (speed - wanted).abs() / wanted.abs()).clamp(0, 1)


# 17.4
def lead_largest(feet):
    return (feet[:, :, 0, 0] - feet[:, :, 1, 0]).max(dim=1).values


def lead_absolute(feet):
    return (feet[:, :, 0, 0] - feet[:, :, 1, 0]).abs().max(dim=1).values


def lead_of_each(feet):
    x = feet[..., 0]
    return (x.max(dim=1).values - x.min(dim=1).values).mean(dim=1)


def lead_in_height(feet):
    lead = feet[:, :, 0, 1] - feet[:, :, 1, 1]
    return lead.max(dim=1).values - lead.min(dim=1).values


def lead_deviation(feet):
    return (feet[:, :, 0, 0] - feet[:, :, 1, 0]).std(dim=1, unbiased=False)


# 17.6
def smooth_speed(centres):
    return torch.exp(-(centres.diff(dim=1).square().mean((1, 2, 3)) + 1e-12).sqrt() / 0.03)


def smooth_squares(centres):
    second = centres[:, 2:] - 2 * centres[:, 1:-1] + centres[:, :-2]
    return torch.exp(-(second.square().mean((1, 2, 3)) + 1e-12) / 0.03)


def smooth_summed(centres):
    second = centres[:, 2:] - 2 * centres[:, 1:-1] + centres[:, :-2]
    return torch.exp(-(second.square().sum((1, 2, 3)) + 1e-12).sqrt() / 0.03)


def smooth_turned(centres):
    second = centres[:, 2:] - 2 * centres[:, 1:-1] + centres[:, :-2]
    return torch.exp((second.square().mean((1, 2, 3)) + 1e-12).sqrt() / 0.03)


def smooth_unsafe(centres):
    second = centres[:, 2:] - 2 * centres[:, 1:-1] + centres[:, :-2]
    return torch.exp(-second.square().mean((1, 2, 3)).sqrt() / 0.03)


# 17.5
def gated_mean(gates, bonus):
    return gates.mean(dim=1)


def gated_product(gates, bonus):
    return bonus * gates.prod(dim=1)


def gated_added(gates, bonus):
    return (gates.mean(dim=1) + bonus) / 2


def gated_without_bonus(gates, bonus):
    return (gates.mean(dim=1) + gates.prod(dim=1)) / 2


def gated_least(gates, bonus):
    return (gates.mean(dim=1) + gates.min(dim=1).values * bonus) / 2


MUTANTS = {
    "17.1": [
        Mutant("finds the knees", feet_knees, "That is the knee"),
        Mutant("goes a whole length", feet_whole, "is *half* a length"),
        Mutant("exchanges sine and cosine", feet_turned, "are exchanged"),
        Mutant("stays in the middle", feet_middles, "the middle of the shin"),
        Mutant("has no gradient", feet_without_gradient, "no gradient reaches the shins"),
    ],
    "17.2": [
        Mutant("counts feet in the air", skate_everywhere, "may move as it likes"),
        Mutant("counts feet that lift off", skate_lifting, "It must be in both"),
        Mutant("takes one frame for enough", skate_either, "take `&`, not `|`"),
        Mutant("divides by all", skate_diluted, "how many slides you counted"),
        Mutant("sums", skate_summed, "Take the mean"),
        Mutant("lets slides cancel", skate_back_and_forth, "does not undo"),
    ],
    "17.3": [
        Mutant("divides by the frames", progress_by_frames, "lie n - 1 steps"),
        Mutant("measures a frame", progress_a_frame, "the way a frame"),
        Mutant("forgets the direction", progress_either_way, "keep the sign"),
        Mutant("has no floor", progress_without_floor, "clamp the score"),
        Mutant("is too kind", progress_too_kind, "misses by *half*"),
    ],
    "17.4": [
        Mutant("takes the largest lead", lead_largest, "Take the smallest lead away"),
        Mutant("takes absolute leads", lead_absolute, "Stiff legs lead too"),
        Mutant("looks at each foot alone", lead_of_each, "Compare the two feet"),
        Mutant("compares heights", lead_in_height, "You compare heights"),
        Mutant("takes the deviation", lead_deviation, "not the standard deviation"),
    ],
    "17.6": [
        Mutant("asks for rest", smooth_speed, "bodies that stand still"),
        Mutant("takes no root", smooth_squares, "Take the root"),
        Mutant("sums", smooth_summed, "not the sum"),
        Mutant("turns the sign", smooth_turned, "mind the sign"),
        Mutant("has an infinite slope at rest", smooth_unsafe, "Put the 1e-12 under the root"),
    ],
    "17.5": [
        Mutant("takes the mean alone", gated_mean, "buy off a bad one"),
        Mutant("takes the product alone", gated_product, "hides all progress"),
        Mutant("adds the bonus", gated_added, "do not add it"),
        Mutant("forgets the bonus", gated_without_bonus, "multiplied with the bonus"),
        Mutant("takes the least", gated_least, "not the least of them"),
    ],
}
