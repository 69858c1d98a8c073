"""Prints the events of a stream: its text, or an object a line, and with ``-v`` what happened."""

from __future__ import annotations

from collections.abc import Iterable

import click

import sage_client as sage
from sage_client import plain
from sagectl.output.formats import Output


def write(stream: Iterable[sage.Event], output: Output, *, verbose: bool) -> None:
    """Print each event; end the text with a newline, also where the stream ends with an error."""
    if output.for_people:
        _write_text(stream, verbose=verbose)
        return
    for event in stream:
        name = event.request_id if isinstance(event, sage.Accepted) else ""
        output.printed_next({"event": type(event).__name__.lower(), **plain(event)}, name=name)
        _note(event, verbose=verbose)


def _write_text(stream: Iterable[sage.Event], *, verbose: bool) -> None:
    """Print the text of choice 0 as it comes, then that of the others, and notes between whole texts."""
    last, others = "\n", OtherChoices()
    try:
        for event in stream:
            if others.take(event):
                continue
            if isinstance(event, sage.Tokens) and event.text:
                click.echo(event.text, nl=False)
                last = event.text
            elif isinstance(event, sage.ChoiceFinished | sage.Finished) and not last.endswith("\n"):
                click.echo()
                last = "\n"
            if isinstance(event, sage.Finished):
                others.write(verbose=verbose)
            _note(event, verbose=verbose)
    except sage.SageError:
        if not last.endswith("\n"):
            click.echo()
        raise


class OtherChoices:
    """Keeps texts and ends of the choices above 0, to be printed after choice 0."""

    def __init__(self) -> None:
        self._texts: dict[int, list[str]] = {}
        self._ends: dict[int, sage.ChoiceFinished] = {}

    def take(self, event: sage.Event) -> bool:
        """Keep an event of a choice above 0; return whether it was kept, so is not to be printed now."""
        match event:
            case sage.Tokens(choice=choice, text=text) if choice:
                self._texts.setdefault(choice, []).append(text)
            case sage.ChoiceFinished(choice=choice) if choice:
                self._ends[choice] = event
            case _:
                return False
        return True

    def write(self, *, verbose: bool) -> None:
        """Print each choice under a line with its number."""
        for choice in sorted(self._texts.keys() | self._ends.keys()):
            click.echo(choice_text(choice, "".join(self._texts.get(choice, ()))))
            if end := self._ends.get(choice):
                _note(end, verbose=verbose)


def choice_text(choice: int, text: str) -> str:
    """Return the text of a choice above 0 as it is printed, under a line with its number."""
    return f"\n[choice {choice}]\n{text}"


def _note(event: sage.Event, *, verbose: bool) -> None:
    if verbose and (line := narrate(event)):
        click.echo(line, err=True)


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
