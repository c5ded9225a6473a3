"""Reinforcement learning as pure functions on tensors: what CartPole and a video generator have in common."""

from pixelpolicy.rl.advantages import CONVENTIONS, group_advantages, zero_variance_groups
from pixelpolicy.rl.log_probs import categorical_log_prob, gaussian_log_prob
from pixelpolicy.rl.losses import clip_fraction, clipped_surrogate, gaussian_kl, policy_gradient_loss, reward_weights
from pixelpolicy.rl.oracles import chain_distribution, exact_kl, exact_policy_gradient, tilted, tilted_mixture
from pixelpolicy.rl.preferences import bradley_terry_loss, dpo_loss
from pixelpolicy.rl.records import Policy, Rollout
from pixelpolicy.rl.returns import discounted_returns, gae
from pixelpolicy.rl.reward import Reward

__all__ = [
    "CONVENTIONS",
    "Policy",
    "Reward",
    "Rollout",
    "bradley_terry_loss",
    "categorical_log_prob",
    "chain_distribution",
    "clip_fraction",
    "clipped_surrogate",
    "discounted_returns",
    "dpo_loss",
    "exact_kl",
    "exact_policy_gradient",
    "gae",
    "gaussian_kl",
    "gaussian_log_prob",
    "group_advantages",
    "policy_gradient_loss",
    "reward_weights",
    "tilted",
    "tilted_mixture",
    "zero_variance_groups",
]
