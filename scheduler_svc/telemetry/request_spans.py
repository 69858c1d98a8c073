"""Notes → spans: the tree of one request as the scheduler saw it.  Runs in the exporter's thread."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from opentelemetry.sdk.trace import Event
from opentelemetry.trace import Link, SpanContext, SpanKind

from sage_telemetry.spans import Attributes, SpanWriter, event
from sage_telemetry.trace_context import child_of
from scheduler_svc.control.live_request import Finished, LiveRequest
from scheduler_svc.control.submission import ChatPrompt, Prompt, TextPrompt
from scheduler_svc.domain.decision import Candidate, Decision
from scheduler_svc.domain.request import RequestState
from scheduler_svc.telemetry.outcomes import in_words, invalid_fields, reason_of
from scheduler_svc.telemetry.request_notes import AttemptNote, DecisionNote, RequestNotes, WaitNote

CANDIDATES_SHOWN = 16
CONTENT_LIMIT = 16_384
"""Characters of a prompt or an output on a span, where content is switched on; the rest is cut off."""


class RequestSpans:
    """Implements SpanSource."""

    def __init__(self, notes: RequestNotes, *, epoch: int, content: bool) -> None:
        self._notes = notes
        self._epoch = epoch
        self._content = content

    @property
    def context(self) -> SpanContext:
        return self._notes.context

    @property
    def span_count(self) -> int:
        notes = self._notes
        return 2 + len(notes.waits) + len(notes.decisions) + len(notes.attempts)

    def write_spans(self, writer: SpanWriter) -> None:
        notes = self._notes
        self._write_request(writer)
        self._write_child(
            writer,
            "sage.admission",
            notes.arrived_at,
            notes.accepted_at if notes.accepted_at is not None else notes.ended_at,
            {"sage.prompt.kind": notes.prompt_kind or None, "sage.invalid_fields": self._invalid or None},
            failed=in_words(notes.refusal) if notes.refusal is not None else None,
        )
        for wait in notes.waits:
            self._write_wait(writer, wait)
        for decision in notes.decisions:
            self._write_decision(writer, decision)
        for attempt in notes.attempts:
            self._write_attempt(writer, attempt)

    # --- the request ------------------------------------------------------------------------------

    def _write_request(self, writer: SpanWriter) -> None:
        notes, live = self._notes, self._notes.live
        first = live.first_token_at if live is not None else None
        writer.write(
            "sage.request",
            notes.context,
            notes.parent,
            self._ns(notes.arrived_at),
            self._ns(notes.ended_at),
            {**self._asked(), **(_answered(live) if live is not None else {}), **self._ended(), **self._contents()},
            kind=SpanKind.SERVER,
            failed=self._failed(),
            events=(event("sage.first_token", self._ns(first)),) if first is not None else (),
        )

    def _asked(self) -> Attributes:
        notes = self._notes
        return {
            "gen_ai.operation.name": "chat" if notes.prompt_kind == "chat" else "text_completion",
            "gen_ai.provider.name": "sage",
            "gen_ai.request.model": notes.live.request.model if notes.live is not None else notes.model,
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
        notes, live = self._notes, self._notes.live
        attainment = notes.attainment
        outcome = live.outcome if live is not None else notes.refusal
        assert outcome is not None, "it is over"
        return {
            "sage.outcome": live.state.value if live is not None else "refused",
            "sage.slo.met": attainment.kept if attainment.counts else None,
            "sage.slo.missed": attainment.missed or None,
            "sage.invalid_fields": self._invalid or None,
            "error.type": None if isinstance(outcome, Finished) else reason_of(outcome),
        }

    def _failed(self) -> str | None:
        """Why the span's status is an error.  A cancelled request is none."""
        live, refusal = self._notes.live, self._notes.refusal
        if refusal is not None:
            return in_words(refusal)
        assert live is not None, "it was refused or it lived"
        if isinstance(live.outcome, Finished) or live.state is RequestState.CANCELLED or live.outcome is None:
            return None
        return in_words(live.outcome)

    @property
    def _invalid(self) -> list[str]:
        live = self._notes.live
        return invalid_fields(live.outcome if live is not None else self._notes.refusal)

    def _contents(self) -> Attributes:
        if not self._content:
            return {}
        prompt, live = self._notes.prompt, self._notes.live
        output = live.output.text if live is not None else ""
        return {
            "gen_ai.input.messages": json.dumps(_messages(prompt), ensure_ascii=False) if prompt is not None else None,
            "gen_ai.output.messages": json.dumps([_message("assistant", output)], ensure_ascii=False),
        }

    # --- its parts --------------------------------------------------------------------------------

    def _write_wait(self, writer: SpanWriter, wait: WaitNote) -> None:
        until = wait.until if wait.until is not None else self._notes.ended_at
        attributes: Attributes = {
            "sage.queue.resumed": wait.resumed,
            "sage.queue.left_behind": wait.left_behind if wait.until is not None else None,
        }
        self._write_child(writer, "sage.queue", wait.since, until, attributes)

    def _write_decision(self, writer: SpanWriter, note: DecisionNote) -> None:
        decision = note.decision
        shown = [*decision.candidates[:CANDIDATES_SHOWN]]
        chosen = next((c for c in decision.candidates if c.chosen), None)
        end = decision.decided_at + note.took_s
        self._write_child(
            writer,
            "sage.decision",
            decision.decided_at,
            end,
            {**_decided(decision), **_score(chosen), "sage.decision.batch": note.batch},
            events=[event("sage.candidate", self._ns(end), _candidate(candidate)) for candidate in shown],
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
                "sage.attempt.replay": attempt.replay,
                "sage.attempt.end": attempt.end,
                "sage.failure": attempt.failure,
                "error.type": attempt.end if attempt.failure is not None else None,
            },
            kind=SpanKind.CLIENT,
            failed=attempt.failure,
            events=(event("sage.first_token", self._ns(first)),) if first is not None else (),
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


