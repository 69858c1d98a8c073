"""What a request took and cost, for callers that ask for it with the option ``report``."""

from __future__ import annotations

from typing import Any

from sage_client import Timings
from sage_gateway.error_answers import MESSAGES, as_json
from sage_gateway.error_events import RESPONSES
from sage_gateway.http_call import HttpCall

_PHASES = {
    "queue": "queue_s",
    "ttft": "time_to_first_token_s",
    "prefill": "prefill_s",
    "transfer": "transfer_s",
    "decode": "decode_s",
    "total": "total_s",
}
"""Names in the header ``server-timing``, and the SDK's of the same times."""


def report_headers(call: HttpCall) -> list[tuple[bytes, bytes]]:
    """Return the headers of an answer that begins after its requests have ended: cost, placements, times in ms."""
    if not (call.finished or call.cost):
        return []
    found = [(b"x-sage-cost", f"{call.cost:.12g}".encode())]
    if call.finished:
        found.append((b"x-sage-attempts", str(sum(each.attempts for each in call.finished)).encode()))
        slowest = max(call.finished, key=lambda each: each.timings.total_s or 0.0)
        found.append((b"server-timing", _server_timing(slowest.timings).encode()))
    return found


def _server_timing(timings: Timings) -> str:
    phases = ((name, getattr(timings, field)) for name, field in _PHASES.items())
    return ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in phases if seconds is not None)


def report_event(path: str, call: HttpCall) -> bytes:
    """Return the event with which a stream of the API at ``path`` ends, before its ``[DONE]``."""
    report = _report(call)
    if path in (RESPONSES, MESSAGES):
        return b"event: sage.report\ndata: " + as_json({"type": "sage.report", "sage": report}) + b"\n\n"
    chunk: dict[str, Any] = {
        "id": call.request_ids[0] if call.request_ids else "",
        "object": "chat.completion.chunk" if "/chat/" in path else "text_completion",
        "created": 0,
        "model": call.accepted.model if call.accepted is not None else "",
        "choices": [],
        "sage": report,
    }
    return b"data: " + as_json(chunk) + b"\n\n"


def _report(call: HttpCall) -> dict[str, Any]:
    """Return what all requests of an HTTP call cost, and what each took; one per choice of each prompt."""
    decision = call.scheduled.decision if call.scheduled is not None else None
    kept = ("finish_reason", "timings", "attempts", "cost", "slo")
    ended = [each.to_dict() for each in call.finished]
    return {
        "cost": call.cost,
        "request_ids": call.request_ids,
        "instance": decision.instance_id if decision is not None else None,
        "policy": decision.policy if decision is not None else None,
        "requests": [{name: each[name] for name in kept} for each in ended],
    }
