"""The row in PostgreSQL by which schedulers agree on the one that leads."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, create_engine, text
from sqlalchemy.pool import QueuePool

from scheduler_svc.control.leadership.leader_store import Leader, StoreFailed, Won
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.storage.adoption_key import KEY_BYTES
from scheduler_svc.storage.instances_record import decode
from scheduler_svc.storage.journal.database import Database, Fence, Limits
from scheduler_svc.storage.journal.errors import UnusableJournal, in_words, is_trouble
from scheduler_svc.storage.journal.postgresql import arguments
from scheduler_svc.storage.journal.schema import prepare
from scheduler_svc.storage.journal.used_sockets import UsedSockets

T = TypeVar("T")

_NOW = "extract(epoch from clock_timestamp())"

_WRITERS_LOCK = 0x5361_6766  # an advisory lock, shared by the transactions of the leader's journal

_END_WRITERS = text("""
    SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND classid = 0 AND objid = :key AND objsubid = 1 AND granted AND mode = 'ShareLock'
        AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND usename = current_user
""")
_LOCK_WRITERS_OUT = text("SELECT pg_advisory_xact_lock(:key)")
_LOCK_AS_WRITER = text("SELECT pg_advisory_xact_lock_shared(:key)")
_EPOCH = text("SELECT epoch FROM leadership WHERE id = 1")
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
        self._free = asyncio.Lock()  # what is asked waits here, within its limit, while the database hangs
        self._sockets = UsedSockets(on=True)
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
            found = connection.execute(_LOOK).one_or_none()
            if found is not None and found.left_s > 0:
                return _leader(found)
            connection.execute(_END_WRITERS, {"key": _WRITERS_LOCK})
            connection.execute(_LOCK_WRITERS_OUT, {"key": _WRITERS_LOCK})
            last_epoch = connection.execute(_EPOCH).scalar_one_or_none()  # under the lock: of the leader before
            won = connection.execute(_CLAIM, values).one_or_none()
            if won is not None:
                instances = decode(won.instances, last_epoch or 0)
                return Won(epoch=won.epoch, secret=bytes(won.adoption_key), instances=instances)
            return _leader(connection.execute(_LOOK).one())

        return await self._do(claim)

    def fence(self, epoch: int) -> Fence:
        """Return what raises JournalUnavailable in a transaction of the journal once there is a later epoch.

        No claim happens while such a transaction lasts, and a claim ends those of the leader before: so the journal
        never gets anything of an earlier leader once the next one has read it.
        """

        def check(connection: Connection) -> None:
            connection.execute(_LOCK_AS_WRITER, {"key": _WRITERS_LOCK})
            if connection.execute(_EPOCH).scalar_one_or_none() != epoch:  # a statement of its own: it sees the claim
                raise JournalUnavailable("another scheduler leads")

        return check

    async def renew(self, epoch: int, lease_s: float) -> bool:
        """Let the lease begin anew; return False if it has ended or is another one's.  Raises StoreFailed."""
        values = {"holder": self._holder, "epoch": epoch, "lease_s": lease_s}
        return await self._do(lambda connection: connection.execute(_RENEW, values).rowcount == 1)

    async def release(self, epoch: int) -> None:
        """End the lease, so that another scheduler can lead at once.  Raises StoreFailed."""
        values = {"holder": self._holder, "epoch": epoch}
        await self._do(lambda connection: connection.execute(_RELEASE, values))

    async def keep_instances(self, epoch: int, encoded: str) -> None:
        """Write down which instances have a session, unless another scheduler leads by now.  Raises StoreFailed."""
        values = {"holder": self._holder, "epoch": epoch, "instances": encoded}
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
        try:
            async with asyncio.timeout(self._limit_s):
                await self._free.acquire()
                running = asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)
                running.add_done_callback(self._ended)
                return await asyncio.shield(running)
        except TimeoutError:
            self._sockets.break_off_older(time.monotonic() - self._limit_s / 2)
            raise StoreFailed(f"no answer within {self._limit_s:g} s") from None
        except Exception as error:
            raise StoreFailed(in_words(error)) from error

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection, self._sockets.of(connection), connection.begin():
            return work(connection)

    def _ended(self, running: asyncio.Future[T]) -> None:
        self._free.release()
        if not running.cancelled():
            running.exception()  # asyncio would log it otherwise: who waited may have given up


def _leader(row: Row[Any]) -> Leader:
    addresses = tuple(each for each in row.addresses.split(",") if each)
    return Leader(addresses=addresses, epoch=row.epoch, lease_left_s=float(row.left_s))
