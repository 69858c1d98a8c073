"""The row in PostgreSQL by which schedulers agree on the one that leads."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import QueuePool

from scheduler_svc.control.leadership.leader_store import Leader, StoreFailed, Won
from scheduler_svc.storage.adoption_key import KEY_BYTES
from scheduler_svc.storage.journal.database import Database, Limits
from scheduler_svc.storage.journal.errors import UnusableJournal, in_words, is_trouble
from scheduler_svc.storage.journal.postgresql import arguments
from scheduler_svc.storage.journal.schema import prepare

T = TypeVar("T")

_NOW = "extract(epoch from clock_timestamp())"

_CLAIM = text(f"""
    INSERT INTO leadership (id, holder, addresses, epoch, lease_until, adoption_key, instances)
    VALUES (1, :holder, :addresses, :least_epoch, {_NOW} + :lease_s, :new_key, '[]')
    ON CONFLICT (id) DO UPDATE SET
        holder = :holder, addresses = :addresses,
        epoch = greatest(leadership.epoch + 1, :least_epoch),
        lease_until = {_NOW} + :lease_s
    WHERE leadership.lease_until <= {_NOW}
    RETURNING epoch, adoption_key, instances
""")
_LOOK = text(f"SELECT addresses, epoch, lease_until - {_NOW} AS left_s FROM leadership WHERE id = 1")
_RENEW = text(f"""
    UPDATE leadership SET lease_until = {_NOW} + :lease_s
    WHERE id = 1 AND holder = :holder AND epoch = :epoch AND lease_until > {_NOW}
""")
_RELEASE = text(f"UPDATE leadership SET lease_until = {_NOW} WHERE id = 1 AND holder = :holder AND epoch = :epoch")
_KEEP = text("UPDATE leadership SET instances = :instances WHERE id = 1 AND holder = :holder AND epoch = :epoch")


class PostgresLeadership:
    """Implements ``control.leadership.leader_store.LeaderStore``, on a connection and a thread of its own."""

    def __init__(self, url: str, *, addresses: Sequence[str] = (), fleet: str = "", limit_s: float) -> None:
        """Connect to nothing yet.

        ``addresses``: at which clients and executors reach this scheduler.  ``fleet``: as ``journal.fleet``.
        ``limit_s``: of one statement.  Raises UnusableJournal for the URL.
        """
        self.addresses = tuple(addresses)
        self._fleet = fleet
        self._limit_s = limit_s
        self._holder = secrets.token_hex(16)
        self._url = url
        checked = Database(url)
        checked.close()
        self.name = checked.name
        self._engine = create_engine(
            checked.url, poolclass=QueuePool, pool_size=1, max_overflow=0, connect_args=arguments(limit_s)
        )
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="leadership")

    def prepare(self) -> None:
        """Make the journal's tables, if they are not there; blocks.

        Raises:
            StoreFailed: the database does not answer.
            UnusableJournal: it is another fleet's, or of another version.
        """
        database = Database(self._url, Limits(statement_s=self._limit_s))
        try:
            prepare(database, self._fleet)
        except UnusableJournal as error:
            if error.__cause__ is not None and is_trouble(error.__cause__):
                raise StoreFailed(str(error)) from error
            raise
        finally:
            database.close()

    async def claim(self, lease_s: float) -> Won | Leader:
        """Take the lease if nobody holds one, and return what comes with it; else who does.  Raises StoreFailed."""
        values = {
            "holder": self._holder,
            "addresses": ",".join(self.addresses),
            "least_epoch": time.time_ns(),  # epochs of schedulers without a database are times
            "lease_s": lease_s,
            "new_key": secrets.token_bytes(KEY_BYTES),
        }

        def claim(connection: Connection) -> Won | Leader:
            won = connection.execute(_CLAIM, values).one_or_none()
            if won is not None:
                instances = frozenset(json.loads(won.instances))
                return Won(epoch=won.epoch, secret=bytes(won.adoption_key), instances=instances)
            row = connection.execute(_LOOK).one()
            addresses = tuple(each for each in row.addresses.split(",") if each)
            return Leader(addresses=addresses, epoch=row.epoch, lease_left_s=float(row.left_s))

        return await self._do(claim)

    async def renew(self, epoch: int, lease_s: float) -> bool:
        """Let the lease begin anew; return False if it has ended or is another one's.  Raises StoreFailed."""
        values = {"holder": self._holder, "epoch": epoch, "lease_s": lease_s}
        return await self._do(lambda connection: connection.execute(_RENEW, values).rowcount == 1)

    async def release(self, epoch: int) -> None:
        """End the lease, so that another scheduler can lead at once.  Raises StoreFailed."""
        values = {"holder": self._holder, "epoch": epoch}
        await self._do(lambda connection: connection.execute(_RELEASE, values))

    async def keep_instances(self, epoch: int, instances: Iterable[str]) -> None:
        """Write down which instances have a session, unless another scheduler leads by now.  Raises StoreFailed."""
        values = {"holder": self._holder, "epoch": epoch, "instances": json.dumps(sorted(instances))}
        await self._do(lambda connection: connection.execute(_KEEP, values))

    def close(self) -> None:
        """Close the connection once what runs on it is over, which it waits for within the limit.  Idempotent."""
        if self._closed:
            return
        self._closed = True
        closing = self._thread.submit(self._engine.dispose)
        self._thread.shutdown(wait=False)
        with suppress(TimeoutError):
            closing.result(self._limit_s)

    async def _do(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` in a transaction of the one thread, within the limit.  Raises StoreFailed."""
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)
        running.add_done_callback(_look_at)
        try:
            async with asyncio.timeout(self._limit_s):
                return await asyncio.shield(running)
        except TimeoutError:
            raise StoreFailed(f"no answer within {self._limit_s:g} s") from None
        except Exception as error:
            raise StoreFailed(in_words(error)) from error

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        with self._engine.begin() as connection:
            return work(connection)


def _look_at(running: asyncio.Future[T]) -> None:
    """Look at a failure, which asyncio would log otherwise: who waited may have given up."""
    if not running.cancelled():
        running.exception()
