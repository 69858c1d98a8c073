"""Prints the events of a stream: its text, or an object a line, and with ``-v`` what happened."""

from __future__ import annotations

import click

import sage_client as sage
from sage_client import Stream, plain
from sagectl.output.formats import Output


def write(stream: Stream, output: Output, *, verbose: bool) -> None:
    """Print each event; end the text with a newline, also where the stream ends with an error."""
    last = "\n"
    try:
        for event in stream:
            last = _write_event(event, last, output, verbose=verbose)
    except sage.SageError:
        if not last.endswith("\n"):
            click.echo()
        raise


def _write_event(event: sage.Event, last: str, output: Output, *, verbose: bool) -> str:
    """Print one event; return the last text that was printed."""
    name = event.request_id if isinstance(event, sage.Accepted) else ""
    if output.printed_next({"event": type(event).__name__.lower(), **plain(event)}, name=name):
        pass
    elif isinstance(event, sage.Tokens) and event.choice == 0 and event.text:
        click.echo(event.text, nl=False)
        last = event.text
    elif isinstance(event, sage.Finished) and not last.endswith("\n"):
        click.echo()
    if verbose and (line := narrate(event)):
        click.echo(line, err=True)
    return last


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
            return f"[placed on {event.decision.instance_id} by {event.decision.policy}{again}: {why}]"
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
