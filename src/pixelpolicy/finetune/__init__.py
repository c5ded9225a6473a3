"""Fine-tuning generators by reward: one file a family of methods, and one loop for all."""

from pixelpolicy.finetune.grpo import GRPO, GRPOConfig, random_steps, window_steps
from pixelpolicy.finetune.loop import Loop, LoopConfig

__all__ = ["GRPO", "GRPOConfig", "Loop", "LoopConfig", "random_steps", "window_steps"]
