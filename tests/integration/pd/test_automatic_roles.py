"""Executors that change between prefill and decode under load, and back; no stream is lost meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from typing import Any

import pytest
from click.testing import CliRunner

from sage_client import InstanceRole, RoleChange
from sagectl.cli import sagectl
from tests.integration.pd.pd_fleet import PdFleet
from tests.support.eventually import eventually
from tests.support.steady_load import SteadyLoad

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
QUICK = {"enabled": True, "interval_s": 0.2, "delay_s": 0.6, "cooldown_s": 0.5, "back_s": 1.0, "room": 0.9}
LONG_S = 60.0  # on a busy machine; nothing waits that long where all is well


@pytest.fixture
async def fleet() -> AsyncIterator[PdFleet]:
    """A scheduler that splits every request and changes roles quickly, no executor yet."""
    async with PdFleet(automatic_roles=QUICK) as made:
        yield made


async def until_changed(fleet: PdFleet, load: SteadyLoad, cause: str) -> RoleChange:
    """Wait for a change of this cause, and return it."""

    async def there() -> RoleChange | None:
        load.fail_early()
        changes = (await fleet.client.get_prefill_decode()).role_changes
        return next((each for each in changes if each.cause == cause), None)

    return await eventually(there, within_s=LONG_S, what=f"a role to change for {cause}", every_s=0.1)


async def until_explained(fleet: PdFleet, load: SteadyLoad, numbers: count[int], change: RoleChange) -> None:
    """Ask until a request uses the instance that changed, and its explanation says why that has its role."""
    wanted = f"{change.instance_id} became {change.role.value} "

    async def there() -> bool:
        load.fail_early()
        done = await fleet.answered(next(numbers), max_tokens=2)
        decisions = (await fleet.client.explain(done.request_id)).decisions
        return any(reason.startswith(wanted) for each in decisions for reason in each.reasons)

    await eventually(there, within_s=LONG_S, what=f"a decision that says that {wanted}", every_s=0.1)


async def shown(fleet: PdFleet, *command: str) -> str:
    """Return what a command of ``sagectl`` prints."""
    arguments = [*command, "--address", fleet.address]
    return (await asyncio.to_thread(CliRunner().invoke, sagectl, arguments, catch_exceptions=False)).output


@pytest.mark.timeout(180)
async def test_roles_follow_the_load_there_and_back_and_no_stream_is_lost(fleet: PdFleet) -> None:
    engine: dict[str, Any] = {"prefill_tokens_per_s": 1_500.0, "max_running": 4}
    await fleet.add_leg("p0", "prefilling", **engine)
    for n in range(3):
        await fleet.add_leg(f"d{n}", "decoding", **engine)
    await fleet.proved(3)
    numbers = count(1)
    async with SteadyLoad(partial(fleet.answered, max_tokens=2, ttft_target=0.5), numbers, at_once=6) as prompts:
        change = await until_changed(fleet, prompts, "prefill_pressed")
        await until_explained(fleet, prompts, numbers, change)
    assert (change.previous, change.role) == (DECODING, PREFILLING)
    instance = await fleet.client.get_instance(change.instance_id)
    assert instance.role is PREFILLING
    assert instance.role_change is not None
    assert instance.role_change.reason == change.reason
    assert change.reason.split(",")[0] in await shown(fleet, "pd", "get")
    async with SteadyLoad(partial(fleet.answered, max_tokens=400), numbers, at_once=10) as outputs:
        back = await until_changed(fleet, outputs, "decode_pressed")
    assert (back.previous, back.role) == (PREFILLING, DECODING)
    page = await fleet.page()
    for cause in ("prefill_pressed", "decode_pressed"):
        assert page.total("sage_pd_role_changes_total", cause=cause) >= 1
    await fleet.free(*fleet.executors)
