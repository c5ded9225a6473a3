"""A sampler seen as a policy: transitions, rollouts, and log-probabilities replayed."""

from pixelpolicy.policies.denoising import DenoisingPolicy, trajectory_kl
from pixelpolicy.policies.tokens import TokenPolicy, sequence_kl
from pixelpolicy.policies.transitions import cps, dance_sde, ddim_eta, endpoints, flow_sde, ode

__all__ = [
    "DenoisingPolicy",
    "TokenPolicy",
    "cps",
    "dance_sde",
    "ddim_eta",
    "endpoints",
    "flow_sde",
    "ode",
    "sequence_kl",
    "trajectory_kl",
]
