"""Snapshots for ``sagectl top``, as they come: the newest, and what keeps it from coming."""

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
"""Trying again cannot help."""

Heard = sage.FleetSnapshot | sage.SageError


class Feed:
    """Reads in a thread of its own; takes the watching up again whenever it ends, after 0.5 s doubling to 5 s."""

    def __init__(self, client: sage.Client, *, interval_s: float, decisions: int) -> None:
        self._client = client
        self._interval_s = interval_s
        self._decisions = decisions
        self._stopped = threading.Event()
        self._newest: Queue[Heard] = Queue(1)
        self._thread = threading.Thread(target=self._run, name="sagectl-top", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the watching.  A thread that waits for the scheduler ends with the client."""
        self._stopped.set()
        self._thread.join(min(self._interval_s, STOP_TIMEOUT_S))

    def take(self, timeout_s: float) -> Heard | None:
        """The newest that was not taken yet, an error it recovers from included; None if none comes in time.

        Raises SageError where trying again cannot help.
        """
        try:
            heard = self._newest.get(timeout=timeout_s) if timeout_s > 0 else self._newest.get_nowait()
        except Empty:
            return None
        if isinstance(heard, FATAL):
            raise heard
        return heard

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
                delay_s = FIRST_DELAY_S  # it had worked for a while
            self._stopped.wait(delay_s)
            delay_s = min(2 * delay_s, MAX_DELAY_S)

    def _watch(self) -> sage.SageError:
        """Until it ends; how."""
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

    def _put(self, heard: Heard) -> None:
        with suppress(Empty):
            self._newest.get_nowait()
        self._newest.put_nowait(heard)  # nobody else puts
