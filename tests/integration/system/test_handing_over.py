"""A scheduler that is stopped in order, and the next one in the same directory."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sage_client import AsyncClient, AsyncStream, Completion, InstanceState
from scheduler_svc.control.requests import kept_ends
from scheduler_svc.domain.request import RequestKey
from tests.integration.system.local_fleet import MODEL, LocalFleet
from tests.support.eventually import eventually
from tests.support.network_proxy import NetworkProxy

TOKENS = 100


def fleet(folder: Path, port: int = 0) -> LocalFleet:
    usage = {"file": folder / "usage.jsonl"}
    return LocalFleet(state_dir=folder / "state", listen=f"127.0.0.1:{port}", usage=usage)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "usage.jsonl").read_text().splitlines()]


def stream(client: AsyncClient, request_id: str) -> AsyncStream:
    return client.generate("Once", max_tokens=TOKENS, ignore_eos=True, request_id=request_id)


async def read(request: AsyncStream) -> Completion:
    return await request.result()


async def test_a_request_that_is_handed_over_has_one_line_in_the_usage_file(tmp_path: Path) -> None:
    """Some run on; the ends of others are recorded, and kept by their executor for readers that did not confirm."""
    async with fleet(tmp_path) as first:
        await first.add("a", step_base_s=0.01)
        clients = [first.client, first.new_client(use_sessions=False)]
        ended = [await read(stream(client, f"ended-{number}")) for number, client in enumerate(clients)]
        reading = [asyncio.create_task(read(stream(client, f"runs-{number}"))) for number, client in enumerate(clients)]
        await eventually(lambda: len(first.scheduler.control.attempts) == len(reading))
        await first.stop_scheduler()
        assert {line["request_id"] for line in lines(tmp_path)} == {each.request_id for each in ended}
        async with fleet(tmp_path, first.scheduler.port) as second:
            assert [each.usage.completion_tokens for each in await asyncio.gather(*reading)] == [TOKENS, TOKENS]
            assert second.scheduler.control.adoption.adopted > len(reading), "ends of the first one came again, too"
            await second.stop_scheduler()
    found = Counter(line["request_id"] for line in lines(tmp_path))
    assert found == {"ended-0": 1, "ended-1": 1, "runs-0": 1, "runs-1": 1}
    assert {(line["end"], line["output_tokens"]) for line in lines(tmp_path)} == {("finished", TOKENS)}


async def test_only_requests_that_a_missing_instance_holds_wait_for_it(tmp_path: Path) -> None:
    async with fleet(tmp_path) as first:
        await first.add("a", step_base_s=0.05)
        reading = asyncio.create_task(read(stream(first.client, "runs")))
        await eventually(lambda: len(first.scheduler.control.attempts) == 1)
        await first.stop_scheduler()
        reading.cancel()
    async with fleet(tmp_path) as second:
        await second.add("b")
        recovery = second.scheduler.control.recovery
        assert (await read(stream(second.client, "new"))).usage.completion_tokens == TOKENS
        assert recovery.may_return(RequestKey(tenant="default", request_id="runs"), MODEL)


async def test_an_end_that_is_kept_outlives_a_broken_link_of_its_executor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_ends, "SETTLES_S", 1_000.0)  # nobody confirms it
    async with fleet(tmp_path) as first, NetworkProxy(first.scheduler.port) as proxy:
        executor = await first.add("a", through=proxy.address)
        done = await read(stream(first.new_client(use_sessions=False), "r"))
        control = first.scheduler.control
        assert len(control.intake.ends) == 1
        session = control.instances.table.find("a")
        await proxy.cut()
        await eventually(lambda: control.instances.table.find("a") not in (None, session))
        await first.until("a", InstanceState.READY)
        assert len(control.intake.ends) == 1
        assert len(executor.held) == 1
        await first.stop_scheduler()
        async with fleet(tmp_path, first.scheduler.port) as second:
            proxy.lead_to(second.scheduler.port)
            assert (await read(stream(second.client, "r"))).token_ids == done.token_ids
            assert second.scheduler.control.adoption.adopted == 1
            await second.stop_scheduler()


async def test_it_is_forgotten_when_its_reader_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_ends, "SETTLES_S", 1_000.0)
    async with fleet(tmp_path) as only, NetworkProxy(only.scheduler.port) as proxy:
        executor = await only.add("a", through=proxy.address)
        await read(stream(only.new_client(use_sessions=False), "r"))
        control = only.scheduler.control
        session = control.instances.table.find("a")
        await proxy.cut()
        await eventually(lambda: control.instances.table.find("a") not in (None, session))
        await only.until("a", InstanceState.READY)
        (live,) = control.intake.ends.attempts("a").values()
        control.intake.ends.release(live)
        await eventually(lambda: not executor.held, what="the end to be acknowledged on the new link")
