"""The group of all commands; turns errors into one line and an exit status."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import click
from click.core import ParameterSource

import sage_client as sage
from sage_common.near_names import did_you_mean
from sagectl.commands.adapter import adapter
from sagectl.commands.attach import attach
from sagectl.commands.batch import batch
from sagectl.commands.cancel import cancel
from sagectl.commands.completion import completion
from sagectl.commands.demo import demo
from sagectl.commands.doctor import doctor
from sagectl.commands.down import down
from sagectl.commands.drain import drain
from sagectl.commands.embed import embed
from sagectl.commands.explain import explain
from sagectl.commands.fleet import fleet
from sagectl.commands.gateway import gateway
from sagectl.commands.generate import generate
from sagectl.commands.instances import instances
from sagectl.commands.journal import journal
from sagectl.commands.keys import keys
from sagectl.commands.models import models
from sagectl.commands.pd import pd
from sagectl.commands.policy import policy
from sagectl.commands.requests import requests
from sagectl.commands.result import result
from sagectl.commands.resume import resume
from sagectl.commands.role import role
from sagectl.commands.scaling import scaling
from sagectl.commands.score import score
from sagectl.commands.simulate import simulate
from sagectl.commands.sleep import sleep
from sagectl.commands.status import status
from sagectl.commands.submit import submit
from sagectl.commands.top import top
from sagectl.commands.up import up
from sagectl.commands.usage import usage
from sagectl.commands.version import version
from sagectl.commands.wake import wake
from sagectl.exit_status import ExitStatus, status_of
from sagectl.options.command import Example, Group, SharedOption, takes, write_commands
from sagectl.options.connecting import ADDRESS, OUTPUT, USES_TLS, shared_options
from sagectl.options.generation import flag_of
from sagectl.output.formats import Format, Output
from sagectl.output.json_output import plain_error, print_json
from sagectl.output.sentences import sentence
from sagectl.output.yaml_output import print_yaml

DEBUG_VARIABLE = "SAGECTL_DEBUG"
"""The environment variable that lets an unforeseen error print where it came from."""

_STATUSES = """\b
Exit status:
   0  success
   1  internal error, or a local fleet that failed
   2  wrong usage, invalid request, or a package that is not installed
   3  scheduler unreachable or shutting down, or no instance available
   4  unknown model, request, instance, batch or file
   5  request id already in use, or not allowed in the current state
   6  queue full, or another limit of the scheduler reached
   7  deadline or timeout exceeded
   8  request cancelled
   9  generation failed
  10  token missing, invalid or without permission
  11  not supported by the server
  12  doctor: a scheduler leads, and something is wrong
 130  interrupted
"""

_EXAMPLES: Sequence[Example] = (
    ("up --engine simulated", "a scheduler and two executors on this machine"),
    ("generate 'Once upon a time' --max-tokens 32 -v", "a request, and where it ran"),
    ("--address 10.0.0.7:50051 --tls-ca ca.pem instances -o wide", "the fleet of another machine"),
)

_COMMANDS: Mapping[str, Sequence[click.Command]] = {
    "Requests": (generate, embed, score, submit, requests, attach, result, cancel, explain, batch),
    "Fleet": (top, models, instances, drain, resume, sleep, wake, role, adapter, scaling, fleet),
    "Scheduler": (policy, pd, usage, journal, doctor, version),
    "On this machine": (up, status, down, demo, gateway, keys, simulate, completion),
}


class _Commands(Group):
    """Lists the commands by what they are about, and reports errors in one line with the documented status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; exit with the status of the error that it raised."""
        try:
            return super().invoke(ctx)
        except sage.SageError as error:
            _report(error, ctx)
            ctx.exit(status_of(error))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(ExitStatus.INTERRUPTED)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError, ModuleNotFoundError):
            raise
        except OSError as error:
            click.echo(f"error: {_in_words(error)}", err=True)
            ctx.exit(ExitStatus.INVALID)
        except Exception as error:
            _report_unforeseen(error)
            ctx.exit(ExitStatus.INTERNAL)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, in the order of help."""
        return [each.name or "" for commands in _COMMANDS.values() for each in commands]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by what they are about."""
        for title, commands in _COMMANDS.items():
            write_commands(title, commands, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; for a name that is none, say which are like it."""
        name = args[0]
        if self.get_command(ctx, name) is None and not ctx.resilient_parsing:
            ctx.fail(f"no command {name!r}{did_you_mean(name, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    epilog=_STATUSES,
    examples=_EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="sage-control-plane", prog_name="sagectl")
@shared_options
def sagectl(**_: Any) -> None:
    """Send requests to a SAGE control plane, inspect its fleet and configure it.

    `sagectl COMMAND --help` has the options of a command, and examples.
    """
    ctx = click.get_current_context()
    command = sagectl.get_command(ctx, ctx.invoked_subcommand or "")
    for param in sagectl.params:
        given = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and isinstance(param, SharedOption) and command is not None and not takes(command, param):
            ctx.fail(f"{command.name} takes no {param.opts[0]} before it")


def _all_commands() -> Iterator[click.Command]:
    for commands in _COMMANDS.values():
        yield from commands


for _command in _all_commands():
    sagectl.add_command(_command)


def _report(error: sage.SageError, ctx: click.Context) -> None:
    """Print one line on stderr; with JSON or YAML also an object on stdout."""
    meta = ctx.meta
    output = meta.get(OUTPUT, Output())
    if output.format is Format.JSON:
        print_json(plain_error(error), indent=None)
    elif output.format is Format.YAML:
        print_yaml(plain_error(error))
    command = sagectl.get_command(ctx, ctx.invoked_subcommand or "")
    text = sentence(error, name_of=partial(flag_of, command=command) if command is not None else str)
    if type(error) is sage.UnavailableError:
        broken = any(words in text.lower() for words in ("socket closed", "connection reset"))  # as a TLS listener does
        hint = "; if it uses TLS, give --tls-ca or --tls" if broken and not meta.get(USES_TLS) else ""
        text = f"cannot reach the scheduler at {meta.get(ADDRESS)}: {text}{hint}"
    click.echo(f"error: {text}", err=True)


def _in_words(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def _report_unforeseen(error: Exception) -> None:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    message = f"unforeseen {type(error).__name__}: {' '.join(str(error).split())}"
    click.echo(f"error: {message} (a mistake in sagectl; {DEBUG_VARIABLE}=1 shows where)", err=True)
