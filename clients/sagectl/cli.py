"""The group of all commands; turns errors into one line and an exit status."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

import sage_client as sage
from sagectl.access_keys import keys
from sagectl.connecting import ADDRESS, AS_JSON
from sagectl.detached import attach, requests, result, submit
from sagectl.doctor import doctor
from sagectl.embed import embed
from sagectl.exit_status import ExitStatus, status_of
from sagectl.explain import explain
from sagectl.gateway import gateway
from sagectl.generate import generate
from sagectl.generate_options import flag_of
from sagectl.instances import drain, instances, resume
from sagectl.journal import journal
from sagectl.json_output import plain_error, print_json
from sagectl.local import demo, down, status, up
from sagectl.models import models
from sagectl.policy import policy
from sagectl.prefill_decode import pd, role
from sagectl.requests import cancel
from sagectl.sentences import sentence
from sagectl.simulate import simulate
from sagectl.top import top
from sagectl.usage import usage

_STATUSES = """\b
Exit status:
   0  success
   1  internal error, or a local fleet that failed
   2  wrong usage, invalid request, or a package that is not installed
   3  scheduler unreachable or shutting down, or no instance available
   4  unknown model, request or instance
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
