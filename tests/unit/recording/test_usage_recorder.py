"""Usage records: gathered without a wait, bounded, and handed on once the journal takes them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.journal.usage import (
    Position,
    UsageFilter,
    UsageGroup,
    UsageRecord,
    UsageRetention,
    UsageSum,
)
from scheduler_svc.control.requests.earlier_attempt import AdoptedAttempt
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.errors import JournalUnavailable, RequestCancelled
from scheduler_svc.domain.request import Request, RequestKey, RequestState, Sampling
from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.recording.usage import usage_recorder
from scheduler_svc.recording.usage.usage_file import UsageFile
from scheduler_svc.recording.usage.usage_recorder import UsageRecorder, UsageTargets
from scheduler_svc.telemetry.outcomes import reason_of

WALL = 1_000_000.0


class StoredUsage:
    """Implements UsageStore; refuses while it is in trouble."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self.trouble = False
        self.refused = ""  # the id of a record that cannot be kept
        self.hanging: asyncio.Event | None = None  # what an answer waits for, after the records are kept
        self.maybe_kept: list[bool] = []  # of each call

    async def add(self, records: Sequence[UsageRecord], *, maybe_kept: bool = False) -> None:
        self.maybe_kept.append(maybe_kept)
        if self.trouble:
            raise JournalUnavailable("full")
        if any(each.request_id == self.refused for each in records):
            raise ValueError("a value that no column takes")
        if maybe_kept:
            self.records = [each for each in self.records if each not in records]
        self.records.extend(records)
        if self.hanging is not None:
            await self.hanging.wait()

    async def page(
        self, wanted: UsageFilter, after: Position | None, most: int
    ) -> tuple[Sequence[UsageRecord], Position | None]:
        raise AssertionError

    async def sums(self, wanted: UsageFilter, groups: Sequence[UsageGroup], most: int) -> Sequence[UsageSum]:
        raise AssertionError

    async def retain(self, retention: UsageRetention, now: float) -> int:
        return 0


def ended(number: int) -> LiveRequest:
    request = Request(
        key=RequestKey(tenant="t", request_id=f"r{number}"),
        model="m",
        prompt_token_ids=[1, 2, 3],
        sampling=Sampling(max_tokens=4),
        arrived_at=2.0,
    )
    live = LiveRequest(request=request, digest=b"", detached=True)
    live.first_assigned_at, live.first_token_at, live.ended_at = 2.5, 3.0, 10.0
    live.transition(RequestState.CANCELLED)
    live.outcome = RequestCancelled("enough")
    return live


def recorder(clock: VirtualClock, store: StoredUsage | None, file: UsageFile | None = None) -> UsageRecorder:
    return UsageRecorder(clock, UsageTargets(store=store, file=file), reason_of, wall=lambda: WALL + clock.now())


async def test_a_record_says_what_was_used_and_when() -> None:
    clock, store = VirtualClock(), StoredUsage()
    await clock.advance(10.0)
    usage = recorder(clock, store)
    usage.request_ended(ended(1), "enough")
    await clock.advance(3.0)
    await usage.flush()
    [record] = store.records
    assert (record.tenant, record.request_id, record.priority, record.detached) == ("t", "r1", "normal", True)
    assert (record.prompt_tokens, record.output_tokens, record.end, record.reason) == (3, 0, "cancelled", "cancelled")
    assert (record.arrived_at, record.ended_at) == (WALL + 2.0, WALL + 10.0)
    assert (record.waited_s, record.first_token_s) == (0.5, 1.0)


async def test_records_wait_while_the_journal_is_in_trouble() -> None:
    clock, store = VirtualClock(), StoredUsage()
    usage = recorder(clock, store)
    store.trouble = True
    for number in range(3):
        usage.request_ended(ended(number), "enough")
    await usage.flush()
    assert usage.counts() == {"written": 0, "dropped_queue_full": 0, "dropped_not_written": 0}
    store.trouble = False
    await usage.flush()
    assert [each.request_id for each in store.records] == ["r0", "r1", "r2"]
    assert usage.counts()["written"] == 3


async def test_beyond_the_bound_records_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_recorder, "WAITING_LIMIT", 5)
    store = StoredUsage()
    usage = recorder(VirtualClock(), store)
    store.trouble = True
    for number in range(4):
        usage.request_ended(ended(number), "enough")
    await usage.flush()
    for number in range(4, 20):
        usage.request_ended(ended(number), "enough")
    await usage.flush()
    assert usage.counts() == {"written": 0, "dropped_queue_full": 15, "dropped_not_written": 0}
    store.trouble = False
    await usage.flush()
    assert len(store.records) == 5


async def test_a_file_has_a_line_for_each_record_and_needs_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    file = UsageFile(LogFile(path, max_bytes=2**20, files=2))
    usage = recorder(VirtualClock(), None, file)
    usage.start()
    for number in range(3):
        usage.request_ended(ended(number), "enough")
    await usage.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["request_id"] for line in lines] == ["r0", "r1", "r2"]
    assert usage.counts()["written"] == 3


