"""Transitions against formulas written anew, diffusers' DDIM step, and flows that are known exactly."""

import math
from functools import partial

import pytest
import torch

from pixelpolicy.policies import cps, dance_sde, ddim_eta, endpoints, flow_sde, ode

LEVELS = [(1.0, 0.96), (0.95, 0.7), (0.6, 0.55), (0.3, 0.05), (0.1, 0.0)]
ALL = {"ode": ode, "flow_sde": flow_sde, "dance_sde": dance_sde, "cps": cps, "ddim_eta": ddim_eta}
NOISY = {name: transition for name, transition in ALL.items() if name != "ode"}
TIGHT = {"rtol": 0, "atol": 1e-10}


def number(value):
    return torch.tensor(value, dtype=torch.float64)


def inputs(seed=0, dtype=torch.float64):
    stream = torch.Generator().manual_seed(seed)
    x, velocity = torch.randn(2, 5, 4, 3, 3, generator=stream, dtype=torch.float64).to(dtype)
    return x, velocity


# Formulas of the papers, with plain numbers: each returns the coefficients (of x, of the velocity) and the std.


def sde_formula(sigma, following, g):
    dt = following - sigma
    # score = -(x + (1 - sigma) v) / sigma, and mean = x + (v - g^2 score / 2) dt
    of_x = 1 + g**2 / (2 * sigma) * dt
    of_velocity = (1 + g**2 * (1 - sigma) / (2 * sigma)) * dt
    return of_x, of_velocity, g * math.sqrt(-dt)


def flow_formula(sigma, following, a):
    denominator = 1 - following if sigma == 1 else 1 - sigma
    return sde_formula(sigma, following, a * math.sqrt(sigma / denominator))


def cps_formula(sigma, following, a):
    std = following * math.sin(a * math.pi / 2)
    kept = following * math.cos(a * math.pi / 2)  # sqrt(following^2 - std^2)
    return (1 - following) + kept, -(1 - following) * sigma + kept * (1 - sigma), std


def ddim_formula(sigma, following, eta):
    scale, scale_next = math.hypot(1 - sigma, sigma), math.hypot(1 - following, following)
    abar, abar_next = ((1 - sigma) / scale) ** 2, ((1 - following) / scale_next) ** 2
    std = eta * math.sqrt((1 - abar_next) / (1 - abar) * (1 - abar / abar_next))
    of_x0, of_eps = math.sqrt(abar_next), math.sqrt(max(1 - abar_next - std**2, 0))
    if sigma == 1:  # the difference cancels; abar = 0 leaves (1 - eta^2)(1 - abar_next) of it
        of_eps = math.sqrt((1 - eta**2) * (1 - abar_next))
    of_x = (of_x0 + of_eps) * scale_next
    return of_x, (-of_x0 * sigma + of_eps * (1 - sigma)) * scale_next, std * scale_next


FORMULAS = [
    ("ode", {}, lambda s, f: (1.0, f - s, 0.0)),
    *[("flow_sde", {"noise": a}, partial(flow_formula, a=a)) for a in (0.3, 0.7, 1.0)],
    *[("dance_sde", {"noise": a}, partial(sde_formula, g=a)) for a in (0.25, 0.3)],
    *[("cps", {"noise": a}, partial(cps_formula, a=a)) for a in (0.2, 0.8, 1.0)],
    *[("ddim_eta", {"noise": a}, partial(ddim_formula, eta=a)) for a in (0.5, 1.0)],
]
IDS = [f"{name}-{settings.get('noise', '')}" for name, settings, _ in FORMULAS]


@pytest.mark.parametrize("sigma, following", LEVELS)
@pytest.mark.parametrize("name, settings, formula", FORMULAS, ids=IDS)
def test_a_step_and_its_gradient_follow_the_published_formula(name, settings, formula, sigma, following):
    x, velocity = inputs()
    velocity.requires_grad_(True)
    mean, std = ALL[name](x, velocity, number(sigma), number(following), **settings)
    of_x, of_velocity, spread = formula(sigma, following)
    torch.testing.assert_close(mean, of_x * x + of_velocity * velocity, **TIGHT)
    torch.testing.assert_close(torch.as_tensor(std, dtype=torch.float64), number(spread), **TIGHT)
    cotangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(mean, velocity, cotangent)
    torch.testing.assert_close(gradient, of_velocity * cotangent, **TIGHT)


