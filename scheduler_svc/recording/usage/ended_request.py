"""Makes a usage record of a request that ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scheduler_svc.control.journal.usage import UsageRecord
from scheduler_svc.control.requests.choices import Choices
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.domain.request import Priority

_PRIORITIES = {each: each.name.lower() for each in Priority}


def usage_of(live: LiveRequest, since_1970_s: float, reason_of: Callable[[Outcome], str]) -> UsageRecord:
    """Return the record of a request that has ended under this scheduler; of several choices ``live`` is choice 0.

    ``since_1970_s``: what turns the control clock into seconds since 1970.  One is made for each request, so its fields
    are given in their order, at a third of the time that it takes by their names.
    """
    request, outcome, placed_at, token_at = live.request, live.outcome, live.first_assigned_at, live.first_token_at
    tenant, request_id, _ = request.key
    arrived_at, ended_at = request.arrived_at, live.ended_at
    assert ended_at is not None, "it has ended"
    cached_tokens, cost = 0, live.cost
    if isinstance(outcome, Finished):
        cached_tokens, cost = outcome.cached_prompt_tokens, max(cost, outcome.cost)
    record = UsageRecord(
        tenant,
        request_id,
        request.model,
        request.adapter,
        _PRIORITIES[request.priority],
        live.detached,
        request.prompt_tokens,
        cached_tokens,
        len(live.output),
        _in_microseconds(arrived_at + since_1970_s),
        _in_microseconds(ended_at + since_1970_s),
        None if placed_at is None else placed_at - arrived_at,
        None if token_at is None else token_at - arrived_at,
        live.attempts,
        cost,
        live.state.value,
        reason_of(outcome) if outcome is not None else "",
        live.adopted is not None,
    )
    return record if live.choices is None else _of_all(live.choices, record, since_1970_s, reason_of)


def _of_all(
    choices: Choices[LiveRequest], record: UsageRecord, since_1970_s: float, reason_of: Callable[[Outcome], str]
) -> UsageRecord:
    """Return the record of several choices; ``record``: of choice 0."""
    members, outcome = choices.members, choices.outcome
    arrived_at = members[0].request.arrived_at
    placed_at = _first(each.first_assigned_at for each in members)
    token_at = _first(each.first_token_at for each in members)
    return record._replace(
        output_tokens=sum(len(each.output) for each in members),
        ended_at=_in_microseconds(max(each.ended_at or 0.0 for each in members) + since_1970_s),
        waited_s=None if placed_at is None else placed_at - arrived_at,
        first_token_s=None if token_at is None else token_at - arrived_at,
        attempts=sum(each.attempts for each in members),
        cost=sum(each.cost for each in members),
        end=choices.state.value,
        reason=reason_of(outcome) if outcome is not None else "",
        adopted=any(each.adopted is not None for each in members),
    )


def _first(times: Iterable[float | None]) -> float | None:
    return min((each for each in times if each is not None), default=None)


def _in_microseconds(seconds: float) -> float:
    """Round to microseconds, as timestamps on the wire are: who asks for records since this one's end gets it."""
    return int(seconds * 1e6 + 0.5) / 1e6
