"""Usage records go to a receiver of logs, and what that receiver does concerns no request and no other record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sage_telemetry import log_export
from sage_telemetry.catalogue import ATTRIBUTES, GEN_AI, LOG_RECORDS, OF_LOG_RECORDS
from scheduler_svc.recording.usage.usage_recorder import DROPPED_FAILED, DROPPED_FULL, WRITTEN
from tests.integration.system.local_fleet import LocalFleet
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.support.eventually import eventually
from tests.support.otlp_values import values


async def answer(fleet: LocalFleet, requests: int) -> None:
    for _ in range(requests):
        await fleet.client.generate("Once", max_tokens=3, ignore_eos=True).result()


def counts(fleet: LocalFleet) -> dict[str, int]:
    assert fleet.scheduler.usage is not None
    return dict(fleet.scheduler.usage.counts())


async def test_a_record_says_what_the_file_says(receiver: OtlpReceiver, tmp_path: Path) -> None:
    usage = {"otlp_endpoint": receiver.endpoint, "file": tmp_path / "usage.jsonl"}
    async with LocalFleet(usage=usage) as fleet:
        await fleet.add("a")
        await answer(fleet, 3)
    assert [service for service, _ in receiver.logs] == ["sage-scheduler"] * 3
    for (_, record), line in zip(receiver.logs, (tmp_path / "usage.jsonl").read_text().splitlines(), strict=True):
        written, sent = json.loads(line), values(record.attributes)
        assert record.event_name in LOG_RECORDS
        assert sent.keys() <= {**ATTRIBUTES, **OF_LOG_RECORDS, **GEN_AI}.keys()
        assert record.time_unix_nano == int(written["ended_at"] * 1e9)
        assert (sent["sage.request.id"], sent["sage.tenant"]) == (written["request_id"], written["tenant"])
        assert sent["gen_ai.usage.output_tokens"] == written["output_tokens"] == 3
        assert (sent["sage.outcome"], sent["sage.usage.reason"]) == ("finished", "length")
        assert sent["sage.time.to_first_token"] == pytest.approx(written["first_token_s"])
    assert counts(fleet)[WRITTEN] == 3


async def test_it_needs_neither_journal_nor_file(receiver: OtlpReceiver) -> None:
    async with LocalFleet(usage={"otlp_endpoint": receiver.endpoint}) as fleet:
        await fleet.add("a")
        await answer(fleet, 2)
        await eventually(lambda: counts(fleet) == {WRITTEN: 2, DROPPED_FULL: 0, DROPPED_FAILED: 0}, what="the counts")
        assert len(receiver.logs) == 2


async def test_a_receiver_that_does_not_answer_holds_up_no_other_record(
    receiver: OtlpReceiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_export, "QUEUED_LIMIT", 2)
    receiver.delay_s = 60.0
    usage = {"otlp_endpoint": receiver.endpoint, "file": tmp_path / "usage.jsonl"}
    async with LocalFleet(usage=usage) as fleet:
        await fleet.add("a")
        await answer(fleet, 1)
        await eventually(lambda: receiver.calls)
        await answer(fleet, 4)
        await eventually(lambda: counts(fleet)[WRITTEN] == 5)
        assert counts(fleet)[DROPPED_FULL] == 2, "two wait for the receiver"
    assert len((tmp_path / "usage.jsonl").read_text().splitlines()) == 5
    assert counts(fleet)[DROPPED_FAILED] == 3


async def test_what_is_refused_is_counted_and_the_next_records_arrive(receiver: OtlpReceiver) -> None:
    receiver.refuses = True
    async with LocalFleet(usage={"otlp_endpoint": receiver.endpoint}) as fleet:
        await fleet.add("a")
        await answer(fleet, 1)
        await eventually(lambda: counts(fleet)[DROPPED_FAILED] == 1, within_s=20.0)
        receiver.refuses = False
        await answer(fleet, 1)
        await eventually(lambda: counts(fleet)[WRITTEN] == 1, what="the count")
