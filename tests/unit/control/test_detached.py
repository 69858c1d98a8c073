"""Detached work: durable when it is accepted, written down as it runs, one result whatever dies."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from scheduler_svc.control.attempts.executor_link import AssignOrder, Continuation
from scheduler_svc.control.detached import detached_work
from scheduler_svc.control.detached.detached_work import EXPIRY_INTERVAL_S
from scheduler_svc.control.detached.journaled_output import READ_PACE_S
from scheduler_svc.control.journal.detached import Page
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import UNOBSERVED
from scheduler_svc.control.requests.outcome import Finished, RecordedFailure
from scheduler_svc.domain.continuation import ContinuationMode
from scheduler_svc.domain.errors import (
    InvalidRequest,
    JournalUnavailable,
    NoJournal,
    OutputLost,
    QueueFull,
    Recovering,
    RequestConflict,
    RequestNotFound,
    TenantLimitReached,
)
from scheduler_svc.domain.request import RequestKey, RequestState
from tests.support.memory_detached_store import MemoryDetachedStore
from tests.unit.control.detached_world import DetachedWorld
from tests.unit.control.world import World, expected


def key(request_id: str) -> RequestKey:
    return RequestKey(tenant="t", request_id=request_id)


async def test_it_is_durable_when_it_is_accepted() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.store.held = asyncio.Event()
        accepting = asyncio.ensure_future(world.leave("a"))
        await world.advance(1.0)
        assert not accepting.done()
        assert world.plane.requests.find(key("a")) is None, "nothing runs that is not written down"
        world.store.held.set()
        await world.advance(0.01)
        live, attached = accepting.result()
        assert (live.key, attached) == (key("a"), False)
        assert world.store.rows[key("a")].end is None


async def test_it_runs_without_a_client_and_its_result_is_kept() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100)
        await world.advance(5.0)
        row = world.store.rows[key("a")]
        assert [t for piece in row.pieces for t in piece.token_ids] == expected(100)
        assert row.end is not None
        assert row.end.state is RequestState.FINISHED
        assert row.end.keep_until - row.end.ended_at == world.work.settings.keep_result_s
        world.assert_all_room_is_free()


async def test_the_same_again_attaches_also_after_the_end() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        first, _ = await world.leave("a")
        again, attached = await world.leave("a")
        assert attached
        assert again is first
        await world.advance(5.0)
        _, attached = await world.leave("a")
        assert attached
        with pytest.raises(RequestConflict):
            await world.leave("a", prompt=11)
        assert world.executors["x"].log.count("assign a") == 1


async def test_without_a_journal_it_is_refused_with_words() -> None:
    async with World() as world:
        world.add("x")
        with pytest.raises(NoJournal, match="state_dir"):
            await world.plane.intake.leave_behind(world.submission("a", detached=True))


async def test_a_journal_in_trouble_refuses_detached_work_and_nothing_else() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.store.trouble = "the disk is full"
        with pytest.raises(JournalUnavailable, match="disk is full"):
            await world.leave("a")
        reader = await world.submit("b")
        await world.advance(2.0)
        assert reader.token_ids == expected(20)
        world.store.trouble = ""
        await world.leave("a")
        await world.advance(5.0)
        assert world.store.rows[key("a")].end is not None, "what could not be deleted was accepted anew"


async def test_what_is_refused_after_it_was_written_down_leaves_nothing() -> None:
    async with DetachedWorld(queue={"limit_per_model": 1}) as world:
        world.add("x", max_running=1)
        world.executors["x"].hung = True
        for request_id in ("a", "b", "c", "d", "e", "f"):
            try:
                await world.leave(request_id)
            except QueueFull:
                break
            await world.advance(0.1)
        assert len(world.store.rows) == world.work.unfinished == len(world.plane.requests)


async def test_a_reader_gets_only_what_is_written_down() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100)
        world.store.held = asyncio.Event()
        reader = world.read("a")
        await world.advance(0.5)
        live = world.plane.requests.get(key("a"))
        assert len(live.output) > 30
        assert reader.token_ids == []
        world.store.held.set()
        world.store.held = None
        await world.advance(0.2)
        written = sum(len(p.token_ids) for p in world.store.rows[key("a")].pieces)
        assert len(reader.token_ids) == written > 30
        assert len(live.output) - written < READ_PACE_S / 0.01 + 2, "a request that is read is written down soon"
        await world.advance(2.0)
        assert reader.token_ids == expected(100)
        assert isinstance(reader.events[-1], Finished)


async def test_a_reader_gets_the_end_only_when_it_is_written_down() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=5)
        reader = world.read("a")
        told: list[LiveRequest] = []
        world.work.on_end(told.append)
        world.store.trouble = "stopped"
        await world.advance(3.0)
        assert world.plane.requests.get(key("a")).state is RequestState.FINISHED
        assert reader.events == [] or reader.finished_not_yet()
        assert told == []
        world.store.trouble = ""
        await world.advance(2.0)
        assert [live.key for live in told] == [key("a")], "whoever waits for it is told, once"
        assert reader.token_ids == expected(5)
        assert isinstance(reader.events[-1], Finished)


async def test_checkpoints_are_written_every_so_many_tokens_or_seconds() -> None:
    async with DetachedWorld(detached={"checkpoint_tokens": 50, "checkpoint_s": 0.3}) as world:
        world.add("x")
        await world.leave("a", max_tokens=200)
        await world.advance(5.0)
        sizes = [len(p.token_ids) for p in world.store.rows[key("a")].pieces]
        assert sum(sizes) == 200
        assert max(sizes) <= 52
        assert 4 <= len(sizes) <= 9


async def test_quotas_name_their_limit() -> None:
    async with DetachedWorld(detached={"tenant_requests": 2, "tenant_bytes": 5_000}) as world:
        world.add("x")
        await world.leave("a")
        await world.leave("b")
        with pytest.raises(TenantLimitReached, match=r"detached\.tenant_requests"):
            await world.leave("c")
        await world.leave("c", tenant="other")
    async with DetachedWorld(detached={"tenant_bytes": 5_000}) as world:
        world.add("x")
        with pytest.raises(TenantLimitReached, match=r"detached\.tenant_bytes"):
            await world.leave("a", prompt=4_000)
        assert not world.store.rows


async def test_a_result_is_deleted_when_its_time_is_over() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", keep_result_s=60.0)
        await world.advance(10.0)
        assert key("a") in world.store.rows
        await world.advance(60.0 + EXPIRY_INTERVAL_S)
        assert not world.store.rows
        assert len(world.work) == 0


async def test_a_deleted_result_is_unknown_to_the_record_too() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", keep_result_s=60.0)
        await world.advance(70.0 + EXPIRY_INTERVAL_S)
        with pytest.raises(RequestNotFound):
            await world.plane.intake.known.find(key("a"))
        _, attached = await world.leave("a", keep_result_s=60.0)
        assert not attached
        assert key("a") in world.store.rows, "what is accepted is durable"


async def test_all_results_whose_time_is_over_are_deleted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached_work, "REMOVED_AT_ONCE", 2)
    async with DetachedWorld() as world:
        world.add("x", max_running=10)
        for number in range(7):
            await world.leave(f"r{number}", keep_result_s=60.0)
        await world.advance(10.0)
        assert len(world.store.rows) == 7
        await world.advance(60.0 + EXPIRY_INTERVAL_S)
        assert not world.store.rows


async def test_results_are_deleted_also_while_requests_may_still_come_back() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", keep_result_s=60.0)
        await world.advance(10.0)
    async with DetachedWorld(store=world.store, epoch=9, expected=("x",), started_at=100.0) as after:
        await after.advance(EXPIRY_INTERVAL_S)
        assert after.plane.recovery.open
        assert not after.store.rows


async def test_a_deletion_that_fails_is_tried_again_later() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", keep_result_s=60.0)
        await world.advance(10.0)
        world.store.trouble = "the disk is full"
        await world.advance(60.0 + EXPIRY_INTERVAL_S)
        assert key("a") in world.store.rows
        world.store.trouble = ""
        await world.advance(EXPIRY_INTERVAL_S)
        assert not world.store.rows


async def test_a_request_that_cannot_be_written_down_holds_up_no_other() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.store.refuses = key("bad")
        await world.leave("bad")
        await world.leave("good")
        await world.advance(5.0)
        assert world.store.rows[key("good")].end is not None
        assert world.store.rows[key("bad")].end is None
        assert world.store.refused < 12, "it is tried once a second"
        world.store.refuses = None
        await world.advance(2.0)
        assert world.store.rows[key("bad")].end is not None


async def test_what_is_written_down_and_not_accepted_yet_cannot_be_cancelled() -> None:
    async with DetachedWorld(queue={"limit_per_model": 1}) as world:
        world.add("x")
        cancels: list[str] = []

        async def cancel() -> None:
            while world.work.live(key("b")) is None:
                await asyncio.sleep(0)
            with pytest.raises(RequestNotFound):
                world.plane.intake.cancel(key("b"), "")
            cancels.append("refused")

        cancelling = asyncio.ensure_future(cancel())
        # The queue is full until the next pass, and "b" waits for that.
        await asyncio.gather(world.leave("a"), world.leave("b"))
        await cancelling
        assert cancels
        await world.advance(5.0)
        assert world.store.rows[key("b")].end is not None
        assert not len(world.plane.requests)
        world.assert_all_room_is_free()


async def test_keep_result_has_a_bound() -> None:
    async with DetachedWorld(detached={"keep_result_limit_s": 100.0, "keep_result_s": 50.0}) as world:
        world.add("x")
        with pytest.raises(InvalidRequest, match="keep_result"):
            await world.leave("a", keep_result_s=101.0)


async def test_a_request_that_runs_becomes_detached_when_it_is_submitted_so() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        reader = await world.submit("a", max_tokens=50)
        await world.advance(0.2)
        again = replace(world.submission("a", max_tokens=50), detached=True)
        _, attached = await world.plane.intake.leave_behind(again)
        assert attached
        await reader.go_away()
        await world.advance(3.0)
        row = world.store.rows[key("a")]
        assert [t for piece in row.pieces for t in piece.token_ids] == expected(50)
        assert row.end is not None


async def test_a_request_that_ended_is_kept_with_its_result_in_one_write() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        reader = await world.submit("a", prompt=1_500, max_tokens=30)
        await world.advance(3.0)
        assert reader.token_ids == expected(30)
        again = replace(world.submission("a", prompt=1_500, max_tokens=30), detached=True, keep_result_s=60.0)
        await world.plane.intake.leave_behind(again)
        row = world.store.rows[key("a")]
        assert row.end is not None, "its prompt is gone: nobody could generate it again"
    async with DetachedWorld(store=world.store, epoch=9) as after:
        found = await after.plane.intake.known.find(key("a"))
        assert found.output.token_ids.tolist() == expected(30)
        assert isinstance(found.published_outcome, Finished)
        assert after.work.unfinished == 0
        await after.advance(70.0)
        assert not after.store.rows


# --- the next scheduler ---------------------------------------------------------------------------


async def test_the_next_scheduler_goes_on_from_the_last_checkpoint() -> None:
    async with DetachedWorld(detached={"checkpoint_tokens": 20}) as world:
        world.add("x")
        await world.leave("a", max_tokens=100)
        await world.advance(0.5)
    tokens = sum(len(p.token_ids) for p in world.store.rows[key("a")].pieces)
    assert 20 <= tokens < 60
    async with DetachedWorld(store=world.store, epoch=9) as after:
        after.add("x")
        await after.advance(3.0)
        order = after.first_order("x")
        assert order.continuation is not None
        assert list(order.continuation.emitted_token_ids) == expected(tokens)
        row = after.store.rows[key("a")]
        assert [t for piece in row.pieces for t in piece.token_ids] == expected(100)
        assert row.end is not None
        assert row.end.state is RequestState.FINISHED


async def test_what_is_queued_again_is_observed() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100)
        await world.advance(0.5)
    async with DetachedWorld(store=world.store, epoch=9) as after:
        await after.advance(0.1)
        assert after.plane.requests.get(key("a")).observed is not UNOBSERVED


async def test_a_request_that_cannot_be_read_holds_up_no_other() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a")
        await world.leave("b")
    row = world.store.rows[key("a")]
    row.request = replace(row.request, content=b"\xff")
    after = DetachedWorld(store=world.store, epoch=9)
    async with after:
        after.add("x")
        world.store.trouble = "the disk is full"
        await after.advance(3.0)
        assert after.plane.requests.get(key("b")).state is RequestState.FINISHED
        world.store.trouble = ""
        await after.advance(3.0)
        assert row.end is not None
        assert row.end.state is RequestState.FAILED


async def test_a_reader_reads_on_over_the_death_of_both() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100)
        reader = world.read("a")
        await world.advance(0.4)
        had, name = reader.token_ids, reader.attempt_name()
    assert len(had) > 10
    async with DetachedWorld(store=world.store, epoch=9) as after:
        after.add("x")
        await after.advance(0.01)
        again = after.read("a", after_token=len(had), after_attempt=name)
        await after.advance(3.0)
        assert had + again.token_ids == expected(100)
        assert isinstance(again.events[-1], Finished)


async def test_a_result_outlives_the_scheduler() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=30)
        await world.advance(2.0)
    async with DetachedWorld(store=world.store, epoch=9) as after:
        found = await after.plane.intake.known.find(key("a"))
        assert found.output.token_ids.tolist() == expected(30)
        assert found.output.text == "x" * 30
        assert isinstance(found.published_outcome, Finished)
        _, attached = await after.leave("a", max_tokens=30)
        assert attached
        reader = after.read("a", after_token=10)
        await after.advance(0.1)
        assert reader.token_ids == expected(30)[10:]
        cancelled, _ = after.plane.intake.cancel(key("a"), "too late")
        assert not cancelled


async def test_a_failure_is_a_result_too_and_is_not_tried_again() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.executors["x"].hung = True
        await world.leave("a")
        await world.advance(0.1)
        world.plane.intake.cancel(key("a"), "no longer wanted")
        await world.advance(1.0)
    async with DetachedWorld(store=world.store, epoch=9) as after:
        live, attached = await after.leave("a")
        assert attached
        assert live.state is RequestState.CANCELLED
        assert isinstance(live.published_outcome, RecordedFailure)
        assert "no longer wanted" in str(live.published_outcome)


async def test_an_unknown_id_is_not_found() -> None:
    async with DetachedWorld() as world:
        with pytest.raises(RequestNotFound):
            await world.plane.intake.known.find(key("a"))


async def test_detached_work_waits_for_an_instance_until_its_deadline() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=50)
        await world.advance(0.2)
    async with DetachedWorld(store=world.store, epoch=9) as after:
        await after.advance(600.0)
        assert after.plane.requests.get(key("a")).state is RequestState.QUEUED
        after.add("x")
        await after.advance(5.0)
        assert after.store.rows[key("a")].end is not None


async def test_a_deadline_that_passed_while_nobody_ran_ends_it() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.executors["x"].hung = True
        await world.leave("a", deadline_s=30.0)
        await world.advance(1.0)
    async with DetachedWorld(store=world.store, epoch=9, started_at=100.0) as after:
        await after.advance(1.0)
        end = after.store.rows[key("a")].end
        assert end is not None
        assert end.state is RequestState.EXPIRED


async def test_until_recovery_is_over_its_id_waits() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a")
    async with DetachedWorld(store=world.store, epoch=9, expected=("x",)) as after:
        with pytest.raises(Recovering):
            await after.leave("a")
        with pytest.raises(Recovering):
            after.plane.intake.cancel(key("a"), "")
        await after.advance(11.0)
        _, attached = await after.leave("a")
        assert attached


# --- what executors hold --------------------------------------------------------------------------


async def left_behind(tokens: int = 100) -> tuple[MemoryDetachedStore, AssignOrder, int]:
    """A scheduler dies while a request runs on "x"; return its order and the tokens that are written down."""
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=tokens)
        reader = world.read("a")
        await world.advance(0.5)
        return world.store, world.first_order("x"), len(reader.token_ids)


async def test_what_an_executor_holds_is_adopted_with_what_is_written_down() -> None:
    store, order, written = await left_behind()
    async with DetachedWorld(store=store, epoch=9, expected=("x",)) as after:
        link = after.come_back("x", order, tokens=60)
        live = after.plane.requests.get(key("a"))
        assert live.output.token_ids.tolist() == expected(written)
        number = live.placements[0].decision.attempt_number
        assert f"resend {number} from {written}" in link.log
        reader = after.read("a")
        await after.advance(0.1)
        assert reader.token_ids == expected(written), "restored output can be read at once"
        after.send("x", live, written, 60)
        await after.advance(0.1)
        assert reader.token_ids == expected(60)
        assert reader.attempt_name() == (order.epoch, order.attempt_number)
        await after.advance(5.0)
        assert not after.plane.recovery.open
        assert live.state is RequestState.RUNNING, "it is not queued a second time"


async def test_an_attempt_before_the_one_that_is_written_down_is_not_adopted() -> None:
    store, order, written = await left_behind()
    row = store.rows[key("a")]
    row.facts = replace(row.facts, attempt_number=row.facts.attempt_number + 1)
    async with DetachedWorld(store=store, epoch=9, expected=("x",)) as after:
        link = after.come_back("x", order, tokens=60)
        assert any(line.startswith(f"cancel {order.epoch}/{order.attempt_number}: a later") for line in link.log)
        await after.advance(0.5)
        again = link.__dict__["orders"][0]
        assert list(again.continuation.emitted_token_ids) == expected(written)


async def test_an_attempt_without_log_probabilities_that_the_journal_lacks_is_not_adopted() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100, sampling={"logprobs": 1})
        await world.advance(0.5)
        order = world.first_order("x")
    delivered = Continuation(
        emitted_token_ids=expected(40), emitted_text_length=40, mode=ContinuationMode.RESUME, best_effort=False
    )
    later = replace(order, continuation=delivered)
    async with DetachedWorld(store=world.store, epoch=9, expected=("x",)) as after:
        link = after.come_back("x", later, tokens=60)  # it has those of its own tokens alone, from 40 on
        assert any("nobody has the log probabilities" in line for line in link.log)
        await after.advance(0.5)
        assert "assign a" in link.log, "it goes on from the last checkpoint"


async def test_an_attempt_at_a_request_that_ended_is_not_adopted() -> None:
    store, order, _ = await left_behind(tokens=40)
    async with DetachedWorld(store=store, epoch=9) as world:
        world.add("y")
        await world.advance(2.0)
        assert store.rows[key("a")].end is not None
    async with DetachedWorld(store=store, epoch=11, expected=("x",)) as after:
        link = after.come_back("x", order, tokens=40)
        assert any("the journal has its end: finished" in line for line in link.log)
        assert after.plane.requests.find(key("a")) is None


async def test_pages_are_of_one_tenant_the_latest_first() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        for request_id in ("a", "b", "c"):
            await world.leave(request_id)
            await world.advance(0.1)
        await world.leave("d", tenant="other")
        first = await world.work.page(Page(tenant="t", limit=2))
        assert [each.summary.key.request_id for each in first] == ["c", "b"]
        last = first[-1].summary
        rest = await world.work.page(Page(tenant="t", limit=2, before=(last.accepted_at, last.key.request_id)))
        assert [each.summary.key.request_id for each in rest] == ["a"]


async def test_a_reader_with_more_than_is_written_down_never_gets_other_tokens() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100)
        await world.advance(0.1)
    async with DetachedWorld(store=world.store, epoch=9) as after:
        after.add("x")
        await after.advance(0.01)
        with pytest.raises(OutputLost, match="journal"):
            after.read("a", after_token=90, after_attempt=(7, 1))


async def test_a_cancel_is_over_when_the_end_is_written_down() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.executors["x"].hung = True
        await world.leave("a")
        await world.advance(0.1)
        world.store.trouble = "the disk is full"
        cancelled, live = world.plane.intake.cancel(key("a"), "no longer wanted")
        assert cancelled
        waiting = asyncio.ensure_future(world.work.until_ended(live))
        await world.advance(3.0)
        assert not waiting.done()
        world.store.trouble = ""
        await world.advance(1.5)
        assert waiting.done()
        assert waiting.exception() is None


async def test_a_cancel_that_is_not_written_down_in_time_says_so() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.executors["x"].hung = True
        await world.leave("a")
        world.store.trouble = "the disk is full"
        _, live = world.plane.intake.cancel(key("a"), "no longer wanted")
        waiting = asyncio.ensure_future(world.work.until_ended(live))
        await world.advance(6.0)
        with pytest.raises(JournalUnavailable):
            waiting.result()


async def test_a_scheduler_that_hands_over_writes_nothing_more() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=20)
        world.work.freeze()
        await world.advance(2.0)
        assert world.plane.requests.get(key("a")).state is RequestState.FINISHED
        assert world.store.rows[key("a")].end is None
