"""The course's own small generators: standard diffusers components, their training recipes, their checkpoints."""

from pixelpolicy.generators.checkpoint import load, save
from pixelpolicy.generators.evaluation import best_of, evaluate

__all__ = ["best_of", "evaluate", "load", "save"]
