"""Roles that came by themselves outlive the scheduler: executors keep them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause, RoleChange
from tests.unit.control.handoff_world import PdWorld
from tests.unit.control.world import MODEL

GENERAL, PREFILLING, DECODING = InstanceRole.GENERAL, InstanceRole.PREFILLING, InstanceRole.DECODING
KEPT = KeptRole(
    role=PREFILLING, previous=DECODING, cause=Cause.PREFILL_PRESSED, reason="prefill is pressed", age_s=40.0
)
CHANGE = RoleChange(
    model=MODEL, instance_id="d0", before=DECODING, role=PREFILLING, cause=KEPT.cause, reason=KEPT.reason, at=0.0
)


@asynccontextmanager
async def fleet(
    kept: KeptRole | None = None, *, automatic: bool = True, role: InstanceRole = DECODING, **options: Any
) -> AsyncIterator[PdWorld]:
    """Bring up a prefill and a decode instance; the executor of the latter, d0, kept a role of an earlier scheduler."""
    async with PdWorld(automatic_roles={"enabled": automatic}) as world:
        world.add_pd("p0", PREFILLING)
        world.add_pd("d0", role, kept_role=kept, **options)
        await world.advance(1.0)
        yield world


def given(world: PdWorld) -> tuple[InstanceRole, RoleChange | None]:
    instance = world.plane.scheduler.instance("d0")
    return instance.role, instance.role_change


def kept_by(world: PdWorld, instance_id: str = "d0") -> KeptRole | None:
    return world.executors[instance_id].kept_role


async def test_the_next_scheduler_goes_on_with_the_role_that_an_executor_kept() -> None:
    async with fleet(KEPT) as world:
        role, change = given(world)
        assert change is not None
        assert (role, change.before, change.cause, change.reason) == (PREFILLING, DECODING, KEPT.cause, KEPT.reason)
        assert world.clock.now() - change.at == pytest.approx(41.0)
        assert kept_by(world) is KEPT, "it keeps it already"


async def test_an_executor_is_told_of_a_change_and_of_its_end() -> None:
    async with fleet() as world:
        world.plane.scheduler.keep_role(replace(CHANGE, at=world.clock.now()))
        await world.advance(2.0)
        world.plane.roles.look()
        assert kept_by(world) == replace(KEPT, age_s=2.0)
        world.plane.scheduler.set_role("d0", DECODING)
        world.plane.roles.look()
        assert kept_by(world) is None
        assert kept_by(world, "p0") is None


async def test_a_change_back_to_the_configured_role_outlives_a_blip() -> None:
    """Its pauses would end early otherwise, under the next scheduler, and decisions would say nothing of it."""
    async with fleet() as world:
        back = replace(CHANGE, before=PREFILLING, role=DECODING, cause=Cause.DECODE_PRESSED)
        world.plane.scheduler.keep_role(back)
        world.plane.roles.look()
        world.executors["d0"].disconnect()
        await world.advance(0.3)
        world.executors["d0"].connect()
        assert given(world) == (DECODING, back)
        assert kept_by(world) is not None


async def test_a_new_process_of_a_known_instance_is_told_its_role() -> None:
    async with fleet() as world:
        world.plane.scheduler.keep_role(CHANGE)
        world.plane.roles.look()
        world.executors["d0"].crash()
        world.executors["d0"].restart()
        assert given(world) == (PREFILLING, CHANGE)
        world.plane.roles.look()
        assert kept_by(world) is not None


async def test_the_schedulers_own_view_counts_for_an_instance_that_it_knows() -> None:
    """The operator took the role back while the executor was away."""
    async with fleet() as world:
        world.plane.scheduler.keep_role(CHANGE)
        world.plane.roles.look()
        world.executors["d0"].disconnect()
        world.plane.scheduler.set_role("d0", DECODING)
        world.plane.roles.look()
        assert kept_by(world) is not None
        world.executors["d0"].connect()
        assert given(world) == (DECODING, None)
        assert kept_by(world) is None


async def test_an_operators_role_counts_more() -> None:
    async with PdWorld(automatic_roles={"enabled": True}) as world:
        world.plane.decisions.set_role("d0", InstanceRole.HYBRID)
        world.add_pd("d0", DECODING, kept_role=KEPT)
        assert given(world) == (InstanceRole.HYBRID, None)
        assert kept_by(world) is None


@pytest.mark.parametrize(
    ("automatic", "role", "kept"),
    [
        (False, DECODING, KEPT),
        (True, GENERAL, KEPT),  # configured anew
        (True, DECODING, replace(KEPT, role=GENERAL)),
    ],
)
async def test_a_role_that_makes_no_sense_here_is_taken_back(
    automatic: bool, role: InstanceRole, kept: KeptRole
) -> None:
    async with fleet(kept, automatic=automatic, role=role) as world:
        assert given(world) == (role, None)
        assert kept_by(world) is None


async def test_an_executor_that_keeps_no_roles_is_told_none() -> None:
    async with fleet(keeps_role=False) as world:
        world.plane.scheduler.keep_role(CHANGE)
        world.plane.roles.look()
        assert kept_by(world) is None
