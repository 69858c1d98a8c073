"""The queue between the event loop and the receiver: bounded, never waited for, counted."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest

from sage_telemetry.catalogue import TRACE_SPANS
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.resource import Identity
from sage_telemetry.span_export import DEFAULT_LIMITS, SpanExport
from sage_telemetry.spans import SpanWriter
from sage_telemetry.trace_context import begin

NOBODY = OtlpEndpoint("127.0.0.1:9", secure=False)
IDENTITY = Identity(service="scheduler", instance_id="test")
QUICK = replace(DEFAULT_LIMITS, queue=10, interval_s=0.02, tries=1, timeout_s=0.5, close_s=0.5)


class OneSpan:
    def write_spans(self, writer: SpanWriter) -> None:
        writer.write("sage.request", begin(None, 1.0), "", 1, 2, {})


class Broken:
    def write_spans(self, writer: SpanWriter) -> None:
        raise RuntimeError("a defect")


def counted(export: SpanExport) -> dict[str, float]:
    return {labels[0]: value for labels, value in export.observed()[TRACE_SPANS]}


def test_at_its_bound_the_queue_drops_the_newest_and_counts() -> None:
    export = SpanExport(NOBODY, IDENTITY, QUICK)
    for _ in range(25):
        export.put(OneSpan())
    assert counted(export) == {"exported": 0, "dropped_queue_full": 15, "dropped_not_delivered": 0}
    export.close()


def test_what_nobody_takes_is_dropped_and_counted() -> None:
    export = SpanExport(NOBODY, IDENTITY, QUICK)
    export.start()
    for _ in range(5):
        export.put(OneSpan())
    export.close()
    assert counted(export)["dropped_not_delivered"] == 5


def test_a_defect_in_one_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    export = SpanExport(NOBODY, IDENTITY, QUICK)
    export.put(Broken())
    export.put(OneSpan())
    export.start()
    export.close()
    assert counted(export)["dropped_not_delivered"] == 2
    assert [r.levelno for r in caplog.records if "cannot be written" in r.message] == [logging.ERROR]


def test_putting_never_waits() -> None:
    export = SpanExport(NOBODY, IDENTITY, replace(QUICK, queue=100_000))
    export.start()
    started = time.perf_counter()
    for _ in range(20_000):
        export.put(OneSpan())
    each_s = (time.perf_counter() - started) / 20_000
    export.close()
    assert each_s < 0.001
