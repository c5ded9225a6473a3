"""Wrong answers to lab 10, each as a student might write it; its check must refuse it with this hint."""

import numpy as np
import torch
from torch.nn import functional as F

from pixelpolicy.course.proof import Mutant

# 10.1


def draw_with_no_grad(mean, std, noise):
    with torch.no_grad():
        return mean + std * noise


def draw_by_torch(mean, std, noise):
    return torch.normal(mean, std.expand_as(mean))


def draw_with_variance(mean, std, noise):
    return mean + std.square() * noise


def draw_without_deviation(mean, std, noise):
    return torch.add(mean, noise)


def draw_stretched(mean, std, noise):
    return (mean + noise) * std


def draw_with_fixed_mean(mean, std, noise):
    return mean.data + std * noise


# 10.2


def unroll_without_gradient(state, steps, first):
    with torch.no_grad():
        for step in steps:
            state = step(state)
    return state


def unroll_with_all(state, steps, first):
    for step in steps:
        state = step(state)
    return state


def unroll_one_late(state, steps, first):
    with torch.no_grad():
        for step in steps[: first + 1]:
            state = step(state)
    for step in steps[first + 1 :]:
        state = step(state)
    return state


def unroll_turned(state, steps, first):
    for step in steps[:first]:
        state = step(state)
    with torch.no_grad():
        for step in steps[first:]:
            state = step(state)
    return state


def unroll_last_ones(state, steps, first):
    cut = len(steps) - first
    with torch.no_grad():
        for step in steps[:cut]:
            state = step(state)
    for step in steps[cut:]:
        state = step(state)
    return state


def unroll_cut_everywhere(state, steps, first):
    for i, step in enumerate(steps):
        if i < first:
            with torch.no_grad():
                state = step(state)
        else:
            state = step(state.detach())
    return state


def unroll_detached_late(state, steps, first):
    for step in steps[:first]:
        state = step(state)
    state = state.detach() if first else state
    for step in steps[first:]:
        state = step(state)
    return state


# 10.3


def leap_to_the_noise(state, velocity, sigma):
    return state + velocity - sigma * velocity


def leap_away(state, velocity, sigma):
    return state + velocity * sigma


def leap_of_one(state, velocity, sigma):
    return state - velocity


def leap_too_short(state, velocity, sigma):
    return state - velocity + sigma * velocity


def leap_without_velocitys_gradient(state, velocity, sigma):
    return state - sigma * velocity.detach()


# 10.4


def hinge_of_the_mean(rewards, enough):
    return torch.clamp(enough - torch.mean(rewards), min=0)


def hinge_without_end(rewards, enough):
    return enough - rewards.mean()


def hinge_turned(rewards, enough):
    return F.relu(rewards - enough).mean()


def hinge_summed(rewards, enough):
    return torch.clamp(enough - rewards, min=0).sum()


def hinge_squared(rewards, enough):
    return (torch.clamp(enough - rewards, min=0) ** 2).mean()


def hinge_of_the_bad(rewards, enough):
    short = torch.where(rewards < enough, enough - rewards, torch.zeros_like(rewards))
    return short.sum() / max(1, int((rewards < enough).sum()))


# 10.5


def backward_of_a_sum(step, state, parameters, gradient):
    with torch.enable_grad():
        x = state.detach().requires_grad_()
        total = step(x).sum()
    found = torch.autograd.grad(total, [x, *parameters], allow_unused=True, materialize_grads=True)
    return found[0], list(found[1:])


def backward_weighed_late(step, state, parameters, gradient):
    found = backward_of_a_sum(step, state, parameters, gradient)
    return found[0] * gradient, found[1]


def backward_of_a_mean(step, state, parameters, gradient):
    with torch.enable_grad():
        x = state.detach().requires_grad_()
        total = torch.mean(step(x) * gradient)
    found = torch.autograd.grad(total, [x, *parameters], allow_unused=True, materialize_grads=True)
    return found[0], list(found[1:])


def backward_of_the_state(step, state, parameters, gradient):
    with torch.enable_grad():
        x = state.detach().requires_grad_()
        outcome = step(x)
    return torch.autograd.grad(outcome, x, gradient)[0], [torch.zeros_like(p) for p in parameters]


def backward_without_gradients(step, state, parameters, gradient):
    x = state.detach().requires_grad_()
    found = torch.autograd.grad(step(x), [x, *parameters], gradient, allow_unused=True, materialize_grads=True)
    return found[0], list(found[1:])


def backward_with_none(step, state, parameters, gradient):
    with torch.enable_grad():
        x = state.detach().requires_grad_()
        outcome = step(x)
    found = torch.autograd.grad(outcome, [x, *parameters], gradient, allow_unused=True)
    return found[0], list(found[1:])


def backward_into_grad(step, state, parameters, gradient):
    with torch.enable_grad():
        x = state.detach().requires_grad_()
        (step(x) * gradient).sum().backward()
    return x.grad, [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]


# 10.6


def cut_from_one(steps, rng):
    return int(rng.integers(1, steps)) if steps > 1 else 0, steps


def cut_beyond(steps, rng):
    return int(rng.integers(0, steps + 1)), steps


def cut_never_last(steps, rng):
    return (int(rng.integers(0, steps - 1)) if steps > 1 else 0), steps


def cut_of_one_step(steps, rng):
    cut = int(rng.integers(steps))
    return cut, cut + 1


def cut_globally(steps, rng):
    return int(np.random.randint(steps)), steps


def cut_fixed(steps, rng):
    return steps // 2, steps


# 10.7


def kl_without_half(mean, base_mean, std):
    return (((mean - base_mean) / std) ** 2).flatten(1).mean(1)


def kl_with_deviation(mean, base_mean, std):
    return ((mean - base_mean) ** 2 / (2 * std)).flatten(1).mean(1)


