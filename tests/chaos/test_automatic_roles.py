"""Roles follow the load over a change of leaders: the next scheduler goes on with the roles of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import AsyncClient, Instance, InstanceRole, InstanceState, PairState, RoleChange, SageError
from tests.chaos.test_restarts_under_load import KV, all_is_free
from tests.support.eventually import eventually
from tests.support.postgres import running_postgres
from tests.support.simulated_answer import answer
from tests.support.simulated_executor import simulated_executor
from tests.support.standby_fleet import StandbyFleet
from tests.support.steady_load import SteadyLoad
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

PREFILLING, DECODING = InstanceRole.PREFILLING, InstanceRole.DECODING
DECODERS = ("d0", "d1", "d2")
SPLITTING = ("--pd-separation.enabled", "--pd-separation.routing-policy=always")
ROLES = {"interval-s": 0.2, "delay-s": 0.6, "cooldown-s": 0.5, "back-s": 1.0, "room": 0.9}
SCHEDULER = (
    *("--policy", "fifo", "--instance.adopt-s=30", *SPLITTING, "--automatic-roles.enabled"),
    *(f"--automatic-roles.{name}={value}" for name, value in ROLES.items()),
)
EXECUTOR = (
    *simulated_executor(step_s=0.01, max_running=4),
    "--engine.simulated.prefill-tokens-per-s=1500",
    *(f"--engine.simulated.kv-transfer.{name}={value}" for name, value in KV.items()),
)
LONG_S = 60.0  # on a busy machine


async def answered(client: AsyncClient, number: int, *, max_tokens: int, **options: Any) -> None:
    """Make one request of about 160 tokens, and compare its answer with that of the engine called directly."""
    prompt = f"{number} times upon a time " + f"there was tale {number}. " * 8
    done = await client.generate(prompt, temperature=0, max_tokens=max_tokens, **options).result()
    wanted = await answer(prompt, Sampling(temperature=0, max_tokens=max_tokens))
    assert_tokens(list(done.token_ids), wanted.token_ids, prompt)
    assert done.text == wanted.text


async def paired(client: AsyncClient, pairs: int) -> None:
    async def there() -> bool:
        found = (await client.get_prefill_decode()).pairs
        return [each.state for each in found].count(PairState.USABLE) >= pairs

    await eventually(there, within_s=LONG_S, what=f"{pairs} usable pairs", every_s=0.1)


async def changed(client: AsyncClient, load: SteadyLoad, cause: str) -> RoleChange:
    """Wait for a change of this cause, and return it."""

    async def there() -> RoleChange | None:
        load.fail_early()
        changes = (await client.get_prefill_decode()).role_changes
        return next((each for each in changes if each.cause == cause), None)

    return await eventually(there, within_s=LONG_S, what=f"a role to change for {cause}", every_s=0.1)


async def ready_again(client: AsyncClient, load: SteadyLoad, names: Sequence[str]) -> dict[str, Instance]:
    """Wait until the new leader has these instances, and return them."""

    async def there() -> dict[str, Instance] | None:
        load.fail_early()
        try:
            found = {each.instance_id: each for each in (await client.list_instances()).instances}
        except SageError:
            return None
        ready = all(name in found and found[name].state is InstanceState.READY for name in names)
        return found if ready else None

    return await eventually(there, within_s=LONG_S, what=f"{names} to be ready again", every_s=0.05)


async def test_the_next_leader_goes_on_with_the_roles_and_no_stream_is_lost(logs: Path) -> None:
    numbers, names = count(1), ("p0", *DECODERS)
    with running_postgres() as postgres:
        async with StandbyFleet(logs, postgres.url, SCHEDULER) as fleet, fleet.client() as client:
            for name in names:
                role = "decoding" if name in DECODERS else "prefilling"
                fleet.launch(name, [*EXECUTOR, f"--role={role}"])
            await fleet.ready(*names)
            await paired(client, len(DECODERS))
            ask = partial(answered, client)
            async with SteadyLoad(partial(ask, max_tokens=2, ttft_target=0.5), numbers, at_once=6) as prompts:
                change = await changed(client, prompts, "prefill_pressed")
                leader = await fleet.leader()
                leader.kill()
                await leader.ended()
                await fleet.leader()
                found = (await ready_again(client, prompts, names))[change.instance_id]
                assert found.role is PREFILLING
                assert found.role_change is not None
                assert (found.role_change.previous, found.role_change.reason) == (DECODING, change.reason)
                assert found.role_change.age_s >= change.age_s
            async with SteadyLoad(partial(ask, max_tokens=400), numbers, at_once=10) as outputs:
                back = await changed(client, outputs, "decode_pressed")
            assert (back.previous, back.role) == (PREFILLING, DECODING)
            leader.start()
            await leader.said("stands by")
            await all_is_free(fleet, client, names)
