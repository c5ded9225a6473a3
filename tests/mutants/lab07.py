"""Wrong answers to lab 07, each as a student might write it; its check must refuse it with this hint."""

import math

import torch

from pixelpolicy.course.proof import Mutant

# 7.1


def sde_with_turned_score(x, velocity, sigma, sigma_next, g):
    score = (x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score / 2) * dt, g * (-dt) ** 0.5


def sde_without_half(x, velocity, sigma, sigma_next, g):
    score = -(x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score) * dt, g * (-dt) ** 0.5


def sde_without_correction(x, velocity, sigma, sigma_next, g):
    dt = sigma_next - sigma
    return x + velocity * dt, g * (-dt) ** 0.5


def sde_with_plain_g(x, velocity, sigma, sigma_next, g):
    score = -(x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g * score / 2) * dt, g * (-dt) ** 0.5


def sde_with_noise_for_score(x, velocity, sigma, sigma_next, g):
    score = -(x + (1 - sigma) * velocity)
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score / 2) * dt, g * (-dt) ** 0.5


def sde_without_root(x, velocity, sigma, sigma_next, g):
    score = -(x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score / 2) * dt, g * -dt


def sde_with_variance(x, velocity, sigma, sigma_next, g):
    score = -(x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score / 2) * dt, -dt * g**2


def sde_with_root_of_dt(x, velocity, sigma, sigma_next, g):
    score = -(x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score / 2) * dt, g * torch.sqrt(dt)


def sde_detached(x, velocity, sigma, sigma_next, g):
    velocity = velocity.detach()
    score = -(x + (1 - sigma) * velocity) / sigma
    dt = sigma_next - sigma
    return x + (velocity - g**2 * score / 2) * dt, g * (-dt) ** 0.5


# 7.2


def density_of_all_noisy(sigmas, stds):
    return stds != 0


def density_by_level_alone(sigmas, stds):
    return torch.stack([s > 0 for s in sigmas[1:]])


def density_without_the_last(sigmas, stds):
    mask = stds > 0
    mask[-1] = False
    return mask


def density_as_indices(sigmas, stds):
    return torch.tensor([t for t in range(len(stds)) if stds[t] > 0 and sigmas[t + 1] > 0])


def density_as_numbers(sigmas, stds):
    return ((stds > 0) & (sigmas[1:] > 0)).float()


def density_of_either(sigmas, stds):
    return torch.logical_or(stds > 0, sigmas[1:] > 0)


# 7.3


def log_density(x, mean, std):
    return torch.distributions.Normal(mean, std).log_prob(x).flatten(1).sum(1)


def own_noise(mean, streams):
    return torch.stack([torch.randn(mean.shape[1:], generator=stream) for stream in streams])


def roll_out_judging_unrounded(step, start, noisy, streams, dtype):
    states, log_probs = [start.to(dtype)], []
    for t in range(len(noisy)):
        mean, std = step(states[-1].float(), t)
        if noisy[t]:
            x = mean + std * own_noise(mean, streams)
            log_probs.append(log_density(x, mean, std))
        else:
            x = mean
            log_probs.append(torch.full((len(x),), float("nan")))
        states.append(x.to(dtype))
    return torch.stack(states, dim=1), torch.stack(log_probs, dim=1)


def roll_out_going_on_unrounded(step, start, noisy, streams, dtype):
    x = start.to(dtype).float()
    states, log_probs = [x.to(dtype)], []
    for t in range(len(noisy)):
        mean, std = step(x, t)
        x = mean + std * own_noise(mean, streams) if noisy[t] else mean
        states.append(x.to(dtype))
        nothing = torch.full((len(x),), float("nan"))
        log_probs.append(log_density(states[-1].float(), mean, std) if noisy[t] else nothing)
    return torch.stack(states, dim=1), torch.stack(log_probs, dim=1)


