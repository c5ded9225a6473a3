"""Procedural worlds: prompts, renderers and exact verifiers."""
