"""Detached work of several choices: each written down as it comes, all ends at once, one result whatever dies."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.journal.detached import Page
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished, RecordedFailure
from scheduler_svc.control.requests.subscription import ChoiceEnd, Subscription
from scheduler_svc.domain.errors import InvalidRequest, JournalUnavailable, Recovering
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.transport import request_views
from scheduler_svc.transport.detached_records import error_of
from tests.support.memory_detached_store import MemoryDetachedStore
from tests.unit.control.detached_world import DetachedReader, DetachedWorld
from tests.unit.control.world import expected

KEY = RequestKey(tenant="t", request_id="a")
THREE: dict[str, Any] = {"choices": 3, "takes_choices": True, "sampling": {"seed": 1, "temperature": 1.0}}
FINISHED = [RequestState.FINISHED] * 3


def written(store: MemoryDetachedStore) -> list[int]:
    """Return how many tokens of each choice are written down."""
    stored = store.rows[KEY].stored
    return [stored.choice(index).tokens for index in range(3)]


def ends(store: MemoryDetachedStore) -> list[RequestState | None]:
    stored = store.rows[KEY].stored
    found = [stored.choice(index).end for index in range(3)]
    return [None if end is None else end.state for end in found]


def read(world: DetachedWorld) -> DetachedReader:
    subscription = Subscription(world.plane.loop_lag)
    world.plane.intake.readers.attach(KEY, subscription, 0, takes_choices=True)
    return DetachedReader(world, subscription)


def texts(live: LiveRequest) -> list[list[int]]:
    return [each.output.token_ids.tolist() for each in live.members]


async def test_it_runs_without_a_client_and_every_choice_is_kept() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        live, attached = await world.leave("a", max_tokens=100, **THREE)
        assert (len(live.members), attached) == (3, False)
        await world.advance(5.0)
        assert written(world.store) == [100, 100, 100]
        assert ends(world.store) == FINISHED
        assert (len(world.work), world.work.unfinished) == (1, 0)
        seeds = [order.sampling.seed for order in world.orders("x")]
        assert seeds == [1, 2, 3]
        world.assert_all_room_is_free()


async def test_the_ends_of_all_are_written_at_once() -> None:
    async with DetachedWorld() as world:
        world.add("x", max_running=1)
        await world.leave("a", max_tokens=50, **THREE)
        reader = read(world)
        while not all(each.state.ended for each in reader.live.members):
            assert ends(world.store) == [None] * 3
            assert not any(isinstance(each, ChoiceEnd) for each in reader.events)
            await world.advance(0.1)
        await world.advance(1.0)
        assert ends(world.store) == FINISHED
        assert sum(isinstance(each, ChoiceEnd) for each in reader.events) == 3
        assert isinstance(reader.events[-1], Finished)
        assert reader.events[-1].completion_tokens == 150


async def test_each_goes_on_from_what_is_written_down_after_a_crash() -> None:
    async with DetachedWorld(detached={"checkpoint_tokens": 20}) as world:
        world.add("x", max_running=2)
        await world.leave("a", max_tokens=60, **THREE)
        await world.advance(0.8)
        assert world.orders("x")[0].sampling.max_tokens == 60
    before = written(world.store)
    assert any(before)
    assert ends(world.store) == [None] * 3
    async with DetachedWorld(store=world.store, epoch=9) as after:
        after.add("y")
        await after.advance(5.0)
        emitted = {
            order.request.key.choice: len(order.continuation.emitted_token_ids) if order.continuation else 0
            for order in after.orders("y")
        }
        assert emitted == dict(enumerate(before))
        assert [order.sampling.seed for order in sorted(after.orders("y"), key=lambda o: o.request.key)] == [1, 2, 3]
        assert texts(await after.plane.intake.known.find(KEY)) == [expected(60)] * 3
    assert (written(world.store), ends(world.store)) == ([60] * 3, FINISHED)


async def test_the_result_is_there_for_the_next_scheduler() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=30, **THREE)
        await world.advance(2.0)
    async with DetachedWorld(store=world.store, epoch=9) as after:
        live = await after.plane.intake.known.find(KEY)
        result = request_views.result(live)
        assert result is not None
        assert [list(each.token_ids) for each in (result, *result.choices)] == [expected(30)] * 3
        assert [each.finished.usage.completion_tokens for each in (result, *result.choices)] == [30] * 3
        view = request_views.view(live, after.plane.wall_s())
        assert view.usage.completion_tokens == 90
        _, attached = await after.leave("a", max_tokens=30, **THREE)
        assert attached
        [listed] = await after.work.page(Page(tenant="t", limit=5))
        assert listed.summary.output_tokens == 90
        reader = read(after)
        await after.advance(0.1)
        assert reader.finished.completion_tokens == 90
        with pytest.raises(InvalidRequest, match="takes_choices"):
            after.read("a")


async def test_a_result_of_all_choices_that_is_too_large_is_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=30, **THREE)
        await world.advance(2.0)
        live = await world.plane.intake.known.find(KEY)
        monkeypatch.setattr(request_views, "RESULT_BYTES", 2 * live.output.size_bytes)
        assert request_views.result(live) is None


async def test_one_that_is_cancelled_says_so_though_some_choices_finished() -> None:
    async with DetachedWorld() as world:
        world.add("x", max_running=1)
        live, _ = await world.leave("a", max_tokens=30, **THREE)
        while not live.members[0].state.ended:
            await world.advance(0.05)
        world.plane.intake.cancel(KEY, "enough")
        await world.plane.detached.until_ended(live)  # type: ignore[union-attr]
        await world.advance(0.1)
        assert ends(world.store)[0] is RequestState.CANCELLED, "what lists show is the state of the whole"
        end = world.work.end_of(KEY)
        assert end is not None
        assert end.state is RequestState.CANCELLED
    async with DetachedWorld(store=world.store, epoch=9) as after:
        found = await after.plane.intake.known.find(KEY)
        assert found.members[0].state is RequestState.FINISHED
        assert found.whole_state is RequestState.CANCELLED
        assert isinstance(found.whole_published_outcome, RecordedFailure)
        [listed] = await after.work.page(Page(tenant="t", limit=5))
        error = error_of(world.store.rows[KEY].stored.choice(0).end.outcome)  # type: ignore[union-attr]
        assert listed.summary.state is RequestState.CANCELLED
        assert error is not None
        assert "enough" in error.message


async def test_one_that_runs_becomes_detached_when_it_is_submitted_so() -> None:
    async with DetachedWorld() as world:
        world.add("x", max_running=1)
        reader = await world.submit("a", max_tokens=30, **THREE)
        while not reader.live.members[0].state.ended:
            await world.advance(0.05)
        again = replace(world.submission("a", max_tokens=30, **THREE), detached=True)
        await world.plane.intake.leave_behind(again)
        world.plane.intake.readers.leave(reader.subscription)
        await world.advance(0.1)
        assert world.store.rows[KEY].end is None
    async with DetachedWorld(store=world.store, epoch=9) as after:
        after.add("y")
        await after.advance(5.0)
        assert texts(await after.plane.intake.known.find(KEY)) == [expected(30)] * 3
        assert list(after.orders("y")[0].request.prompt_token_ids) == [i % 1000 for i in range(10)]


async def test_a_quota_counts_them_as_one_request() -> None:
    async with DetachedWorld(detached={"tenant_requests": 2}) as world:
        world.add("x")
        await world.leave("a", max_tokens=30, **THREE)
        await world.leave("b", max_tokens=30, **THREE)
        await world.advance(3.0)
        size = sum(row.size_bytes for row in world.store.rows.values())
        assert world.work._quotas._tenants["t"].size_bytes == size


async def test_what_is_deleted_is_deleted_whole() -> None:
    async with DetachedWorld(detached={"keep_result_s": 10.0}) as world:
        world.add("x")
        await world.leave("a", max_tokens=30, **THREE)
        await world.advance(30.0)
        assert not world.store.rows
        assert world.plane.requests.find(KEY) is None
        assert not world.work._quotas._tenants


async def test_a_write_that_the_database_refuses_is_tried_again_with_all_ends() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        world.store.refuses = KEY
        await world.leave("a", max_tokens=30, **THREE)
        await world.leave("b", max_tokens=30)
        await world.advance(3.0)
        assert ends(world.store) == [None] * 3
        assert world.store.rows[RequestKey(tenant="t", request_id="b")].end is not None
        assert world.store.refused < 20
        world.store.refuses = None
        await world.advance(2.0)
        assert (written(world.store), ends(world.store)) == ([30] * 3, FINISHED)


async def test_what_is_not_written_down_yet_holds_back_all_ends() -> None:
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=30, **THREE)
        reader = read(world)
        world.store.held = asyncio.Event()
        await world.advance(3.0)
        assert all(each.state.ended for each in reader.live.members)
        assert not any(isinstance(each, ChoiceEnd | Finished) for each in reader.events)
        world.store.held.set()
        world.store.held = None
        await world.advance(1.0)
        assert isinstance(reader.events[-1], Finished)


# --- what executors hold --------------------------------------------------------------------------


async def left_behind() -> tuple[MemoryDetachedStore, list[AssignOrder], list[int]]:
    """A scheduler dies while the choices run on "x"; return their orders and what is written down of each."""
    async with DetachedWorld() as world:
        world.add("x")
        await world.leave("a", max_tokens=100, **THREE)
        read(world)
        await world.advance(0.5)
    return world.store, world.orders("x"), written(world.store)


async def test_what_executors_hold_is_adopted_and_the_rest_goes_on_from_the_journal() -> None:
    store, orders, before = await left_behind()
    assert all(0 < tokens < 60 for tokens in before)
    recovery = {"limit_s": 4.0}
    async with DetachedWorld(store=store, epoch=9, expected=("x", "gone"), recovery=recovery) as after:
        link = after.come_back("x", orders[1], orders[2], tokens=60)
        live = after.work.live(KEY)
        assert live is not None
        assert [each.state for each in live.members] == [
            RequestState.QUEUED,
            RequestState.RUNNING,
            RequestState.RUNNING,
        ]
        for each, tokens in list(zip(live.members, before, strict=True))[1:]:
            number = each.placements[0].decision.attempt_number
            assert f"resend {number} from {tokens}" in link.log
        with pytest.raises(Recovering):
            read(after)
        for each in live.members[1:]:
            after.send("x", each, before[each.key.choice], 60)
        await after.advance(6.0)
        assert not after.plane.recovery.open
        anew = [order for order in after.orders("x") if order.request.key.choice == 0]
        assert [len(order.continuation.emitted_token_ids) for order in anew if order.continuation] == before[:1]
        reader = read(after)
        await after.advance(1.0)
        assert [tokens[:60] for tokens in texts(reader.live)] == [expected(60)] * 3


async def test_an_attempt_before_the_one_that_is_written_down_is_not_adopted_after_another_choice_was() -> None:
    store, orders, before = await left_behind()
    row = store.rows[KEY]
    later = row.others[2]
    row.others[2] = replace(later, facts=replace(later.facts, attempt_number=later.facts.attempt_number + 9))
    async with DetachedWorld(store=store, epoch=9, expected=("x",)) as after:
        link = after.come_back("x", orders[1], orders[2], tokens=60)
        refused = f"cancel {orders[2].epoch}/{orders[2].attempt_number}: a later attempt"
        assert any(line.startswith(refused) for line in link.log)
        await after.advance(5.0)
        again = next(order for order in after.orders("x") if order.request.key.choice == 2)
        assert again.continuation is not None
        assert list(again.continuation.emitted_token_ids) == expected(before[2])


# --- random schedules -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_dies_when_each_choice_has_its_whole_output_once(seed: int) -> None:
    dice, store = random.Random(seed), MemoryDetachedStore()
    lengths, began_at = [dice.randint(5, 120) for _ in range(4)], 0.0
    for epoch in range(1, 4):
        settings = {"checkpoint_tokens": dice.choice([1, 10, 64])}
        async with DetachedWorld(store=store, epoch=epoch, started_at=began_at, detached=settings) as world:
            world.add("x", max_running=dice.choice([1, 2, 8]))
            for number, length in enumerate(lengths):
                with suppress(Recovering, JournalUnavailable):
                    await world.leave(f"r{number}", max_tokens=length, wait_for_instance=True, **THREE)
            for _ in range(6):
                store.trouble = dice.choice(["", "", "the disk is full"])
                if dice.random() < 0.2:
                    world.executors["x"].crash()
                    world.add(f"y{world.clock.now()}")
                await world.advance(dice.uniform(0.0, 0.3))
                for row in store.rows.values():
                    kept = [row.stored.choice(index) for index in range(3)]
                    assert len({each.end is None for each in kept}) == 1, "a request has ended as a whole or not"
                    for each in kept:
                        tokens = [token for piece in each.pieces for token in piece.token_ids]
                        assert tokens == expected(len(tokens))
            store.trouble = ""
            if epoch == 3:
                world.add("z")
                await world.advance(12.0)
                for number, length in enumerate(lengths):
                    live = await world.plane.intake.known.find(RequestKey(tenant="t", request_id=f"r{number}"))
                    assert texts(live) == [expected(length)] * 3
                    assert [each.state for each in live.members] == FINISHED
                world.assert_all_room_is_free()
            store.closed = True
            began_at += world.clock.now() + 1.0
        left, store = store.rows, MemoryDetachedStore()
        store.rows = left
