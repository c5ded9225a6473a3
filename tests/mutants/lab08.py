"""Wrong answers to lab 08, each as a student might write it; its check must refuse it with this hint."""

import io

import numpy as np
import torch
from PIL import Image

from pixelpolicy.course.proof import Mutant

# 8.1


def parts_with_weights(terms, samples, prompts):
    parts = {}
    for weight, name, reward in terms:
        parts[name] = weight * reward(samples, prompts)
        if parts[name].shape != (len(prompts),) or not parts[name].isfinite().all():
            raise ValueError(name)
    return torch.stack(list(parts.values())).sum(0), parts


def total_without_weights(terms, samples, prompts):
    parts = {name: reward(samples, prompts) for _, name, reward in terms}
    for name, values in parts.items():
        if values.shape != (len(prompts),) or not torch.isfinite(values).all():
            raise ValueError(f"bad reward {name}")
    return sum(parts.values()), parts


def total_detached(terms, samples, prompts):
    parts = {name: reward(samples, prompts) for _, name, reward in terms}
    for name, values in parts.items():
        if values.shape != (len(prompts),) or not torch.isfinite(values).all():
            raise ValueError(f"bad reward {name}")
    return sum(weight * parts[name].detach() for weight, name, _ in terms), parts


def total_averaged(terms, samples, prompts):
    parts = {name: reward(samples, prompts) for _, name, reward in terms}
    for name, values in parts.items():
        if values.shape != (len(prompts),) or not torch.isfinite(values).all():
            raise ValueError(f"bad reward {name}")
    return torch.stack([weight * parts[name] for weight, name, _ in terms]).mean(0), parts


def only_the_length_tested(terms, samples, prompts):
    parts, total = {}, 0
    for weight, name, reward in terms:
        values = reward(samples, prompts)
        if values.dim() == 0 or len(values) != len(prompts) or not values.isfinite().all():
            raise ValueError(name)
        parts[name] = values
        total = total + weight * values
    return total, parts


def nan_unseen(terms, samples, prompts):
    parts, total = {}, 0
    for weight, name, reward in terms:
        values = reward(samples, prompts)
        if values.shape != (len(prompts),) or (values.abs() == float("inf")).any():
            raise ValueError(name)
        parts[name] = values
        total = total + weight * values
    return total, parts


def infinity_unseen(terms, samples, prompts):
    parts, total = {}, 0
    for weight, name, reward in terms:
        values = reward(samples, prompts)
        if values.shape != (len(prompts),) or values.isnan().any():
            raise ValueError(name)
        parts[name] = values
        total = total + weight * values
    return total, parts


# 8.2


def _saved(picture, divide=1000.0, levels=None, **options):
    values = ((picture.detach() + 1) / 2 * 255).round().clamp(0, 255) if levels is None else levels(picture.detach())
    file = io.BytesIO()
    array = values.to(torch.int64).numpy().astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(np.moveaxis(array, 0, -1))).save(file, **options)
    return len(file.getvalue()) / divide


def kibibytes(picture, quality=95):
    return _saved(picture, 1024.0, format="JPEG", quality=quality)


def plain_bytes(picture, quality=95):
    return _saved(picture, 1, format="JPEG", quality=quality)


def default_quality(picture, quality=95):
    return _saved(picture, format="JPEG")


def as_png(picture, quality=95):
    return _saved(picture, format="PNG")


def wrapped_around(picture, quality=95):
    return _saved(picture, levels=lambda x: ((x + 1) * 127.5).round(), format="JPEG", quality=quality)


def cut_off(picture, quality=95):
    return _saved(picture, levels=lambda x: ((x + 1) * 127.5).clamp(0, 255), format="JPEG", quality=quality)


def from_zero_to_one(picture, quality=95):
    return _saved(picture, levels=lambda x: (x * 255).round().clamp(0, 255), format="JPEG", quality=quality)


# 8.3


def ties_count_nothing(values, accepted):
    return (values[accepted][:, None] > values[~accepted]).double().mean().item()


def ties_count_whole(values, accepted):
    return (values[accepted][:, None] >= values[~accepted]).double().mean().item()


def rejected_first(values, accepted):
    gaps = values[~accepted][:, None] - values[accepted]
    return ((gaps > 0).double() + (gaps == 0).double() / 2).mean().item()


def difference_of_means(values, accepted):
    return float(values[accepted].mean() - values[~accepted].mean())


def against_everybody(values, accepted):
    gaps = values[accepted][:, None] - values
    return ((gaps > 0).double() + (gaps == 0).double() / 2).mean().item()


