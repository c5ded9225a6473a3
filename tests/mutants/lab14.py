"""Wrong answers to lab 14, each as a student might write it; its check must refuse it with this hint."""

from collections import Counter

import torch

from pixelpolicy.course.proof import Mutant

# 14.1


def quantise_farthest(latents, codebook):
    z = latents.permute(0, 2, 3, 1)
    gaps = ((z[..., None, :] - codebook) ** 2).sum(-1)
    codes = gaps.argmax(-1)
    return latents + (codebook[codes].permute(0, 3, 1, 2) - latents).detach(), codes


def quantise_by_product(latents, codebook):
    codes = torch.einsum("bdhw,kd->bhwk", latents, codebook).argmax(-1)
    return latents + (codebook[codes].permute(0, 3, 1, 2) - latents).detach(), codes


def quantise_without_straight_through(latents, codebook):
    z = latents.permute(0, 2, 3, 1)
    codes = ((z[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)
    return codebook[codes].permute(0, 3, 1, 2), codes


def quantise_detached(latents, codebook):
    with torch.no_grad():
        z = latents.permute(0, 2, 3, 1)
        codes = ((z[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)
        return codebook[codes].permute(0, 3, 1, 2), codes


def quantise_with_two_gradients(latents, codebook):
    z = latents.permute(0, 2, 3, 1)
    codes = ((z[..., None, :] - codebook) ** 2).sum(-1).argmin(-1)
    vectors = codebook[codes].permute(0, 3, 1, 2)
    return vectors + latents - latents.detach(), codes


def quantise_flat(latents, codebook):
    rows = latents.reshape(-1, codebook.shape[1])
    codes = torch.cdist(rows, codebook).argmin(1).view(latents.shape[0], *latents.shape[2:])
    return latents + (codebook[codes].movedim(-1, 1) - latents).detach(), codes


# 14.2


def log_probs_without_shift(logits, states):
    return torch.log_softmax(logits, -1)[:, 1:].gather(2, states[:, 1:].unsqueeze(2)).squeeze(2)


def log_probs_of_raw_logits(logits, states):
    return logits[:, :-1].gather(2, states[:, 1:].unsqueeze(2)).squeeze(2)


def log_probs_as_probabilities(logits, states):
    return torch.softmax(logits, -1)[:, :-1].gather(2, states[:, 1:].unsqueeze(2)).squeeze(2)


def log_probs_summed(logits, states):
    return torch.log_softmax(logits, -1)[:, :-1].gather(2, states[:, 1:].unsqueeze(2)).squeeze(2).sum(1)


def log_probs_over_places(logits, states):
    return torch.log_softmax(logits[:, :-1], 1).gather(2, states[:, 1:].unsqueeze(2)).squeeze(2)


# 14.3


def nucleus_multiplied(logits, temperature, top_p):
    if top_p == 1:
        return logits * temperature
    logits = logits * temperature
    p, order = torch.sort(logits.softmax(-1), dim=-1, descending=True)
    drop = p.cumsum(-1) - p >= top_p
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), float("-inf"))


def nucleus_one_short(logits, temperature, top_p):
    if top_p == 1:
        return logits / temperature
    logits = logits / temperature
    p, order = torch.sort(logits.softmax(-1), dim=-1, descending=True)
    drop = p.cumsum(-1) > top_p
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), float("-inf"))


def nucleus_in_sorted_order(logits, temperature, top_p):
    if top_p == 1:
        return logits / temperature
    logits = logits / temperature
    p, _ = torch.sort(logits.softmax(-1), dim=-1, descending=True)
    return torch.where(p.cumsum(-1) - p >= top_p, torch.full_like(logits, float("-inf")), logits)


def nucleus_with_zeros(logits, temperature, top_p):
    if top_p == 1:
        return logits / temperature
    logits = logits / temperature
    p, order = torch.sort(logits.softmax(-1), dim=-1, descending=True)
    drop = p.cumsum(-1) - p >= top_p
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), 0.0)


def nucleus_before_temperature(logits, temperature, top_p):
    if top_p == 1:
        return logits / temperature
    p, order = torch.sort(logits.softmax(-1), dim=-1, descending=True)
    drop = p.cumsum(-1) - p >= top_p
    return (logits / temperature).masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), float("-inf"))


def nucleus_that_rounds(logits, temperature, top_p):
    logits = logits / temperature
    p, order = torch.sort(logits.softmax(-1), dim=-1, descending=True)
    drop = p.cumsum(-1) - p >= top_p
    return logits.masked_fill(torch.zeros_like(drop).scatter(-1, order, drop), float("-inf"))


# 14.4


def kl_reversed(logits, reference):
    keep = ~torch.isinf(reference)
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    return (q.exp() * torch.where(keep, q, 0) - q.exp() * torch.where(keep, p, 0)).sum(-1)


def kl_mean(logits, reference):
    keep = ~torch.isinf(logits)
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    return (p.exp() * (torch.where(keep, p, 0) - torch.where(keep, q, 0))).mean(-1)


def kl_with_nan(logits, reference):
    p = torch.softmax(logits, -1)
    return (p * (torch.log_softmax(logits, -1) - torch.log_softmax(reference, -1))).sum(-1)


