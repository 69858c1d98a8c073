"""A journal in trouble: full, stopped, slow.  Writes are refused with words, and accepted again once it works."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import ProgrammingError

from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.storage.journal.database import Database, Limits
from scheduler_svc.storage.journal.errors import UnusableJournal, in_words, is_trouble, read_at_start
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.schema import prepare
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS
from scheduler_svc.storage.journal.writer import Writer, WriterLimits
from tests.support.eventually import eventually
from tests.support.postgres import Postgres, running_postgres

QUICK = WriterLimits(wait_s=2.0, probe_s=0.05, idle_probe_s=0.1, close_s=2.0)


PAGE_BYTES = 4096  # SQLite's own default


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@asynccontextmanager
async def writing(database: Database, limits: WriterLimits = QUICK) -> AsyncIterator[Writer]:
    prepare(database)
    writer = Writer(database, limits)
    writer.start()
    try:
        yield writer
    finally:
        await writer.close()
        database.close()


def adding(connection: Connection, name: str, size: int = 1) -> None:
    connection.execute(FLEET_DECISIONS.delete().where(FLEET_DECISIONS.c.name == name))
    connection.execute(FLEET_DECISIONS.insert().values(name=name, value="x" * size, made_at=0.0))


async def until_it_works(writer: Writer) -> None:
    await eventually(lambda: not writer.trouble, what="the journal", within_s=20.0)


async def test_a_full_file_is_trouble_until_there_is_room(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/journal.db", Limits(file_bytes=2**20))
    async with writing(database, WriterLimits(wait_s=5.0, probe_s=0.05)) as writer:
        for number in range(4):
            await writer.write(lambda connection, n=number: adding(connection, f"n{n}", 200_000))  # type: ignore[misc]
        with pytest.raises(JournalUnavailable, match="full"):
            await writer.write(lambda connection: adding(connection, "too much", 400_000))
        assert "full" in writer.trouble
        with pytest.raises(JournalUnavailable, match="full"):
            await writer.write(lambda connection: adding(connection, "small"))  # refused at once
        await asyncio.to_thread(_make_room, tmp_path / "journal.db")
        await until_it_works(writer)
        await writer.write(lambda connection: adding(connection, "small"))


async def test_what_frees_space_is_written_also_while_it_is_full(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/journal.db", Limits(file_bytes=2**20))
    async with writing(database, WriterLimits(wait_s=5.0, probe_s=0.05)) as writer:
        for number in range(4):
            await writer.write(lambda connection, n=number: adding(connection, f"n{n}", 200_000))  # type: ignore[misc]
        with pytest.raises(JournalUnavailable, match="full"):
            await writer.write(lambda connection: adding(connection, "too much", 400_000))

        async def works_while_there_is_always_something_to_delete() -> bool:
            await writer.write(lambda connection: connection.execute(FLEET_DECISIONS.delete()), frees=True)
            return not writer.trouble

        await eventually(works_while_there_is_always_something_to_delete, within_s=20.0)
        await writer.write(lambda connection: adding(connection, "small"))


async def test_what_frees_space_does_not_fail_with_what_takes_some(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/journal.db", Limits(file_bytes=2**20))
    async with writing(database, WriterLimits(wait_s=5.0, probe_s=0.05)) as writer:
        found = await asyncio.gather(
            writer.write(lambda connection: adding(connection, "too much", 2**21)),
            writer.write(lambda connection: connection.execute(FLEET_DECISIONS.delete()).rowcount, frees=True),
            return_exceptions=True,
        )
        assert isinstance(found[0], JournalUnavailable)
        assert found[1] == 0


def _make_room(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("DELETE FROM fleet_decisions")
    connection.close()


async def test_a_lock_of_another_process_is_trouble_while_it_lasts(tmp_path: Path) -> None:
    file = tmp_path / "journal.db"
    async with writing(Database(f"sqlite:///{file}", Limits(statement_s=0.1)), QUICK) as writer:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(JournalUnavailable, match="locked"):
            await writer.write(lambda connection: adding(connection, "a"))
        other.execute("COMMIT")
        other.close()
        await until_it_works(writer)


async def test_a_stopped_server_is_trouble_until_it_is_back(server: Postgres) -> None:
    async with writing(Database(server.url)) as writer:
        await writer.write(lambda connection: adding(connection, "a"))
        await asyncio.to_thread(server.stop)
        await eventually(lambda: writer.trouble, what="trouble, without a write")
        with pytest.raises(JournalUnavailable):
            await writer.write(lambda connection: adding(connection, "b"))
        await asyncio.to_thread(server.start)
        await until_it_works(writer)
        await writer.write(lambda connection: adding(connection, "b"))


async def test_a_restart_between_two_writes_fails_none(server: Postgres) -> None:
    limits = WriterLimits(idle_probe_s=1_000.0)
    database = Database(server.url)
    async with writing(database, limits) as writer:
        await writer.write(lambda connection: adding(connection, "a"))
        await database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all())
        await asyncio.to_thread(server.restart)
        await writer.write(lambda connection: adding(connection, "b"))
        await database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all())


async def test_a_server_that_hangs_is_slow_and_nobody_waits_for_it_for_good(server: Postgres) -> None:
    database = Database(server.url)
    async with writing(database) as writer:
        await writer.write(lambda connection: adding(connection, "a"))
        await database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all())
        server.pause()
        try:
            with pytest.raises(JournalUnavailable, match="longer than 2 s"):
                await writer.write(lambda connection: adding(connection, "b"))
            await eventually(lambda: writer.trouble, what="trouble")
            with pytest.raises(JournalUnavailable):
                await database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all(), within_s=0.5)
        finally:
            server.resume()
        await until_it_works(writer)
        await writer.write(lambda connection: adding(connection, "c"))


async def test_every_connection_to_a_server_has_time_limits(server: Postgres) -> None:
    database = Database(server.url, Limits(statement_s=3.0))
    try:
        names = ("statement_timeout", "lock_timeout", "synchronous_commit")
        found = [await database.read(lambda c, name=name: c.exec_driver_sql(f"SHOW {name}").scalar()) for name in names]  # type: ignore[misc]
        assert found == ["3s", "3s", "on"]
    finally:
        database.close()


async def test_a_read_that_a_server_never_answers_gives_its_thread_back(server: Postgres) -> None:
    database = Database(server.url)
    await database.read(lambda connection: connection.exec_driver_sql("SELECT 1").all())
    server.pause()
    try:
        with pytest.raises(JournalUnavailable, match=r"longer than 0\.3 s"):
            await database.read(lambda connection: connection.exec_driver_sql("SELECT 1").all(), within_s=0.3)
        await eventually(lambda: database.reads == 0, what="the reader's thread")
    finally:
        server.resume()
        database.close()


async def test_a_lone_write_that_a_server_never_answers_is_broken_off(server: Postgres) -> None:
    database = Database(server.url)
    async with writing(database, WriterLimits(wait_s=2.0, probe_s=100.0, idle_probe_s=100.0)) as writer:
        await writer.write(lambda connection: adding(connection, "a"))
        server.pause()
        try:
            with pytest.raises(JournalUnavailable, match="longer than 2 s"):
                await writer.write(lambda connection: adding(connection, "b"))
            await eventually(lambda: writer.figures.failed == 1, what="the end of the transaction")
        finally:
            server.resume()


async def test_closing_waits_for_no_server_that_hangs(server: Postgres) -> None:
    database = Database(server.url, Limits(read_s=100.0))
    await database.read(lambda connection: connection.exec_driver_sql("SELECT 1").all())
    server.pause()
    try:
        reading = asyncio.ensure_future(database.read(lambda connection: connection.exec_driver_sql("SELECT 1").all()))
        await asyncio.sleep(0.2)
        database.close()
        with pytest.raises(JournalUnavailable):
            await asyncio.wait_for(reading, 5.0)
    finally:
        server.resume()


def test_a_connection_that_is_given_back_after_the_end_is_closed(server: Postgres) -> None:
    """As that of a vacuum, which nothing breaks off."""
    database = Database(server.url)
    with database._engine.connect() as connection:
        connected: Any = connection.connection.driver_connection
        database.close()
        assert not connected.closed
    assert connected.closed


async def test_closing_ends_a_long_read_of_a_file(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/journal.db", Limits(read_s=100.0))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    reading = asyncio.ensure_future(database.read(lambda connection: connection.exec_driver_sql(endless).all()))
    await asyncio.sleep(0.2)
    database.close()
    with pytest.raises(JournalUnavailable):
        await asyncio.wait_for(reading, 5.0)


async def test_a_read_that_takes_too_long_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/journal.db", Limits(read_s=0.2))
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    for _ in range(3):
        with pytest.raises(JournalUnavailable, match=r"longer than 0\.2 s"):
            await database.read(lambda connection: connection.exec_driver_sql(endless).all())
    database.close()


@pytest.mark.parametrize("given", ["password=hidden", "sslpassword=hidden&sslmode=require", "PASSWORD=hidden"])
def test_no_password_of_a_url_is_shown(given: str) -> None:
    database = Database(f"postgresql://sage:hidden@127.0.0.1:1/name?{given}")
    assert "hidden" not in database.name
    with pytest.raises(UnusableJournal) as refused:
        prepare(database)
    assert "hidden" not in str(refused.value)
    database.close()


def test_a_file_has_one_lock_by_whatever_path_it_is_named(tmp_path: Path) -> None:
    first = Journal(JournalSettings(url=f"sqlite:///{tmp_path}/journal.db"))
    (tmp_path / "link.db").symlink_to(tmp_path / "journal.db")
    with pytest.raises(UnusableJournal, match="another process uses it"):
        Journal(JournalSettings(url=f"sqlite:///{tmp_path}/link.db"))
    first._let_go()


def test_a_file_that_another_scheduler_uses_stops_the_start(tmp_path: Path) -> None:
    settings = JournalSettings(url=f"sqlite:///{tmp_path}/journal.db")
    first = Journal(settings)
    with pytest.raises(Exception, match="another process uses it"):
        Journal(settings)
    first._let_go()
    Journal(settings)._let_go()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://host/name", "neither sqlite nor postgresql"),
        ("sqlite://", "path of a file"),
        ("nonsense", "not a database URL"),
        ("postgresql://sage@host:port/name", "not a database URL"),
        ("sqlite:////nowhere/at/all.db", "No such file"),
        ("postgresql://sage@127.0.0.1:1/none", "refused"),
    ],
)
def test_a_database_that_cannot_be_used_stops_the_start_with_one_line(url: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem) as refused:
        Journal(JournalSettings(url=url))
    assert "\n" not in str(refused.value)


async def test_damage_that_a_read_meets_is_told_until_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = JournalSettings(url=f"sqlite:///{tmp_path}/journal.db")
    journal = Journal(settings)
    with journal.database.writing() as connection:
        for number in range(100):
            adding(connection, f"n{number}", 1_000)
    journal._let_go()
    with (tmp_path / "journal.db").open("r+b") as file:
        file.seek(file.read().rindex(b"xxx") // PAGE_BYTES * PAGE_BYTES)  # the last page of the table
        file.write(b"\xff" * PAGE_BYTES)
    journal = Journal(settings)
    for _ in range(2):
        with pytest.raises(JournalUnavailable, match=r"the file is damaged \(.*malformed\): restore a backup"):
            await journal.database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all())
    assert "damaged" in journal.trouble
    assert [record.levelname for record in caplog.records if "damaged" in record.message] == ["ERROR"], "once"
    journal._let_go()


async def test_a_text_that_is_none_is_damage_and_is_not_repeated(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/journal.db")
    async with writing(database) as writer:
        await writer.write(lambda connection: adding(connection, "a"))
        with sqlite3.connect(tmp_path / "journal.db") as direct:
            direct.execute("UPDATE fleet_decisions SET value = CAST(X'736563726574FF' AS TEXT)")
        direct.close()
        with pytest.raises(JournalUnavailable, match=r"the file is damaged .*Could not decode") as refused:
            await database.read(lambda connection: connection.execute(FLEET_DECISIONS.select()).all())
        assert "secret" not in str(refused.value) + database.damage
        assert database.damage


def test_an_error_of_pythons_own_module_is_told_as_it_is() -> None:
    error = ProgrammingError(None, None, sqlite3.ProgrammingError("Cannot operate on a closed database."))
    assert not is_trouble(error)
    assert in_words(error) == "Cannot operate on a closed database."


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (JournalUnavailable("full"), "journal: batches cannot be read: full"),
        (ValueError("'x' is not a valid BatchState"), "batches cannot be read: a row makes no sense: 'x' is not"),
        (
            AttributeError("'list' object has no attribute 'get'"),
            "batches cannot be read: a row makes no sense: 'list'",
        ),
    ],
)
def test_what_cannot_be_read_stops_the_start_with_one_line(problem: Exception, said: str) -> None:
    with pytest.raises(UnusableJournal, match=said), read_at_start("batches"):
        raise problem


def test_a_password_is_not_in_errors() -> None:
    with pytest.raises(Exception, match="refused") as refused:
        Journal(JournalSettings(url="postgresql://sage:secret@127.0.0.1:1/none"))
    assert "secret" not in str(refused.value)


def test_a_journal_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    journal = Journal(JournalSettings(url=f"sqlite:///{tmp_path}/journal.db"))
    files = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.glob("journal.db*")}
    assert files == dict.fromkeys(("journal.db", "journal.db.lock", "journal.db-wal", "journal.db-shm"), 0o600)
    journal._let_go()
