"""Opens gRPC channels to a scheduler."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from sage_client._errors import ConfigurationError, TlsRequiredError
from sage_client._fork import check_not_forked, note_channel
from sage_client._trace import trace_metadata
from sage_common.addresses import check_address, is_loopback
from sage_wire.keepalive import keepalive
from sage_wire.metadata import AUTHORIZATION
from sage_wire.protocol import MAX_MESSAGE_BYTES

DEFAULT_ADDRESS = "127.0.0.1:50051"

ADDRESS_VARIABLE = "SAGE_SCHEDULER_ADDRESS"
"""The environment variable with the address for clients that are given none."""

ADDRESSES_LIMIT = 16
"""Most addresses of schedulers."""

TOKEN_VARIABLE = "SAGE_TOKEN"
"""The environment variable with the bearer token of clients that are given none."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A broken stream reattaches as soon as there is a connection, so gRPC must try often.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 250),
    # A scheduler that starts again, as a pod for one, may have another address under its name: gRPC would not ask for
    # it for 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 1000),
)

_PATIENT = keepalive(20.0, 10.0)
"""A peer that vanished without closing the connection is detected within 30 s while a call runs."""

_IMPATIENT = keepalive(2.0, 2.0)
"""Within 4 s, where another scheduler may lead by then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Connection:
    """The address of a scheduler and the credentials for it.

    Without TLS only a loopback address or a Unix socket is accepted, unless ``insecure`` is set.
    """

    address: str = DEFAULT_ADDRESS  # host:port or unix:path; for ``addresses_in`` several, separated by commas
    tls_ca: Path | None = (
        None  # PEM file of the certificate authority that signed the scheduler's certificate; enables TLS
    )
    tls: bool = False  # use TLS with the system's certificate authorities
    tls_cert: Path | None = None  # PEM file of the client certificate, if the scheduler requires one
    tls_key: Path | None = None  # PEM file of the client certificate's private key
    token: str | None = None  # bearer token; None: that of TOKEN_VARIABLE, if it is set; empty: none
    insecure: bool = False  # allow any address without TLS
    alone: bool = True  # there is no other scheduler

    def check(self) -> None:
        """Check the settings, without an event loop.

        Raises:
            ConfigurationError: the address, the token, a certificate file or their combination is invalid.
            TlsRequiredError: the address is not loopback, and neither TLS nor ``insecure`` is set.
            InvalidStateError: the process was forked after a client had opened a channel.
        """
        check_not_forked()
        _check_address(self.address)
        _check_token(self._bearer)
        if self._is_secure:
            self._credentials()
        elif not self.insecure and not is_loopback(self.address):
            raise TlsRequiredError(self.address)

    def open(self) -> grpc.aio.Channel:
        """Open a channel on the running event loop; it connects at its first call.  Raises as ``check``."""
        self.check()
        note_channel()
        options = _OPTIONS + (_PATIENT if self.alone else _IMPATIENT)
        if self._is_secure:
            return grpc.aio.secure_channel(self.address, self._credentials(), options=options)
        return grpc.aio.insecure_channel(self.address, options=options)

    @property
    def _is_secure(self) -> bool:
        return bool(self.tls or self.tls_ca or self.tls_cert)

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


def address_or_default(address: str | None) -> str:
    """Return the address of a client: as given, else that of ADDRESS_VARIABLE, else DEFAULT_ADDRESS."""
    return address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS


def addresses_in(text: str) -> tuple[str, ...]:
    """Return the addresses in a list that is separated by commas.

    Raises:
        ConfigurationError: there is none, or one is there twice, or more than ADDRESSES_LIMIT.
    """
    # gRPC's own lists (ipv4:1.2.3.4:5,6.7.8.9:5) are one target.
    found = (text,) if text.startswith(("ipv4:", "ipv6:")) else tuple(part.strip() for part in text.split(","))
    if len(set(found)) < len(found):
        raise ConfigurationError(f"{text!r} names an address twice")
    if len(found) > ADDRESSES_LIMIT:
        raise ConfigurationError(f"{len(found)} addresses; the limit is {ADDRESSES_LIMIT}")
    return found


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
        raise ConfigurationError(f"{error}: give an address of the form {_wanted(address)}") from error


def _wanted(address: str) -> str:
    """Return the form of an address, with what a URL names as the example."""
    scheme, _, rest = address.rpartition("://")
    named = rest.partition("/")[0]
    try:
        check_address(named, lowest_port=1)
    except ValueError:
        named = DEFAULT_ADDRESS
    return f"host:port, like {named}{', and TLS (tls or tls_ca)' if scheme.lower().endswith('s') else ''}"
