"""The group of all commands; turns errors into one line and an exit status."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

import sage_client as sage
from sagectl.commands.attach import attach
from sagectl.commands.batch import batch
from sagectl.commands.cancel import cancel
from sagectl.commands.demo import demo
from sagectl.commands.doctor import doctor
from sagectl.commands.down import down
from sagectl.commands.drain import drain
from sagectl.commands.embed import embed
from sagectl.commands.explain import explain
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
from sagectl.commands.simulate import simulate
from sagectl.commands.status import status
from sagectl.commands.submit import submit
from sagectl.commands.top import top
from sagectl.commands.up import up
from sagectl.commands.usage import usage
from sagectl.exit_status import ExitStatus, status_of
from sagectl.options.connecting import ADDRESS, AS_JSON
from sagectl.options.generation import flag_of
from sagectl.output.json_output import plain_error, print_json
from sagectl.output.sentences import sentence

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


class _Commands(click.Group):
    """Reports errors of the SDK in one line and exits with the documented status."""

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


@click.group(cls=_Commands, epilog=_STATUSES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sage-control-plane", prog_name="sagectl")
def sagectl() -> None:
    """Send requests to a SAGE control plane, inspect its fleet and configure it.

    Some commands run a scheduler and executors on this machine: up, down, status, demo.  gateway serves
    HTTP.  keys and simulate need neither.
    """


for _command in (
    generate,
    submit,
    attach,
    requests,
    result,
    embed,
    batch,
    cancel,
    explain,
    top,
    models,
    instances,
    drain,
    resume,
    role,
    policy,
    pd,
    usage,
    journal,
    keys,
    up,
    down,
    status,
    doctor,
    demo,
    gateway,
    simulate,
):
    sagectl.add_command(_command)


def _report(error: sage.SageError, ctx: click.Context) -> None:
    """Print one line on stderr; with --json also an object on stdout."""
    meta = ctx.meta
    if meta.get(AS_JSON):
        print_json(plain_error(error), indent=None)
    command = {generate.name: generate, submit.name: submit}.get(ctx.invoked_subcommand)
    text = sentence(error, name_of=partial(flag_of, command=command) if command is not None else str)
    if type(error) is sage.UnavailableError:
        text = f"cannot reach the scheduler at {meta.get(ADDRESS)}: {text}"
    click.echo(f"error: {text}", err=True)
