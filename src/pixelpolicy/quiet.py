"""Diffusers and transformers without their advice and their progress bars."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the advice of diffusers and transformers to themselves for a while: errors alone are shown."""
    import diffusers
    import transformers

    loggers = [library.utils.logging for library in (diffusers, transformers)]
    levels = [logging.get_verbosity() for logging in loggers]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for logging in loggers:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
    try:
        yield
    finally:
        for logging, level in zip(loggers, levels, strict=True):
            logging.set_verbosity(level)
        if bars:
            for logging in loggers:
                logging.enable_progress_bar()
