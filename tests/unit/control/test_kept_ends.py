"""Executors keep the end of a request until its readers have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.requests import kept_ends
from scheduler_svc.control.requests.kept_ends import KEPT_PER_INSTANCE, KEPT_S, SETTLES_S, KeptEnds
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import Request, RequestKey, Sampling


class Reader:
    position = 0

    def wake(self) -> None:
        """Do nothing."""


class Ends:
    """Kept ends, and those that were acknowledged, by request id."""

    def __init__(self, *, on: bool = True) -> None:
        self.clock = VirtualClock()
        self.state = InstanceState.READY
        scheduler: Any = SimpleNamespace(find_instance=lambda instance_id: SimpleNamespace(state=self.state))
        self.kept = KeptEnds(scheduler, self.clock, on=on)
        self.acknowledged: list[str] = []

    def end(self, request_id: str = "r", *, instance_id: str = "a") -> LiveRequest:
        live = live_request(request_id)
        self.kept.keep(live, instance_id, lambda: self.acknowledged.append(request_id))
        return live


def live_request(request_id: str) -> LiveRequest:
    request = Request(
        key=RequestKey(tenant="t", request_id=request_id),
        model="m",
        prompt_token_ids=(1, 2, 3),
        sampling=Sampling(max_tokens=5),
        arrived_at=0.0,
    )
    return LiveRequest(request=request, digest=b"d", detached=False)


def test_an_end_is_acknowledged_once_its_reader_confirms_it() -> None:
    ends = Ends()
    live = ends.end()
    assert ends.kept.taken(live)
    assert ends.acknowledged == []
    ends.kept.confirmed(live)
    assert ends.acknowledged == ["r"]
    assert not ends.kept.taken(live), "nothing waits for a second reader"


def test_every_reader_has_to_confirm_it() -> None:
    ends = Ends()
    live, slow = ends.end(), Reader()
    live.readers[slow] = None
    ends.kept.taken(live)
    ends.kept.confirmed(live)
    assert ends.acknowledged == [], "one still reads"
    del live.readers[slow]
    ends.kept.taken(live)
    ends.kept.confirmed(live)
    assert ends.acknowledged == ["r"]


async def test_a_reader_whose_connection_broke_may_come_again() -> None:
    ends = Ends()
    live = ends.end()
    ends.kept.taken(live)
    ends.kept.lost(live)
    await ends.clock.advance(10.0)
    assert ends.acknowledged == []
    ends.kept.taken(live)
    ends.kept.confirmed(live)
    assert ends.acknowledged == ["r"]


async def test_a_plain_call_counts_as_read_a_moment_after_its_end() -> None:
    ends = Ends()
    ends.kept.settles(ends.end())
    await ends.clock.advance(SETTLES_S / 2)
    assert ends.acknowledged == []
    await ends.clock.advance(SETTLES_S)
    assert ends.acknowledged == ["r"]


async def test_an_end_that_nobody_reads_is_kept_for_a_minute() -> None:
    ends = Ends()
    ends.end("first")
    await ends.clock.advance(KEPT_S / 2)
    ends.end("second")
    await ends.clock.advance(KEPT_S / 2)
    assert ends.acknowledged == ["first"]
    await ends.clock.advance(KEPT_S / 2)
    assert ends.acknowledged == ["first", "second"]
    assert not len(ends.kept)


def test_the_oldest_makes_room_at_the_bound_of_an_instance() -> None:
    ends = Ends()
    for number in range(KEPT_PER_INSTANCE + 2):
        ends.end(str(number))
    ends.end("elsewhere", instance_id="b")
    assert ends.acknowledged == ["0", "1"]


def test_bytes_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_ends, "KEPT_BYTES", 30)
    ends = Ends()
    for number in range(3):  # of 12 bytes each
        ends.end(str(number))
    assert ends.acknowledged == ["0"]


def test_an_executor_that_drains_keeps_nothing() -> None:
    ends = Ends()
    ends.end("before")
    ends.kept.release_all("a")
    ends.state = InstanceState.DRAINING
    ends.end("after")
    assert ends.acknowledged == ["before", "after"]


def test_without_a_next_scheduler_an_end_is_acknowledged_at_once() -> None:
    ends = Ends(on=False)
    ends.end()
    assert ends.acknowledged == ["r"]


async def test_an_end_that_is_not_written_down_yet_stays() -> None:
    ends = Ends()
    pending = {"r"}
    ends.kept.unrecorded = lambda live: live.key.request_id in pending
    live = ends.end()
    ends.kept.taken(live)
    ends.kept.confirmed(live)
    ends.kept.release_all("a")
    await ends.clock.advance(2 * KEPT_S)
    assert ends.acknowledged == []
    ends.kept.recorded(live)
    assert ends.acknowledged == ["r"]


async def test_an_end_that_comes_again_in_a_new_session_is_acknowledged_there() -> None:
    ends, live = Ends(), live_request("r")
    said: list[str] = []
    ends.kept.keep(live, "a", lambda: said.append("old"), (1, 7))
    assert ends.kept.attempts("a") == {(1, 7): live}
    assert not ends.kept.came_again("a", (2, 7), lambda: said.append("another"))
    assert ends.kept.came_again("a", (1, 7), lambda: said.append("new"))
    ends.kept.release(live)
    assert said == ["new"]
    assert not ends.kept.came_again("a", (1, 7), lambda: said.append("late"))
    assert ends.kept.attempts("a") == {}