@pytest.mark.parametrize("name, settings, formula", FORMULAS, ids=IDS)
def test_float32_stays_float32_and_close(name, settings, formula):
    x, velocity = inputs(dtype=torch.float32)
    for levels in LEVELS:
        sigma, following = torch.tensor(levels)
        mean, std = ALL[name](x, velocity, sigma, following, **settings)
        of_x, of_velocity, spread = formula(float(sigma), float(following))
        assert mean.dtype == torch.float32
        exact = of_x * x.double() + of_velocity * velocity.double()
        torch.testing.assert_close(mean.double(), exact, rtol=1e-6, atol=1e-6 * max(1, abs(of_x)))
        assert float(std) == pytest.approx(spread, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("name", ALL)
def test_noise_levels_may_differ_within_a_batch(name):
    x, velocity = inputs()
    sigma, following = (number(column).view(5, 1, 1, 1) for column in zip(*LEVELS, strict=True))
    mean, std = ALL[name](x, velocity, sigma, following)
    for row, (s, f) in enumerate(LEVELS):
        one_mean, one_std = ALL[name](x[row], velocity[row], number(s), number(f))
        torch.testing.assert_close(mean[row], one_mean, **TIGHT)
        spread = torch.as_tensor(std).expand(5, 1, 1, 1)[row].squeeze()
        torch.testing.assert_close(spread, one_std.reshape(()).to(spread.dtype), **TIGHT)


def test_endpoints_are_the_picture_and_the_noise_of_a_straight_path():
    picture, noise = inputs(3)
    for sigma in (1.0, 0.4, 0.0):
        x0, x1 = endpoints((1 - sigma) * picture + sigma * noise, noise - picture, number(sigma))
        torch.testing.assert_close(x0, picture, **TIGHT)
        torch.testing.assert_close(x1, noise, **TIGHT)


@pytest.mark.parametrize("sigma, following", LEVELS)
@pytest.mark.parametrize("name", NOISY)
def test_without_noise_every_step_is_the_ode_step(name, sigma, following):
    x, velocity = inputs()
    mean, std = NOISY[name](x, velocity, number(sigma), number(following), noise=0.0)
    torch.testing.assert_close(mean, x + (following - sigma) * velocity, **TIGHT)
    assert float(std) == 0


@pytest.mark.parametrize("a", [0.3, 0.7])
@pytest.mark.parametrize("sigma, following", LEVELS[1:])
def test_dance_with_flows_coefficient_is_flow_sde(a, sigma, following):
    x, velocity = inputs()
    eta = a * math.sqrt(sigma / (1 - sigma))
    mean, std = dance_sde(x, velocity, number(sigma), number(following), noise=eta)
    flow_mean, flow_std = flow_sde(x, velocity, number(sigma), number(following), noise=a)
    torch.testing.assert_close(mean, flow_mean, **TIGHT)
    torch.testing.assert_close(std, flow_std, **TIGHT)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flow_sde_is_finite_at_the_first_step_and_replaces_the_denominator_only(dtype):
    x, velocity = inputs(dtype=dtype)
    sigma, following = torch.ones((), dtype=dtype), torch.tensor(0.9, dtype=dtype)
    mean, std = flow_sde(x, velocity, sigma, following, noise=0.7)
    assert mean.isfinite().all() and std.isfinite()
    # g^2 = 0.49 * 1 / (1 - 0.9); were the numerator replaced as well it would be 0.9 times that.
    assert float(std) == pytest.approx(0.7 * math.sqrt(1 / 0.1) * math.sqrt(0.1), rel=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_ddim_at_eta_1_draws_all_noise_anew_at_the_first_step(dtype, tolerance):
    """From pure noise nothing of the old noise is kept: an exact zero that a difference of roots would miss."""
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for following in torch.linspace(0.05, 0.999, 50, dtype=dtype):
        # A picture of 0: the velocity is the noise itself.
        mean, std = ddim_eta(noise, noise, torch.ones((), dtype=dtype), following)
        assert mean.abs().max() <= tolerance
        assert float(std) == pytest.approx(float(following), abs=tolerance)


@pytest.mark.parametrize("name", ["ode", "cps", "ddim_eta"])
def test_the_step_to_the_picture_is_deterministic(name):
    x, velocity = inputs()
    for sigma in (1.0, 0.5, 0.01):
        mean, std = ALL[name](x, velocity, number(sigma), number(0.0))
        assert float(std) == 0
        torch.testing.assert_close(mean, x - sigma * velocity, **TIGHT)


# Against diffusers ------------------------------------------------------------------------------------------------


def ddim_scheduler(sigmas, **settings):
    """diffusers' DDIM on the flow's noise levels (falling, without the last 0), one training timestep a level."""
    from diffusers import DDIMScheduler

    rising = number(sorted(sigmas))
    abar = (1 - rising) ** 2 / ((1 - rising) ** 2 + rising**2)
    betas = 1 - abar / torch.cat([number([1.0]), abar[:-1]])
    scheduler = DDIMScheduler(
        num_train_timesteps=len(sigmas),
        trained_betas=betas.tolist(),
        prediction_type="epsilon",
        clip_sample=False,
        steps_offset=0,
        **settings,
    )
    torch.testing.assert_close(scheduler.alphas_cumprod.double(), abar, rtol=1e-5, atol=1e-6)
    scheduler.alphas_cumprod = abar  # the same numbers in float64
    if not scheduler.config.set_alpha_to_one:
        scheduler.final_alpha_cumprod = abar[0]
    scheduler.set_timesteps(len(sigmas))
    assert scheduler.timesteps.tolist() == list(range(len(sigmas)))[::-1]
    return scheduler


def ddim_step(scheduler, step, x_flow, velocity, sigma, eta, noise):
    x_vp = x_flow / math.hypot(1 - sigma, sigma)
    eps = x_flow + (1 - sigma) * velocity
    timestep = scheduler.timesteps[step]
    return scheduler.step(eps, timestep, x_vp, eta=eta, variance_noise=noise if eta > 0 else None).prev_sample


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim_eta_is_diffusers_ddim_step_in_other_variables(eta):
    sigmas = [0.97, 0.9, 0.8, 0.65, 0.45, 0.2, 0.07]
    scheduler = ddim_scheduler(sigmas, set_alpha_to_one=True)  # the flow ends at abar = 1, sigma = 0
    for step, (sigma, following) in enumerate(zip(sigmas, [*sigmas[1:], 0.0], strict=True)):
        x, velocity = inputs(step)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        mean, std = ddim_eta(x, velocity, number(sigma), number(following), noise=eta)
        theirs = ddim_step(scheduler, step, x, velocity, sigma, eta, noise) * math.hypot(1 - following, following)
        torch.testing.assert_close(mean + std * noise, theirs, **TIGHT)


def test_ddims_last_step_needs_the_schedulers_final_alpha():
    """Trap 4: with alpha at t = 0 in place of `final_alpha_cumprod` the last step does not reach the picture."""
    sigmas = [0.8, 0.4, 0.1]
    x, velocity = inputs()
    ours, _ = ddim_eta(x, velocity, number(0.1), number(0.0))
    right = ddim_step(ddim_scheduler(sigmas, set_alpha_to_one=True), 2, x, velocity, 0.1, 0.0, None)
    wrong = ddim_step(ddim_scheduler(sigmas, set_alpha_to_one=False), 2, x, velocity, 0.1, 0.0, None)
    torch.testing.assert_close(ours, right, **TIGHT)
    assert (ours - wrong).abs().max() > 0.05


# Marginals of flows known exactly ---------------------------------------------------------------------------------


def diffusers_sigmas(steps=10, shift=3.0):
    """diffusers' default schedule: the shift is applied to the training levels and again to those of inference."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(steps)
    return scheduler.sigmas.double()


def plain_sigmas(steps=10, shift=3.0):
    level = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return shift * level / (1 + (shift - 1) * level)


def marginals(transition, sigmas, centre, spread):
    """Means and stds along the sampler for data ``N(centre, spread^2)`` under the exact velocity.

    Velocity and step are affine in x, so two points tell a step's coefficients and the variance follows.
    """
    mean, variance = (1 - sigmas[0]) * centre, (1 - sigmas[0]) ** 2 * spread**2 + sigmas[0] ** 2
    found = []
    for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = number([0.0, 1.0])
        offset = x - (1 - sigma) * centre
        total = (1 - sigma) ** 2 * spread**2 + sigma**2
        velocity = sigma / total * offset - (centre + (1 - sigma) * spread**2 / total * offset)  # E[x1 - x0 | x]
        ends, std = transition(x, velocity, sigma, following)
        slope = ends[1] - ends[0]
        mean, variance = ends[0] + slope * mean, slope**2 * variance + torch.as_tensor(std).double() ** 2
        found.append((float(mean), float(variance.sqrt())))
    return found


def excess_noise(transition, sigmas):
    """For one picture: std of ``x - (1 - sigma) x0`` after each step over sigma, and the largest error of the mean."""
    steps = marginals(transition, sigmas, centre=0.5, spread=0.0)
    error = max(abs(m - (1 - float(s)) * 0.5) for (m, _), s in zip(steps, sigmas[1:], strict=True))
    return [std / float(sigma) for (_, std), sigma in zip(steps[:-1], sigmas[1:-1], strict=True)], error


def test_the_named_schedule_of_trap_5():
    assert [round(float(s), 4) for s in diffusers_sigmas()[-3:]] == [0.2780, 0.0089, 0.0]
    # The generator's own schedule is the plainly shifted one.
    assert plain_sigmas()[-2] == pytest.approx(0.25)


KEEPING = [ode, *(partial(cps, noise=a) for a in (0.3, 0.8, 1.0)), *(partial(ddim_eta, noise=a) for a in (0.5, 1.0))]


@pytest.mark.parametrize("schedule", [diffusers_sigmas, plain_sigmas])
@pytest.mark.parametrize("transition", KEEPING)
def test_cps_and_ddim_keep_the_noise_of_a_known_picture_at_every_step(transition, schedule):
    excess, error = excess_noise(transition, schedule())
    assert excess == pytest.approx([1.0] * 9, abs=1e-10)
    assert error < 1e-10
    assert marginals(transition, schedule(), 0.5, 0.0)[-1] == pytest.approx((0.5, 0.0), abs=1e-10)


@pytest.mark.parametrize(
    "transition, schedule, expected",
    [
        (partial(flow_sde, noise=0.7), diffusers_sigmas, 27.9),
        (partial(dance_sde, noise=0.3), diffusers_sigmas, 17.9),
        (partial(flow_sde, noise=0.7), plain_sigmas, 1.29),
        (partial(dance_sde, noise=0.3), plain_sigmas, 1.06),
    ],
)
def test_flow_and_dance_leave_the_marginal_when_steps_are_few(transition, schedule, expected):
    """Trap 5: the grain of SDE rollouts, residual noise over nominal after the 0-based step 8 of 10."""
    excess, error = excess_noise(transition, schedule())
    assert excess[8] == pytest.approx(expected, abs=0.05 if expected > 10 else 0.005)
    assert error < 1e-10  # the mean is right, the noise is not


def test_the_noise_of_a_rollout_is_what_the_closed_form_says():
    """The same by sampling: 20,000 one-dimensional trajectories to one known picture."""
    sigmas, picture = diffusers_sigmas(), 0.5
    stream = torch.Generator().manual_seed(0)
    for transition, expected in ((partial(flow_sde, noise=0.7), 27.9), (partial(cps, noise=0.8), 1.0)):
        x = torch.randn(20_000, generator=stream, dtype=torch.float64)
        for sigma, following in zip(sigmas[:9], sigmas[1:10], strict=True):
            mean, std = transition(x, (x - picture) / sigma, sigma, following)
            x = mean + std * torch.randn(len(x), generator=stream, dtype=torch.float64)
        ratio = (x - (1 - sigmas[9]) * picture).std() / sigmas[9]
        assert float(ratio) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("transition", [ode, flow_sde, dance_sde, ddim_eta], ids=["ode", "flow", "dance", "ddim"])
def test_with_many_steps_the_sampler_reaches_the_data(transition):
    """Data of spread 0.6: what is a sampler of the flow errs less and less as steps are added."""
    errors = []
    for steps in (10, 100, 1000):
        (mean, std) = marginals(transition, plain_sigmas(steps), 0.5, 0.6)[-1]
        assert mean == pytest.approx(0.5, abs=1e-10)
        errors.append(abs(std / 0.6 - 1))
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 0.01


def test_cps_narrows_spread_data_however_many_the_steps():
    """It draws a fixed share of the noise anew at every step, so more steps do not make it a sampler of the flow."""
    stds = [marginals(partial(cps, noise=0.8), plain_sigmas(n), 0.5, 0.6)[-1][1] / 0.6 for n in (10, 100, 1000)]
    assert stds == pytest.approx([0.646, 0.777, 0.803], abs=2e-3)
