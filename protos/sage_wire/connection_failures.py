"""Why a connection cannot be made, in words: what gRPC says around its cause is left out."""

from __future__ import annotations

import re

_NOT_CONNECTED = re.compile(
    r"failed to connect to all addresses; last error: \w+: \S+: (?:Failed to connect to remote host: )?(?P<why>.+)"
)
_NOT_TRUSTED = re.compile(r"tls handshake failed \(\w+\): .*CERTIFICATE_VERIFY_FAILED: (?P<why>.+?)(?:: OK)?", re.I)
_NO_TLS = re.compile(r"tls handshake failed \(\w+\): .*WRONG_VERSION_NUMBER.*", re.I)
_NO_CERTIFICATE = re.compile(r"failed to create security handshaker\.?", re.I)


def in_words(details: str) -> str:
    """Return the cause that the details of a gRPC status name; other details as they are."""
    text = _NOT_CONNECTED.sub(lambda found: found["why"][:1].lower() + found["why"][1:], details)
    if found := _NOT_TRUSTED.fullmatch(text):
        return f"its certificate is not accepted: {found['why']}"
    if _NO_TLS.fullmatch(text):
        return "it does not answer with TLS"
    if _NO_CERTIFICATE.fullmatch(text):
        return "the file of the certificate authority, or that of the own certificate or key, holds none"
    return text
