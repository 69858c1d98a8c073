"""Makes gRPC credentials from PEM files and from the token file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from sage_common.tls import UnreadableFile, read_pem
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
