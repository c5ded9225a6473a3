"""What turns solved labs into labs, checks what a student writes, and runs, records and counts.

A lab imports `check` and `catch_up` from here. They load late, so that `pixelpolicy status` need not import torch.
"""

from __future__ import annotations

from typing import Any

__all__ = ["catch_up", "check"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pixelpolicy.course import checking

    return getattr(checking, name)
