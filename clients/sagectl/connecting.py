"""Options that every command has: where the scheduler is, how to speak to it, how to answer."""

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
"""Keys of the click context's ``meta``."""

_OPTIONS = (
    click.option(
        "--address",
        envvar="SAGE_SCHEDULER_ADDRESS",
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="The scheduler.",
    ),
    click.option(
        "--tls-ca",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_CA",
        show_envvar=True,
        help="PEM file of the authority that signed the scheduler's certificate; turns TLS on.",
    ),
    click.option("--tls", is_flag=True, help="TLS with the system's authorities."),
    click.option(
        "--tls-cert",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_CERT",
        show_envvar=True,
        help="PEM file of a certificate of your own, where the scheduler asks for one.",
    ),
    click.option(
        "--tls-key",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TLS_KEY",
        show_envvar=True,
        help="PEM file of its private key.",
    ),
    click.option("--insecure", is_flag=True, help="No TLS although the address is not a loopback one."),
    click.option(
        "--token",
        envvar="SAGE_TOKEN",
        show_envvar=True,
        help="Bearer token.  Others on this machine can read a command line: better in a file or the variable.",
    ),
    click.option(
        "--token-file",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar="SAGE_TOKEN_FILE",
        show_envvar=True,
        help="File with the bearer token.",
    ),
    click.option("--tenant", default="", help="Owner of the requests; ignored where the token names one."),
    click.option(
        "--call-timeout",
        type=float,
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="Bound of a call that is not a stream.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for programs."),
)


def connecting(command: _F) -> _F:
    """Gives a command the options, and hands it a connected ``client`` in place of those about the connection."""

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
        # Read where an error is reported, which is outside of the command.
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
