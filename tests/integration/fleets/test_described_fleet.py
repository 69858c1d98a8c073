"""``sagectl fleet`` with the real services and simulated engines."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

import sage_client as sage
from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, hash_of
from sage_local.fleet.ports import free_address
from sage_local.fleet.sessions import members
from sage_local.fleet.state_dir import StateDir
from tests.support.authority import Authority, needs_openssl

pytestmark = pytest.mark.timeout(300)  # a machine that many share is slow

TOKENS = 60
STREAMS = 12


class DescribedFleet:
    """A file, and the commands that are run with it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.file = folder / "fleet.yaml"
        self.address = free_address()
        self.content: dict[str, Any] = {
            "name": "described",
            "drain_timeout_s": 20,
            "start_timeout_s": 30,
            "scheduler": {"address": self.address},
            "groups": {
                "chat": {
                    "model": "sim",
                    "engine": "simulated",
                    "engine_arguments": {"step_base_s": 0.02, "max_running": 8},
                    "count": 3,
                }
            },
        }
        self.write()

    @property
    def chat(self) -> dict[str, Any]:
        group: dict[str, Any] = self.content["groups"]["chat"]
        return group

    def write(self) -> None:
        self.file.write_text(yaml.safe_dump(self.content))

    def run(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sagectl", "fleet", command, str(self.file), *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=os.environ | {"SAGE_HOME": str(self.home)},
        )

    async def done(self, command: str, *arguments: str) -> str:
        """Run a command that has to succeed, beside the event loop's other tasks."""
        ended = await asyncio.to_thread(self.run, command, *arguments)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    async def until_ready(self) -> list[str]:
        """Wait until all is as wanted; return the executors' names."""
        async with asyncio.timeout(30):
            while (ended := await asyncio.to_thread(self.run, "status", "--json")).returncode:
                await asyncio.sleep(0.2)
        return [each["name"] for each in json.loads(ended.stdout)["executors"]]

    def sessions(self) -> set[int]:
        status = StateDir(path=self.home).read_status()
        return {each.pid for each in status.processes if each.pid is not None} if status else set()


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[DescribedFleet]:
    made = DescribedFleet(tmp_path)
    yield made
    made.run("delete")
    assert members(made.sessions()) == []


class Load:
    """Streams that go on and on, and what became of those that ended."""

    def __init__(self, client: sage.AsyncClient) -> None:
        self._client = client
        self.ended: list[sage.Completion] = []
        self.on: set[str] = set()  # instances that ran one

    async def run(self) -> None:
        while True:
            done = await self._client.generate("once upon a time", max_tokens=TOKENS, ignore_eos=True).result()
            self.ended.append(done)
            self.on.add(done.instance_id)

    async def until_on(self, instances: set[str]) -> None:
        """Wait until every one of these ran a stream from now on."""
        self.on.clear()
        async with asyncio.timeout(20):
            while not self.on >= instances:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def loaded(address: str) -> AsyncIterator[Load]:
    """Give a load on the fleet; at the end all streams are whole, and none ran twice."""
    async with sage.AsyncClient(address) as client:
        load = Load(client)
        streams = [asyncio.create_task(load.run()) for _ in range(STREAMS)]
        yield load
        for stream in streams:
            stream.cancel()
        ends = await asyncio.gather(*streams, return_exceptions=True)
    assert [each for each in ends if not isinstance(each, asyncio.CancelledError)] == []
    assert load.ended
    assert {len(each.token_ids) for each in load.ended} == {TOKENS}
    assert {len(each.decisions) for each in load.ended} == {1}


async def test_a_life_under_load(fleet: DescribedFleet) -> None:
    said = await fleet.done("apply")
    assert said.startswith("scheduler: starts\nchat: 3 executors start\n")
    assert await fleet.done("apply", "--dry-run") == "nothing changes\n"

    async with loaded(fleet.address) as load:
        await load.until_on({"chat-1", "chat-2", "chat-3"})
        assert await fleet.done("scale", "chat", "1") == "chat: 1 executor instead of 3\n"
        assert await fleet.until_ready() == ["chat-1"]

        await load.until_on({"chat-1"})
        fleet.chat["count"] = 2
        fleet.chat["engine_arguments"]["max_running"] = 6
        fleet.write()
        said = await fleet.done("apply")
        assert said.startswith(
            "chat: 2 executors instead of 1\nchat: other settings: its executors are replaced\ndescribed on local"
        )
        names = set(await fleet.until_ready())
        assert len(names) == 2
        await load.until_on(names)

        fleet.content["scheduler"]["policy"] = "fifo"
        fleet.write()
        assert (await fleet.done("apply")).startswith("scheduler and gateway: get other settings\n")
        assert set(await fleet.until_ready()) == names
        await load.until_on(names)

    sessions = fleet.sessions()
    assert await fleet.done("delete") == "described: deleted from local\n"
    assert await fleet.done("delete") == "described: does not run on local\n"
    assert members(sessions) == []
    assert (await asyncio.to_thread(fleet.run, "status")).returncode == 3


async def test_a_setting_that_the_engine_does_not_know_is_named_and_the_others_go_on(fleet: DescribedFleet) -> None:
    fleet.chat["count"] = 1
    fleet.write()
    await fleet.done("apply")
    fleet.chat["engine_arguments"]["max_runing"] = 3
    fleet.write()
    wrong = await asyncio.to_thread(fleet.run, "apply")
    assert wrong.returncode == 1
    assert "engine.simulated.max_runing: unknown key" in wrong.stderr
    async with sage.AsyncClient(fleet.address) as client:
        assert len((await client.generate("hello", max_tokens=5, ignore_eos=True).result()).token_ids) == 5
    del fleet.chat["engine_arguments"]["max_runing"]
    fleet.write()
    await fleet.done("apply")
    assert await fleet.until_ready() == ["chat-1"]


