"""Wrong answers to lab 06, each as a student might write it; its check must refuse it with this hint."""

import torch

from pixelpolicy.course.proof import Mutant

# 6.1


def wide(sigma, x):
    return sigma.view(sigma.shape + (1,) * (x.dim() - 1))


def road(x0, x1, sigma):
    s = wide(sigma, x0)
    return x0 * (1 - s) + x1 * s


def mix_from_the_noise(x0, x1, sigma):
    return road(x1, x0, sigma), x1 - x0


def mix_with_turned_velocity(x0, x1, sigma):
    return road(x0, x1, sigma), x0 - x1


def mix_with_noise_for_velocity(x0, x1, sigma):
    return road(x0, x1, sigma), x1


def mix_with_the_rest_of_the_way(x0, x1, sigma):
    x = road(x0, x1, sigma)
    return x, x1 - x


def mix_with_scaled_velocity(x0, x1, sigma):
    return road(x0, x1, sigma), wide(sigma, x0) * (x1 - x0)


def mix_on_the_arc(x0, x1, sigma):
    s = wide(sigma, x0)
    return torch.sqrt(1 - s) * x0 + torch.sqrt(s) * x1, x1 - x0


def mix_without_ones(x0, x1, sigma):
    return (1 - sigma) * x0 + sigma * x1, x1 - x0


def mix_detached(x0, x1, sigma):
    return road(x0.detach(), x1.detach(), sigma), x1 - x0


# 6.2


def loss_against(target, reduce=lambda error: (error**2).mean(), state=road, level=lambda s: s, said=lambda v: v):
    def loss(velocity, x0, x1, sigma):
        guess = said(velocity(state(x0, x1, sigma), level(sigma)))
        return reduce(guess - target(x0, x1))

    return loss


def true_velocity(x0, x1):
    return x1 - x0


# 6.3


def follow_uphill(velocity, start, sigmas):
    states = [start]
    for i in range(len(sigmas) - 1):
        states.append(states[i] - (sigmas[i + 1] - sigmas[i]) * velocity(states[i], sigmas[i]))
    return torch.stack(states)


def follow_by_equal_steps(velocity, start, sigmas):
    states, steps = [start], len(sigmas) - 1
    for i in range(steps):
        states.append(states[i] - velocity(states[i], sigmas[i]) / steps)
    return torch.stack(states)


def follow_by_whole_steps(velocity, start, sigmas):
    states = [start]
    for sigma in sigmas[:-1]:
        states.append(states[-1] - velocity(states[-1], sigma))
    return torch.stack(states)


def follow_asking_ahead(velocity, start, sigmas):
    states = [start]
    for i in range(1, len(sigmas)):
        states.append(states[-1] + (sigmas[i] - sigmas[i - 1]) * velocity(states[-1], sigmas[i]))
    return torch.stack(states)


def follow_asking_once(velocity, start, sigmas):
    states = [start]
    for i in range(1, len(sigmas)):
        states.append(states[-1] + (sigmas[i] - sigmas[i - 1]) * velocity(start, sigmas[i - 1]))
    return torch.stack(states)


def right_states(velocity, start, sigmas):
    states = [start]
    for i in range(1, len(sigmas)):
        states.append(states[-1] + (sigmas[i] - sigmas[i - 1]) * velocity(states[-1], sigmas[i - 1]))
    return states


def follow_to_the_last(velocity, start, sigmas):
    return right_states(velocity, start, sigmas)[-1]


def follow_without_start(velocity, start, sigmas):
    return torch.stack(right_states(velocity, start, sigmas)[1:])


def follow_one_short(velocity, start, sigmas):
    return torch.stack(right_states(velocity, start, sigmas)[:-1])


# 6.4


def ends(at_least=lambda w: torch.clamp(w, min=0.05), v_divisor=lambda a, b: a + b, sign=1):
    def endpoints(prediction, kind, z, a, b):
        if kind == "picture":
            return prediction, (z - a * prediction) / at_least(b)
        if kind == "noise":
            return (z - b * prediction) / at_least(a), prediction
        x0 = (z - sign * b * prediction) / v_divisor(a, b)
        return x0, (z + sign * a * prediction) / v_divisor(a, b)

    return endpoints


def ends_exchanged(prediction, kind, z, a, b):
    x0, x1 = ends()(prediction, kind, z, a, b)
    return x1, x0


def ends_unweighted(prediction, kind, z, a, b):
    if kind == "picture":
        return prediction, (z - prediction) / torch.clamp(b, min=0.05)
    if kind == "noise":
        return (z - prediction) / torch.clamp(a, min=0.05), prediction
    return ends()(prediction, kind, z, a, b)


def ends_undivided(prediction, kind, z, a, b):
    if kind == "picture":
        return prediction, z - a * prediction
    if kind == "noise":
        return z - b * prediction, prediction
    return ends()(prediction, kind, z, a, b)


