"""The controller: groups get what the scheduler says that their models need."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

import sage_client as sage
from sage.controlplane.v1 import admin_pb2
from sage_client import InstanceRole
from sage_client._decode_admin import instance
from sage_common.virtual_clock import VirtualClock
from sage_fleet.controller.allocation import counts_for
from sage_fleet.controller.controller import PERIOD_S, Controller
from sage_fleet.controller.sleep_orders import MOST_PAUSE_S
from sage_fleet.errors import FleetError
from sage_fleet.places.place_status import GroupStatus, PlaceStatus
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.fleet_file import parse_fleet

FLEET = parse_fleet(
    """
groups:
  cheap: {model: chat, min: 1, max: 2, price_per_hour: 1}
  dear: {model: chat, min: 0, max: 4, price_per_hour: 9}
  fixed: {model: chat, count: 1}
  hybrid: {model: split, role: hybrid, min: 0, max: 2}
  other: {model: other, min: 1, max: 5}
"""
)


@dataclass(frozen=True)
class Said:
    model: str
    desired: int
    role: InstanceRole = InstanceRole.GENERAL
    remove_first: tuple[str, ...] = ()


@dataclass
class MemoryPlace:
    """A place that only remembers how many executors each group is to have."""

    counts: dict[str, int]
    scaled: list[tuple[str, int]] = field(default_factory=list)
    refuses: str = ""
    remove_first: Sequence[str] = ()

    async def apply(self, fleet: Fleet) -> None:
        raise NotImplementedError

    async def status(self) -> PlaceStatus:
        groups = {name: GroupStatus(version="", wanted=count) for name, count in self.counts.items()}
        return PlaceStatus(running=True, groups=groups)

    async def scale(self, group: str, count: int, remove_first: Sequence[str] = ()) -> None:
        if group == self.refuses:
            raise FleetError(f"groups.{group}: refused")
        self.counts[group] = count
        self.scaled.append((group, count))
        self.remove_first = remove_first

    async def delete(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Scheduler:
    """Says what the test put in."""

    def __init__(self, *said: Said) -> None:
        self.said: Sequence[Said] = said
        self.down = False

    async def desired(self) -> Sequence[Said]:
        if self.down:
            raise sage.UnavailableError("no scheduler")
        return self.said


class NoSleepers:
    """No group keeps executors asleep, so nobody is asked."""

    async def list_instances(self) -> sage.FleetView:
        raise AssertionError

    async def sleep_instance(self, instance_id: str, *, reason: str) -> sage.Instance:
        raise AssertionError

    async def wake_instance(self, instance_id: str) -> sage.Instance:
        raise AssertionError


def controller(place: MemoryPlace, scheduler: Scheduler, clock: VirtualClock | None = None) -> Controller:
    return Controller(lambda: FLEET, place, scheduler.desired, clock or VirtualClock(), NoSleepers())


def test_what_a_model_needs_goes_to_the_cheapest_groups_first() -> None:
    assert counts_for(FLEET, [Said("chat", 0)]) == {"cheap": 1, "dear": 0}
    assert counts_for(FLEET, [Said("chat", 3)]) == {"cheap": 2, "dear": 0}
    assert counts_for(FLEET, [Said("chat", 5)]) == {"cheap": 2, "dear": 2}
    assert counts_for(FLEET, [Said("chat", 99)]) == {"cheap": 2, "dear": 4}


def test_hybrid_groups_are_counted_among_the_general_ones() -> None:
    assert counts_for(FLEET, [Said("split", 1)]) == {"hybrid": 1}
    assert counts_for(FLEET, [Said("split", 1, InstanceRole.DECODING)]) == {}


async def test_only_what_differs_is_scaled() -> None:
    place = MemoryPlace({"cheap": 1, "dear": 0, "fixed": 1, "hybrid": 0, "other": 3})
    assert await controller(place, Scheduler(Said("chat", 4), Said("other", 3))).follow_once() == {
        "cheap": 2,
        "dear": 1,
    }
    assert place.scaled == [("cheap", 2), ("dear", 1)]


async def test_the_place_is_told_which_executors_go_first() -> None:
    place = MemoryPlace({"other": 3})
    said = Said("other", 2, remove_first=("other-2", "other-1"))
    assert await controller(place, Scheduler(said)).follow_once() == {"other": 2}
    assert place.remove_first == ["other-2", "other-1"]


async def test_a_fleet_that_cannot_be_read_is_asked_for_again() -> None:
    def unreadable() -> Fleet:
        raise FleetError("cannot read it")

    place, scheduler = MemoryPlace({"other": 3}), Scheduler(Said("other", 2))
    following = Controller(unreadable, place, scheduler.desired, VirtualClock(), NoSleepers())
    assert await following.follow_once() == {}


async def test_a_group_that_was_not_applied_is_left_alone() -> None:
    place = MemoryPlace({"cheap": 1})
    assert await controller(place, Scheduler(Said("other", 3))).follow_once() == {}


async def test_it_follows_and_asks_again_after_trouble() -> None:
    clock = VirtualClock()
    place = MemoryPlace({"cheap": 1, "dear": 0, "other": 1})
    scheduler = Scheduler(Said("other", 2))
    following = controller(place, scheduler, clock).run()
    task = asyncio.create_task(following)
    await clock.advance(PERIOD_S)
    assert place.counts["other"] == 2
    scheduler.down, scheduler.said = True, [Said("other", 4)]
    await clock.advance(2 * PERIOD_S)
    assert place.counts["other"] == 2
    scheduler.down = False
    place.refuses = "other"
    await clock.advance(PERIOD_S)
    assert place.counts["other"] == 2
    place.refuses = ""
    await clock.advance(PERIOD_S)
    assert place.counts["other"] == 4
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Sleepers:
    """Three executors of the group ``small``, of which the scheduler is told who sleeps."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.asleep: set[str] = set()
        self.refuses: set[str] = set()

    async def list_instances(self) -> sage.FleetView:
        names = [f"small-{number}" for number in (1, 2, 3)]
        return sage.FleetView(instances=tuple(self._instance(name) for name in names), queues=())

    def _instance(self, name: str) -> sage.Instance:
        state = sage.InstanceState.SLEEPING if name in self.asleep else sage.InstanceState.READY
        wire = admin_pb2.Instance(instance_id=name, labels={"group": "small"})
        return replace(instance(wire), state=state)

    def _take(self, order: str) -> None:
        self.orders.append(order)
        if order in self.refuses:
            raise sage.InvalidRequestError(f"cannot {order}")

    async def sleep_instance(self, instance_id: str, *, reason: str) -> sage.Instance:
        self._take(f"sleep {instance_id}")
        self.asleep.add(instance_id)
        return self._instance(instance_id)

    async def wake_instance(self, instance_id: str) -> sage.Instance:
        self._take(f"wake {instance_id}")
        self.asleep.discard(instance_id)
        return self._instance(instance_id)


