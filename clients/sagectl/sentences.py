"""Writes errors as sentences for people."""

from __future__ import annotations

import sage_client as sage


def sentence(error: sage.SageError) -> str:
    """Return the error on one line, with every invalid field and the time after which to retry."""
    text = error.message
    if isinstance(error, sage.InvalidRequestError) and error.violations:
        text = "; ".join(f"{v.field}: {v.description}" for v in error.violations)
    if isinstance(error, sage.TryAgainError) and error.retry_after_s is not None:
        text += f" (try again in {error.retry_after_s:.1f} s)"
    return " ".join(text.split())
