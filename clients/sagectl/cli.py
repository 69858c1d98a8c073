"""The commands together, and what becomes of an error."""

from __future__ import annotations

from typing import Any

import click

import sage_client as sage
from sagectl.connecting import ADDRESS, AS_JSON
from sagectl.exit_status import ExitStatus, status_of
from sagectl.explain import explain
from sagectl.generate import generate
from sagectl.instances import drain, instances, resume
from sagectl.json_output import plain_error, print_json
from sagectl.local import demo, down, status, up
from sagectl.policy import policy
from sagectl.prefill_decode import pd, role
from sagectl.requests import cancel
from sagectl.sentences import sentence
from sagectl.top import top

_STATUSES = """\b
Exit status:
   0  done
   1  the server's fault, or something unforeseen
   2  wrong usage, or a request at fault
   3  no scheduler, no instance, or shutting down
   4  no such model, request or instance
   5  the request id is taken, or the state does not allow it
   6  the queue is full, or another of the scheduler's bounds is reached
   7  the deadline or this command's own bound passed
   8  the request was cancelled
   9  the generation failed
  10  the token is missing, wrong or not enough
  11  the server does not support it
 130  interrupted
"""


class _Commands(click.Group):
    """Turns the SDK's errors into one line and a documented status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except sage.SageError as error:
            _report(error, ctx.meta)
            ctx.exit(status_of(error))
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(ExitStatus.INTERRUPTED)


@click.group(cls=_Commands, epilog=_STATUSES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sage-control-plane", prog_name="sagectl")
def sagectl() -> None:
    """Submits requests to a SAGE control plane, looks at its fleet and steers it."""


for _command in (generate, cancel, explain, top, instances, drain, resume, role, policy, pd, up, down, status, demo):
    sagectl.add_command(_command)


def _report(error: sage.SageError, meta: dict[str, Any]) -> None:
    """One line for people on stderr; with --json also an object on stdout."""
    if meta.get(AS_JSON):
        print_json(plain_error(error), indent=None)
    text = sentence(error)
    if type(error) is sage.UnavailableError:
        text = f"the scheduler at {meta.get(ADDRESS)} cannot be reached: {text}"
    click.echo(f"error: {text}", err=True)
