"""Wrong answers to lab 15, each as a student might write it; its check must refuse it with this hint."""

import torch
import torch.nn.functional as F

from pixelpolicy.course.proof import Mutant

# 15.1


def _grid(weights):
    height, width = weights.shape[-2:]
    return torch.arange(height).to(weights) + 0.5, torch.arange(width).to(weights) + 0.5


def centre_rows_first(weights):
    y, x = _grid(weights)
    total = weights.sum(dim=(2, 3)) + 1e-3
    cx = ((weights * x).sum(dim=(2, 3)) + 1e-3 * weights.shape[3] / 2) / total
    cy = ((weights * y[:, None]).sum(dim=(2, 3)) + 1e-3 * weights.shape[2] / 2) / total
    return torch.stack([cy, cx], dim=-1)


def centre_at_corners(weights):
    y, x = (line - 0.5 for line in _grid(weights))
    total = weights.sum(dim=(2, 3)) + 1e-3
    cx = ((weights * x).sum(dim=(2, 3)) + 1e-3 * weights.shape[3] / 2) / total
    cy = ((weights * y[:, None]).sum(dim=(2, 3)) + 1e-3 * weights.shape[2] / 2) / total
    return torch.stack([cx, cy], dim=-1)


def centre_pulled_to_zero(weights):
    y, x = _grid(weights)
    total = weights.sum(dim=(2, 3)) + 1e-3
    return torch.stack([(weights * x).sum(dim=(2, 3)), (weights * y[:, None]).sum(dim=(2, 3))], -1) / total[..., None]