# 8.4


def _table(a, b, replace=1):
    rows = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            change = 0 if a[i - 1] == b[j - 1] else replace
            rows[i][j] = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + change)
    return rows[-1][-1]


def _plain(text):
    return text.replace(" ", "").lower()


def case_counts(read, word):
    a, b = read.replace(" ", ""), word.replace(" ", "")
    return 1 - _table(a, b) / max(len(a), len(b))


def spaces_count(read, word):
    a, b = read.lower(), word.lower()
    return 1 - _table(a, b) / max(len(a), len(b))


def letter_by_letter(read, word):
    a, b = _plain(read), _plain(word)
    return sum(x == y for x, y in zip(a, b, strict=False)) / max(len(a), len(b))


def over_the_words_length(read, word):
    return 1 - _table(_plain(read), _plain(word)) / len(_plain(word))


def replacing_costs_two(read, word):
    a, b = _plain(read), _plain(word)
    return 1 - _table(a, b, 2) / max(len(a), len(b))


def share_of_errors(read, word):
    a, b = _plain(read), _plain(word)
    return _table(a, b) / max(len(a), len(b))


# 8.5


def no_penalty(features, targets, strength):
    return torch.linalg.pinv(features) @ targets


def penalty_everywhere(features, targets, strength):
    return torch.linalg.solve(features.T @ features + strength, features.T @ targets)


def penalty_squared(features, targets, strength):
    gram = features.T @ features + strength**2 * torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.solve(gram, features.T @ targets)


def penalty_on_means(features, targets, strength):
    n, eye = len(features), torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.inv(features.T @ features / n + strength * eye) @ (features.T @ targets / n)


def penalty_taken_away(features, targets, strength):
    gram = features.T @ features - strength * torch.eye(features.shape[1], dtype=features.dtype)
    return torch.linalg.inv(gram) @ features.T @ targets


def weights_turned(features, targets, strength):
    gram = features.T @ features + strength * torch.eye(features.shape[1], dtype=features.dtype)
    return (torch.linalg.inv(gram) @ features.T @ targets).T


# 8.6


def _cosines(pictures, texts):
    return torch.cosine_similarity(pictures[:, None], texts[None], dim=2)


def dot_products(pictures, texts, within):
    best = (pictures @ texts.T).topk(within, dim=1).indices
    return (best == torch.arange(len(texts))[:, None]).any(1).float().mean().item()


def picture_of_each_text(pictures, texts, within):
    best = _cosines(pictures, texts).topk(within, dim=0).indices
    return (best == torch.arange(len(texts))).any(0).float().mean().item()


def exactly_at_that_place(pictures, texts, within):
    best = _cosines(pictures, texts).topk(within, dim=1).indices[:, -1]
    return (best == torch.arange(len(texts))).float().mean().item()


def only_the_nearest(pictures, texts, within):
    return (_cosines(pictures, texts).argmax(1) == torch.arange(len(texts))).float().mean().item()


def mean_over_the_nearest(pictures, texts, within):
    best = _cosines(pictures, texts).topk(within, dim=1).indices
    return (best == torch.arange(len(texts))[:, None]).float().mean().item()


# 8.7


def right_less_left(left, right, temperature, bias, slips):
    return (1 - slips) * torch.sigmoid((right - left) / temperature + bias) + slips / 2


def never_slips(left, right, temperature, bias, slips):
    return torch.sigmoid((left - right) / temperature + bias)


def slips_to_the_left(left, right, temperature, bias, slips):
    return (1 - slips) * torch.sigmoid((left - right) / temperature + bias) + slips


def slips_to_the_right(left, right, temperature, bias, slips):
    return (1 - slips) * torch.sigmoid((left - right) / temperature + bias)


def habit_outside(left, right, temperature, bias, slips):
    return (1 - slips) * torch.sigmoid((left - right) / temperature) + slips / 2 + bias


def hotter_is_sharper(left, right, temperature, bias, slips):
    return (1 - slips) * torch.sigmoid((left - right) * temperature + bias) + slips / 2


def habit_divided(left, right, temperature, bias, slips):
    return (1 - slips) * torch.sigmoid((left - right + bias) / temperature) + slips / 2


# 8.8


def _bins(probabilities, bins):
    return (probabilities * bins).floor().clamp(max=bins - 1)


def bins_alike(probabilities, outcomes, bins=10):
    places, gaps = _bins(probabilities, bins), []
    for b in places.unique():
        mine = places == b
        gaps.append((probabilities[mine].mean() - outcomes[mine].double().mean()).abs())
    return torch.stack(gaps).mean().item()


