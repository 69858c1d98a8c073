"""LoRA adapters that operators add and remove while a fleet serves requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from sage_client import AdapterState, AsyncStream, InvalidRequestError, SageError, UnknownModelError
from sagectl.cli import sagectl as commands
from tests.integration.system.local_fleet import MODEL, LocalFleet
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

SOURCE = "org/legal"


async def states(fleet: LocalFleet) -> dict[str, AdapterState]:
    found = await fleet.client.list_adapters()
    return {each.instance_id: each.state for adapter in found for each in adapter.instances}


async def loaded(fleet: LocalFleet, *instances: str) -> None:
    async def there() -> bool:
        found = await states(fleet)
        return all(found.get(each) is AdapterState.LOADED for each in instances)

    await eventually(there, what=f"the adapter on {instances}")


async def until_token(stream: AsyncStream, index: int) -> None:
    while stream.next_token < index:
        await anext(stream)


async def wanted(prompt: str, tokens: int) -> tuple[int, ...]:
    """What an engine that was started with the adapter answers."""
    whole = await answer(prompt, Sampling(temperature=0, max_tokens=tokens), adapter="legal")
    return whole.token_ids


async def test_a_request_waits_for_its_adapter_and_equals_an_engine_started_with_it() -> None:
    async with LocalFleet() as fleet:
        await fleet.add("a", adapter_slots=2, adapter_load_s=0.2)
        with pytest.raises(InvalidRequestError, match="'legal' is not one of the model's adapters: none"):
            await fleet.client.generate("Once", adapter="legal").result()
        await fleet.client.add_adapter("legal", SOURCE)
        [model] = await fleet.client.models()
        assert model.adapters == ("legal",)
        done = await fleet.client.generate("Once", adapter="legal", max_tokens=60, temperature=0).result()
        assert_tokens(done.token_ids, await wanted("Once", 60), "Once")
        assert await states(fleet) == {"a": AdapterState.LOADED}


async def test_a_killed_executors_requests_go_on_where_the_adapter_is() -> None:
    async with LocalFleet() as fleet:
        a = await fleet.add("a", adapter_slots=1, step_base_s=0.003)
        await fleet.add("b", adapter_slots=1)
        await fleet.add("without")
        await fleet.client.add_adapter("legal", SOURCE)
        await loaded(fleet, "a", "b")
        options = {"adapter": "legal", "max_tokens": 300, "preferred_instance": "a"}
        sampled = [{"temperature": 0}, {"temperature": 0.8, "seed": 3}]
        streams = [fleet.client.generate("Once", **options, **more) for more in sampled]  # type: ignore[arg-type]
        await asyncio.gather(*(until_token(stream, 20) for stream in streams))
        a.engine.inject(Fault(kind=FaultKind.DIE))
        greedy, seeded = await asyncio.gather(*(stream.result() for stream in streams))
        assert greedy.instance_id == seeded.instance_id == "b"
        assert_tokens(greedy.token_ids, await wanted("Once", 300), "Once")
        again = await fleet.client.generate("Once", **{**options, "preferred_instance": "b"}, **sampled[1]).result()  # type: ignore[arg-type]
        assert_tokens(seeded.token_ids, again.token_ids, "seeded")


async def test_a_removed_adapter_ends_its_requests_first() -> None:
    async with LocalFleet() as fleet:
        a = await fleet.add("a", adapter_slots=1, step_base_s=0.003)
        await fleet.client.add_adapter("legal", SOURCE)
        running = fleet.client.generate("Once", adapter="legal", max_tokens=300, temperature=0)
        await until_token(running, 5)
        found = await fleet.client.remove_adapter("legal")
        assert (found.removing, found.requests) == (True, 1)
        with pytest.raises(InvalidRequestError, match="'legal' is being removed"):
            await fleet.client.generate("Late", adapter="legal").result()
        assert (await fleet.client.models())[0].adapters == ()
        assert_tokens((await running.result()).token_ids, await wanted("Once", 300), "Once")

        async def gone() -> bool:
            return not await fleet.client.list_adapters() and not a.engine._adapters.names

        await eventually(gone, what="the adapter to be unloaded")
        with pytest.raises(InvalidRequestError, match="is not one of the model's adapters"):
            await fleet.client.generate("Later", adapter="legal").result()


async def test_adapters_outlive_the_scheduler_and_its_executors(tmp_path: Path) -> None:
    kept = {"state_dir": tmp_path / "state", "recovery": {"on_stop": "drain"}}
    async with LocalFleet(**kept) as first:
        await first.add("a", adapter_slots=1)
        added = await first.client.add_adapter("legal", SOURCE, revision="v2", max_rank=8)
        assert added.not_kept == ""
    async with LocalFleet(**kept) as second:
        [found] = await second.client.list_adapters()
        assert (found.name, found.source, found.revision, found.max_rank) == ("legal", SOURCE, "v2", 8)
        assert found.instances == ()
        await second.add("b", adapter_slots=1)
        await loaded(second, "b")
        done = await second.client.generate("Once", adapter="legal", max_tokens=20, temperature=0).result()
        assert_tokens(done.token_ids, await wanted("Once", 20), "Once")
        [found] = await second.client.list_adapters(model=MODEL)
        assert found.instances[0].weights == "simulated org/legal@v2"


async def test_where_it_does_not_load_the_reason_is_said(tmp_path: Path) -> None:
    async with LocalFleet() as fleet:
        await fleet.add("a", adapter_slots=1)
        await fleet.add("none")
        await fleet.client.add_adapter("legal", str(tmp_path))

        async def failed() -> bool:
            return (await states(fleet)) == {"a": AdapterState.FAILED, "none": AdapterState.UNSUPPORTED}

        await eventually(failed, what="the failure")
        [found] = await fleet.client.list_adapters()
        assert found.instances[0].reason.endswith("has no adapter_config.json: it is not an adapter's directory")


async def test_what_cannot_be_names_its_field() -> None:
    async with LocalFleet() as fleet:
        await fleet.add("a", adapter_slots=1)
        calls = {
            "name": fleet.client.add_adapter("no spaces", SOURCE),
            "source": fleet.client.add_adapter("legal", " "),
            "revision": fleet.client.add_adapter("legal", SOURCE, revision="x" * 300),
            "max_rank": fleet.client.add_adapter("legal", SOURCE, max_rank=5_000),
        }
        for field, call in calls.items():
            with pytest.raises(InvalidRequestError) as refused:
                await call
            assert [each.field for each in refused.value.violations] == [field]
        with pytest.raises(UnknownModelError):
            await fleet.client.add_adapter("legal", SOURCE, model="nobody")
        with pytest.raises(SageError):
            await fleet.client.remove_adapter("never added")


async def test_the_commands() -> None:
    async with LocalFleet() as fleet:
        await fleet.add("a", adapter_slots=1)

        async def run(*arguments: str) -> Result:
            call = ["--address", fleet.address, "adapter", *arguments]
            return await asyncio.to_thread(CliRunner().invoke, commands, call)

        assert "no adapters were added" in (await run("list")).output
        added = await run("add", "legal", SOURCE, "--max-rank", "8")
        assert (added.exit_code, added.output.split(";")[0]) == (0, "legal: added to sim")
        await loaded(fleet, "a")
        listed = await run("list", "-o", "wide")
        assert all(word in listed.output for word in ("legal", "sim", "loaded", "a", SOURCE))
        assert (await run("list", "-o", "name")).output == "legal\n"
        assert (await run("remove", "legal")).output == "legal: removed from sim\n"
        again = await run("remove", "legal")
        assert again.exit_code == 2
        assert "not a registered adapter of 'sim'; there are: none" in again.output
