"""Code of a policy that raises ends the request it was asked about; fifo takes over, and the scheduler lives."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.errors import PolicyFailed
from scheduler_svc.domain.objectives.earliest_finish import EarliestFinish
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.ordering.fifo import Fifo
from scheduler_svc.domain.policies.builtin import make_fifo
from scheduler_svc.domain.policies.catalogue import ENTRY_POINT_GROUP
from scheduler_svc.domain.policies.governor import Signals, Wish
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.unit.control.world import World, expected


class Objective(EarliestFinish):
    """Fails for requests with long prompts, as the bug of a plug-in does."""

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        if demand.prompt_tokens > 100:
            raise ZeroDivisionError("a bug of the plug-in")
        return super().choose(demand, accounts, now)


class Ordering(Fifo):
    """Fails for requests with long prompts in one of its methods."""

    def __init__(self, method: str) -> None:
        self._method = method

    def key(self, waiting: WaitingRequest, now: float) -> float:
        return float(self._fail("key", waiting, super().key(waiting, now)))

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        self._fail("revise", waiting, None)
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        return str(self._fail("describe", waiting, "arrival"))

    def _fail(self, method: str, waiting: WaitingRequest, value: Any) -> Any:
        if method == self._method and waiting.request.prompt_tokens > 100:
            raise ZeroDivisionError("a bug of the plug-in")
        return float("nan") if self._method == "nan" and waiting.request.prompt_tokens > 100 else value


class Governor:
    first = "fifo"

    def decide(self, signals: Signals, acting: str, now: float) -> Wish | None:
        raise ZeroDivisionError("a bug of the plug-in")


PARTS: dict[str, Any] = {}
"""What the plug-in's policy has instead of fifo's parts."""


def make_theirs(settings: SchedulerSettings) -> Policy:
    return replace(make_fifo(settings), name="theirs", **PARTS)


@pytest.fixture(autouse=True)
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another distribution offers the policy ``theirs``."""
    theirs = EntryPoint(name="theirs", value=f"{__name__}:make_theirs", group=ENTRY_POINT_GROUP)
    monkeypatch.setattr("scheduler_svc.domain.policies.catalogue.entry_points", lambda group: [theirs])


def follow(world: World, **parts: Any) -> None:
    """Put the plug-in's policy in force."""
    PARTS.clear()
    PARTS.update(parts)
    world.plane.scheduler.set_policy("theirs", world.clock.now(), "as told")


@pytest.mark.parametrize(
    "parts",
    [
        {"objective": Objective()},
        {"ordering": Ordering("revise")},
        {"ordering": Ordering("describe")},
    ],
    ids=["objective", "revise", "describe"],
)
async def test_a_policy_that_fails_for_one_request_ends_it_and_no_other(
    parts: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with World() as world:
        world.add("a")
        follow(world, **parts)
        running = await world.submit("running", max_tokens=100)
        await world.advance(0.1)
        with caplog.at_level(logging.ERROR):
            unlucky = await world.submit("unlucky", prompt=200)
            later = await world.submit("later", prompt=200)
            await world.advance(5)
        world.raise_what_died()
        assert isinstance(unlucky.error, PolicyFailed)
        assert "'theirs' failed for request t/unlucky" in caplog.text
        assert "ZeroDivisionError" in caplog.text
        assert later.token_ids == expected(20)
        assert running.token_ids == expected(100)
        assert world.plane.scheduler.policy == "fifo"
        said = world.plane.scheduler.switches[-1].reason
        assert said == "the policy 'theirs' failed: ZeroDivisionError; the scheduler's log has the cause"
        world.assert_all_room_is_free()


@pytest.mark.parametrize("ordering", [Ordering("key"), Ordering("nan")], ids=["key", "nan"])
async def test_an_ordering_that_gives_no_key_refuses_the_request(ordering: Ordering) -> None:
    async with World() as world:
        world.add("a")
        follow(world, ordering=ordering)
        with pytest.raises(PolicyFailed):
            await world.submit("unlucky", prompt=200)
        again = await world.submit("unlucky", prompt=200)
        await world.advance(1)
        assert again.token_ids == expected(20)


async def test_a_request_that_is_requeued_ends_if_the_ordering_fails_then() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r1", prompt=200, max_tokens=500)
        await world.advance(0.1)
        follow(world, ordering=Ordering("key"))
        a.crash()
        await world.advance(1)
        assert isinstance(reader.error, PolicyFailed)


async def test_a_governor_that_fails_is_replaced_too() -> None:
    async with World() as world:
        world.add("a")
        follow(world, governor=Governor())
        reader = await world.submit("first")
        await world.advance(2)
        world.raise_what_died()
        assert world.plane.scheduler.policy == "fifo"
        assert reader.token_ids == expected(20)


async def test_an_error_under_fifo_ends_the_request_and_leaves_fifo_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        world.add("a")

        def fails(self: object, *_: object) -> Choice:
            raise ZeroDivisionError

        with monkeypatch.context() as patched:
            patched.setattr(EarliestFinish, "choose", fails)
            patched.setattr(EarliestFinish, "choose_only", fails)
            unlucky = await world.submit("unlucky")
            await world.advance(0.1)
        later = await world.submit("later")
        await world.advance(1)
        assert isinstance(unlucky.error, PolicyFailed)
        assert later.token_ids == expected(20)
