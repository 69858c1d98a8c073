"""Runs an event loop in a thread, for callers without one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections.abc import Coroutine
from typing import Any, TypeVar

from sage_client._errors import InvalidStateError, UnavailableError, WaitTimeoutError
from sage_client._fork import check_not_forked

_T = TypeVar("_T")

STOP_TIMEOUT_S = 5.0


class LoopThread:
    """Runs coroutines for any number of threads on one daemon thread, which ends at ``stop``."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True)
        self._thread.start()
        # Also runs at interpreter exit: a loop that kept running would use modules that are already unloaded.
        self._finalizer = weakref.finalize(self, _stop, self._loop, self._thread)

    @property
    def running(self) -> bool:
        """Whether ``stop`` was not called yet."""
        return self._finalizer.alive

    @property
    def left_behind(self) -> bool:
        """Whether a ``fork`` left the thread in the other process."""
        return self.running and not self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, _T], *, timeout_s: float) -> _T:
        """Run ``work`` on the loop and return its result; interrupting the caller cancels ``work``.

        Raises:
            WaitTimeoutError: ``work`` did not end within ``timeout_s`` seconds.
            UnavailableError: the loop was stopped.
            InvalidStateError: a ``fork`` left its thread behind.
            RuntimeError: the caller runs on the loop.
        """
        if (why_not := self._why_not()) is not None:
            work.close()
            raise why_not
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_s)
        except concurrent.futures.CancelledError:
            raise UnavailableError("the client was closed during the call") from None
        except TimeoutError:
            if future.done():
                raise  # raised by ``work``
            future.cancel()
            raise WaitTimeoutError(f"the call did not end within {timeout_s:g} s") from None
        except BaseException:
            future.cancel()
            raise

    def _why_not(self) -> Exception | None:
        """Return why nothing can be run for the caller; None if it can."""
        if not self.running:
            return UnavailableError("the client is closed")
        if threading.current_thread() is self._thread:
            return RuntimeError("called from the client's loop")
        if not self._thread.is_alive():
            try:
                check_not_forked()
            except InvalidStateError as error:
                return error
            return UnavailableError("the client's thread is gone")
        return None

    def stop(self) -> None:
        """Cancel all running work and end the thread within 5 s; idempotent."""
        self._finalizer()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        _finish(loop)
    finally:
        loop.close()


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=STOP_TIMEOUT_S / 2))
    loop.run_until_complete(loop.shutdown_asyncgens())


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread.is_alive():
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_TIMEOUT_S)
