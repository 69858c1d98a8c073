"""Writes errors as sentences for people."""

from __future__ import annotations

from collections.abc import Callable

import sage_client as sage
from sage_wire.connection_failures import in_words


def sentence(error: sage.SageError, *, name_of: Callable[[str], str] = str) -> str:
    """Return the error on one line, with every invalid field and the time after which to retry.

    ``name_of`` returns what people call a field of the contract, such as the flag that sets it.
    """
    text = error.message
    if isinstance(error, sage.InvalidRequestError) and error.violations:
        text = "; ".join(f"{name_of(v.field)}: {v.description}" for v in error.violations)
    if isinstance(error, sage.TlsRequiredError):
        text = (
            f"{error.address} is not a loopback address and needs TLS: give a certificate authority (--tls-ca), use "
            "the system's (--tls), or allow a connection without TLS (--insecure)"
        )
    text = in_words(text)
    if isinstance(error, sage.TryAgainError) and error.retry_after_s is not None:
        text += f" (try again in {error.retry_after_s:.1f} s)"
    return " ".join(text.split())
