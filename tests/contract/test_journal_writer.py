"""Both databases of the journal, with one suite: writes are durable, grouped, bounded, and fail with words."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, select, text

from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.storage.journal.database import Database
from scheduler_svc.storage.journal.errors import UnusableJournal
from scheduler_svc.storage.journal.schema import prepare
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS
from scheduler_svc.storage.journal.tables.header import HEADER
from scheduler_svc.storage.journal.tables.metadata import METADATA
from scheduler_svc.storage.journal.writer import Writer, WriterLimits
from tests.support.postgres import running_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as postgres:
        yield postgres.url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/journal.db" if request.param == "sqlite" else request.getfixturevalue("server")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    made = Database(url)
    with made.writing() as connection:
        METADATA.drop_all(connection)
    prepare(made, "fleet")
    yield made
    made.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[Writer]:
    made = Writer(database, WriterLimits())
    made.start()
    yield made
    await made.close()


def adding(connection: Connection, name: str) -> str:
    connection.execute(FLEET_DECISIONS.insert().values(name=name, value="1", made_at=0.0))
    return name


def count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(FLEET_DECISIONS)).scalar_one()


async def test_what_was_written_is_there_and_the_result_comes_back(writer: Writer, database: Database) -> None:
    assert await writer.write(lambda connection: adding(connection, "a")) == "a"
    assert await database.read(count) == 1


async def test_writes_that_wait_share_a_transaction(writer: Writer, database: Database) -> None:
    names = [f"n{number}" for number in range(200)]
    await asyncio.gather(*(writer.write(partial(adding, name=name)) for name in names))
    assert await database.read(count) == 200
    assert writer.figures.writes == 200
    assert writer.figures.commits < 100


async def test_a_write_that_fails_by_itself_fails_alone(writer: Writer, database: Database) -> None:
    def failing(connection: Connection) -> None:
        adding(connection, "undone")
        raise ValueError("no")

    found = await asyncio.gather(
        writer.write(lambda connection: adding(connection, "a")),
        writer.write(failing),
        writer.write(lambda connection: adding(connection, "b")),
        writer.write(lambda connection: connection.execute(text("SELECT nothing FROM nowhere"))),
        return_exceptions=True,
    )
    assert [found[0], found[2]] == ["a", "b"]
    assert isinstance(found[1], ValueError)
    assert isinstance(found[3], Exception)
    assert await database.read(count) == 2


async def test_a_statement_of_its_own_that_is_wrong_is_no_trouble(writer: Writer) -> None:
    await writer.write(lambda connection: adding(connection, "a"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await writer.write(lambda connection: adding(connection, "a"))
    assert writer.trouble == ""


async def test_beyond_the_bound_writes_are_refused(database: Database) -> None:
    writer = Writer(database, WriterLimits(waiting=2))
    with pytest.raises(JournalUnavailable, match="not using it"):
        await writer.write(count)
    writer.start()
    found = await asyncio.gather(*(writer.write(count) for _ in range(9)), return_exceptions=True)
    assert any(isinstance(each, JournalUnavailable) for each in found)
    await writer.close()


def test_another_fleet_is_refused(database: Database) -> None:
    with pytest.raises(UnusableJournal, match=r"journal of fleet 'fleet', and journal.fleet is 'other'"):
        prepare(database, "other")
    assert prepare(database).fleet == "fleet"


def test_another_version_is_refused(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(HEADER.update().values(schema_version=99))
    with pytest.raises(UnusableJournal, match="version 99, and this scheduler uses version 1"):
        prepare(database, "fleet")


async def test_items_of_one_kind_are_written_together(writer: Writer, database: Database) -> None:
    groups: list[list[str]] = []

    def add(connection: Connection, names: Sequence[str]) -> None:
        groups.append(list(names))
        for name in names:
            adding(connection, name)

    first = asyncio.create_task(writer.write(lambda connection: threading.Event().wait(0.05)))
    await asyncio.sleep(0)
    items = [asyncio.create_task(writer.write_item(add, f"{number}")) for number in range(3)]
    await asyncio.gather(first, *items, writer.write(partial(adding, name="3")), writer.write_item(add, "4"))
    assert groups == [["0", "1", "2"], ["4"]], "in the order in which they came"
    assert await database.read(count) == 5


async def test_an_item_that_fails_fails_alone(writer: Writer, database: Database) -> None:
    def add(connection: Connection, names: Sequence[str]) -> None:
        for name in names:
            adding(connection, name)
            if name == "wrong":
                raise ValueError(name)

    names = ("a", "wrong", "b")
    found = await asyncio.gather(*(writer.write_item(add, name) for name in names), return_exceptions=True)
    assert [repr(each) for each in found] == ["None", "ValueError('wrong')", "None"]
    assert await database.read(count) == 2
