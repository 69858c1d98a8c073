"""Reads and writes a stream at the same time, until either side ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.outbox import Outbox

Write = Callable[[Any], Awaitable[None]]


async def both_ways(
    *,
    read: Callable[[], Awaitable[None]],
    write: Callable[[], Awaitable[None]],
    broken: Callable[[str], None],
    stuck: asyncio.Event,
) -> None:
    """Read and write until either side ends or ``stuck`` is set; call ``broken`` with the reason in every case."""
    reader = asyncio.ensure_future(read())
    writer = asyncio.ensure_future(write())
    unread = asyncio.ensure_future(stuck.wait())
    reason = "the connection was lost"  # the reason if gRPC cancels this coroutine
    try:
        done, _ = await asyncio.wait({reader, writer, unread}, return_when=asyncio.FIRST_COMPLETED)
        reason = "the executor does not read" if stuck.is_set() else "closed by the executor"
        for task in done:
            error = task.exception() if not task.cancelled() else None
            if isinstance(error, EOFError):
                reason = str(error)
            elif isinstance(error, WireError):
                raise error
            elif error is not None:
                reason = repr(error)
                raise error
    finally:
        for task in (reader, writer, unread):
            task.cancel()
        broken(reason)
        await asyncio.gather(reader, writer, unread, return_exceptions=True)


async def write_all(outbox: Outbox[Any], write: Write, *, first: object | None = None) -> None:
    """Write ``first``, then what the outbox gets.  Raises EOFError once the outbox is closed and empty.

    A message that is being written when this is cancelled is written to its end: no status can be sent behind a message
    that is on its way, and a call that ended then would stay open without one.  That lasts until the peer reads on or
    leaves; what waits in the outbox is dropped at once.
    """
    writer = _Writer(outbox, write)
    running = asyncio.ensure_future(writer.run(first))  # one task for all messages: one for each would cost more
    running.add_done_callback(_look_at)
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        outbox.clear()
        writer.stop(running)
        await asyncio.wait({running})
        raise


class _Writer:
    """Writes an outbox's messages, and stops between two of them."""

    def __init__(self, outbox: Outbox[Any], write: Write) -> None:
        self._outbox = outbox
        self._write = write
        self._writing = self._stopped = False

    async def run(self, first: object | None) -> None:
        """Write until stopped.  Raises EOFError, and what writing raises."""
        message = first if first is not None else await self._outbox.get()
        while True:
            self._writing = True
            await self._write(message)
            self._writing = False
            if self._stopped:
                return
            message = await self._outbox.get()

    def stop(self, running: asyncio.Future[None]) -> None:
        """End ``running``, which is this one's ``run``, once no message is being written."""
        self._stopped = True
        if not self._writing:
            running.cancel()


def _look_at(writing: asyncio.Future[None]) -> None:
    """Look at a failure, which asyncio would log otherwise: who waited for the write may have been cancelled twice."""
    if not writing.cancelled():
        writing.exception()
