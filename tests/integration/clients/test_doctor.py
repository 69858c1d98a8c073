"""``sagectl doctor`` against schedulers that answer as told."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sage.controlplane.v1 import admin_pb2, common_pb2
from sagectl.cli import sagectl
from sagectl.exit_status import ExitStatus
from tests.integration.clients.fake_scheduler import FakeScheduler, always, instance, started

RESPONSE = admin_pb2.GetSchedulerResponse


@pytest.fixture
async def other() -> AsyncIterator[FakeScheduler]:
    fake = await started()
    yield fake
    await fake.stop()


def answers(state: int, *, clock_off_s: int = 0, **fields: Any) -> Any:
    async def answer(request: Any, context: Any) -> admin_pb2.GetSchedulerResponse:
        found = RESPONSE(state=state, epoch=7, **{"software_version": "1.0"} | fields)  # type: ignore[arg-type]
        found.clock.FromSeconds(round(time.time()) + clock_off_s)
        found.leader_lease.FromSeconds(2)
        return found

    return answer


def of_fleet(*instances: admin_pb2.Instance) -> Any:
    return always(admin_pb2.ListInstancesResponse(instances=instances))


async def doctor(*addresses: str) -> Result:
    arguments = ["doctor", "--address", ",".join(addresses)]
    return await asyncio.to_thread(CliRunner().invoke, sagectl, arguments)


async def test_all_is_well(scheduler: FakeScheduler, other: FakeScheduler) -> None:
    scheduler.admin["GetScheduler"] = answers(RESPONSE.STATE_STANDBY, leader=other.address)
    other.admin["GetScheduler"] = answers(RESPONSE.STATE_LEADING)
    other.admin["ListInstances"] = of_fleet(instance("a"))
    result = await doctor(scheduler.address, other.address)
    assert result.exit_code == ExitStatus.OK, result.output
    assert f"scheduler {scheduler.address}: standby, {other.address} leads, epoch 7" in result.output
    assert f"scheduler {other.address}: leading, epoch 7, lease of 2 s" in result.output
    assert "instances: 1 of 1 ready" in result.output
    assert "no problems found" in result.output


async def test_without_a_leader_it_says_so_and_fails(scheduler: FakeScheduler, other: FakeScheduler) -> None:
    scheduler.admin["GetScheduler"] = answers(RESPONSE.STATE_STANDBY, troubles=["the database is away"])
    await other.stop()
    result = await doctor(scheduler.address, other.address)
    assert result.exit_code == ExitStatus.UNAVAILABLE
    assert "problem: no scheduler leads" in result.output
    assert f"problem: {scheduler.address}: the database is away" in result.output
    assert f"scheduler {other.address}: does not answer" in result.output


async def test_everything_that_is_wrong_is_a_sentence(scheduler: FakeScheduler, other: FakeScheduler) -> None:
    scheduler.admin["GetScheduler"] = answers(RESPONSE.STATE_LEADING, clock_off_s=100, software_version="0.9")
    other.admin["GetScheduler"] = answers(RESPONSE.STATE_RECOVERING)
    scheduler.admin["ListInstances"] = of_fleet(
        instance("a"), instance("b", state=common_pb2.INSTANCE_STATE_LOST, state_reason="silent for 5 s")
    )
    result = await doctor(scheduler.address, other.address)
    assert result.exit_code == ExitStatus.TROUBLE
    assert "2 schedulers say that they lead" in result.output
    assert "off this machine's" in result.output
    assert "the schedulers have different versions: 0.9, 1.0" in result.output
    assert "instance b is lost: silent for 5 s" in result.output


async def test_programs_get_json(scheduler: FakeScheduler) -> None:
    scheduler.admin["GetScheduler"] = answers(RESPONSE.STATE_LEADING)
    scheduler.admin["ListInstances"] = of_fleet(instance("a"))
    result = await asyncio.to_thread(CliRunner().invoke, sagectl, ["doctor", "--address", scheduler.address, "--json"])
    found = json.loads(result.stdout)
    assert found["schedulers"][0]["status"]["state"] == "leading"
    assert found["problems"] == []
