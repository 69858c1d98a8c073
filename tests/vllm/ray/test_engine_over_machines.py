"""An engine over two machines, by vLLM's Ray backend: its answers, the death of one of its machines, its return."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.tiny_model import make_tiny_model
from sage_client import AsyncClient, Completion, InstanceState
from tests.support.counted_stream import CountedStream
from tests.support.cpu_on_ray import install
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.ray_machines import Machine, RayMachines, can_isolate
from tests.support.token_check import assert_tokens

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not can_isolate(), reason="machines as namespaces need root, and unshare, nsenter and ip"),
]

ROOT = Path(__file__).parents[3]
FIRST, SECOND, APART = 0, 1, 2  # machines: the wide engine's two, and that of the other engine
MACHINES = (Machine(cpus=2), Machine(cpus=1), Machine(cpus=4))  # a group's CPUs decide which of them hold it
ONE, WIDE = "one-1", "wide-1"
UP_WITHIN_S = 240.0
TOKENS = 400
PROMPTS = tuple(f"Machine {number} of the engine went away, and" for number in range(6))


def described(services: FleetProcesses, machines: RayMachines) -> dict[str, Any]:
    """Two groups of one executor and one model: one with an engine on one GPU, one with an engine over two."""
    model = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(model, "float32")
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": 512, "kv_cache_bytes": 128 << 20}
    group = {"model": str(model), "served_name": "tiny"}
    return {
        "name": "tests",
        "place": "ray",
        "scheduler": {"address": f"{machines.host}:{services.port}", "insecure": True},
        "ray": {"address": machines.address, "gpus_per_node": 1},
        "start_timeout_s": UP_WITHIN_S,
        "drain_timeout_s": 5,
        "groups": {
            "one": group | {"gpus": 1, "cpus": 4, "engine_arguments": engine | {"cpu_cores": "1"}},
            "wide": group
            | {"gpus": 2, "tensor_parallel": 2, "cpus": 2, "engine_arguments": engine | {"cpu_cores": "0"}},
        },
    }


async def test_an_engine_over_two_machines(tmp_path: Path) -> None:
    install(tmp_path / "plugin")
    with RayMachines(MACHINES, isolated=True, paths=[tmp_path / "plugin"]) as machines:
        async with FleetProcesses(tmp_path, ("--insecure",), listen="0.0.0.0:0") as services:
            file = tmp_path / "fleet.yaml"
            file.write_text(json.dumps(described(services, machines)))
            await _sagectl(machines, "fleet", "apply", str(file))
            assert [len(machines.processes(each, "ray::RayWorkerProc")) for each in (FIRST, SECOND, APART)] == [1, 1, 0]
            address = f"{machines.host}:{services.port}"
            said = await _sagectl(machines, "--address", address, "--insecure", "generate", "Once", "--max-tokens", "8")
            assert said.strip()
            async with services.client() as client:
                wanted = await _answers(client, ONE)
                assert len({tuple(each.token_ids) for each in wanted}) == len(PROMPTS), "a fault would not show"
                _assert_equal(await _answers(client, WIDE), wanted)
                await _lose_a_machine(machines, client, wanted)
                await _come_back(machines, client, wanted)
            await _sagectl(machines, "fleet", "delete", str(file))
            assert [machines.processes(each, "executor_svc") for each in (FIRST, SECOND, APART)] == [[], [], []]


async def _lose_a_machine(machines: RayMachines, client: AsyncClient, wanted: Sequence[Completion]) -> None:
    """The streams of an engine that loses a machine go on with the other engine, and none of its processes stays."""
    engine = {*machines.processes(FIRST, "executor_svc"), *machines.processes(FIRST, "ray::RayWorkerProc")}
    streams = [CountedStream(_generate(client, prompt, WIDE)) for prompt in PROMPTS]
    await asyncio.gather(*(stream.until_token(10) for stream in streams))
    await asyncio.to_thread(machines.kill, SECOND)
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    _assert_equal(done, wanted)
    assert any(completion.attempts > 1 for completion in done)
    await eventually(
        lambda: not engine & {*machines.processes(FIRST)}, within_s=60, what="the engine to end", every_s=0.5
    )


async def _come_back(machines: RayMachines, client: AsyncClient, wanted: Sequence[Completion]) -> None:
    await asyncio.to_thread(machines.start, SECOND)

    async def ready() -> bool:
        workers = machines.processes(SECOND, "ray::RayWorkerProc")
        return bool(workers) and (await client.get_instance(WIDE)).state is InstanceState.READY

    await eventually(ready, within_s=UP_WITHIN_S, what="the engine over both machines", every_s=0.5)
    _assert_equal(await _answers(client, WIDE), wanted)


async def _answers(client: AsyncClient, instance: str) -> list[Completion]:
    found = await asyncio.gather(*(_generate(client, prompt, instance).result() for prompt in PROMPTS))
    assert {each.instance_id for each in found} == {instance}
    return list(found)


def _assert_equal(got: Sequence[Completion], wanted: Sequence[Completion]) -> None:
    for prompt, mine, theirs in zip(PROMPTS, got, wanted, strict=True):
        assert_tokens(mine.token_ids, theirs.token_ids, prompt)


def _generate(client: AsyncClient, prompt: str, instance: str) -> Any:
    return client.generate(
        prompt, temperature=0, max_tokens=TOKENS, ignore_eos=True, preferred_instance=instance, model="tiny"
    )


async def _sagectl(machines: RayMachines, *arguments: str) -> str:
    """Run a command on the first machine and return its output."""
    process = await asyncio.create_subprocess_exec(
        *machines.command(FIRST, sys.executable, "-m", "sagectl", *arguments),
        env=machines.environment(FIRST),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()
