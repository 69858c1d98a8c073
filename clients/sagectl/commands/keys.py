"""``sagectl keys``: makes bearer keys for the scheduler's keys file."""

from __future__ import annotations

from pathlib import Path

import click

from sage_client import ConfigurationError
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, KeysFileError, add, hash_of, new_secret
from sagectl.options.command import group


@group()
def keys() -> None:
    """Make bearer keys for the scheduler's keys file.

    The scheduler reads the file that its setting access.keys_file names.
    """


@keys.command(
    "add",
    examples=[
        ("keys add chat --role application --tenant chat", "a key for an application"),
        ("keys add executor-1 --role executor --file /etc/sage/keys.toml", "a key for an executor, in that file"),
    ],
)
@click.argument("name")
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True, help="What the key is for.")
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    help="Tenant of an application, or one that a gateway may name, with at most one *; repeatable for a gateway.",
)
@click.option(
    "--instance",
    "instances",
    multiple=True,
    help="Instance id that an executor may register, with at most one *; repeatable.  [default: NAME]",
)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("keys.toml"),
    show_default=True,
    help="Keys file; made if it is not there.",
)
def add_key(name: str, role: str, tenants: tuple[str, ...], instances: tuple[str, ...], file: Path) -> None:
    """Add a key for NAME to the keys file and print it.

    The file holds the key's hash only: the key is printed once and cannot be found again.  A scheduler that runs reads
    the file by itself.
    """
    secret = new_secret()
    try:
        grant = _grant(Role(role), name, tenants, instances)
        add(file, Key(name=name, sha256=hash_of(secret), grant=grant))
    except (KeysFileError, ValueError) as error:
        raise ConfigurationError(str(error)) from error
    click.echo(f"{file}: added {name} ({role}); the key below is not shown again", err=True)
    click.echo(secret)


def _grant(role: Role, name: str, tenants: tuple[str, ...], instances: tuple[str, ...]) -> Grant:
    """Return what the options grant.  Raises ValueError."""
    if role is Role.APPLICATION:
        if len(tenants) != 1:
            raise ValueError("--tenant: an application has one")
        return Grant(role=role, tenant=tenants[0], instances=instances)
    if role is Role.EXECUTOR:
        instances = instances or (name,)
    return Grant(role=role, tenants=tenants, instances=instances)
