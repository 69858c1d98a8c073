"""Opens gRPC channels to a scheduler."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from sage_client._errors import ConfigurationError, TlsRequiredError
from sage_client._trace import trace_metadata
from sage_common.addresses import check_address, is_loopback
from sage_wire.metadata import AUTHORIZATION
from sage_wire.protocol import MAX_MESSAGE_BYTES

DEFAULT_ADDRESS = "127.0.0.1:50051"

TOKEN_VARIABLE = "SAGE_TOKEN"
"""The environment variable with the bearer token of clients that are given none."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A broken stream reattaches within about a second, so gRPC must reconnect as fast.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A peer that vanished without closing the connection is detected within 30 s while a call runs.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The address of a scheduler and the credentials for it.

    Without TLS only a loopback address or a Unix socket is accepted, unless ``insecure`` is set.
    """

    address: str = DEFAULT_ADDRESS  # host:port or unix:path
    tls_ca: Path | None = (
        None  # PEM file of the certificate authority that signed the scheduler's certificate; enables TLS
    )
    tls: bool = False  # use TLS with the system's certificate authorities
    tls_cert: Path | None = None  # PEM file of the client certificate, if the scheduler requires one
    tls_key: Path | None = None  # PEM file of the client certificate's private key
    token: str | None = None  # bearer token; None: that of TOKEN_VARIABLE, if it is set; empty: none
    insecure: bool = False  # allow any address without TLS

    def open(self) -> grpc.aio.Channel:
        """Open a channel on the running event loop; it connects at its first call.

        Raises:
            ConfigurationError: the address, the token, a certificate file or their combination is invalid.
            TlsRequiredError: the address is not loopback, and neither TLS nor ``insecure`` is set.
        """
        _check_address(self.address)
        _check_token(self._bearer)
        if self.tls or self.tls_ca or self.tls_cert:
            return grpc.aio.secure_channel(self.address, self._credentials(), options=_OPTIONS)
        if not self.insecure and not is_loopback(self.address):
            raise TlsRequiredError(self.address)
        return grpc.aio.insecure_channel(self.address, options=_OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call: the token and the current trace context."""
        return self.authorization() + trace_metadata()

    def authorization(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata with the token; empty if there is none."""
        return ((AUTHORIZATION, f"Bearer {self._bearer}"),) if self._bearer else ()

    @property
    def _bearer(self) -> str:
        return os.environ.get(TOKEN_VARIABLE, "") if self.token is None else self.token

    def _credentials(self) -> grpc.ChannelCredentials:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("a client certificate needs its private key, and a private key its certificate")
        return grpc.ssl_channel_credentials(_read(self.tls_ca), _read(self.tls_key), _read(self.tls_cert))


def _read(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


def _check_token(token: str) -> None:
    if not (token.isascii() and token.isprintable()):
        raise ConfigurationError("the token holds characters that no header can: give it without line breaks")


def _check_address(address: str) -> None:
    try:
        check_address(address, lowest_port=1)
    except ValueError as error:
        wanted = f"host:port, like {DEFAULT_ADDRESS}"
        raise ConfigurationError(f"{error}: give an address of the form {wanted}") from error