async def test_executors_sleep_instead_of_ending_and_are_woken_first() -> None:
    fleet = parse_fleet("groups: {small: {model: m, engine: simulated, min: 0, max: 3, keep_asleep: 1}}")
    place, sleepers = MemoryPlace({"small": 3}), Sleepers()
    scheduler = Scheduler(Said("m", 1, remove_first=("small-2", "small-3", "small-1")))
    following = Controller(lambda: fleet, place, scheduler.desired, VirtualClock(), sleepers)
    assert await following.follow_once() == {"small": 2}
    assert (sleepers.orders, place.remove_first[0]) == (["sleep small-2"], "small-3")
    scheduler.said = [Said("m", 3)]
    assert await following.follow_once() == {"small": 3}
    assert sleepers.orders[1:] == ["wake small-2"]


SLEEPING_FLEET = parse_fleet(
    """
groups:
  small: {model: m, engine: simulated, min: 0, max: 4, keep_asleep: 2}
  other: {model: other, min: 1, max: 5}
"""
)


def sleeping(place: MemoryPlace, scheduler: Scheduler, sleepers: Sleepers, clock: VirtualClock) -> Controller:
    return Controller(lambda: SLEEPING_FLEET, place, scheduler.desired, clock, sleepers)


async def test_an_order_that_is_refused_keeps_no_other_from_being_given(caplog: pytest.LogCaptureFixture) -> None:
    place, sleepers, clock = MemoryPlace({"small": 3, "other": 1}), Sleepers(), VirtualClock()
    sleepers.refuses = {"sleep small-2"}
    said = Said("m", 1, remove_first=("small-2", "small-3", "small-1"))
    following = sleeping(place, Scheduler(said, Said("other", 4)), sleepers, clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await following.follow_once()
            await clock.advance(1)
    assert place.counts == {"small": 3, "other": 4}
    assert sleepers.orders == ["sleep small-2", "sleep small-3", "sleep small-1"], "another one sleeps in its place"
    assert caplog.messages == ["small-2 refuses to sleep, and is asked again later: cannot sleep small-2"]


async def test_an_order_that_was_refused_is_given_again_later_and_later() -> None:
    place, sleepers, clock = MemoryPlace({"small": 3}), Sleepers(), VirtualClock()
    sleepers.asleep = {"small-3"}
    sleepers.refuses = {"wake small-3"}
    following = sleeping(place, Scheduler(Said("m", 3)), sleepers, clock)
    given: list[float] = []
    for _ in range(40):
        before = len(sleepers.orders)
        await following.follow_once()
        given += [clock.now()] * (len(sleepers.orders) - before)
        await clock.advance(PERIOD_S)
    assert [each - given[0] for each in given] == [0, 4, 12, 28, 60]
    assert place.counts["small"] == 4, "another one starts in place of the one that is not woken"
    sleepers.refuses = set()
    await clock.advance(MOST_PAUSE_S)
    await following.follow_once()
    assert (sleepers.orders[-1], sleepers.asleep, place.counts["small"]) == ("wake small-3", set(), 3)


async def test_an_order_is_logged_once_while_its_instance_follows_it(caplog: pytest.LogCaptureFixture) -> None:
    class Slow(Sleepers):
        async def wake_instance(self, instance_id: str) -> sage.Instance:
            self._take(f"wake {instance_id}")
            return self._instance(instance_id)

    place, sleepers, clock = MemoryPlace({"small": 3}), Slow(), VirtualClock()
    sleepers.asleep = {"small-3"}
    following = sleeping(place, Scheduler(Said("m", 3)), sleepers, clock)
    with caplog.at_level(logging.INFO):
        for _ in range(20):
            await following.follow_once()
            await clock.advance(PERIOD_S)
    assert sleepers.orders == ["wake small-3"] * 20
    assert caplog.messages == ["small-3 is ordered to wake: the group small needs 3"]


async def test_one_group_that_the_place_refuses_keeps_no_other_from_being_scaled() -> None:
    place = MemoryPlace({"cheap": 1, "dear": 0, "other": 1}, refuses="cheap")
    assert await controller(place, Scheduler(Said("chat", 3), Said("other", 2))).follow_once() == {"other": 2}


async def test_no_further_order_is_given_while_no_scheduler_answers() -> None:
    class Gone(Sleepers):
        def _take(self, order: str) -> None:
            self.orders.append(order)
            raise sage.UnavailableError("no scheduler")

    place, sleepers = MemoryPlace({"small": 3, "other": 1}), Gone()
    following = sleeping(place, Scheduler(Said("m", 1), Said("other", 4)), sleepers, VirtualClock())
    assert await following.follow_once() == {}
    assert (len(sleepers.orders), place.scaled) == (1, [])
