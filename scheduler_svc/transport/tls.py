"""gRPC credentials of a listener whose certificate may change while it listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc

from sage_common.tls import ReloadedTls, TlsFiles


def listen_credentials(tls: ReloadedTls, *, clients_need_certificates: bool) -> grpc.ServerCredentials:
    """Return credentials that use ``tls.current`` for every new handshake."""
    given = tls.current

    def newer() -> grpc.ServerCertificateConfiguration | None:
        """Return the files if they are newer than what gRPC has.  gRPC calls it in a thread, once per handshake."""
        nonlocal given
        if given is tls.current:
            return None
        given = tls.current
        return _configuration(given)

    # The stubs leave out what the documentation says: None keeps what gRPC has.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", newer)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), fetch, require_client_authentication=clients_need_certificates
    )


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.private_key, files.certificate)], files.client_ca)
