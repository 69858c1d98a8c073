"""What is kept in the journal, on both databases: decisions, usage records, status, export, unused space."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from scheduler_svc.control.journal.decisions import Decisions, InstanceDecision
from scheduler_svc.control.journal.usage import UsageFilter, UsageGroup, UsageRecord, UsageRetention
from scheduler_svc.domain.errors import InvalidRequest, JournalUnavailable
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.storage.journal import usage_store
from scheduler_svc.storage.journal.decision_store import JournalDecisionStore
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.maintenance import Maintenance
from scheduler_svc.storage.journal.schema import TABLES
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS
from scheduler_svc.storage.journal.tables.metadata import METADATA
from scheduler_svc.storage.journal.tables.usage import ROW_BYTES
from scheduler_svc.storage.journal.usage_store import JournalUsageStore
from tests.support.eventually import eventually
from tests.support.postgres import running_postgres

DAY_S = 86_400.0
NOW = 20_000 * DAY_S


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as postgres:
        yield postgres.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/journal.db" if request.param == "sqlite" else request.getfixturevalue("server")


@pytest.fixture
async def journal(url: str) -> AsyncIterator[Journal]:
    emptied = Journal(JournalSettings(url=url))
    with emptied.database.writing() as connection:
        METADATA.drop_all(connection)
    emptied._let_go()
    made = Journal(JournalSettings(url=url, fleet="f"))
    made.start()
    yield made
    await made.close()


def record(number: int, **fields: Any) -> UsageRecord:
    made = UsageRecord(
        tenant="t",
        request_id=f"r{number}",
        model="m",
        adapter="",
        priority="normal",
        detached=False,
        prompt_tokens=10,
        cached_prompt_tokens=4,
        output_tokens=number,
        arrived_at=NOW + number - 0.5,
        ended_at=NOW + number,
        waited_s=0.1,
        first_token_s=None,
        attempts=1,
        cost=0.25,
        end="finished",
        reason="stop",
    )
    return made._replace(**fields)


async def pages(store: JournalUsageStore, wanted: UsageFilter, most: int) -> list[UsageRecord]:
    found: list[UsageRecord] = []
    after = None
    while True:
        page, after = await store.page(wanted, after, most)
        assert len(page) <= most
        found.extend(page)
        if after is None:
            return found


async def test_usage_comes_back_page_by_page_the_oldest_first(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    records = [record(number) for number in range(10)]
    records[5] = records[5]._replace(ended_at=records[4].ended_at)  # two at the same moment
    await store.add(records)
    assert await pages(store, UsageFilter(), 3) == records
    assert await pages(store, UsageFilter(), 100) == records
    some = UsageFilter(since=NOW + 2, until=NOW + 8)
    assert await pages(store, some, 2) == records[2:8]


async def test_usage_can_be_asked_of_tenants_and_models(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    await store.add([record(1), record(2, tenant="u"), record(3, tenant="u", model="n")])
    of_u = await pages(store, UsageFilter(tenants=("u",)), 10)
    assert [each.request_id for each in of_u] == ["r2", "r3"]
    assert [each.request_id for each in await pages(store, UsageFilter(tenants=("u",), models=("n",)), 10)] == ["r3"]


async def test_sums_by_groups(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    await store.add([record(1), record(2, tenant="u"), record(3, tenant="u", ended_at=NOW + DAY_S)])
    found = await store.sums(UsageFilter(), [UsageGroup.TENANT, UsageGroup.DAY], 10)
    assert [(each.groups, each.requests, each.prompt_tokens, each.output_tokens) for each in found] == [
        (("t", "2024-10-04"), 1, 10, 1),
        (("u", "2024-10-04"), 1, 10, 2),
        (("u", "2024-10-05"), 1, 10, 3),
    ]
    [everything] = await store.sums(UsageFilter(), [], 10)
    assert (everything.groups, everything.requests, everything.cost, everything.attempts) == ((), 3, 0.75, 3)
    assert len(await store.sums(UsageFilter(), [UsageGroup.TENANT], 1)) == 2  # one more than asked for says: too many


async def test_sums_over_nothing_are_zero(journal: Journal) -> None:
    [everything] = await JournalUsageStore(journal).sums(UsageFilter(), [], 10)
    assert (everything.requests, everything.output_tokens, everything.cost) == (0, 0, 0.0)


async def test_old_usage_goes_by_time_and_by_size(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_store, "DELETED_AT_ONCE", 3)
    store = JournalUsageStore(journal)
    await store.add([record(number) for number in range(20)])
    assert await store.retain(UsageRetention(keep_s=100.0, max_bytes=2**30), NOW + 108) == 8
    assert await store.retain(UsageRetention(keep_s=100.0, max_bytes=2**30), NOW + 108) == 0
    assert await store.retain(UsageRetention(keep_s=DAY_S, max_bytes=5 * ROW_BYTES), NOW + 108) == 7
    assert [each.output_tokens for each in await pages(store, UsageFilter(), 9)] == [15, 16, 17, 18, 19]
    assert await store.retain(UsageRetention(keep_s=1.0, max_bytes=2**30), NOW + 108) == 5
    assert await store.retain(UsageRetention(keep_s=1.0, max_bytes=2**30), NOW + 108) == 0


async def test_a_clock_that_was_wrong_for_a_while_deletes_nothing_else(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    await store.add([record(1), record(2)])
    await store.add([record(3, ended_at=1_000.0)])  # the clock was set back, and then right again
    await store.add([record(4)])
    assert await store.retain(UsageRetention(keep_s=DAY_S, max_bytes=2**30), NOW + 10) == 1
    assert [each.request_id for each in await pages(store, UsageFilter(), 9)] == ["r1", "r2", "r4"]


async def test_records_that_may_be_kept_already_are_kept_once(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    records = [record(number) for number in range(4)]
    await store.add([*records[:2], record(9, request_id="r1")])
    await store.add([*records, record(9, request_id="r1")], maybe_kept=True)
    found = await pages(store, UsageFilter(), 10)
    assert [(each.request_id, each.ended_at - NOW) for each in found] == [
        ("r0", 0.0),
        ("r1", 1.0),
        ("r2", 2.0),
        ("r3", 3.0),
        ("r1", 9.0),  # the same id again, another request
    ]


async def test_many_adopted_requests_are_looked_for_at_once(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    await store.add([record(number) for number in range(300)])
    statements: list[str] = []
    event.listen(Engine, "before_cursor_execute", lambda c, cursor, sql, *rest: statements.append(sql))
    await store.add([record(number, adopted=True) for number in range(200)])
    assert len(statements) < 20, statements
    assert sum(each.adopted for each in await pages(store, UsageFilter(), 1_000)) == 200
    assert len(await pages(store, UsageFilter(), 1_000)) == 300


async def test_an_adopted_request_has_one_record(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    await store.add([record(1), record(2, arrived_at=NOW - 100.0), record(3)])
    await store.add([record(1, ended_at=NOW + 9, arrived_at=NOW + 0.7, adopted=True), record(2, adopted=True)])
    found = await pages(store, UsageFilter(), 10)
    assert [(each.request_id, each.adopted) for each in found] == [
        ("r2", False),  # the same id, another request
        ("r2", True),
        ("r3", False),
        ("r1", True),
    ]


async def test_decisions_are_what_was_last_saved(journal: Journal) -> None:
    store = JournalDecisionStore(journal)
    assert await store.load() == Decisions()
    drained = InstanceDecision(instance_id="a", drained=True, drain_reason="cable")
    await store.save(Decisions(fleet={"policy": {"policy": "fifo"}}, instances=(drained,)))
    with_role = replace(drained, role=InstanceRole.DECODING)
    await store.save(Decisions(instances=(with_role, InstanceDecision(instance_id="b"))))
    assert await store.load() == Decisions(fleet={"policy": {"policy": "fifo"}}, instances=(with_role,))
    await store.save(Decisions(fleet={"policy": {}}, instances=(InstanceDecision(instance_id="a"),)))
    assert await store.load() == Decisions()


async def test_no_word_of_an_operator_keeps_a_decision_from_being_saved(journal: Journal) -> None:
    store = JournalDecisionStore(journal)
    await store.save(Decisions(instances=(InstanceDecision(instance_id="a", drained=True, drain_reason="a\0b\n"),)))
    [found] = (await store.load()).instances
    assert (found.drained, found.drain_reason) == (True, "a\ufffdb\n")


async def test_a_table_that_is_not_there_is_made_at_the_start(journal: Journal, url: str) -> None:
    await journal.close()
    again = Journal(JournalSettings(url=url))
    with again.database.writing() as connection:
        FLEET_DECISIONS.drop(connection)
    again._let_go()
    made = Journal(JournalSettings(url=url))
    made.start()
    assert await JournalDecisionStore(made).load() == Decisions()
    await made.close()


async def test_a_full_file_makes_room_for_itself(tmp_path: Path) -> None:
    journal = Journal(JournalSettings(url=f"sqlite:///{tmp_path}/journal.db", max_bytes=2**20))
    journal.start()
    store = JournalUsageStore(journal)
    with pytest.raises(JournalUnavailable, match="full"):
        await _fill(store)
    assert "full" in journal.trouble
    assert await store.retain(UsageRetention(keep_s=DAY_S, max_bytes=2**18), NOW) > 0
    before, after = await Maintenance(journal).compact()
    assert (before > 0.9 * 2**20, after < 2**19) == (True, True)
    await eventually(lambda: not journal.trouble, what="the journal", within_s=20.0)
    await store.add([record(number) for number in range(100)])
    await journal.close()


async def _fill(store: JournalUsageStore) -> None:
    for number in range(100):
        await store.add([record(100 * number + each) for each in range(100)])


async def test_compacting_ends_where_a_file_cannot_shrink(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    with sqlite3.connect(file) as connection:  # as one that was restored from a dump: no incremental vacuum
        connection.execute("PRAGMA auto_vacuum=NONE")
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    journal = Journal(JournalSettings(url=f"sqlite:///{file}"))
    journal.start()
    store = JournalUsageStore(journal)
    await store.add([record(number) for number in range(2_000)])
    await store.retain(UsageRetention(keep_s=1.0, max_bytes=2**30), NOW + DAY_S)
    await asyncio.wait_for(Maintenance(journal).compact(), 20.0)
    await journal.close()


async def test_writes_go_on_while_the_journal_is_compacted(tmp_path: Path) -> None:
    journal = Journal(JournalSettings(url=f"sqlite:///{tmp_path}/journal.db", limit_s=10.0))
    journal.start()
    store = JournalUsageStore(journal)
    writes = 0
    for _ in range(10):
        await store.add([record(number, request_id="x" * 128) for number in range(4_000)])
    await store.retain(UsageRetention(keep_s=1.0, max_bytes=2**30), NOW + DAY_S)
    compacting = asyncio.ensure_future(Maintenance(journal).compact())
    while not compacting.done():
        await store.add([record(1)])
        writes += 1
    assert writes > 1, "they do not wait for the end"
    before, after = compacting.result()
    assert after < before / 2
    await journal.close()


async def test_status_says_what_the_journal_holds(journal: Journal) -> None:
    await JournalUsageStore(journal).add([record(number) for number in range(7)])
    maintenance = Maintenance(journal)
    status = await maintenance.status()
    assert (status.fleet, status.schema_version, status.trouble) == ("f", 1, "")
    assert status.rows == {table.name: {"usage_records": 7, "journal_header": 1}.get(table.name, 0) for table in TABLES}
    assert status.bytes > 0
    assert maintenance.figures.writes == 1


async def test_an_export_has_every_row(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler_svc.storage.journal.maintenance.PAGE_ROWS", 3)
    await JournalUsageStore(journal).add([record(number) for number in range(7)])
    drained = InstanceDecision(instance_id="a", drained=True)
    await JournalDecisionStore(journal).save(Decisions(instances=(drained,)))
    found = [json.loads(line) async for page in Maintenance(journal).export(()) for line in page]
    assert [each["request_id"] for each in found if each["table"] == "usage_records"] == [f"r{n}" for n in range(7)]
    assert [each["instance_id"] for each in found if each["table"] == "instance_decisions"] == ["a"]
    with pytest.raises(InvalidRequest, match="'other' is not a table"):
        [page async for page in Maintenance(journal).export({"other"})]


async def test_compacting_gives_space_back(journal: Journal) -> None:
    store = JournalUsageStore(journal)
    await store.add([record(number, request_id="x" * 100) for number in range(20_000)])
    full = (await Maintenance(journal).status()).bytes
    await store.retain(UsageRetention(keep_s=1.0, max_bytes=2**30), NOW + DAY_S)
    _, after = await Maintenance(journal).compact()
    assert after < full / 2
