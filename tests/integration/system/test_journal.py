"""What outlives a scheduler in its journal: operators' decisions and usage records."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import Connection

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc
from sage_client import AsyncClient as Client
from sage_client import (
    InstanceRole,
    InstanceState,
    InvalidRequestError,
    JournalStatus,
    JournalUnavailableError,
    RequestCancelledError,
    SplitMode,
    UsageGroup,
)
from sagectl.cli import sagectl as commands
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually


def fleet(folder: Path, **settings: object) -> LocalFleet:
    return LocalFleet(state_dir=folder / "state", recovery={"on_stop": "drain"}, **settings)


async def journal(client: Client) -> JournalStatus:
    found = await client.get_journal()
    assert found is not None
    return found


async def written(client: Client, records: int) -> None:
    async def enough() -> bool:
        return (await journal(client)).usage_written >= records

    await eventually(enough)


async def test_operators_decisions_outlive_the_scheduler(tmp_path: Path) -> None:
    async with fleet(tmp_path) as first:
        for name in ("a", "b"):
            await first.add(name)
        await first.client.set_policy("priority", reason="rush hour")
        await first.client.set_shadow_policy("round_robin")
        await first.client.set_prefill_decode(SplitMode.THRESHOLD, threshold_input_tokens=77)
        await first.client.drain_instance("a", reason="new cable")
        await first.client.set_instance_role("b", InstanceRole.DECODING)
    async with fleet(tmp_path) as second:
        status = await second.client.get_policy()
        assert (status.policy, status.configured, status.decided) == ("priority", "fifo", True)
        assert "rush hour" in status.switches[0].reason
        shadow = await second.client.get_shadow_policy()
        assert shadow is not None
        assert shadow.policy == "round_robin"
        splitting = (await second.client.get_prefill_decode()).config
        assert (splitting.mode, splitting.threshold_input_tokens) == (SplitMode.THRESHOLD, 77)
        [of_a, of_b] = (await second.client.list_instances()).decisions
        assert (of_a.instance_id, of_a.drained, of_a.drain_reason) == ("a", True, "new cable")
        assert (of_b.instance_id, of_b.role) == ("b", InstanceRole.DECODING)
        await second.add("b")
        second.launch("a")
        drained = await second.until("a", InstanceState.DRAINED)
        assert drained.state_reason == "new cable"
        assert (await second.client.get_instance("b")).role is InstanceRole.DECODING
        assert (await second.client.list_instances()).decisions == ()


async def test_what_is_taken_back_does_not_come_again(tmp_path: Path) -> None:
    async with fleet(tmp_path) as first:
        await first.add("a")
        await first.client.drain_instance("a")
        await first.client.resume_instance("a")
        await first.client.set_policy("priority")
        await first.client.set_policy("fifo")
    async with fleet(tmp_path) as second:
        assert not (await second.client.get_policy()).decided
        assert (await second.client.list_instances()).decisions == ()


async def test_an_instance_that_only_the_journal_knows_can_be_resumed(tmp_path: Path) -> None:
    async with fleet(tmp_path) as first:
        for name in ("a", "b"):
            await first.add(name)
        await first.client.drain_instance("a")
        await first.client.set_instance_role("b", InstanceRole.DECODING)
    async with fleet(tmp_path) as second:
        for name in ("a", "b"):
            assert (await second.client.resume_instance(name)).state is InstanceState.LOST
        assert (await second.client.list_instances()).decisions == ()


async def test_a_changed_configuration_counts_more_than_an_older_decision(tmp_path: Path) -> None:
    async with fleet(tmp_path) as first:
        await first.client.set_policy("priority")
    async with fleet(tmp_path, policy="round_robin") as second:
        status = await second.client.get_policy()
        assert (status.policy, status.decided) == ("round_robin", False)


async def test_each_request_leaves_a_usage_record(tmp_path: Path) -> None:
    async with fleet(tmp_path, usage={"file": tmp_path / "usage.jsonl"}) as running:
        await running.add("a")
        client = running.client
        for tenant, count in (("acme", 2), ("zoo", 1)):
            for _ in range(count):
                await running.new_client(tenant=tenant).generate("Once", max_tokens=5, ignore_eos=True).result()
        stream = running.new_client(tenant="zoo").generate("Once", max_tokens=3_000, ignore_eos=True, request_id="gone")
        await anext(stream)
        await running.new_client(tenant="zoo").cancel("gone")
        with pytest.raises(RequestCancelledError):
            await stream.result()
        await written(client, 4)

        records = [each async for each in client.list_usage()]
        assert [each.tenant for each in records] == ["acme", "acme", "zoo", "zoo"]
        first, last = records[0], records[-1]
        assert (first.end, first.reason, first.output_tokens, first.attempts) == ("finished", "length", 5, 1)
        assert first.arrived_at < first.ended_at
        assert first.first_token_s is not None
        assert (last.request_id, last.end, last.reason) == ("gone", "cancelled", "cancelled")
        assert [each.tenant async for each in client.list_usage(tenants=["zoo"], limit=1)] == ["zoo"]
        assert [each async for each in client.list_usage(until=first.arrived_at)] == []
        since = [each async for each in client.list_usage(since=last.ended_at)]
        assert since == [last]

        with pytest.raises(InvalidRequestError, match=r"filter\.tenants"):
            await client.sum_usage(tenants=["zoo\0"])
        sums = await client.sum_usage([UsageGroup.TENANT, UsageGroup.END])
        assert {each.groups: each.requests for each in sums} == {
            ("acme", "finished"): 2,
            ("zoo", "cancelled"): 1,
            ("zoo", "finished"): 1,
        }
        [everything] = await client.sum_usage()
        assert (everything.requests, everything.prompt_tokens) == (4, sum(each.prompt_tokens for each in records))
        days = await client.sum_usage(["day"])
        assert days[0].groups == (first.ended_at.date().isoformat(),)
    lines = [json.loads(line) for line in (tmp_path / "usage.jsonl").read_text().splitlines()]
    assert [line["tenant"] for line in lines] == ["acme", "acme", "zoo", "zoo"]


async def test_the_journal_can_be_exported_and_compacted(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.add("a")
        await running.client.drain_instance("a")
        lines = [json.loads(line) async for line in running.client.export_journal()]
        assert {line["table"] for line in lines} >= {"journal_header", "instance_decisions"}
        [drain] = [line async for line in running.client.export_journal(tables=["instance_decisions"])]
        assert json.loads(drain)["instance_id"] == "a"
        done = await running.client.compact_journal()
        assert 0 < done.bytes <= done.bytes_before
        status = await journal(running.client)
        assert (status.trouble, status.rows["instance_decisions"], status.schema_version) == ("", 1, 1)


async def test_without_a_journal_there_is_none_to_ask(tmp_path: Path) -> None:
    async with LocalFleet() as running:
        assert await running.client.get_journal() is None
        with pytest.raises(JournalUnavailableError, match="there is none"):
            await running.client.sum_usage()
        with pytest.raises(JournalUnavailableError, match="there is none"):
            await running.client.compact_journal()


async def test_a_full_journal_keeps_nobody_from_generating(tmp_path: Path) -> None:
    async with fleet(tmp_path, journal={"max_bytes": 2**20}) as running:
        await running.add("a")
        await until_full(running)
        assert "full" in (await journal(running.client)).trouble
        async with grpc.aio.insecure_channel(running.address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            await eventually(lambda: not_serving(health, "sage.controlplane.v1.Journal"))
            assert not await not_serving(health, "sage.controlplane.v1.InferenceService")
        done = await running.client.generate("Once", max_tokens=5, ignore_eos=True).result()
        assert len(done.token_ids) == 5
        drained = await running.client.drain_instance("a")
        assert drained.state in (InstanceState.DRAINING, InstanceState.DRAINED)
        assert drained.decision is not None
        assert "full" in drained.decision.not_kept
        assert "full" in (await running.client.set_policy("priority")).not_kept


async def until_full(running: LocalFleet) -> None:
    """Fill the journal until it takes no more."""
    found = running.scheduler._journal
    assert found is not None
    rows = ({"name": f"n{number}", "value": "x" * 100_000, "made_at": 0.0} for number in range(100))
    with suppress(JournalUnavailable):
        for row in rows:
            await found.writer.write(partial(insert, row))
    assert next(rows, None) is not None


def insert(row: dict[str, object], connection: Connection) -> None:
    connection.execute(FLEET_DECISIONS.insert().values(row))


async def not_serving(health: Any, name: str) -> bool:
    answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
    return bool(answer.status == health_pb2.HealthCheckResponse.NOT_SERVING)


async def test_sagectl_shows_usage_and_the_journal(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.add("a")
        for _ in range(2):
            await running.new_client(tenant="acme").generate("Once", max_tokens=5, ignore_eos=True).result()
        await written(running.client, 2)
        by_tenant = await sagectl(running, "usage", "--since", "1h", "--by", "tenant,model", "-o", "csv")
        assert by_tenant.stdout.splitlines()[1].startswith("acme,sim,2,")
        as_json = await sagectl(running, "usage", "--by", "end", "-o", "json")
        assert json.loads(as_json.stdout)["output_tokens"] == 10
        records = await sagectl(running, "usage", "--records", "--limit", "1", "--json")
        assert json.loads(records.stdout)["tenant"] == "acme"
        table = await sagectl(running, "usage")
        assert "completion" not in table.stdout
        assert "OUTPUT TOKENS" in table.stdout
        status = await sagectl(running, "journal", "status")
        assert "it works" in status.stdout
        assert "usage records: 2 written, 0 dropped" in status.stdout
        assert json.loads((await sagectl(running, "journal", "status", "--json")).stdout)["usage_written"] == 2
        exported = await sagectl(running, "journal", "export", "--table", "usage_records")
        assert [json.loads(line)["tenant"] for line in exported.stdout.splitlines()] == ["acme", "acme"]
        compacted = await sagectl(running, "journal", "compact")
        assert "0 usage records deleted" in compacted.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--since", "yesterday"), "neither a time"),
        (("--by", "colour"), "the groups are tenant, model, priority, end, day"),
        (("--by", "tenant,tenant"), "named twice"),
        (("--since", "1h", "--until", "2h"), "not after"),
    ],
)
async def test_a_wrong_question_about_usage_is_refused_with_words(
    tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    async with fleet(tmp_path) as running:
        refused = await sagectl(running, "usage", *arguments)
        assert refused.exit_code == 2
        assert problem in refused.stderr


async def test_a_filter_that_makes_no_sense_names_its_field(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        stub: Any = admin_pb2_grpc.AdminServiceStub(running.channel())
        for field, wanted in (
            ("filter.since", {"since": Timestamp(nanos=2**31 - 1)}),
            ("filter.until", {"until": Timestamp(seconds=2**62)}),
            ("filter.tenants", {"tenants": ["a\0"]}),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.SumUsage(admin_pb2.SumUsageRequest(filter=admin_pb2.UsageFilter(**wanted)))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert field in str(refused.value.details())


async def test_sagectl_says_that_there_is_no_journal() -> None:
    async with LocalFleet() as running:
        assert "no journal" in (await sagectl(running, "journal", "status")).stdout
        refused = await sagectl(running, "usage")
        assert refused.exit_code == 3
        assert "there is none" in refused.stderr


async def sagectl(running: LocalFleet, *arguments: str) -> Result:
    command = [*arguments, "--address", running.address]
    return await asyncio.to_thread(lambda: CliRunner().invoke(commands, command))