def _answered(live: LiveRequest) -> Attributes:
    request, sampling, outcome = live.request, live.request.sampling, live.outcome
    finished = outcome if isinstance(outcome, Finished) else None
    first = live.first_token_at
    return {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k or None,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty or None,
        "gen_ai.request.presence_penalty": sampling.presence_penalty or None,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.response.model": request.model if finished is not None else None,
        "gen_ai.response.finish_reasons": [finished.finish_reason] if finished is not None else None,
        "gen_ai.usage.input_tokens": request.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": finished.cached_prompt_tokens if finished is not None else None,
        "gen_ai.usage.output_tokens": len(live.output),
        "sage.adapter": request.adapter or None,
        "sage.attempts": live.attempts,
        "sage.cost": live.cost,
        "sage.time.queue": None if live.first_assigned_at is None else live.first_assigned_at - request.arrived_at,
        "sage.time.to_first_token": None if first is None else first - request.arrived_at,
        "sage.time.per_output_token": _per_token(live),
    }


def _per_token(live: LiveRequest) -> float | None:
    first, last = live.first_token_at, live.last_token_at
    if first is None or last is None or len(live.output) < 2:
        return None
    return (last - first) / (len(live.output) - 1)


def _decided(decision: Decision) -> Attributes:
    prediction = decision.prediction
    return {
        "sage.policy": decision.policy,
        "sage.decision.rule": decision.rule,
        "sage.decision.reasons": decision.reasons,
        "sage.phase": decision.phase.value,
        "sage.phase.reason": decision.phase_reason,
        "sage.instance.id": decision.instance_id,
        "sage.prefill.instance.id": decision.prefill.instance_id if decision.prefill is not None else None,
        "sage.candidates.considered": decision.candidates_considered,
        "sage.predicted.start": prediction.start_s,
        "sage.predicted.first_token": prediction.first_token_s,
        "sage.predicted.finish": prediction.finish_s,
        "sage.predicted.output_tokens": prediction.output_tokens,
        "sage.predicted.cost": prediction.cost,
        "sage.reserved_tokens": decision.reserved_tokens,
    }


def _score(chosen: Candidate | None) -> Attributes:
    """Of the scorer that decided first."""
    for scorer, score in chosen.scores.items() if chosen is not None else ():
        return {"sage.decision.score": score, "sage.decision.scored_by": scorer}
    return {}


def _candidate(candidate: Candidate) -> Attributes:
    return {
        "sage.instance.id": candidate.instance_id,
        "sage.candidate.chosen": candidate.chosen,
        "sage.candidate.filtered_by": candidate.filtered_by or None,
        "sage.candidate.filter_reason": candidate.filter_reason or None,
        "sage.candidate.scores": [f"{name}={score:g}" for name, score in candidate.scores.items()] or None,
    }


def _messages(prompt: Prompt) -> list[dict[str, object]]:
    """https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (gen_ai.input.messages)"""
    return list(_each_message(prompt))


def _each_message(prompt: Prompt) -> Iterator[dict[str, object]]:
    if isinstance(prompt, TextPrompt):
        yield _message("user", prompt.text)
    elif isinstance(prompt, ChatPrompt):
        for turn in prompt.conversation.turns:
            yield _message(turn.role, turn.text)
    else:
        yield _message("user", " ".join(map(str, prompt.token_ids[:CONTENT_LIMIT])))


def _message(role: str, text: str) -> dict[str, object]:
    return {"role": role, "parts": [{"type": "text", "content": text[:CONTENT_LIMIT]}]}
