"""Makes gRPC credentials from PEM files and from the token file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from sage_common.tls import ReloadedTls, TlsFiles, UnreadableFile, read_pem
from sage_wire.metadata import AUTHORIZATION


class UnusableToken(Exception):
    """The token file holds no token; one sentence that names it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DialCredentials:
    """The files with which a scheduler is dialled.  They are read at every dial, so that they may change."""

    ca: Path | None = None  # of the authority that signed the scheduler's certificate; None: no TLS
    certificate: Path | None = None
    private_key: Path | None = None
    token_file: Path | None = None

    def channel(self) -> grpc.ChannelCredentials | None:
        """Return what verifies the scheduler and presents the certificate, if there is one; None for no TLS.

        Raises:
            UnreadableFile: a file cannot be read.
        """
        if self.ca is None:
            return None
        return grpc.ssl_channel_credentials(
            root_certificates=read_pem(self.ca),
            private_key=None if self.private_key is None else read_pem(self.private_key),
            certificate_chain=None if self.certificate is None else read_pem(self.certificate),
        )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call that says who calls; empty without a token file.

        Raises:
            UnreadableFile: the file cannot be read.
            UnusableToken: it is empty, or holds what no header can.
        """
        if self.token_file is None:
            return ()
        token = read_pem(self.token_file).strip().decode("ascii", errors="replace")
        if not token or not (token.isascii() and token.isprintable()):
            raise UnusableToken(f"{self.token_file} holds no token")
        return ((AUTHORIZATION, f"Bearer {token}"),)


UNUSABLE = (UnreadableFile, UnusableToken)
"""What DialCredentials raise."""


def listen_credentials(tls: ReloadedTls) -> grpc.ServerCredentials:
    """Return credentials of a listener that use ``tls.current`` for every new handshake."""
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
    return grpc.dynamic_ssl_server_credentials(_configuration(given), fetch)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(files.private_key, files.certificate)])
