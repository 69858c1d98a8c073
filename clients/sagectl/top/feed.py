"""Reads snapshots for ``sagectl top`` in a thread, and reconnects after errors."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from queue import Empty, Queue
from typing import Self

import sage_client as sage

FIRST_DELAY_S = 0.5
MAX_DELAY_S = 5.0
STOP_TIMEOUT_S = 5.0

FATAL = (sage.ConfigurationError, sage.InvalidRequestError, sage.AuthenticationError, sage.NotSupportedError)
"""Errors that a retry cannot resolve."""

Update = sage.FleetSnapshot | sage.SageError


class Feed:
    """Watches the fleet in a thread; when the stream ends, watches again after 0.5 s, doubling up to 5 s."""

    def __init__(self, client: sage.Client, *, interval_s: float, decisions: int) -> None:
        self._client = client
        self._interval_s = interval_s
        self._decisions = decisions
        self._stopped = threading.Event()
        self._newest: Queue[Update] = Queue(1)
        self._thread = threading.Thread(target=self._run, name="sagectl-top", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching.  A thread that still waits for the scheduler ends when the client is closed."""
        self._stopped.set()
        self._thread.join(min(self._interval_s, STOP_TIMEOUT_S))

    def take(self, timeout_s: float) -> Update | None:
        """Return the newest snapshot or error that was not taken yet; None after ``timeout_s`` seconds without one.

        Raises:
            SageError: an error that a retry cannot resolve.
        """
        try:
            update = self._newest.get(timeout=timeout_s) if timeout_s > 0 else self._newest.get_nowait()
        except Empty:
            return None
        if isinstance(update, FATAL):
            raise update
        return update

    def _run(self) -> None:
        delay_s = FIRST_DELAY_S
        while not self._stopped.is_set():
            began = time.monotonic()
            error = self._watch()
            if self._stopped.is_set():
                return
            self._put(error)
            if isinstance(error, FATAL):
                return
            if time.monotonic() - began > MAX_DELAY_S:
                delay_s = FIRST_DELAY_S  # the stream worked for a while
            self._stopped.wait(delay_s)
            delay_s = min(2 * delay_s, MAX_DELAY_S)

    def _watch(self) -> sage.SageError:
        """Read snapshots until the stream ends; return the error that ended it."""
        try:
            for snapshot in self._client.watch_fleet(interval=self._interval_s, recent_decisions=self._decisions):
                if self._stopped.is_set():
                    break
                self._put(snapshot)
        except sage.SageError as error:
            return error
        except RuntimeError:
            self._stopped.set()  # the client was closed
        return sage.UnavailableError("the scheduler ended the stream")

    def _put(self, update: Update) -> None:
        with suppress(Empty):
            self._newest.get_nowait()
        self._newest.put_nowait(update)  # only this thread puts