def ends_of_velocities(prediction, kind, z, a, b):
    return (z - b * prediction) / (a + b), (z + a * prediction) / (a + b)


# 6.5


def ddim(
    variance=lambda eta, t, s: eta**2 * ((1 - s) / (1 - t)) * (1 - t / s),
    under=lambda s, var: 1 - s - var,
    weight=lambda t, s: s**0.5,
    guess=lambda y, n, t: (y - (1 - t) ** 0.5 * n) / t**0.5,
    second=lambda var: var**0.5,
):
    def step(y, noise, alpha_bar, alpha_bar_next, eta):
        var = variance(eta, alpha_bar, alpha_bar_next)
        left = torch.clamp(under(alpha_bar_next, var), min=0.0)
        mean = guess(y, noise, alpha_bar) * weight(alpha_bar, alpha_bar_next) + left**0.5 * noise
        return mean, second(var)

    return step


def ddim_with_nan_at_the_end(y, noise, alpha_bar, alpha_bar_next, eta):
    mean, std = ddim()(y, noise, alpha_bar, alpha_bar_next, eta)
    return (mean * float("nan"), std) if alpha_bar_next == 1 else (mean, std)


# 6.6


def reverse(score=lambda n, t: -n / (1 - t) ** 0.5, half=0.5, beta=lambda t, s: (s / t).log(), second=lambda b: b**0.5):
    def step(y, noise, alpha_bar, alpha_bar_next):
        amount = beta(alpha_bar, alpha_bar_next)
        return y + amount * half * y + amount * score(noise, alpha_bar), second(amount)

    return step


# 6.7


def guided_from_with(velocity, x, sigma, labels, scale):
    with_label = velocity(x, sigma, labels)
    return with_label + scale * (with_label - velocity(x, sigma, torch.full_like(labels, 10)))


def guided_away(velocity, x, sigma, labels, scale):
    without = velocity(x, sigma, torch.full_like(labels, 10))
    return without + scale * (without - velocity(x, sigma, labels))


def guided_from_zero(velocity, x, sigma, labels, scale):
    without = velocity(x, sigma, torch.zeros_like(labels))
    return without + scale * (velocity(x, sigma, labels) - without)


def guided_by_nothing(velocity, x, sigma, labels, scale):
    return velocity(x, sigma, torch.full_like(labels, 10))


def guided_never(velocity, x, sigma, labels, scale):
    return velocity(x, sigma, labels)


def guided_by_scaling(velocity, x, sigma, labels, scale):
    return velocity(x, sigma, labels) * scale


def guided_half_detached(velocity, x, sigma, labels, scale):
    without = velocity(x, sigma, torch.full_like(labels, 10))
    return without + scale * (velocity(x, sigma, labels) - without.detach())


def guided_in_place(velocity, x, sigma, labels, scale):
    with_label = velocity(x, sigma, labels)
    labels.fill_(10)
    without = velocity(x, sigma, labels)
    return without + scale * (with_label - without)


