"""The course's own small generators: standard diffusers components, their training recipes, their checkpoints."""

from pixelpolicy.generators.checkpoint import load, save

__all__ = ["load", "save"]
