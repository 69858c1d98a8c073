"""Options of every command that calls a scheduler: its address, TLS, token, and JSON output."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from sage_client import DEFAULT_ADDRESS, Client, ConfigurationError

_F = TypeVar("_F", bound=Callable[..., Any])

ADDRESS = "sagectl.address"
AS_JSON = "sagectl.json"
"""Keys of the click context's ``meta``: the address, and whether to print JSON."""

_OPTIONS = (
    click.option(
        "--address",
        envvar="SAGE_SCHEDULER_ADDRESS",
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT[,...]",
        help="Address of the scheduler; of several schedulers, separated by commas.",
    ),
    click.option(
        "--tls-ca",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_CA",
        show_envvar=True,
        help="PEM file of the certificate authority that signed the scheduler's certificate; enables TLS.",
    ),
    click.option("--tls", is_flag=True, help="Use TLS with the system's certificate authorities."),
    click.option(
        "--tls-cert",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_CERT",
        show_envvar=True,
        help="PEM file of the client certificate, if the scheduler requires one (mutual TLS).",
    ),
    click.option(
        "--tls-key",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_KEY",
        show_envvar=True,
        help="PEM file of the client certificate's private key.",
    ),
    click.option("--insecure", is_flag=True, help="Allow a connection without TLS to an address that is not loopback."),
    click.option(
        "--token",
        envvar="SAGE_TOKEN",
        show_envvar=True,
        help="Bearer token.  Other users can read command lines: prefer --token-file or the variable.",
    ),
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TOKEN_FILE",
        show_envvar=True,
        help="File that holds the bearer token.",
    ),
    click.option(
        "--tenant", default="", help="Tenant that owns the requests.  Default: the only one of the caller's key."
    ),
    click.option(
        "--call-timeout",
        type=float,
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="Timeout of calls that are not streams.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs."),
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
        )


def with_connector(command: _F) -> _F:
    """Add the options to a command; it gets a ``connector`` and ``as_json`` instead of their values."""

    @wraps(command)
    def wrapped(as_json: bool, **given: Any) -> Any:
        values = {each.name: given.pop(each.name) for each in fields(Connector)}
        # Errors are reported outside of the command and need these two.
        click.get_current_context().meta.update({ADDRESS: values["address"], AS_JSON: as_json})
        return command(connector=Connector(**values), as_json=as_json, **given)

    decorated: Any = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def connecting(command: _F) -> _F:
    """Add the options to a command; it gets a connected ``client`` and ``as_json`` instead of their values."""

    @wraps(command)
    def wrapped(connector: Connector, as_json: bool, **rest: Any) -> Any:
        with connector.client() as client:
            return command(client=client, as_json=as_json, **rest)

    return with_connector(wrapped)  # type: ignore[return-value]


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