def rolled(noise=None, empty=float("nan"), judged=1, scale=1.0, always=False, spread=True):
    def roll_out(step, start, noisy, streams, dtype):
        states, log_probs = [start.to(dtype)], []
        for t in range(len(noisy)):
            mean, std = step(states[-1].float(), t)
            drawn = (noise or own_noise)(mean, streams) if noisy[t] or always else 0
            if noisy[t]:
                states.append((mean + (std if spread else 1) * drawn).to(dtype))
                log_probs.append(log_density(states[t + judged].float(), mean, std) * scale / scale)
                if scale != 1:
                    log_probs[-1] = log_probs[-1] / mean[0].numel()
            else:
                states.append(mean.to(dtype))
                log_probs.append(torch.full((len(mean),), empty))
        return torch.stack(states, dim=1), torch.stack(log_probs, dim=1)

    return roll_out


def first_stream(mean, streams):
    return torch.randn(mean.shape, generator=streams[0])


# 7.4


def ratio_walking_by_itself(step, states, noisy, log_probs):
    x, total = states[:, 0].float(), 0
    for t in range(len(noisy)):
        mean, std = step(x, t)
        x = mean
        if noisy[t]:
            total = total + log_density(states[:, t + 1].float(), mean, std) - log_probs[:, t]
    return total


def replayed(steps=None, at=1, turned=False, finish=lambda terms: terms.sum(0), change=lambda mean: mean):
    def log_ratio(step, states, noisy, log_probs):
        terms = []
        for t in steps(noisy) if steps else noisy.nonzero().flatten().tolist():
            mean, std = step(states[:, t].float(), t)
            new = log_density(states[:, t + at].float(), change(mean), std)
            terms.append(log_probs[:, t] - new if turned else new - log_probs[:, t])
        return finish(torch.stack(terms))

    return log_ratio


# 7.5


def others(rewards):
    count = len(rewards)
    return torch.stack([(rewards.sum() - r) / (count - 1) for r in rewards])


def loss_without_baseline(log_probs, rewards):
    return -(rewards.detach() * log_probs).mean()


def loss_with_batch_mean(log_probs, rewards):
    return -((rewards - rewards.mean()).detach() * log_probs).mean()


def loss_normalised(log_probs, rewards):
    spread = torch.sqrt(((rewards - rewards.mean()) ** 2).mean())
    return -(((rewards - rewards.mean()) / (spread + 1e-4)).detach() * log_probs).mean()


def loss_climbing(log_probs, rewards):
    return ((rewards - others(rewards)).detach() * log_probs).mean()


def loss_summed(log_probs, rewards):
    return -((rewards - others(rewards)).detach() * log_probs).sum()


def loss_through_rewards(log_probs, rewards):
    return -((rewards - others(rewards)) * log_probs).mean()


def loss_of_probabilities(log_probs, rewards):
    return -((rewards - others(rewards)).detach() * torch.exp(log_probs)).mean()


def loss_per_sample(log_probs, rewards):
    return -(rewards - others(rewards)).detach() * log_probs


# 7.6


def ddim(
    share=lambda s: (1 - s) ** 2 / ((1 - s) ** 2 + s**2),
    mean_scale=lambda s: torch.sqrt((1 - s) ** 2 + s**2),
    std_scale=lambda s: torch.sqrt((1 - s) ** 2 + s**2),
    room=True,
    turned=False,
    power=2,
    root=True,
):
    def step(x, velocity, sigma, sigma_next, eta):
        picture = x - sigma * velocity
        noise = x + (1 - sigma) * velocity
        before, after = share(sigma), share(sigma_next)
        odds = (1 - before) / (1 - after) if turned else (1 - after) / (1 - before)
        variance = eta**power * odds * (1 - before / after)
        left = 1 - after - (variance if room else 0)
        mean = torch.sqrt(after) * picture + torch.sqrt(torch.clamp(left, min=0)) * noise
        return mean * mean_scale(sigma_next), (variance**0.5 if root else variance) * std_scale(sigma_next)

    return step


def ddim_rounded_below_zero(x, velocity, sigma, sigma_next, eta):
    mean, std = ddim()(x, velocity, sigma, sigma_next, eta)
    return (mean * math.nan, std) if sigma == 1 else (mean, std)


def unscaled(s):
    return torch.ones(())


