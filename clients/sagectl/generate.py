"""``sagectl generate``: submits a request and prints its output as it arrives."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

import sage_client as sage
from sage_client import Client, Stream, plain
from sagectl.connecting import connecting
from sagectl.exit_status import ExitStatus
from sagectl.generate_options import PROMPT, SAMPLING, SCHEDULING, to_sdk
from sagectl.json_output import print_json

_F = TypeVar("_F", bound=Callable[..., Any])


def _options(command: _F) -> _F:
    for option in reversed((*PROMPT, *SAMPLING, *SCHEDULING)):
        command = option(command)
    return command


@click.command(short_help="Generate text from a prompt and stream it.")
@click.argument("prompt", required=False)
@_options
@click.option("-v", "--verbose", is_flag=True, help="Print placement, reasons and timings on stderr.")
@connecting
def generate(
    client: Client,
    prompt: str | None,
    chat: bool,
    system: str | None,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Generate text from PROMPT and stream it to stdout.

    With -n the first choice is streamed, and the others follow it, each under a line with its number.

    With - or without PROMPT the prompt is read from stdin.  With --json every event is printed as one line.  Ctrl-C
    cancels the request, unless it is --detached.
    """
    what = what_from(prompt, chat or system is not None, system, options)
    stream = client.generate(**what)
    try:
        write(stream, as_json=as_json, verbose=verbose)
    except KeyboardInterrupt:
        _interrupted(stream, detached=bool(options["detached"]))


def what_from(prompt: str | None, chat: bool, system: str | None, options: dict[str, Any]) -> sage.GenerateOptions:
    """Return the arguments of ``Client.generate``.  Raises click.UsageError."""
    given: Any = to_sdk(options)
    if "token_ids" in given:
        if prompt is not None or chat:
            raise click.UsageError("give either a prompt or --token-ids, not both")
        return given  # type: ignore[no-any-return]
    text = _prompt_text(prompt)
    if not chat:
        return given | {"prompt": text}  # type: ignore[no-any-return]
    turns = [{"role": "system", "content": system}] if system is not None else []
    return given | {"messages": [*turns, {"role": "user", "content": text}]}  # type: ignore[no-any-return]


def _prompt_text(prompt: str | None) -> str:
    if prompt not in (None, "-"):
        return prompt
    if prompt is None and sys.stdin.isatty():
        raise click.UsageError("no prompt: give one, or - to read it from the terminal")
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise click.UsageError(f"stdin is not UTF-8 text: {error}") from error


def write(stream: Stream, *, as_json: bool, verbose: bool) -> None:
    """Print each event; end the text with a newline, also where the stream ends with an error."""
    last, others = "\n", OtherChoices()
    try:
        for event in stream:
            last = _write_event(event, last, as_json=as_json, verbose=verbose)
            others.take(event)
        if not as_json:
            others.write()
    except sage.SageError:
        if not last.endswith("\n"):
            click.echo()
        raise


class OtherChoices:
    """Keeps the text of the choices above 0, to be printed after choice 0."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}

    def take(self, event: sage.Event) -> None:
        """Keep the text of an event."""
        if isinstance(event, sage.Tokens | sage.ChoiceFinished) and event.choice:
            pieces = self._texts.setdefault(event.choice, [])
            if isinstance(event, sage.Tokens):
                pieces.append(event.text)

    def write(self) -> None:
        """Print each choice under a line with its number."""
        for choice, pieces in sorted(self._texts.items()):
            click.echo(f"\n[choice {choice}]\n{''.join(pieces)}")


def _write_event(event: sage.Event, last: str, *, as_json: bool, verbose: bool) -> str:
    """Print one event; return the last text that was printed."""
    if as_json:
        print_json({"event": type(event).__name__.lower(), **plain(event)}, indent=None)
    elif isinstance(event, sage.Tokens) and event.choice == 0 and event.text:
        click.echo(event.text, nl=False)
        last = event.text
    elif isinstance(event, sage.Finished) and not last.endswith("\n"):
        click.echo()
    if verbose and (line := narrate(event)):
        click.echo(line, err=True)
    return last


def _interrupted(stream: Stream, *, detached: bool) -> None:
    name = stream.request_id
    if detached:
        stream.close()
        click.echo(f"\ninterrupted; request {name} keeps running; to cancel it: sagectl cancel {name}", err=True)
    else:
        try:
            stream.cancel("interrupted at the terminal")
            click.echo(f"\ninterrupted; request {name} cancelled", err=True)
        except sage.SageError as error:
            click.echo(f"\ninterrupted; request {name} could not be cancelled: {error}", err=True)
    sys.exit(ExitStatus.INTERRUPTED)


def narrate(event: sage.Event) -> str:
    """Return the line that ``-v`` prints for an event; empty for tokens."""
    match event:
        case sage.Accepted():
            wait = "" if event.expected_wait_s is None else f", expected wait {event.expected_wait_s:.2f} s"
            joined = ", attached" if event.attached else ""
            warnings = "".join(f"; warning: {warning}" for warning in event.warnings)
            prompt = f"{event.prompt_tokens} prompt tokens"
            return f"[{event.request_id}: accepted for {event.model}, {prompt}{wait}{joined}{warnings}]"
        case sage.Scheduled():
            again = f", resumed at token {event.resumed_from_token}" if event.resumed_from_token else ""
            why = "; ".join(event.decision.reasons)
            choice = f"choice {event.choice} " if event.choice else ""
            return f"[{choice}placed on {event.decision.instance_id} by {event.decision.policy}{again}: {why}]"
        case sage.ChoiceFinished():
            return f"[choice {event.choice}: {_summary(event.finished)}]"
        case sage.Finished():
            return f"[{_summary(event)}]"
    return ""


def _summary(event: sage.Finished) -> str:
    parts = [f"{event.finish_reason.value} after {event.usage.completion_tokens} tokens"]
    if event.timings.queue_s is not None:
        parts.append(f"waited {event.timings.queue_s:.3f} s")
    if event.timings.time_to_first_token_s is not None:
        parts.append(f"TTFT {event.timings.time_to_first_token_s:.3f} s")
    if event.timings.decode_s:
        parts.append(f"{(event.usage.completion_tokens - 1) / event.timings.decode_s:.0f} tokens/s")
    parts.append(f"{event.attempts} attempt{'s' if event.attempts != 1 else ''}")
    parts += [f"{slo.target} {'met' if slo.met else 'missed'}" for slo in event.slo]
    return ", ".join(parts)
