"""gRPC credentials of a listener whose certificate may change while it listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import grpc


class Certificates(Protocol):
    """What the PEM files of a listener hold."""

    @property
    def certificate(self) -> bytes:
        """The listener's certificate, and those between it and its authority."""
        ...

    @property
    def private_key(self) -> bytes:
        """The certificate's private key."""
        ...

    @property
    def client_ca(self) -> bytes | None:
        """The authorities that sign clients' certificates; None: clients have none."""
        ...


def listener_credentials(
    current: Callable[[], Certificates], *, clients_need_certificates: bool = False
) -> grpc.ServerCredentials:
    """Return credentials that use what ``current`` returns for every new handshake.

    ``current`` returns the same object for as long as nothing changed.
    """
    given = current()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        """Return the files if they are newer than what gRPC has.  gRPC calls it in a thread, once per handshake."""
        nonlocal given
        latest = current()
        if given is latest:
            return None
        given = latest
        return _configuration(given)

    # The stubs leave out what the documentation says: None keeps what gRPC has.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", newer)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(given), fetch, require_client_authentication=clients_need_certificates
    )


def _configuration(files: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.private_key, files.certificate)], files.client_ca)