def squared_gaps(probabilities, outcomes, bins=10):
    places, total = _bins(probabilities, bins), 0.0
    for b in places.unique():
        mine = places == b
        total += mine.double().mean() * (probabilities[mine].mean() - outcomes[mine].double().mean()) ** 2
    return total.item()


def case_by_case(probabilities, outcomes, bins=10):
    return (probabilities - outcomes.double()).abs().mean().item()


def one_in_no_bin(probabilities, outcomes, bins=10):
    total = 0.0
    for b in range(bins):
        mine = (probabilities >= b / bins) & (probabilities < (b + 1) / bins)
        if mine.any():
            gap = probabilities[mine].mean() - outcomes[mine].double().mean()
            total += mine.double().mean().item() * gap.abs().item()
    return total


def no_bins(probabilities, outcomes, bins=10):
    return (probabilities.mean() - outcomes.double().mean()).item()


MUTANTS = {
    "8.1": [
        Mutant("parts with weights", parts_with_weights, "the weight belongs into the total alone"),
        Mutant("no weights", total_without_weights, "weights are missing from the total"),
        Mutant("detached", total_detached, "no gradient reaches the samples"),
        Mutant("a mean", total_averaged, "A weighted sum does not"),
        Mutant("shape untested", only_the_length_tested, "would be broadcast to a table"),
        Mutant("NaN unseen", nan_unseen, "A NaN passes"),
        Mutant("infinity unseen", infinity_unseen, "NaN is caught and infinity is not"),
    ],
    "8.2": [
        Mutant("1,024", kibibytes, "You divide by 1,024"),
        Mutant("bytes", plain_bytes, "These are bytes"),
        Mutant("quality", default_quality, "The quality is not passed on"),
        Mutant("PNG", as_png, "This is a PNG"),
        Mutant("wrapped", wrapped_around, "256 becomes 0"),
        Mutant("cut off", cut_off, "A cast to uint8 cuts off"),
        Mutant("from 0", from_zero_to_one, "as if it went from 0 to 1"),
    ],
    "8.3": [
        Mutant("ties lost", ties_count_nothing, "counts as a defeat"),
        Mutant("ties won", ties_count_whole, "counts as a win"),
        Mutant("turned", rejected_first, "how often the rejected one has more"),
        Mutant("means", difference_of_means, "depends on the unit"),
        Mutant("everybody", against_everybody, "compare the accepted with everybody"),
    ],
    "8.4": [
        Mutant("case", case_counts, "casefold both"),
        Mutant("spaces", spaces_count, "Spaces should not count"),
        Mutant("place by place", letter_by_letter, "letters at the same place"),
        Mutant("word's length", over_the_words_length, "a long text scores below 0"),
        Mutant("two", replacing_costs_two, "Replacing a letter is one edit"),
        Mutant("errors", share_of_errors, "the share that is wrong"),
    ],
    "8.5": [
        Mutant("no penalty", no_penalty, "The strength is not used"),
        Mutant("everywhere", penalty_everywhere, "every entry of the matrix"),
        Mutant("squared", penalty_squared, "The strength is squared"),
        Mutant("means", penalty_on_means, "mean over the samples in one place"),
        Mutant("minus", penalty_taken_away, "wrong sign"),
        Mutant("turned", weights_turned, "yours is turned"),
    ],
    "8.6": [
        Mutant("dot", dot_products, "Long vectors win"),
        Mutant("by text", picture_of_each_text, "the picture of each text"),
        Mutant("place", exactly_at_that_place, "exactly at that place"),
        Mutant("nearest", only_the_nearest, "`within` is not used"),
        Mutant("mean", mean_over_the_nearest, "average over the nearest as well"),
    ],
    "8.7": [
        Mutant("turned", right_less_left, "take left less right"),
        Mutant("never", never_slips, "The slips are missing"),
        Mutant("left", slips_to_the_left, "not slips"),
        Mutant("right", slips_to_the_right, "all go to the right"),
        Mutant("outside", habit_outside, "may then leave [0, 1]"),
        Mutant("hot", hotter_is_sharper, "a hot rater sees less"),
        Mutant("divided", habit_divided, "add it after the division"),
    ],
    "8.8": [
        Mutant("alike", bins_alike, "You average over the bins"),
        Mutant("squares", squared_gaps, "The gaps are squared"),
        Mutant("cases", case_by_case, "chance counts as error"),
        Mutant("one", one_in_no_bin, "falls out of all bins"),
        Mutant("no bins", no_bins, "errors up and down cancel"),
    ],
}