async def test_a_fleet_of_which_nothing_ever_ran_is_mended_by_the_next_apply(fleet: DescribedFleet) -> None:
    fleet.chat.update(count=1, engine_arguments={"max_runing": 3})
    fleet.write()
    wrong = await asyncio.to_thread(fleet.run, "apply")
    assert "engine.simulated.max_runing: unknown key" in wrong.stderr
    fleet.chat["engine_arguments"] = {}
    fleet.write()
    await fleet.done("apply")
    assert len(await fleet.until_ready()) == 1


def test_what_cannot_change_while_it_runs_is_refused_by_name(fleet: DescribedFleet) -> None:
    fleet.chat["count"] = 0
    fleet.write()
    assert fleet.run("apply").returncode == 0
    fleet.content["scheduler"]["address"] = free_address()
    fleet.write()
    refused = fleet.run("apply")
    assert refused.returncode == 1
    assert "error: scheduler.address cannot change while the fleet runs: delete it first\n" in refused.stderr
    fleet.content["name"] = "another"
    fleet.write()
    assert "name: the fleet described runs in" in fleet.run("apply").stderr
    fleet.content |= {"name": "described", "scheduler": {"address": fleet.address}}
    fleet.write()


async def test_executors_come_and_go_with_the_load(fleet: DescribedFleet) -> None:
    del fleet.chat["count"]
    fleet.chat.update(min=1, max=3)
    fleet.chat["engine_arguments"]["max_running"] = 4
    quick = {"interval_s": 0.5, "up_delay_s": 0.5, "down_delay_s": 2, "trend_s": 5, "warm_up_s": 1}
    fleet.content["scheduler"]["settings"] = {"scaling": quick}
    fleet.write()
    await fleet.done("apply")
    assert await fleet.until_ready() == ["chat-1"]
    async with loaded(fleet.address) as load:
        await load.until_on({"chat-1", "chat-2", "chat-3"})
    async with asyncio.timeout(30):
        while len(await fleet.until_ready()) > 1:  # which one stays is the scheduler's advice
            await asyncio.sleep(0.5)


async def test_executors_that_are_too_many_sleep_and_are_woken_first(fleet: DescribedFleet) -> None:
    del fleet.chat["count"]
    fleet.chat.update(min=0, max=2, keep_asleep=1)
    quick = {"interval_s": 0.5, "up_delay_s": 0.5, "down_delay_s": 1, "idle_s": 1, "trend_s": 5, "warm_up_s": 1}
    fleet.content["scheduler"]["settings"] = {"scaling": quick}
    fleet.write()
    await fleet.done("apply")
    async with sage.AsyncClient(fleet.address) as client:
        done = await client.generate("once", model="sim", no_instance="wait", max_tokens=3, deadline=60).result()
        async with asyncio.timeout(60):
            while (await client.get_instance(done.instance_id)).state is not sage.InstanceState.SLEEPING:
                await asyncio.sleep(0.2)
        again = await client.generate("once", model="sim", no_instance="wait", max_tokens=3, deadline=60).result()
        assert again.instance_id == done.instance_id
        assert (await client.get_instance(done.instance_id)).wake_s is not None, "it was woken, not started again"


async def test_two_groups_share_a_device_and_are_replaced_there(fleet: DescribedFleet) -> None:
    shared = {"engine": "simulated", "device_group": "gpu0"}
    fleet.content["groups"] = {name: {"model": f"sim-{name}", **shared} for name in ("chat", "coder")}
    fleet.content["scheduler"]["settings"] = {"device_groups": {"min_awake_s": 0.2, "turn_factor": 1}}
    fleet.write()
    await fleet.done("apply")
    assert await fleet.until_ready() == ["chat-1", "coder-1"]
    async with sage.AsyncClient(fleet.address) as client:
        for name in ("chat", "coder", "chat"):
            assert (
                await client.generate("once", model=f"sim-{name}", max_tokens=3).result()
            ).instance_id == f"{name}-1"
    fleet.chat["engine_arguments"] = {"max_running": 3}
    fleet.write()
    await fleet.done("apply")
    assert len(await fleet.until_ready()) == 2


@needs_openssl
async def test_every_connection_of_a_fleet_with_identities_has_tls(fleet: DescribedFleet, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, private_key = authority.issue("scheduler")
    grants = {
        "executor": Grant(role=Role.EXECUTOR, instances=("chat-*",)),
        "operator": Grant(role=Role.OPERATOR),
        "caller": Grant(role=Role.APPLICATION, tenant="t"),
    }
    for name, grant in grants.items():
        keys_file.add(tmp_path / "keys.toml", Key(name=name, sha256=hash_of(f"key-{name}"), grant=grant))
        (tmp_path / f"{name}.token").write_text(f"key-{name}\n")
    fleet.content["scheduler"] = {
        "address": fleet.address,
        "tls": {"ca": str(authority.certificate), "certificate": str(certificate), "private_key": str(private_key)},
        "access": {
            "keys_file": str(tmp_path / "keys.toml"),
            "executor_token_file": str(tmp_path / "executor.token"),
            "operator_token_file": str(tmp_path / "operator.token"),
        },
    }
    fleet.chat["count"] = 1
    fleet.write()
    await fleet.done("apply")
    assert await fleet.until_ready() == ["chat-1"]
    async with sage.AsyncClient(fleet.address, tls_ca=authority.certificate, token="key-caller") as client:
        assert len((await client.generate("hello", max_tokens=5, ignore_eos=True).result()).token_ids) == 5
