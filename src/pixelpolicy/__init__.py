"""Reinforcement learning for visual generative models: a generator is a policy."""

__version__ = "0.8.0"
