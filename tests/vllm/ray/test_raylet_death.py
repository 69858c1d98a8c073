"""A raylet with a vLLM engine is killed mid-stream: streams go on token-exact, the engine comes back elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.tiny_model import make_tiny_model
from sage_client import AsyncClient, InstanceState
from sage_fleet.ray_place.place import RayPlace
from sage_fleet.specification.fleet import Fleet
from tests.support.counted_stream import CountedStream
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.ray_nodes import RayNodes
from tests.support.token_check import assert_tokens

pytestmark = [pytest.mark.vllm]

ROOT = Path(__file__).parents[3]
CPUS = 2  # of a node, and of an executor: no two share a node
UP_WITHIN_S = 240.0  # seconds an engine may take to start
TOKENS = 2000  # far more than an engine makes in the 3 s that a raylet's worker outlives it
PROMPTS = tuple(f"Node {number} of the cluster went away, and" for number in range(8))


def described(services: FleetProcesses, nodes: RayNodes) -> Fleet:
    """Two groups of one executor, as each engine needs a core of its own: see ``vllm.cpu_cores``."""
    model = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(model, "float32")
    engine = {"dtype": "float32", "enforce_eager": True, "max_model_len": 2304, "kv_cache_bytes": 128 << 20}
    group = {"model": str(model), "served_name": "tiny", "cpus": CPUS}
    groups = {
        name: group | {"engine_arguments": engine | {"cpu_cores": str(core)}}
        for core, name in enumerate(("zero", "one"))
    }
    return Fleet.model_validate(
        {
            "name": "tests",
            "place": "ray",
            "scheduler": {"address": services.address},
            "groups": groups,
            "start_timeout_s": UP_WITHIN_S,
            "drain_timeout_s": 20,
            "ray": {"address": nodes.address},
        }
    )


async def test_a_raylet_is_killed_mid_stream(tmp_path: Path) -> None:
    with RayNodes([{}, {}, {}], cpus=CPUS) as nodes:
        async with FleetProcesses(tmp_path) as services, services.client() as client:
            fleet = described(services, nodes)
            place = RayPlace(fleet)
            try:
                await place.apply(fleet)
                await _strike(place, client, nodes)
                await place.delete()
            finally:
                await place.close()
            assert nodes.executors() == {}


async def _strike(place: RayPlace, client: AsyncClient, nodes: RayNodes) -> None:
    answers = await asyncio.gather(*(_generate(client, prompt).result() for prompt in PROMPTS))
    undisturbed = {prompt: answer.token_ids for prompt, answer in zip(PROMPTS, answers, strict=True)}
    assert len({tuple(token_ids) for token_ids in undisturbed.values()}) == len(PROMPTS), "a fault would not show"
    before = {each.name: each for group in (await place.status()).groups.values() for each in group.executors}
    struck = next(each for each in before.values() if not nodes.is_head(each.where))
    [executor] = nodes.executors()[struck.name]
    processes = [executor, *executor.children(recursive=True)]
    assert len(processes) > 1, "the engine has a process of its own"
    streams = [CountedStream(_generate(client, prompt)) for prompt in PROMPTS]
    await asyncio.gather(*(stream.until_token(10) for stream in streams))
    assert (await client.get_instance(struck.name)).assigned, "requests run there"
    nodes.kill(struck.where)
    done = await asyncio.gather(*(stream.complete() for stream in streams))
    for prompt, completion in zip(PROMPTS, done, strict=True):
        assert_tokens(completion.token_ids, undisturbed[prompt], prompt)
    assert any(completion.attempts > 1 for completion in done)
    await eventually(lambda: not nodes.alive(processes), within_s=15, what="the dead node's executor to end")

    async def elsewhere() -> bool:
        groups = (await place.status()).groups.values()
        found = {each.name: each for group in groups for each in group.executors}[struck.name]
        moved = found.state == "running" and found.where not in ("", struck.where)
        return moved and (await client.get_instance(struck.name)).state is InstanceState.READY

    await eventually(elsewhere, within_s=UP_WITHIN_S, what=f"{struck.name} on another node", every_s=0.5)
    again = await _generate(client, PROMPTS[0], preferred_instance=struck.name).result()
    assert again.instance_id == struck.name
    assert_tokens(again.token_ids, undisturbed[PROMPTS[0]], "on another node")


def _generate(client: AsyncClient, prompt: str, **options: Any) -> Any:
    return client.generate(prompt, temperature=0, max_tokens=TOKENS, ignore_eos=True, **options)
