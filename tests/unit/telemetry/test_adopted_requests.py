"""A request that an earlier scheduler accepted is counted and traced by the one that goes on with it."""

from __future__ import annotations

from typing import Any

import pytest

from sage_telemetry import catalogue
from sage_telemetry.catalogue import BOTH, SCHEDULER
from sage_telemetry.instrument import Instrument
from sage_telemetry.meter import Meter
from sage_telemetry.trace_context import parent_of
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.request import RequestState
from scheduler_svc.telemetry.observer import TelemetryObserver
from tests.unit.control.test_adoption import NEXT_EPOCH, Next, orders
from tests.unit.telemetry.test_request_watch import Kept

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TOKENS = 5


class Observed:
    """The next scheduler with its telemetry."""

    def __init__(self) -> None:
        self.meter, self.kept = Meter((*BOTH, *SCHEDULER)), Kept()
        spans: Any = self.kept
        self.next = Next(
            "a",
            observe=lambda scheduler: TelemetryObserver(
                scheduler, self.meter, spans, epoch=NEXT_EPOCH, sampling_ratio=1.0, content=False
            ),
        )

    def end(self, live: LiveRequest) -> None:
        end = AttemptEnd(
            attempt_number=live.placements[0].decision.attempt_number,
            cause=EndCause.FINISHED,
            finish_reason="stop",
            total_tokens=len(live.output),
            engine_time_s=2.0,
        )
        self.next.plane.attempts.ended("a", end)

    def total(self, instrument: Instrument, suffix: str = "_total", **labels: str) -> float:
        family = dict(self.meter.read())[instrument]
        return sum(
            each.value
            for each in family.samples
            if each.name.endswith(suffix) and labels.items() <= each.labels.items()
        )


async def test_its_end_and_its_tokens_count() -> None:
    (order,) = await orders("r", trace_headers={"traceparent": TRACEPARENT})
    observed = Observed()
    live = observed.next.adopt("a", order)
    observed.next.tokens("a", live, TOKENS)
    observed.end(live)
    assert live.state is RequestState.FINISHED
    assert observed.total(catalogue.REQUESTS, outcome="finished") == 1
    assert observed.total(catalogue.TENANT_TOKENS, kind="output") == TOKENS
    assert observed.total(catalogue.TTFT, "_count") == 0, "its first token came before"
    assert observed.total(catalogue.PREDICTION_ERROR, "_count") == 0, "its times began with the earlier scheduler"
    counts = observed.next.plane.fleet_watch._statistics.counts
    assert any(each.ended[RequestState.FINISHED] for each in counts.open(observed.next.clock.now()))


async def test_its_span_belongs_to_its_callers_trace() -> None:
    (order,) = await orders("r", trace_headers={"traceparent": TRACEPARENT})
    observed = Observed()
    live = observed.next.adopt("a", order)
    observed.next.tokens("a", live, TOKENS)
    observed.end(live)
    (spans,) = observed.kept.sources
    notes = spans._notes
    parent = parent_of({"traceparent": TRACEPARENT})
    assert parent is not None
    assert notes.context.trace_id == parent.trace_id
    assert notes.arrived_at == pytest.approx(live.request.arrived_at)
    assert [each.instance_id for each in notes.attempts] == ["a"]
    assert notes.attempts[0].end == "finished"


async def test_one_that_is_placed_anew_waits_under_its_observer() -> None:
    (order,) = await orders("r")
    observed = Observed()
    live = observed.next.adopt("a", order)
    observed.next.plane.attempts.instance_lost("a", "gone")
    assert live.state is RequestState.QUEUED
    assert observed.total(catalogue.FAILOVERS) == 1
