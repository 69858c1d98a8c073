"""The row that schedulers agree on, in PostgreSQL and in memory, with one suite."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, create_engine, text

from sage_common.clock import AsyncioClock
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.leadership.leader_store import Leader, LeaderStore, StoreFailed, Won
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.schema import _CREATION_LOCK
from scheduler_svc.storage.journal.tables.header import HEADER
from scheduler_svc.storage.leadership import PostgresLeadership
from scheduler_svc.storage.shared_state import SharedState
from tests.support.memory_leadership import MemoryLeadership, Row
from tests.support.postgres import Postgres, running_postgres

MakeStore = Callable[[str], LeaderStore]
LEASE_S = 0.3


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as postgres:
        yield postgres


@pytest.fixture
def postgres(server: Postgres) -> Iterator[MakeStore]:
    made: list[PostgresLeadership] = []

    def make(address: str) -> PostgresLeadership:
        store = PostgresLeadership(server.url, addresses=[address], limit_s=2.0)
        if not made:
            store.prepare()
            engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
            with engine.begin() as connection:
                connection.execute(text("DELETE FROM leadership"))
            engine.dispose()
        made.append(store)
        return store

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=["memory", "postgres"])
def make(request: pytest.FixtureRequest) -> MakeStore:
    if request.param == "postgres":
        found: MakeStore = request.getfixturevalue("postgres")
        return found
    row = Row(AsyncioClock())
    return lambda address: MemoryLeadership(row, address)


async def test_the_first_one_leads_and_another_is_told_who(make: MakeStore) -> None:
    one, two = make("a:1"), make("b:2")
    won = await one.claim(60.0)
    assert isinstance(won, Won)
    told = await two.claim(60.0)
    assert isinstance(told, Leader)
    assert (told.addresses, told.epoch) == (("a:1",), won.epoch)
    assert 0 < told.lease_left_s <= 60
    assert await one.renew(won.epoch, 60.0)
    assert not await two.renew(won.epoch, 60.0)


async def test_after_its_end_a_lease_is_the_next_ones_with_a_larger_epoch(make: MakeStore) -> None:
    one, two = make("a:1"), make("b:2")
    won = await one.claim(LEASE_S)
    assert isinstance(won, Won)
    await asyncio.sleep(LEASE_S * 1.2)
    next_won = await two.claim(60.0)
    assert isinstance(next_won, Won)
    assert next_won.epoch > won.epoch
    assert next_won.secret == won.secret
    assert not await one.renew(won.epoch, 60.0)
    await one.release(won.epoch)
    assert isinstance(await one.claim(60.0), Leader)


async def test_a_lease_that_ended_is_not_renewed_even_if_nobody_took_it(make: MakeStore) -> None:
    one = make("a:1")
    won = await one.claim(LEASE_S)
    assert isinstance(won, Won)
    await asyncio.sleep(LEASE_S * 1.2)
    assert not await one.renew(won.epoch, 60.0)


async def test_a_lease_that_is_given_back_is_free_at_once(make: MakeStore) -> None:
    one, two = make("a:1"), make("b:2")
    won = await one.claim(60.0)
    assert isinstance(won, Won)
    await one.release(won.epoch)
    assert isinstance(await two.claim(60.0), Won)


async def test_of_many_that_ask_at_once_one_leads(make: MakeStore) -> None:
    stores = [make(f"a:{number}") for number in range(1, 9)]
    found = await asyncio.gather(*(each.claim(60.0) for each in stores))
    assert sum(isinstance(each, Won) for each in found) == 1


async def test_epochs_are_above_those_of_schedulers_without_a_database(postgres: MakeStore) -> None:
    before = time.time_ns()
    won = await postgres("a:1").claim(60.0)
    assert isinstance(won, Won)
    assert won.epoch >= before


async def test_the_instances_of_a_leader_are_there_for_the_next_one_and_only_a_leader_writes_them(
    postgres: MakeStore,
) -> None:
    one, two = postgres("a:1"), postgres("b:2")
    assert isinstance(one, PostgresLeadership)
    assert isinstance(two, PostgresLeadership)
    won = await one.claim(60.0)
    assert isinstance(won, Won)
    left = {"i": EarlierInstance(model="m", holds=frozenset({RequestKey("t", "r")})), "j": EarlierInstance()}
    state = SharedState(one, won)
    state.keep_instances(left)
    await state.close()
    await one.release(won.epoch)
    next_won = await two.claim(60.0)
    assert isinstance(next_won, Won)
    assert next_won.instances == left
    late = SharedState(one, won)
    late.keep_instances({"k": EarlierInstance()})
    await late.close()
    await two.release(next_won.epoch)
    third = await one.claim(60.0)
    assert isinstance(third, Won)
    assert third.instances == {"i": EarlierInstance(model="m"), "j": EarlierInstance()}, (
        "the second may have placed more"
    )


async def journal_of(server: Postgres, store: LeaderStore, epoch: int) -> Journal:
    assert isinstance(store, PostgresLeadership)
    journal = Journal(JournalSettings(url=server.url), store.fence(epoch))
    journal.start()
    return journal


async def test_a_leader_writes_the_journal_and_nothing_of_it_comes_there_after_the_next_ones_claim(
    server: Postgres, postgres: MakeStore
) -> None:
    one, two = postgres("a:1"), postgres("b:2")
    won = await one.claim(LEASE_S)
    assert isinstance(won, Won)
    journal = await journal_of(server, one, won.epoch)
    try:
        assert await journal.writer.write(lambda connection: connection.execute(text("SELECT 1")).scalar_one()) == 1
        await asyncio.sleep(LEASE_S * 1.2)
        assert await journal.writer.write(lambda connection: 2) == 2  # nobody leads yet
        assert isinstance(await two.claim(60.0), Won)
        with pytest.raises(JournalUnavailable, match="another scheduler leads"):
            await journal.writer.write(lambda connection: 3)
        assert journal.trouble
    finally:
        await journal.close()


async def test_a_claim_ends_what_the_leader_before_was_about_to_commit(server: Postgres, postgres: MakeStore) -> None:
    """Its process may be frozen between two statements, for as long as it likes."""
    one, two = postgres("a:1"), postgres("b:2")
    won = await one.claim(LEASE_S)
    assert isinstance(won, Won)
    journal = await journal_of(server, one, won.epoch)
    within, go_on = threading.Event(), threading.Event()

    def work(connection: Connection) -> None:
        connection.execute(HEADER.update().values(probe=b"late"))
        within.set()
        go_on.wait(10)

    writing = asyncio.ensure_future(journal.writer.write(work))
    try:
        await asyncio.to_thread(within.wait, 10)
        await asyncio.sleep(LEASE_S * 1.2)
        assert isinstance(await two.claim(60.0), Won)
        go_on.set()
        with pytest.raises(JournalUnavailable):
            await writing
        found = await journal.database.read(lambda connection: connection.execute(HEADER.select()).one().probe)
        assert found is None
    finally:
        go_on.set()
        await journal.close()


async def test_a_server_that_is_away_or_silent_is_said_so_and_used_again(server: Postgres, postgres: MakeStore) -> None:
    store = postgres("a:1")
    won = await store.claim(60.0)
    assert isinstance(won, Won)
    server.stop()
    with pytest.raises(StoreFailed):
        await store.renew(won.epoch, 60.0)
    server.start()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await store.renew(won.epoch, 60.0)
                break
            except StoreFailed:
                await asyncio.sleep(0.05)
    server.pause()
    try:
        with pytest.raises(StoreFailed, match="no answer within 2 s"):
            await store.renew(won.epoch, 60.0)
        with pytest.raises(StoreFailed):  # a connection that breaks, or none that can be made
            await store.renew(won.epoch, 60.0)
    finally:
        server.resume()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await store.renew(won.epoch, 60.0)
                break
            except StoreFailed:
                await asyncio.sleep(0.05)


def _prepare_within(store: PostgresLeadership, limit_s: float) -> None:
    """Prepare a store whose own limit is short, as often as it takes.  Raises StoreFailed after ``limit_s``."""
    end = time.monotonic() + limit_s
    while True:
        try:
            return store.prepare()
        except StoreFailed:
            if time.monotonic() > end:
                raise


def test_a_server_that_hangs_while_tables_are_made_does_not_hold_up_a_start(server: Postgres) -> None:
    """Its own limits do not count while it is stopped."""
    store = PostgresLeadership(server.url, limit_s=0.5)
    engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    pausing = threading.Timer(0.2, server.pause)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATION_LOCK})
            pausing.start()
            try:
                with pytest.raises(StoreFailed):
                    store.prepare()
            finally:
                pausing.join()  # on a busy machine it may be late: the server would stay paused
                server.resume()
        _prepare_within(store, 10.0)
    finally:
        server.resume()
        engine.dispose()
        store.close()
