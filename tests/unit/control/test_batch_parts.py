"""The parts of batches by themselves: lines of a file, the window, what is tried again, quotas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from scheduler_svc.control.batches.line_reader import LineTooLong, RawLine, lines_of
from scheduler_svc.control.batches.line_window import OWN_PLACES, PARKED, BatchPlaces, LineWindow
from scheduler_svc.control.batches.quotas import Quotas
from scheduler_svc.control.batches.retries import LONGEST_WAIT_S, TRIES, tries_again, wait_s
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.requests.grace import ADOPTED_S
from scheduler_svc.domain import errors


def reading(content: bytes, piece: int) -> Callable[[int], Coroutine[Any, Any, bytes]]:
    async def read(offset: int) -> bytes:
        return content[offset : offset + piece]

    return read


async def every(lines: AsyncIterator[RawLine]) -> list[tuple[int, int, bytes]]:
    return [(each.index, each.number, each.content) async for each in lines]


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 100])
async def test_lines_are_the_same_whatever_the_pieces_are(piece: int) -> None:
    content = b"a\n\n  \nbcd\r\n\xff\x00e"
    found = await every(lines_of(reading(content, piece), 100))
    assert found == [(0, 1, b"a"), (1, 4, b"bcd\r"), (2, 5, b"\xff\x00e")]


@pytest.mark.parametrize("piece", [1, 4, 100])
async def test_a_line_that_is_too_long_is_named_wherever_it_ends(piece: int) -> None:
    for content in (b"ab\nabcdef\n", b"ab\nabcdef", b"ab\nabcdef\nab\n"):
        with pytest.raises(LineTooLong) as caught:
            await every(lines_of(reading(content, piece), 5))
        assert caught.value.number == 2


async def test_a_place_that_is_given_back_goes_to_the_tenant_whose_turn_it_is() -> None:
    window, served = LineWindow(1), list[str]()

    async def line(tenant: str) -> None:
        await window.ask(tenant)
        served.append(tenant)

    tasks = [asyncio.create_task(line(tenant)) for tenant in ("a", "a", "a", "a", "b", "b", "c")]
    for _ in tasks:
        for _ in range(3):
            await asyncio.sleep(0)
        window.give_back()
    await asyncio.gather(*tasks)
    assert served == ["a", "a", "b", "c", "a", "b", "a"]
    assert window.taken == 0


async def test_one_who_waits_no_more_takes_no_place() -> None:
    window = LineWindow(1)
    await window.ask("a")
    gone, waits = window.ask("b"), window.ask("c")
    gone.cancel()
    window.give_back()
    assert not await waits
    assert window.taken == 1
    window.give_back()
    assert window.taken == 0


async def test_a_batch_has_a_few_places_whatever_the_window_is() -> None:
    window = LineWindow(2)
    greedy, other = BatchPlaces(window, "a"), BatchPlaces(window, "b")
    held = [await greedy.take() for _ in range(OWN_PLACES + 2)]
    waits = asyncio.create_task(greedy.take())
    await asyncio.sleep(0)
    assert not waits.done()
    assert window.taken == 2
    for _ in range(OWN_PLACES):
        await other.take()
    for each in held:
        each.give_back()
        each.give_back()
    (await waits).give_back()
    assert window.taken == 0


async def test_a_place_of_its_own_serves_a_batch_that_waits_for_the_window() -> None:
    window = LineWindow(1)
    await window.ask("neighbour")
    places = BatchPlaces(window, "a")
    held = [await places.take() for _ in range(OWN_PLACES)]
    waits = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    held[0].give_back()
    (await asyncio.wait_for(waits, 1)).give_back()
    for each in held:
        each.give_back()
    assert window.taken == 1, "that of the neighbour"
    window.give_back()
    assert window.taken == 0
    assert [await places.take() for _ in range(OWN_PLACES + 1)]


async def test_one_who_waits_no_more_takes_no_place_of_its_batch() -> None:
    window = LineWindow(1)
    await window.ask("neighbour")
    places = BatchPlaces(window, "a")
    held = [await places.take() for _ in range(OWN_PLACES)]
    gone = asyncio.create_task(places.take())
    await asyncio.sleep(0)
    gone.cancel()
    held[0].give_back()  # at the same moment
    await asyncio.gather(gone, return_exceptions=True)
    await asyncio.wait_for(places.take(), 1)


async def test_a_line_that_waits_has_no_place_and_a_batch_with_many_of_them_begins_none() -> None:
    window = LineWindow(100)
    places, over = BatchPlaces(window, "a"), asyncio.Event()

    async def until() -> None:
        await over.wait()

    held = [await places.take() for _ in range(PARKED)]
    parked = [asyncio.create_task(place.park(until)) for place in held]
    begins = asyncio.create_task(places.take())
    for _ in range(3):
        await asyncio.sleep(0)
    assert (window.taken, places.parked, begins.done()) == (0, PARKED, False)
    over.set()
    await asyncio.gather(*parked)
    (await begins).give_back()
    assert window.taken == PARKED - OWN_PLACES
    for each in held:
        each.give_back()
    assert (window.taken, places.parked) == (0, 0)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.NoInstance("m", "none"), [True] * 9),
        (errors.QueueFull("m", 1, 1.0), [True] * 9),
        (errors.Overloaded("full", cause="displaced", expected_wait_s=1.0), [True] * 9),
        (errors.TenantLimitReached("t", "waiting_limit", 1, 1.0), [True] * 9),
        (errors.GenerationFailed("no luck", attempts=5), [True] * (TRIES - 1) + [False]),
        (errors.GenerationFailed("engines die", attempts=2, request_is_at_fault=True), [False]),
        (errors.InvalidRequest([]), [False]),
        (errors.UnknownModel("m", []), [False]),
        (errors.RequestCancelled("enough"), [False]),
        (errors.RequestConflict("r"), [False]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_tried_again_and_how_often(error: errors.SchedulerError, again: list[bool]) -> None:
    assert [tries_again(error, tries, models_may_come=False) for tries in range(1, len(again) + 1)] == again


def test_a_model_that_is_not_known_may_still_come() -> None:
    assert tries_again(errors.UnknownModel("m", []), 100, models_may_come=True)


def test_lines_come_back_before_what_was_adopted_of_them_is_given_up() -> None:
    assert wait_s(errors.Recovering(0.05), 20) < ADOPTED_S / 4


def test_waits_grow_to_a_bound_and_are_at_least_what_the_error_says() -> None:
    waits = [wait_s(errors.NoInstance("m", ""), tries) for tries in range(1, 2_000)]
    assert waits[:4] == [0.5, 1.0, 2.0, 4.0]
    assert max(waits) == LONGEST_WAIT_S
    assert wait_s(errors.QueueFull("m", 1, 7.0), 1) == 7.0
    assert wait_s(errors.QueueFull("m", 1, 1e9), 1) == LONGEST_WAIT_S


@pytest.mark.parametrize("what", ["files", "batches", "unfinished", "bytes"])
def test_each_limit_is_of_a_tenant_and_of_all(what: str) -> None:
    def taken(**limits: int) -> Quotas:
        found = Quotas(BatchSettings(**limits))
        found.take("a", **{amount: 2})
        return found

    amount = "size_bytes" if what == "bytes" else what
    of_tenant = taken(**{f"tenant_{what}": 3})
    of_tenant.take("b", **{amount: 2})
    with pytest.raises(errors.TenantLimitReached, match=rf"batches\.tenant_{what} \(3\)"):
        of_tenant.take("a", **{amount: 2})
    of_tenant.take("a", **{amount: 1})
    of_all = taken(**{what: 3})
    with pytest.raises(errors.LimitReached, match=rf"batches\.{what}"):
        of_all.take("b", **{amount: 2})
    of_all.add("a", **{amount: -2})
    of_all.take("b", **{amount: 3})
