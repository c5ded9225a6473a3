"""Reinforcement learning as pure functions on tensors: what CartPole and a video generator have in common."""

from pixelpolicy.rl.advantages import CONVENTIONS, group_advantages, zero_variance_groups
from pixelpolicy.rl.log_probs import categorical_log_prob, gaussian_log_prob
from pixelpolicy.rl.losses import clip_fraction, clipped_surrogate, gaussian_kl, policy_gradient_loss, reward_weights
from pixelpolicy.rl.oracles import chain_distribution, exact_kl, exact_policy_gradient, tilted, tilted_mixture
from pixelpolicy.rl.overoptimisation import (
    best_of_n_kl,
    early_stop,
    expected_best,
    explained_share,
    fit_goodhart,
    goodhart_curve,
    goodhart_peak,
)
from pixelpolicy.rl.preferences import bradley_terry_loss, dpo_loss
from pixelpolicy.rl.records import Policy, Rollout
from pixelpolicy.rl.returns import discounted_returns, gae
from pixelpolicy.rl.reward import Reward
from pixelpolicy.rl.tokens import token_advantages, token_kl, token_log_probs

__all__ = [
    "CONVENTIONS",
    "Policy",
    "Reward",
    "Rollout",
    "best_of_n_kl",
    "bradley_terry_loss",
    "categorical_log_prob",
    "chain_distribution",
    "clip_fraction",
    "clipped_surrogate",
    "discounted_returns",
    "dpo_loss",
    "early_stop",
    "exact_kl",
    "exact_policy_gradient",
    "expected_best",
    "explained_share",
    "fit_goodhart",
    "gae",
    "gaussian_kl",
    "gaussian_log_prob",
    "goodhart_curve",
    "goodhart_peak",
    "group_advantages",
    "policy_gradient_loss",
    "reward_weights",
    "tilted",
    "tilted_mixture",
    "token_advantages",
    "token_kl",
    "token_log_probs",
    "zero_variance_groups",
]
