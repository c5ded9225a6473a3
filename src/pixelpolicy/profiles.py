"""The profile of a run: how much of it there is. PIXELPOLICY_PROFILE and PIXELPOLICY_SEED are read here alone."""

from __future__ import annotations

import os
from typing import Literal, TypeVar, get_args

from pixelpolicy.errors import ProfileError

Profile = Literal["smoke", "cpu", "gpu"]
PROFILES: tuple[Profile, ...] = get_args(Profile)
VARIABLE = "PIXELPOLICY_PROFILE"

Value = TypeVar("Value")


def named(name: str) -> Profile:
    """The profile called `name`; ProfileError with the choices where there is none."""
    if name not in PROFILES:
        raise ProfileError(f"there is no profile {name!r}: set {VARIABLE} to one of {', '.join(PROFILES)}, or unset it")
    return name


def profile() -> Profile:
    """The profile of this process: `smoke`, `cpu` or `gpu`.

    It is what PIXELPOLICY_PROFILE says; unset or empty, it is `gpu` where CUDA is there and `cpu` elsewhere.
    Raises ProfileError where the variable names no profile.
    """
    if name := os.environ.get(VARIABLE, "").strip():
        return named(name)
    return "gpu" if _cuda() else "cpu"


def real_model() -> bool:
    """Whether this profile takes the code path of a real pretrained model: the profile `gpu`, on whatever machine."""
    return profile() == "gpu"


def rehearsing() -> bool:
    """Whether the profile is `gpu` on a machine without CUDA.

    A rehearsal goes the way of the real model from end to end, with its tiny random twin and the counts of `smoke`: it
    shows that a lab runs, and its numbers mean nothing.
    """
    return real_model() and not _cuda()


def choose(*, smoke: Value, cpu: Value, gpu: Value) -> Value:
    """The value for this profile, as in `iterations = choose(smoke=2, cpu=60, gpu=500)`; in a rehearsal, smoke's."""
    return {"smoke": smoke, "cpu": cpu, "gpu": smoke if rehearsing() else gpu}[profile()]


def _cuda() -> bool:
    import torch  # late, so that a profile that asks for nothing costs no import

    return torch.cuda.is_available()


def seed() -> int:
    """The seed of this run: PIXELPOLICY_SEED, or 0. Raises ProfileError where that is no whole number."""
    given = os.environ.get("PIXELPOLICY_SEED", "").strip() or "0"
    if not given.isdecimal():
        raise ProfileError(f"PIXELPOLICY_SEED is {given!r}: set it to a whole number from 0 on, or unset it")
    return int(given)
