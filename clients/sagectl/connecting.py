"""Options of every command that calls a scheduler: its address, TLS, token, and JSON output."""

from __future__ import annotations

from collections.abc import Callable
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


def connecting(command: _F) -> _F:
    """Add the options to a command; it gets a connected ``client`` and ``as_json`` instead of their values."""

    @wraps(command)
    def wrapped(
        address: str,
        tls_ca: Path | None,
        tls: bool,
        tls_cert: Path | None,
        tls_key: Path | None,
        insecure: bool,
        token: str | None,
        token_file: Path | None,
        tenant: str,
        call_timeout: float,
        as_json: bool,
        **rest: Any,
    ) -> Any:
        # Errors are reported outside of the command and need these two.
        click.get_current_context().meta.update({ADDRESS: address, AS_JSON: as_json})
        with Client(
            address,
            tenant=tenant,
            tls_ca=tls_ca,
            tls=tls,
            tls_cert=tls_cert,
            tls_key=tls_key,
            insecure=insecure,
            token=token or _read_token(token_file),
            timeout=call_timeout,
        ) as client:
            return command(client=client, as_json=as_json, **rest)

    decorated: Any = wrapped
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


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
