"""How to connect to a scheduler: address, TLS, token; the client that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from sage_client import DEFAULT_ADDRESS, Client, ConfigurationError, Reconnect
from sagectl.options.command import SharedOption

SUBMIT_S = 2.0
"""Seconds for which a scheduler that cannot be reached is tried again: who typed a command waits for it."""

_connection = partial(click.option, cls=SharedOption, section="Connection, here or before the command")

CONNECTION = (
    _connection(
        "--address",
        envvar="SAGE_SCHEDULER_ADDRESS",
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT[,...]",
        help="Address of the scheduler; of several schedulers, separated by commas.",
    ),
    _connection(
        "--tls-ca",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_CA",
        show_envvar=True,
        help="PEM file of the certificate authority that signed the scheduler's certificate; enables TLS.",
    ),
    _connection("--tls", is_flag=True, help="Use TLS with the system's certificate authorities."),
    _connection(
        "--tls-cert",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_CERT",
        show_envvar=True,
        help="PEM file of the client certificate, if the scheduler requires one (mutual TLS).",
    ),
    _connection(
        "--tls-key",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_KEY",
        show_envvar=True,
        help="PEM file of the client certificate's private key.",
    ),
    _connection("--insecure", is_flag=True, help="Allow a connection without TLS to an address that is not loopback."),
    _connection(
        "--token",
        envvar="SAGE_TOKEN",
        show_envvar=True,
        help="Bearer token.  Other users can read command lines: prefer --token-file or the variable.",
    ),
    _connection(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TOKEN_FILE",
        show_envvar=True,
        help="File that holds the bearer token.",
    ),
    _connection(
        "--tenant", default="", help="Tenant that owns the requests.  [default: the only one of the caller's key]"
    ),
    _connection(
        "--call-timeout",
        type=click.FloatRange(0, 86_400, min_open=True),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="Timeout of calls that are not streams.",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Connector:
    """The values of the options."""

    address: str  # of several schedulers, separated by commas
    tls_ca: Path | None
    tls: bool
    tls_cert: Path | None
    tls_key: Path | None
    insecure: bool
    token: str | None
    token_file: Path | None
    tenant: str
    call_timeout: float

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the schedulers."""
        return tuple(each.strip() for each in self.address.split(","))

    def client(self, address: str | None = None, *, limit_s: float = math.inf) -> Client:
        """Return a client of all schedulers, or of the one at ``address``; ``limit_s``: of its calls, at most."""
        return Client(
            self.address if address is None else address,
            tenant=self.tenant,
            tls_ca=self.tls_ca,
            tls=self.tls,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            insecure=self.insecure,
            token=self.token or _read_token(self.token_file),
            timeout=min(self.call_timeout, limit_s),
            reconnect=Reconnect(submit_s=SUBMIT_S),
        )


def _read_token(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the token file {file}: {error}") from error
    if not token:
        raise ConfigurationError(f"the token file {file} is empty")
    return token
