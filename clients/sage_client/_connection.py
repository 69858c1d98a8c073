"""How to reach a scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

from sage_client._errors import ConfigurationError
from sage_client._trace import trace_metadata
from sage_common.addresses import check_address, is_loopback
from sage_wire.metadata import AUTHORIZATION
from sage_wire.protocol import MAX_MESSAGE_BYTES

DEFAULT_ADDRESS = "127.0.0.1:50051"

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A broken stream is taken up again within about a second: gRPC must dial as eagerly.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A peer that vanished without closing is noticed within half a minute, while a call runs.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """Where the scheduler is and how to speak to it.

    Without TLS only a loopback address or a Unix socket is accepted, unless ``insecure`` says it is meant.
    """

    address: str = DEFAULT_ADDRESS  # host:port or unix:path
    tls_ca: Path | None = None  # PEM file of the authority that signed the certificate; turns TLS on
    tls: bool = False  # TLS with the system's authorities
    tls_cert: Path | None = None  # PEM file of the client's own certificate, where the scheduler asks for one
    tls_key: Path | None = None  # PEM file of its private key
    token: str | None = None  # bearer token
    insecure: bool = False  # no TLS, whatever the address

    def open(self) -> grpc.aio.Channel:
        """A channel on the running event loop.  It connects when it is first used.

        Raises:
            ConfigurationError: address, certificate file or the combination is wrong.
        """
        _check_address(self.address)
        if self.tls or self.tls_ca or self.tls_cert:
            return grpc.aio.secure_channel(self.address, self._credentials(), options=_OPTIONS)
        if not self.insecure and not is_loopback(self.address):
            raise ConfigurationError(
                f"{self.address} is not a loopback address: name a certificate authority, ask for TLS with "
                "the system's, or say that an insecure connection is meant"
            )
        return grpc.aio.insecure_channel(self.address, options=_OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call: the token, and the trace context of the moment."""
        token = ((AUTHORIZATION, f"Bearer {self.token}"),) if self.token else ()
        return token + trace_metadata()

    def _credentials(self) -> grpc.ChannelCredentials:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigurationError("a client's certificate and its private key go together")
        return grpc.ssl_channel_credentials(_read(self.tls_ca), _read(self.tls_key), _read(self.tls_cert))


def _read(file: Path | None) -> bytes | None:
    try:
        return file.read_bytes() if file else None
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}") from error


def _check_address(address: str) -> None:
    try:
        check_address(address, lowest_port=1)
    except ValueError as error:
        wanted = f"host:port is wanted, like {DEFAULT_ADDRESS}"
        raise ConfigurationError(f"{address!r} is not an address: {wanted}") from error