def kl_without_deviation(mean, base_mean, std):
    return (0.5 * (mean - base_mean) ** 2).flatten(1).mean(1)


def kl_summed(mean, base_mean, std):
    return (0.5 * ((mean - base_mean) / std) ** 2).flatten(1).sum(1)


def kl_one_number(mean, base_mean, std):
    return (0.5 * ((mean - base_mean) / std) ** 2).mean()


def kl_to_a_constant(mean, base_mean, std):
    return (0.5 * ((mean - base_mean.detach()) / std) ** 2).flatten(1).mean(1)


# 10.8


def lora_without_rank(x, weight, bias, down, up, alpha):
    return F.linear(x, weight, bias) + alpha * F.linear(F.linear(x, down), up)


def lora_without_scale(x, weight, bias, down, up, alpha):
    return F.linear(x, weight + up @ down, bias)


def lora_alone(x, weight, bias, down, up, alpha):
    return alpha / down.shape[0] * F.linear(x, up @ down)


def lora_without_bias(x, weight, bias, down, up, alpha):
    return F.linear(x, weight + alpha / down.shape[0] * up @ down)


def lora_with_root(x, weight, bias, down, up, alpha):
    return F.linear(x, weight + alpha / down.shape[0] ** 0.5 * up @ down, bias)


def lora_detached(x, weight, bias, down, up, alpha):
    return F.linear(x, weight + (alpha / down.shape[0] * up @ down).detach(), bias)


MUTANTS = {
    "10.1": [
        Mutant("switches gradients off", draw_with_no_grad, "cut from its mean"),
        Mutant("draws by itself", draw_by_torch, "noise of your own"),
        Mutant("stretches by the variance", draw_with_variance, "by the variance"),
        Mutant("does not stretch", draw_without_deviation, "stretch it by `std`"),
        Mutant("stretches the mean", draw_stretched, "Stretch the noise only"),
        Mutant("fixes the mean", draw_with_fixed_mean, "Only the deviation has a gradient"),
    ],
    "10.2": [
        Mutant("has no gradient", unroll_without_gradient, "No step has a gradient"),
        Mutant("has all gradients", unroll_with_all, "Every step has a gradient"),
        Mutant("cuts one late", unroll_one_late, "Off by one"),
        Mutant("turns it round", unroll_turned, "Turned round"),
        Mutant("takes first for a count", unroll_last_ones, "not how many"),
        Mutant("cuts everywhere", unroll_cut_everywhere, "You cut between all steps"),
        Mutant("detaches in place of switching off", unroll_detached_late, "its price is not"),
    ],
    "10.3": [
        Mutant("leaps to the noise", leap_to_the_noise, "That is the noise x1"),
        Mutant("goes the wrong way", leap_away, "Go against it"),
        Mutant("goes the whole length", leap_of_one, "the distance to go is sigma"),
        Mutant("goes the rest of the length", leap_too_short, "What is left to go is sigma"),
        Mutant("cuts the velocity", leap_without_velocitys_gradient, "No gradient reaches the velocity"),
    ],
    "10.4": [
        Mutant("takes the hinge of the mean", hinge_of_the_mean, "must not excuse a bad one"),
        Mutant("has no hinge", hinge_without_end, "Nothing stops"),
        Mutant("turns the sign", hinge_turned, "*below* enough"),
        Mutant("sums", hinge_summed, "do not sum"),
        Mutant("squares", hinge_squared, "Not squared"),
        Mutant("divides by the bad ones", hinge_of_the_bad, "also those that are good enough"),
    ],
    "10.5": [
        Mutant("ignores what comes from behind", backward_of_a_sum, "You ignore the gradient"),
        Mutant("weighs afterwards", backward_weighed_late, "Afterwards it is too late"),
        Mutant("takes the mean", backward_of_a_mean, "a mean makes every gradient too small"),
        Mutant("forgets the parameters", backward_of_the_state, "share of the training is lost"),
        Mutant("leaves gradients off", backward_without_gradients, "On the way back gradients are off"),
        Mutant("returns None", backward_with_none, "`torch.autograd.grad` takes allow_unused"),
        Mutant("writes into .grad", backward_into_grad, "in place of `.backward()`"),
    ],
    "10.6": [
        Mutant("never takes the first", cut_from_one, "numbers of steps begin at 0"),
        Mutant("cuts after the last", cut_beyond, "Sometimes no step at all"),
        Mutant("never cuts before the last", cut_never_last, "never has a gradient alone"),
        Mutant("takes one step", cut_of_one_step, "from the cut to the end"),
        Mutant("draws from a global source", cut_globally, "global source, so that no run"),
        Mutant("does not draw", cut_fixed, "a fixed cut is DRaFT-K"),
    ],
    "10.7": [
        Mutant("forgets the half", kl_without_half, "A factor is off"),
        Mutant("divides by the deviation", kl_with_deviation, "not by 2 std"),
        Mutant("forgets the deviation", kl_without_deviation, "in units of the noise"),
        Mutant("sums", kl_summed, "not the sum"),
        Mutant("averages the batch too", kl_one_number, "Return one number a sample"),
        Mutant("takes the base for a constant", kl_to_a_constant, "do not detach it"),
    ],
    "10.8": [
        Mutant("forgets the rank", lora_without_rank, "not by alpha: ranks"),
        Mutant("forgets the scale", lora_without_scale, "no scale at all"),
        Mutant("forgets the frozen layer", lora_alone, "is *added* to it"),
        Mutant("forgets the bias", lora_without_bias, "bias is missing"),
        Mutant("takes the root", lora_with_root, "another paper's scale"),
        Mutant("detaches", lora_detached, "detach neither factor"),
    ],
}