def centre_brightest(weights):
    flat = weights.flatten(2).argmax(-1)
    return torch.stack([flat % weights.shape[3] + 0.5, flat // weights.shape[3] + 0.5], -1)


def centre_unguarded(weights):
    y, x = _grid(weights)
    total = weights.sum(dim=(2, 3))
    return torch.stack([(weights * x).sum(dim=(2, 3)), (weights * y[:, None]).sum(dim=(2, 3))], -1) / total[..., None]


# 15.2


def _bend(track):
    return track.diff(dim=1).diff(dim=1)


def newton_with_bounces(track, free, gravity):
    bend = _bend(track)
    return bend[..., 0].square().mean(1) + (bend[..., 1] - gravity).square().mean(1)


def newton_upwards(track, free, gravity):
    bend = _bend(track)
    down = ((bend[..., 1] + gravity).square() * free).sum(1) / free.sum(1).clamp(min=1)
    return bend[..., 0].square().mean(1) + down


def newton_weightless(track, free, gravity):
    bend = _bend(track)
    return bend[..., 0].square().mean(1) + (bend[..., 1].square() * free).sum(1) / free.sum(1).clamp(min=1)


def newton_down_only(track, free, gravity):
    return ((_bend(track)[..., 1] - gravity).square() * free).sum(1) / free.sum(1).clamp(min=1)


def newton_over_all(track, free, gravity):
    bend = _bend(track)
    return bend[..., 0].square().mean(1) + ((bend[..., 1] - gravity).square() * free).mean(1)


# 15.3


def dance_whole(x, velocity, sigma, sigma_next, noise):
    dt = sigma_next - sigma
    return x + (velocity + noise**2 * (x + (1 - sigma) * velocity) / sigma) * dt, noise * (-dt).sqrt()


def dance_wrong_way(x, velocity, sigma, sigma_next, noise):
    dt = sigma_next - sigma
    return x + (velocity - noise**2 / 2 * (x + (1 - sigma) * velocity) / sigma) * dt, noise * (-dt).sqrt()


def dance_without_root(x, velocity, sigma, sigma_next, noise):
    dt = sigma_next - sigma
    return x + (velocity + noise**2 / 2 * (x + (1 - sigma) * velocity) / sigma) * dt, noise * (-dt)


def dance_euler(x, velocity, sigma, sigma_next, noise):
    dt = sigma_next - sigma
    return x + velocity * dt, noise * (-dt).sqrt()


def dance_plain_noise(x, velocity, sigma, sigma_next, noise):
    dt = sigma_next - sigma
    return x + (velocity + noise / 2 * (x + (1 - sigma) * velocity) / sigma) * dt, noise * (-dt).sqrt()


# 15.4


def frame_first(latents, rng):
    return latents[:, :, 0].unsqueeze(2)


def frame_shared(latents, rng):
    chosen = int(rng.integers(latents.shape[2]))
    return latents[:, :, chosen : chosen + 1]


def frame_squeezed(latents, rng):
    chosen = torch.from_numpy(rng.integers(latents.shape[2], size=len(latents)))
    return latents[torch.arange(len(latents)), :, chosen]


def frame_mean(latents, rng):
    return latents.mean(dim=2).unsqueeze(2)


def frame_global(latents, rng):
    chosen = torch.randint(latents.shape[2], (len(latents),))
    return latents[torch.arange(len(latents)), :, chosen].unsqueeze(2)


# 15.5


def _parts(scores, segments):
    return scores.reshape(len(scores), segments, -1)


def labels_whole(a, b, segments, margin):
    gap = (a - b).mean(1, keepdim=True).repeat(1, segments)
    return torch.sign(gap) * (gap.abs() > margin)


def labels_sums(a, b, segments, margin):
    gap = (_parts(a, segments) - _parts(b, segments)).sum(-1)
    return torch.where(gap.abs() > margin, gap.sign(), torch.zeros_like(gap))


def labels_turned(a, b, segments, margin):
    gap = (_parts(b, segments) - _parts(a, segments)).mean(-1)
    return torch.where(gap.abs() > margin, gap.sign(), torch.zeros_like(gap))


def labels_without_margin(a, b, segments, margin):
    return (_parts(a, segments) - _parts(b, segments)).mean(-1).sign()


def labels_strided(a, b, segments, margin):
    gap = torch.stack([(a - b)[:, i::segments].mean(1) for i in range(segments)], 1)
    return torch.where(gap.abs() > margin, gap.sign(), torch.zeros_like(gap))


# 15.6


def _gap(ea, eb, ba, bb, labels):
    change = (ea - ba.detach()) - (eb - bb.detach())
    return labels * change.reshape(*labels.shape, -1).mean(-1)


def loss_turned(ea, eb, ba, bb, labels, beta):
    return -F.logsigmoid(beta / 2 * _gap(ea, eb, ba, bb, labels))[labels != 0].sum() / (labels != 0).sum().clamp(min=1)


def loss_whole_beta(ea, eb, ba, bb, labels, beta):
    return -F.logsigmoid(-beta * _gap(ea, eb, ba, bb, labels))[labels != 0].sum() / (labels != 0).sum().clamp(min=1)


def loss_with_ties(ea, eb, ba, bb, labels, beta):
    return -F.logsigmoid(-beta / 2 * _gap(ea, eb, ba, bb, labels)).mean()


def loss_without_base(ea, eb, ba, bb, labels, beta):
    zero = torch.zeros_like(ba)
    gap = _gap(ea, eb, zero, zero, labels)
    return -F.logsigmoid(-beta / 2 * gap)[labels != 0].sum() / (labels != 0).sum().clamp(min=1)


def loss_base_trained(ea, eb, ba, bb, labels, beta):
    gap = labels * ((ea - ba) - (eb - bb)).reshape(*labels.shape, -1).mean(-1)
    return -F.logsigmoid(-beta / 2 * gap)[labels != 0].sum() / (labels != 0).sum().clamp(min=1)


MUTANTS = {
    "15.1": [
        Mutant("exchanges x and y", centre_rows_first, "x and y are exchanged"),
        Mutant("puts pixels at whole numbers", centre_at_corners, "lies at .5"),
        Mutant("draws an empty frame to the corner", centre_pulled_to_zero, "sits at the corner"),
        Mutant("takes the brightest pixel", centre_brightest, "jumps by whole pixels"),
        Mutant("divides by nothing", centre_unguarded, "divides 0 by 0"),
    ],
    "15.2": [
        Mutant("counts bounces", newton_with_bounces, "A bounce breaks no law"),
        Mutant("lets gravity point up", newton_upwards, "y points down"),
        Mutant("forgets gravity", newton_weightless, "What falls is not at rest"),
        Mutant("looks down only", newton_down_only, "jumps sideways"),
        Mutant("divides by all frames", newton_over_all, "number of frames in flight"),
    ],
    "15.3": [
        Mutant("forgets the half", dance_whole, "half of g squared"),
        Mutant("drifts the wrong way", dance_wrong_way, "The sign of the score"),
        Mutant("forgets the root", dance_without_root, "root of time"),
        Mutant("adds noise to Euler's step", dance_euler, "noise that nobody removes"),
        Mutant("does not square the noise", dance_plain_noise, "stands squared"),
    ],
    "15.4": [
        Mutant("takes the first frame", frame_first, "always take the first frame"),
        Mutant("takes one frame for all", frame_shared, "All clips get the same frame"),
        Mutant("drops the axis", frame_squeezed, "The frame axis is gone"),
        Mutant("takes the mean", frame_mean, "a blur that no frame shows"),
        Mutant("draws from a global source", frame_global, "Draw from rng"),
    ],
    "15.5": [
        Mutant("labels whole clips", labels_whole, "label of the whole clip"),
        Mutant("sums", labels_sums, "take the mean of a segment's frames"),
        Mutant("turns the sign", labels_turned, "The sign is turned"),
        Mutant("labels ties", labels_without_margin, "Near ties are labelled"),
        Mutant("strides", labels_strided, "neighbouring frames"),
    ],
    "15.6": [
        Mutant("turns the sign", loss_turned, "The sign is turned"),
        Mutant("forgets the half", loss_whole_beta, "beta / 2"),
        Mutant("counts ties", loss_with_ties, "Leave them out of the mean"),
        Mutant("forgets the base", loss_without_base, "the change against them"),
        Mutant("trains the base", loss_base_trained, "Detach the base's errors"),
    ],
}