MUTANTS = {
    "7.1": [
        Mutant("turns the score", sde_with_turned_score, "sign of the score"),
        Mutant("forgets the half", sde_without_half, "factor 1/2"),
        Mutant("corrects nothing", sde_without_correction, "take none away"),
        Mutant("takes g for its square", sde_with_plain_g, "square of g"),
        Mutant("takes the noise for the score", sde_with_noise_for_score, "the division is missing"),
        Mutant("scales noise with time", sde_without_root, "Variances add up over time"),
        Mutant("returns the variance", sde_with_variance, "You return the variance"),
        Mutant("takes the root of dt", sde_with_root_of_dt, "has no square root"),
        Mutant("detaches", sde_detached, "Do not detach"),
    ],
    "7.2": [
        Mutant("keeps the last step", density_of_all_noisy, "would stay in the picture"),
        Mutant("looks at levels only", density_by_level_alone, "You look at the noise levels only"),
        Mutant("always drops the last", density_without_the_last, "whatever its level"),
        Mutant("returns indices", density_as_indices, "You return the numbers of the steps"),
        Mutant("returns numbers", density_as_numbers, "tensor of dtype bool"),
        Mutant("joins by or", density_of_either, "both must hold"),
    ],
    "7.3": [
        Mutant("judges the unrounded state", roll_out_judging_unrounded, "before it is rounded"),
        Mutant("goes on unrounded", roll_out_going_on_unrounded, "starts from the unrounded state"),
        Mutant("draws noise of size 1", rolled(spread=False), "multiply it by std"),
        Mutant("draws at every step", rolled(always=True), "moves the streams on"),
        Mutant("draws from one stream", rolled(noise=first_stream), "from the first stream"),
        Mutant("puts 0 for no density", rolled(empty=0.0), "not a number that a sum would swallow"),
        Mutant("judges the state before", rolled(judged=0), "the state the step came from"),
        Mutant("averages", rolled(scale=2.0), "You average over the dimensions"),
    ],
    "7.4": [
        Mutant("walks by itself", ratio_walking_by_itself, "walk by itself"),
        Mutant("judges the state before", replayed(at=0), "You judge states[:, t]"),
        Mutant("adds up every step", replayed(steps=lambda noisy: range(len(noisy))), "nan with them"),
        Mutant("turns the ratio", replayed(turned=True), "New over old"),
        Mutant("averages over steps", replayed(finish=lambda terms: terms.mean(0)), "not the mean"),
        Mutant("returns one number", replayed(finish=torch.sum), "one log-ratio a sample"),
        Mutant("returns the ratio", replayed(finish=lambda terms: terms.sum(0).exp()), "leave out the exponential"),
        Mutant("detaches", replayed(change=lambda mean: mean.detach()), "no gradient reaches the policy"),
    ],
    "7.5": [
        Mutant("has no baseline", loss_without_baseline, "Unbiased, but noisy"),
        Mutant("counts its own reward", loss_with_batch_mean, "(n - 1) / n"),
        Mutant("divides by the deviation", loss_normalised, "no longer unbiased"),
        Mutant("turns the sign", loss_climbing, "would lower the reward"),
        Mutant("sums", loss_summed, "a sum grows with the batch"),
        Mutant("differentiates the reward", loss_through_rewards, "A gradient flows into the rewards"),
        Mutant("weighs probabilities", loss_of_probabilities, "You weigh probabilities"),
        Mutant("does not average", loss_per_sample, "Return one number"),
    ],
    "7.6": [
        Mutant("does not carry back", ddim(mean_scale=unscaled, std_scale=unscaled), "in DDIM's units"),
        Mutant("carries back the mean alone", ddim(std_scale=unscaled), "the deviation is not"),
        Mutant("takes 1 - sigma for the share", ddim(share=lambda s: 1 - s), "not 1 - sigma alone"),
        Mutant("does not divide the share", ddim(share=lambda s: (1 - s) ** 2), "abar is a share: divide"),
        Mutant("makes no room", ddim(room=False), "Fresh noise is added"),
        Mutant("turns the quotient", ddim(turned=True), "first quotient is turned over"),
        Mutant("returns the variance", ddim(root=False), "You return the variance"),
        Mutant("does not square eta", ddim(power=1), "eta scales the deviation"),
        Mutant("makes NaN at sigma 1", ddim_rounded_below_zero, "clamp_min(0) before it"),
    ],
}
