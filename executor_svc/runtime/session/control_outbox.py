"""Orders what is sent on the control stream.

Only answers are queued.  Of every other kind of message the outbox notes that one is wanted, and makes it from the
current state when the link can take it.  A slow link therefore gets fewer heartbeats, never old ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator

from executor_svc.runtime.engine_port import EngineState
from executor_svc.runtime.messages.reports import (
    AdapterStates,
    ControlUp,
    Drained,
    DrainRequested,
    EngineStatus,
    Goodbye,
    Heartbeat,
    HeldAssign,
    KvReleased,
    PrefixCacheReport,
    SleepReport,
    TokenizerChunk,
)

ANSWERS_KEPT = 4096  # beyond that the oldest answer is dropped, and the scheduler never gets it


class ControlOutbox:
    """Holds what is to be sent on the control stream.  Outlives sessions; one reader awaits ``next``."""

    def __init__(
        self,
        make_heartbeat: Callable[[], Heartbeat],
        next_cache_report: Callable[[], PrefixCacheReport | None] = lambda: None,
    ) -> None:
        """``next_cache_report`` is called after each heartbeat, until it returns None."""
        self._make_heartbeat = make_heartbeat
        self._next_cache_report = next_cache_report
        self.adapter_states: Callable[[], AdapterStates | None] = lambda: None  # None: no adapter was ever wanted
        self._adapter_states_wanted = False
        self.sleep_report: Callable[[], SleepReport | None] = lambda: None  # None: the engine cannot sleep
        self._sleep_report_wanted = False
        self._cache_report_due = False
        self._status = EngineStatus(state=EngineState.DOWNLOADING)
        self._status_wanted = True
        self._heartbeat_wanted = False
        self._drain_reason: str | None = None  # reason of this executor's own drain; sent again in every session
        self._drain_request_wanted = False
        self._drained_wanted = False
        self._goodbye: Goodbye | None = None
        self._chunks: Iterator[TokenizerChunk] = iter(())
        self._answers: deque[KvReleased | HeldAssign] = deque(maxlen=ANSWERS_KEPT)
        self._wake = asyncio.Event()

    @property
    def status(self) -> EngineStatus:
        """The engine's latest status."""
        return self._status

    def restart(self) -> None:
        """Begin a new session, whose scheduler has received no report yet."""
        self._status_wanted = True
        self._adapter_states_wanted = True
        self._sleep_report_wanted = True
        self._heartbeat_wanted = True
        self._drain_request_wanted = self._drain_reason is not None
        self._drained_wanted = False
        self._chunks = iter(())
        self._answers.clear()  # the session that asked is over
        self._wake.set()

    # --- what is to be sent ------------------------------------------------------------------------------------------

    def set_status(self, status: EngineStatus) -> None:
        """Send this status of the engine, and again in every later session."""
        self._status = status
        self._status_wanted = True
        self._wake.set()

    def want_heartbeat(self) -> None:
        """Send a heartbeat as soon as the link can take it."""
        self._heartbeat_wanted = True
        self._wake.set()

    def want_adapter_states(self) -> None:
        """Send the states of all run-time adapters, because one changed."""
        self._adapter_states_wanted = True
        self._wake.set()

    def want_sleep_report(self) -> None:
        """Send whether the engine sleeps, because that changed."""
        self._sleep_report_wanted = True
        self._wake.set()

    def want_tokenizer(self, chunks: Iterator[TokenizerChunk]) -> None:
        """Send the tokenizer's chunks.  They replace an upload that is under way."""
        self._chunks = chunks
        self._wake.set()

    def answer(self, answer: KvReleased | HeldAssign) -> None:
        """Send an answer.  Beyond ANSWERS_KEPT waiting answers the oldest one is dropped."""
        self._answers.append(answer)
        self._wake.set()

    def request_drain(self, reason: str) -> None:
        """Ask for a drain, in this session and every later one."""
        self._drain_reason = reason
        self._drain_request_wanted = True
        self._wake.set()

    def report_drained(self) -> None:
        """Report that no attempt is left."""
        self._drained_wanted = True
        self._wake.set()

    def say_goodbye(self, reason: str) -> None:
        """Send Goodbye as the last message, after every other one except tokenizer chunks."""
        self._goodbye = Goodbye(reason=reason)
        self._wake.set()

    # --- what goes out -----------------------------------------------------------------------------------------------

    async def next(self) -> ControlUp:
        """Wait for a message to send, and return it."""
        while (message := self._take()) is None:
            self._wake.clear()
            await self._wake.wait()
        return message

    def _take(self) -> ControlUp | None:
        if self._status_wanted:
            self._status_wanted = False
            return self._status
        if self._adapter_states_wanted:
            self._adapter_states_wanted = False
            if (states := self.adapter_states()) is not None:
                return states
        if self._sleep_report_wanted:
            self._sleep_report_wanted = False
            if (sleep := self.sleep_report()) is not None:
                return sleep
        if self._heartbeat_wanted:
            self._heartbeat_wanted = False
            self._cache_report_due = True
            return self._make_heartbeat()
        if self._answers:
            return self._answers.popleft()
        if self._cache_report_due:
            if (report := self._next_cache_report()) is not None:
                return report
            self._cache_report_due = False
        if self._drain_request_wanted:
            self._drain_request_wanted = False
            return DrainRequested(reason=self._drain_reason or "")
        if self._drained_wanted:
            self._drained_wanted = False
            return Drained()
        if self._goodbye is not None:
            return self._goodbye
        return next(self._chunks, None)
