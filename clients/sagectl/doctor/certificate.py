"""When a server's certificate ends."""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path

from sage_common.addresses import split_host_port

DAY_S = 86_400.0


class Unknown(Exception):
    """The certificate could not be read, or is not trusted."""


def days_left(address: str, ca: Path | None, certificate: Path | None, key: Path | None, *, timeout_s: float) -> float:
    """Return the days until the certificate of the server at ``address`` ends.

    ``ca``: file of the authority that signed it; None: the system's.  ``certificate`` and ``key``: of the client.

    Raises:
        Unknown: nobody answers, or the certificate is not trusted: it may have ended.
    """
    try:
        host, port = split_host_port(address)
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection((host, port), timeout=timeout_s) as connection,
            context.wrap_socket(connection, server_hostname=host) as secured,
        ):
            found = secured.getpeercert() or {}
        return (ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()) / DAY_S
    except (OSError, ValueError, KeyError) as error:
        raise Unknown(str(error)) from error