def kl_one_number(logits, reference):
    keep = ~torch.isinf(logits)
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    return (p.exp() * (torch.where(keep, p, 0) - torch.where(keep, q, 0))).sum()


def kl_detached(logits, reference):
    logits = logits.detach()
    keep = ~torch.isinf(logits)
    p, q = logits.log_softmax(-1), reference.log_softmax(-1)
    return (p.exp() * (torch.where(keep, p, 0) - torch.where(keep, q, 0))).sum(-1)


# 14.5


def share_counted_twice(planned, wanted, holds):
    right = len([pair for pair in planned if pair in wanted])
    return right / max(len(planned), len(wanted)) / (1 if holds else 2)


def share_of_wanted(planned, wanted, holds):
    right = sum((Counter(planned) & Counter(wanted)).values())
    return right / len(wanted) / (1 if holds else 2)


def share_of_planned(planned, wanted, holds):
    right = sum((Counter(planned) & Counter(wanted)).values())
    return right / len(planned) / (1 if holds else 2) if planned else 0.0


def share_in_order(planned, wanted, holds):
    right = sum(planned[i] == wanted[i] for i in range(min(len(planned), len(wanted))))
    return right / max(len(planned), len(wanted)) / (1 if holds else 2)


def share_without_relation(planned, wanted, holds):
    return sum((Counter(planned) & Counter(wanted)).values()) / max(len(planned), len(wanted))


def share_all_or_nothing(planned, wanted, holds):
    return holds * sum((Counter(planned) & Counter(wanted)).values()) / max(len(planned), len(wanted))


def share_in_place(planned, wanted, holds):
    most, all_of_them = max(len(planned), len(wanted)), len(wanted)
    for pair in planned:
        if pair in wanted:
            wanted.remove(pair)
    return (all_of_them - len(wanted)) / most / (1 if holds else 2)


# 14.6


def advantages_everywhere(advantages, chosen):
    return advantages.unsqueeze(1).repeat(1, chosen.shape[1])


def advantages_unweighted(advantages, chosen):
    return torch.where(chosen, advantages.unsqueeze(1), 0.0)


def advantages_without_steps(advantages, chosen):
    return torch.where(chosen, (advantages / chosen.sum(1)).unsqueeze(1), 0.0)


def advantages_of_the_batch(advantages, chosen):
    return torch.where(chosen, advantages.unsqueeze(1), 0.0) / chosen.float().mean()


MUTANTS = {
    "14.1": [
        Mutant("farthest", quantise_farthest, "farthest away"),
        Mutant("by product", quantise_by_product, "favours long codes"),
        Mutant("without straight through", quantise_without_straight_through, "would never learn"),
        Mutant("detached", quantise_detached, "no gradient passes at all"),
        Mutant("with two gradients", quantise_with_two_gradients, "the codes as well"),
        Mutant("flat", quantise_flat, "Move that dimension to the end"),
    ],
    "14.2": [
        Mutant("probs without shift", log_probs_without_shift, "Shift by one"),
        Mutant("probs of raw logits", log_probs_of_raw_logits, "normalise over the choices"),
        Mutant("probs as probabilities", log_probs_as_probabilities, "the logarithm is missing"),
        Mutant("probs summed", log_probs_summed, "You add up the sequence"),
        Mutant("probs over places", log_probs_over_places, "over the wrong dimension"),
    ],
    "14.3": [
        Mutant("multiplied", nucleus_multiplied, "must make the likely likelier"),
        Mutant("one short", nucleus_one_short, "ask what stood before it"),
        Mutant("in sorted order", nucleus_in_sorted_order, "Bring it back with scatter"),
        Mutant("with zeros", nucleus_with_zeros, "no probability of 0"),
        Mutant("before temperature", nucleus_before_temperature, "Divide first"),
        Mutant("that rounds", nucleus_that_rounds, "treat top_p = 1 by itself"),
    ],
    "14.4": [
        Mutant("reversed", kl_reversed, "the base from you"),
        Mutant("mean", kl_mean, "you take their mean"),
        Mutant("with nan", kl_with_nan, "before you subtract"),
        Mutant("one number", kl_one_number, "sum over the last dimension alone"),
        Mutant("detached", kl_detached, "the leash would not pull"),
    ],
    "14.5": [
        Mutant("counted twice", share_counted_twice, "Strike each wanted object off"),
        Mutant("of wanted", share_of_wanted, "with everything in it"),
        Mutant("of planned", share_of_planned, "leaves out the hard object"),
        Mutant("in order", share_in_order, "first with first"),
        Mutant("without relation", share_without_relation, "must cost something"),
        Mutant("all or nothing", share_all_or_nothing, "right objects in wrong places"),
        Mutant("in place", share_in_place, "work on a copy"),
    ],
    "14.6": [
        Mutant("everywhere", advantages_everywhere, "also those that nobody chose"),
        Mutant("unweighted", advantages_unweighted, "plans more objects counts for more"),
        Mutant("without steps", advantages_without_steps, "multiply by steps"),
        Mutant("of the batch", advantages_of_the_batch, "Each row has its own"),
    ],
}
