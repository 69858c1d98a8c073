"""How the gateway reaches the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sage_client import DEFAULT_ADDRESS, AsyncClient, ConfigurationError, Reconnect

NOBODY = "no-key-was-given"
"""The token of callers that give none; a key is longer, and counts before a certificate."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionSettings:
    """Address of the scheduler and TLS files, for all clients of one gateway."""

    address: str = DEFAULT_ADDRESS
    tls: bool = False  # use TLS with the system's certificate authorities
    tls_ca: Path | None = None  # PEM file of the certificate authority of the scheduler's certificate; enables TLS
    tls_cert: Path | None = None  # PEM file of the gateway's client certificate
    tls_key: Path | None = None  # PEM file of its private key
    insecure: bool = False  # allow an address that is not loopback without TLS
    token_file: Path | None = None  # file with the bearer token of the gateway's own calls

    def own_client(self) -> AsyncClient:
        """Open a client for the gateway's own calls.  Raises ConfigurationError."""
        return self._client(self._own_token())

    def client_of(self, token: str) -> AsyncClient:
        """Open a client whose calls carry a caller's token, or none.  Raises ConfigurationError.

        Where the gateway has a client certificate, calls of callers without a token carry one that nobody has: the
        scheduler would take them for the gateway's own.
        """
        return self._client(token or (NOBODY if self.tls_cert is not None else ""))

    def _client(self, token: str | None) -> AsyncClient:
        return AsyncClient(
            self.address,
            tls=self.tls,
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            insecure=self.insecure,
            token=token,
            reconnect=Reconnect(),
        )

    def _own_token(self) -> str | None:
        """Return the token of the gateway's own calls; None for that of the environment variable."""
        if self.token_file is None:
            return None
        try:
            token = self.token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"cannot read the token file {self.token_file}: {error}") from error
        if not token:
            raise ConfigurationError(f"the token file {self.token_file} is empty")
        return token