MUTANTS = {
    "6.1": [
        Mutant("begins in the noise", mix_from_the_noise, "Your road begins in the noise"),
        Mutant("turns the velocity", mix_with_turned_velocity, "points the wrong way"),
        Mutant("returns the noise", mix_with_noise_for_velocity, "the noise itself as velocity"),
        Mutant("returns the rest of the way", mix_with_the_rest_of_the_way, "the way that is left"),
        Mutant("scales the velocity", mix_with_scaled_velocity, "scale the velocity by sigma"),
        Mutant("takes the arc", mix_on_the_arc, "weights of the arc"),
        Mutant("forgets the ones", mix_without_ones, "sigma needs ones at its end"),
        Mutant("detaches", mix_detached, "Do not detach, and do not write"),
    ],
    "6.2": [
        Mutant("turns the target", loss_against(lambda x0, x1: x0 - x1), "points from noise to picture"),
        Mutant("compares with noise", loss_against(lambda x0, x1: x1), "You compare with the noise"),
        Mutant("compares with pictures", loss_against(lambda x0, x1: x0), "You compare with the picture"),
        Mutant("shows the picture", loss_against(true_velocity, state=lambda a, b, s: a), "the clean picture"),
        Mutant("shows the noise", loss_against(true_velocity, state=lambda a, b, s: b), "the pure noise"),
        Mutant("sums", loss_against(true_velocity, lambda e: (e**2).sum()), "a sum grows with the batch"),
        Mutant("takes absolute values", loss_against(true_velocity, lambda e: e.abs().mean()), "leads to the median"),
        Mutant("takes the root", loss_against(true_velocity, lambda e: (e**2).mean() ** 0.5), "Leave out the root"),
        Mutant("keeps a loss a sample", loss_against(true_velocity, lambda e: (e**2).flatten(1).mean(1)),
               "the mean over samples too"),
        Mutant("turns the level", loss_against(true_velocity, level=lambda s: 1 - s), "is told 1 - sigma"),
        Mutant("detaches", loss_against(true_velocity, said=torch.detach), "no gradient reaches the network"),
    ],
    "6.3": [
        Mutant("goes up", follow_uphill, "further into the noise"),
        Mutant("takes equal steps", follow_by_equal_steps, "You take equal steps"),
        Mutant("takes whole steps", follow_by_whole_steps, "add the whole velocity"),
        Mutant("asks ahead", follow_asking_ahead, "at the level you go to"),
        Mutant("asks once", follow_asking_once, "at the start all the time"),
        Mutant("keeps the last", follow_to_the_last, "You return the last state only"),
        Mutant("drops the start", follow_without_start, "The start is missing"),
        Mutant("stops short", follow_one_short, "The last step is missing"),
    ],
    "6.4": [
        Mutant("has no floor", ends(at_least=lambda w: w), "you divide by 0 or nearly so"),
        Mutant("adds the floor", ends(at_least=lambda w: w + 0.05), "You add 0.05 to the divisor"),
        Mutant("knows the straight road", ends(v_divisor=lambda a, b: 1), "holds on the straight road alone"),
        Mutant("divides by squares", ends(v_divisor=lambda a, b: a * a + b * b), "you divide by a² + b²"),
        Mutant("turns the velocity", ends(sign=-1), "Your velocity points from noise to picture"),
        Mutant("exchanges the ends", ends_exchanged, "You return the noise first"),
        Mutant("leaves out weights", ends_unweighted, "must have its weight"),
        Mutant("does not divide", ends_undivided, "the division is missing"),
        Mutant("ignores the kind", ends_of_velocities, "three cases, three formulas"),
    ],
    "6.5": [
        Mutant("returns the variance", ddim(second=lambda var: var), "You return the variance"),
        Mutant("does not square eta", ddim(variance=lambda eta, t, s: eta * (1 - s) / (1 - t) * (1 - t / s)),
               "it is squared in the variance"),
        Mutant("makes no room", ddim(under=lambda s, var: 1 - s), "on top of all the old"),
        Mutant("turns the quotient", ddim(variance=lambda eta, t, s: eta**2 * (1 - t) / (1 - s) * (1 - t / s)),
               "upside down: the level"),
        Mutant("mixes by the old level", ddim(weight=lambda t, s: t**0.5), "by the level you come from"),
        Mutant("does not divide the guess", ddim(guess=lambda y, n, t: y - (1 - t) ** 0.5 * n), "still shrunken"),
        Mutant("forgets the roots", ddim(guess=lambda y, n, t: (y - (1 - t) * n) / t, weight=lambda t, s: s),
               "not these numbers themselves"),
        Mutant("subtracts the deviation", ddim(under=lambda s, var: 1 - s - var**0.5), "you subtract the deviation"),
        Mutant("ends in NaN", ddim_with_nan_at_the_end, "nothing is kept and nothing drawn"),
    ],
    "6.6": [
        Mutant("turns the score", reverse(score=lambda n, t: n / (1 - t) ** 0.5), "it has a minus"),
        Mutant("takes the noise", reverse(score=lambda n, t: -n), "You take the noise for the score"),
        Mutant("divides by the variance", reverse(score=lambda n, t: -n / (1 - t)), "You divide by 1 - alpha_bar"),
        Mutant("takes half the score", reverse(score=lambda n, t: -n / (1 - t) ** 0.5 / 2), "the drift of the ODE"),
        Mutant("forgets the half", reverse(half=1.0), "stretched by half of beta"),
        Mutant("shrinks", reverse(half=-0.5), "go on shrinking"),
        Mutant("returns the variance", reverse(second=lambda b: b), "beta is the variance"),
        Mutant("takes the difference", reverse(beta=lambda t, s: s - t), "not their difference"),
        Mutant("turns the logarithm", reverse(beta=lambda t, s: (t / s).log()), "Your beta is negative"),
    ],
    "6.7": [
        Mutant("starts from with", guided_from_with, "one too high"),
        Mutant("goes away", guided_away, "You go away from the label"),
        Mutant("takes 0 for none", guided_from_zero, "Label 0 is the digit zero"),
        Mutant("uses no label", guided_by_nothing, "The label is not used at all"),
        Mutant("does not guide", guided_never, "whatever the scale"),
        Mutant("scales everything", guided_by_scaling, "You scale the whole velocity"),
        Mutant("detaches one", guided_half_detached, "No gradient flows through the velocity without"),
        Mutant("writes into labels", guided_in_place, "You write into labels"),
    ],
}  # fmt: skip
