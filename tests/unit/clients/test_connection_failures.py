"""Why there is no connection, without what gRPC says around it."""

from __future__ import annotations

import pytest

from sage_wire.connection_failures import in_words

ALL = "failed to connect to all addresses; last error: "
SSL = "SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"


@pytest.mark.parametrize(
    ("details", "said"),
    [
        (f"{ALL}UNKNOWN: ipv4:1.2.3.4:5: Failed to connect to remote host: Connection refused", "connection refused"),
        (f"{ALL}UNAVAILABLE: ipv4:1.2.3.4:5: Socket closed", "socket closed"),
        (
            f"{ALL}UNKNOWN: ipv4:1.2.3.4:5: Tls handshake failed (TSI_PROTOCOL_FAILURE): "
            f"{SSL}CERTIFICATE_VERIFY_FAILED: certificate has expired: OK",
            "its certificate is not accepted: certificate has expired",
        ),
        (
            f"Tls handshake failed (TSI_PROTOCOL_FAILURE): {SSL}WRONG_VERSION_NUMBER: Invalid certificate verification",
            "it does not answer with TLS",
        ),
        (
            "Failed to create security handshaker.",
            "the file of the certificate authority, or that of the own certificate or key, holds none",
        ),
        ("anything else", "anything else"),
    ],
)
def test_the_cause_is_told(details: str, said: str) -> None:
    assert in_words(details) == said
