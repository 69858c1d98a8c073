"""Writes the notes of a request as its tree of spans, in the exporter's thread."""

from __future__ import annotations

import json
from collections.abc import Sequence

from opentelemetry.trace import SpanContext, SpanKind

from sage_telemetry.otlp_attributes import Attributes
from sage_telemetry.spans import Event, Link, SpanWriter
from sage_telemetry.trace_context import child_of
from scheduler_svc.control.watching.attainment import ANY
from scheduler_svc.domain.decision import Candidate
from scheduler_svc.telemetry.decision_note import DecisionNote
from scheduler_svc.telemetry.end_note import EndNote
from scheduler_svc.telemetry.request_content import Message
from scheduler_svc.telemetry.request_notes import AttemptNote, RequestNotes, WaitNote


class RequestSpans:
    """The spans of one ended request; implements SpanSource."""

    def __init__(self, notes: RequestNotes, end: EndNote, *, epoch: int) -> None:
        self._notes = notes
        self._end = end
        self._epoch = epoch

    @property
    def context(self) -> SpanContext:
        """The context of the root span, ``sage.request``."""
        return self._notes.context

    @property
    def span_count(self) -> int:
        """How many spans ``write_spans`` writes."""
        notes = self._notes
        return 2 + len(notes.waits) + len(notes.decisions) + len(notes.attempts)

    def write_spans(self, writer: SpanWriter) -> None:
        """Write the request, its admission, and every wait, decision and attempt."""
        notes = self._notes
        self._write_request(writer)
        self._write_child(
            writer,
            "sage.admission",
            notes.arrived_at,
            notes.accepted_at if notes.accepted_at is not None else notes.ended_at,
            {"sage.prompt.kind": notes.prompt_kind or None, "sage.invalid_fields": self._end.invalid_fields or None},
            failed=self._end.failure if self._end.refused else None,
        )
        for wait in notes.waits:
            self._write_wait(writer, wait)
        for decision in notes.decisions:
            self._write_decision(writer, decision)
        for attempt in notes.attempts:
            self._write_attempt(writer, attempt)

    # --- the request ------------------------------------------------------------------------------

    def _write_request(self, writer: SpanWriter) -> None:
        notes, end = self._notes, self._end
        first = end.first_token_at
        writer.write(
            "sage.request",
            notes.context,
            notes.parent,
            self._ns(notes.arrived_at),
            self._ns(notes.ended_at),
            {**self._requested(), **end.answered, **self._ended(), **self._contents()},
            kind=SpanKind.SERVER,
            failed=end.failure,
            events=(Event("sage.first_token", self._ns(first)),) if first is not None else (),
        )

    def _requested(self) -> Attributes:
        notes = self._notes
        return {
            "gen_ai.operation.name": "chat" if notes.prompt_kind == "chat" else "text_completion",
            "gen_ai.provider.name": "sage",
            "gen_ai.request.model": self._end.model or notes.model,
            "gen_ai.response.id": notes.key.request_id,
            "gen_ai.conversation.id": notes.session or None,
            "sage.request.id": notes.key.request_id,
            "sage.tenant": notes.key.tenant,
            "sage.priority": notes.priority.name.lower(),
            "sage.target.ttft": notes.targets["ttft"],
            "sage.target.tpot": notes.targets["tpot"],
            "sage.target.deadline": notes.targets["deadline"],
        }

    def _ended(self) -> Attributes:
        end, attainment = self._end, self._notes.attainment
        return {
            "sage.outcome": end.outcome,
            "sage.slo.met": attainment.kept if attainment.counts else None,
            "sage.slo.missed": [target for target in attainment.missed if target != ANY] or None,
            "sage.invalid_fields": end.invalid_fields or None,
            "error.type": end.error_type,
        }

    def _contents(self) -> Attributes:
        prompt, output = self._notes.content, self._end.output
        return {
            "gen_ai.input.messages": _written(prompt) if prompt is not None else None,
            "gen_ai.output.messages": _written([("assistant", output)], finish_reason=self._finish_reason())
            if output is not None
            else None,
        }

    def _finish_reason(self) -> str:
        """Return the finish reason in the words of OpenTelemetry's conventions.

        They have ``error`` for failures and no word for a request that its caller cancelled, which gets our outcome.
        """
        end = self._end
        if end.finish_reason is not None:
            return end.finish_reason
        return "error" if end.failure is not None else end.outcome

    # --- its parts --------------------------------------------------------------------------------

    def _write_wait(self, writer: SpanWriter, wait: WaitNote) -> None:
        until = wait.until if wait.until is not None else self._notes.ended_at
        attributes: Attributes = {
            "sage.queue.resumed": wait.resumed,
            "sage.queue.left_behind": wait.left_behind if wait.until is not None else None,
        }
        self._write_child(writer, "sage.queue", wait.since, until, attributes)

    def _write_decision(self, writer: SpanWriter, note: DecisionNote) -> None:
        end = note.decided_at + note.took_s
        self._write_child(
            writer,
            "sage.decision",
            note.decided_at,
            end,
            {**note.figures, "sage.decision.batch": note.batch},
            events=[Event("sage.candidate", self._ns(end), _candidate(candidate)) for candidate in note.candidates],
        )

    def _write_attempt(self, writer: SpanWriter, attempt: AttemptNote) -> None:
        notes, first = self._notes, attempt.first_token_at
        retried = attempt.retries
        writer.write(
            "sage.attempt",
            attempt.context,
            notes.context,
            self._ns(attempt.sent_at),
            self._ns(attempt.ended_at if attempt.ended_at is not None else notes.ended_at),
            {
                "sage.request.id": notes.key.request_id,
                "sage.instance.id": attempt.instance_id,
                "sage.phase": attempt.phase.value,
                "sage.attempt.number": attempt.number,
                "sage.attempt.epoch": self._epoch,
                "sage.attempt.from_token": attempt.from_token,
                "sage.attempt.continuation": attempt.continuation,
                "sage.attempt.end": attempt.end,
                "sage.failure": attempt.failure,
                "error.type": attempt.end if attempt.failure is not None else None,
            },
            kind=SpanKind.CLIENT,
            failed=attempt.failure,
            events=(Event("sage.first_token", self._ns(first)),) if first is not None else (),
            links=(Link(retried.context, {"sage.link": "retry_of"}),) if retried is not None else (),
        )

    def _write_child(
        self,
        writer: SpanWriter,
        name: str,
        start: float,
        end: float,
        attributes: Attributes,
        *,
        failed: str | None = None,
        events: Sequence[Event] = (),
    ) -> None:
        context = self._notes.context
        writer.write(
            name,
            child_of(context),
            context,
            self._ns(start),
            self._ns(end),
            attributes,
            failed=failed,
            events=events,
        )

    def _ns(self, at: float) -> int:
        return self._notes.zero_ns + round(at * 1e9)


def _candidate(candidate: Candidate) -> Attributes:
    return {
        "sage.instance.id": candidate.instance_id,
        "sage.candidate.chosen": candidate.chosen,
        "sage.candidate.filtered_by": candidate.filtered_by or None,
        "sage.candidate.filter_reason": candidate.filter_reason or None,
        "sage.candidate.scores": [f"{name}={score:g}" for name, score in candidate.scores.items()] or None,
    }


def _written(messages: Sequence[Message], **more: str) -> str:
    """Return messages as the JSON of gen_ai.input.messages.  ``more``: further members of each message.

    https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
    """
    found = [{"role": role, "parts": [{"type": "text", "content": text}], **more} for role, text in messages]
    return json.dumps(found, ensure_ascii=False)
