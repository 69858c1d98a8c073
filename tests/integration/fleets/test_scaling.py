"""Executors that come and go with the load: real processes, simulated engines, and a controller of a few lines."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest

from sage_client import AsyncClient, DesiredInstances, SageError
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.simulated_executor import simulated_executor

MODEL = "sim"
SCALING = {
    "interval-s": "0.2",
    "share": "1.0",
    "up-delay-s": "0",
    "down-delay-s": "2",
    "idle-s": "2",
    "warm-up-s": "5",
    "models": json.dumps({MODEL: {"general": {"min": 0, "max": 3}}}),
}


class Controller:
    """Starts an executor where more are desired, and terminates one, which drains it, where fewer are."""

    def __init__(self, fleet: FleetProcesses, client: AsyncClient) -> None:
        self._fleet = fleet
        self._client = client
        self._leaving: set[str] = set()
        self.most = 0  # executors at the same time, those that drain left out

    @property
    def there(self) -> list[str]:
        return [name for name, each in self._fleet.executors.items() if each.running and name not in self._leaving]

    async def run(self) -> None:
        while True:
            with suppress(SageError):
                for each in await self._client.desired_instances(model=MODEL):
                    self._follow(each)
            await asyncio.sleep(0.1)

    def _follow(self, desired: DesiredInstances) -> None:
        while len(self.there) < desired.desired:
            flags = simulated_executor(step_s=0.01, max_running=8)
            self._fleet.launch(f"executor-{len(self._fleet.executors)}", flags)
        surplus = len(self.there) - desired.desired
        for name in [each for each in desired.remove_first if each in self.there][: max(0, surplus)]:
            self._leaving.add(name)
            self._fleet.executors[name].terminate()
        self.most = max(self.most, len(self.there))


async def generated(client: AsyncClient, tokens: int) -> int:
    """Generate so many tokens, waiting for an instance if there is none, and return how many came."""
    stream = client.generate(token_ids=[1, 2, 3], model=MODEL, max_tokens=tokens, ignore_eos=True, no_instance="wait")
    return (await stream.result()).usage.completion_tokens


@pytest.mark.timeout(180)
async def test_executors_follow_the_load_from_none_to_several_and_back_and_no_token_is_lost(tmp_path: Path) -> None:
    flags = ["--scaling.enabled", *(f"--scaling.{key}={value}" for key, value in SCALING.items())]
    async with FleetProcesses(tmp_path, flags) as fleet, fleet.client() as client:
        controller = Controller(fleet, client)
        following = asyncio.create_task(controller.run())
        try:
            assert controller.there == []
            assert await generated(client, 5) == 5, "it waited for the first executor"

            burst = [asyncio.create_task(generated(client, 100)) for _ in range(64)]
            long = [asyncio.create_task(generated(client, 2_500)) for _ in range(4)]
            assert await asyncio.gather(*burst) == [100] * 64
            assert controller.most == 3
            await eventually(lambda: len(controller.there) < 3, within_s=60, what="the load to fall")
            assert await asyncio.gather(*long) == [2_500] * 4, "they outlived the drain of their executor"

            await eventually(lambda: controller.there == [], within_s=60, what="nobody to ask any more")
            assert await generated(client, 5) == 5, "the first request after that starts an executor again"
        finally:
            following.cancel()
