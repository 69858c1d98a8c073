"""Decorators that give a command what every command with a scheduler has: a client, and how to print.

The options may also stand before the command, ``sagectl --address HOST:PORT instances``; those after it count more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial, wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from sagectl.options.command import SharedOption
from sagectl.options.connection import CONNECTION, Connector
from sagectl.output.formats import Format, Output

_F = TypeVar("_F", bound=Callable[..., Any])

ADDRESS = "sagectl.address"
USES_TLS = "sagectl.uses_tls"
OUTPUT = "sagectl.output"
"""Keys of the click context's ``meta``: the address, and how to print; errors are reported outside of the command."""

FORMATS = (Format.TABLE, Format.WIDE, Format.JSON, Format.YAML, Format.NAME)

_output = partial(click.option, cls=SharedOption, section="Output, here or before the command")


def shared_options(command: _F) -> _F:
    """Add the options to the group of all commands, so that they may stand before the command."""
    found: _F = _with_options(command, (*CONNECTION, *_output_options(FORMATS)))
    return found


def connecting(command: _F) -> _F:
    """Add the options to a command; it gets a connected ``client`` and an ``output`` instead of their values."""
    return connecting_for(*FORMATS)(command)


def connecting_for(*formats: Format) -> Callable[[_F], _F]:
    """Return ``connecting`` for a command that prints in ``formats``."""

    def connecting(command: _F) -> _F:
        @wraps(command)
        def wrapped(connector: Connector, output: Output, **rest: Any) -> Any:
            with connector.client() as client:
                return command(client=client, output=output, **rest)

        return _with_connector(wrapped, formats)  # type: ignore[return-value]

    return connecting


def with_connector(command: _F) -> _F:
    """Add the options to a command; it gets a ``connector`` and an ``output`` instead of their values."""
    return _with_connector(command, FORMATS)


def with_output(command: _F) -> _F:
    """Add the options of output to a command that needs no scheduler; it gets an ``output`` instead of their values."""

    @wraps(command)
    def wrapped(output_format: str | None, as_json: bool, **given: Any) -> Any:
        return command(output=_output_here(), **given)

    found: _F = _with_options(wrapped, _output_options(FORMATS))
    return found


def _with_connector(command: _F, formats: tuple[Format, ...]) -> _F:
    @wraps(command)
    def wrapped(output_format: str | None, as_json: bool, **given: Any) -> Any:
        output = _output_here()
        context = click.get_current_context()
        values = {each.name: nearest(context, each.name, given.pop(each.name)) for each in fields(Connector)}
        context.meta[ADDRESS] = values["address"]
        context.meta[USES_TLS] = bool(values["tls"] or values["tls_ca"])
        return command(connector=Connector(**values), output=output, **given)

    found: _F = _with_options(wrapped, (*CONNECTION, *_output_options(formats)))
    return found


def _output_options(formats: tuple[Format, ...]) -> tuple[Callable[[Any], Any], ...]:
    return (
        _output(
            "-o",
            "--output",
            "output_format",
            type=click.Choice([each.value for each in formats], case_sensitive=False),
            help="How to print: wide has all columns of a table, name only ids.  [default: table]",
        ),
        _output("--json", "as_json", is_flag=True, help="The same as -o json."),
    )


def _with_options(command: Any, options: tuple[Callable[[Any], Any], ...]) -> Any:
    for option in reversed(options):
        command = option(command)
    return command


def nearest(context: click.Context, name: str, given: Any) -> Any:
    """Return the value that stands nearest to the command: after it, else before it, else what is ``given``."""
    at: click.Context | None = context
    while at is not None:
        if at.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            return at.params[name]
        at = at.parent
    return given


def _output_here() -> Output:
    """Return the format asked for nearest to the command.  Raises click.UsageError for two at one place."""
    context: click.Context | None = click.get_current_context()
    output = Output()
    while context is not None:
        named, as_json = context.params.get("output_format"), context.params.get("as_json")
        if named is not None and as_json and named != Format.JSON.value:
            raise click.UsageError(f"--json and -o {named}: give one of them", context)
        if named is not None or as_json:
            output = Output(Format.JSON if as_json else Format(named))
            break
        context = context.parent
    click.get_current_context().meta[OUTPUT] = output
    return output
