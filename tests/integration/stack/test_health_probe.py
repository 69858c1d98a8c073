"""The images' HEALTHCHECK, against a scheduler and an executor as their own wiring builds them."""

from __future__ import annotations

import asyncio
import socket

import pytest

from docker import health_probe
from tests.integration.system.local_fleet import LocalFleet


async def probe(*arguments: str) -> int:
    return await asyncio.to_thread(health_probe.main, list(arguments))


async def test_a_scheduler_is_healthy_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    async with LocalFleet() as fleet:
        assert await probe(fleet.address) == 0
        assert await probe(fleet.address, "--service", "sage.controlplane.v1.InferenceService") == 1, "no instance"
    assert capsys.readouterr().out == "SERVING\nNOT_SERVING\n"


async def test_an_executor_is_healthy_while_a_scheduler_has_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    async with LocalFleet() as fleet:
        await fleet.add("one", settings={"listen": address})
        assert await probe(address) == 0
        await fleet.executors["one"].end()
        assert await probe(address) == 1


async def test_nobody_there_is_unhealthy_and_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert await probe(f"127.0.0.1:{nobody.getsockname()[1]}") == 1
    assert capsys.readouterr().out.startswith("UNAVAILABLE: ")