async def test_a_batch_whose_end_is_unknown_is_kept_once() -> None:
    clock, store = VirtualClock(), StoredUsage()
    usage = recorder(clock, store)
    usage.request_ended(ended(1), "enough")
    store.hanging = asyncio.Event()
    running = asyncio.ensure_future(usage.flush())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(store.records) == 1
    running.cancel()  # as a scheduler that stops does, before the journal has answered
    await asyncio.wait([running])
    store.hanging = None
    usage.request_ended(ended(2), "enough")
    await usage.close()
    assert [each.request_id for each in store.records] == ["r1", "r2"]
    assert store.maybe_kept == [False, True]


async def test_a_record_that_cannot_be_kept_is_dropped_alone() -> None:
    store = StoredUsage()
    usage = recorder(VirtualClock(), store)
    store.refused = "r1"
    for number in range(3):
        usage.request_ended(ended(number), "enough")
    await usage.flush()
    assert [each.request_id for each in store.records] == ["r0", "r2"]
    assert usage.counts() == {"written": 2, "dropped_queue_full": 0, "dropped_not_written": 1}


async def test_records_that_the_file_lacks_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log_file = LogFile(tmp_path / "usage.jsonl", max_bytes=2**20, files=2)
    usage = recorder(VirtualClock(), None, UsageFile(log_file))
    usage.start()

    def full(lines: Sequence[bytes]) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(log_file, "append", full)
    usage.request_ended(ended(1), "enough")
    await usage.close()
    assert usage.counts() == {"written": 0, "dropped_queue_full": 0, "dropped_not_written": 1}


async def test_a_restart_goes_on_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    for number in range(5):
        usage = recorder(VirtualClock(), None, UsageFile(LogFile(path, max_bytes=2**20, files=2)))
        usage.start()
        usage.request_ended(ended(number), "enough")
        await usage.close()
        with path.open("a") as file:
            file.write('{"half a line of a scheduler that was kil')
    lines = path.read_text().splitlines()[:-1]
    assert [json.loads(line)["request_id"] for line in lines] == ["r0", "r1", "r2", "r3", "r4"]
    assert not path.with_name("usage.jsonl.1").exists()


@pytest.mark.parametrize("put_aside", [False, True])
async def test_an_end_that_comes_again_after_a_restart_has_one_line(tmp_path: Path, put_aside: bool) -> None:
    path = tmp_path / "usage.jsonl"
    first = recorder(VirtualClock(), None, UsageFile(LogFile(path, max_bytes=2**20, files=2)))
    first.start()
    first.request_ended(ended(1), "enough")
    await first.close()
    if put_aside:
        path.rename(path.with_name("usage.jsonl.1"))
    second = recorder(VirtualClock(), None, UsageFile(LogFile(path, max_bytes=2**20, files=2)))
    second.start()
    for number, adopted in ((1, True), (2, True), (1, False)):  # the last one has an id that is used again
        live = ended(number)
        if adopted:
            live.adopted = AdoptedAttempt(epoch=1, number=1, tokens=0)
        second.request_ended(live, "enough")
    await second.close()
    written = [json.loads(line) for line in path.read_text().splitlines()]
    expected = [("r2", True), ("r1", False)]
    assert [(each["request_id"], each["adopted"]) for each in written][-2:] == expected
    assert len(written) == (2 if put_aside else 3)


async def test_a_stop_while_the_file_is_written_loses_and_mixes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "usage.jsonl"
    log_file, store, may_go_on = LogFile(path, max_bytes=2**20, files=2), StoredUsage(), threading.Event()
    usage = recorder(VirtualClock(), store, UsageFile(log_file))
    usage.start()
    append, began = log_file.append, threading.Event()

    def slow(lines: Sequence[bytes]) -> None:
        began.set()
        may_go_on.wait(10.0)
        append(lines)

    monkeypatch.setattr(log_file, "append", slow)
    usage.request_ended(ended(1), "enough")
    running = asyncio.ensure_future(usage.flush())
    assert await asyncio.to_thread(began.wait, 10.0)
    running.cancel()
    await asyncio.wait([running])
    usage.request_ended(ended(2), "enough")
    closing = asyncio.ensure_future(usage.close())
    may_go_on.set()
    await closing
    assert [each.request_id for each in store.records] == ["r1", "r2"]
    assert [json.loads(line)["request_id"] for line in path.read_text().splitlines()] == ["r1", "r2"]


class SilentReceiver:
    """A log whose receiver does not answer until it is closed."""

    def __init__(self) -> None:
        self.counts = (0, 0, 0)
        self.queued: list[str] = []
        self.closed = False

    def start(self) -> None:
        pass

    def put(self, records: Sequence[UsageRecord]) -> None:
        self.queued += [each.request_id for each in records]

    def close(self) -> None:
        self.closed = True


async def test_the_next_leader_does_not_wait_for_the_receiver_of_logs() -> None:
    store, receiver = StoredUsage(), SilentReceiver()
    usage = UsageRecorder(VirtualClock(), UsageTargets(store=store, log=receiver), reason_of, wall=lambda: WALL)
    usage.start()
    usage.request_ended(ended(1), "enough")
    await usage.close()
    assert [each.request_id for each in store.records] == receiver.queued == ["r1"]
    assert not receiver.closed
    await usage.close_log()
    assert receiver.closed
