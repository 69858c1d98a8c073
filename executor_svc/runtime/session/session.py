"""Keeps the session with a scheduler: opens it, and opens a new one when it breaks.

A lost connection is handled in ``Session.run`` and ``Session._disconnected``; ``opener`` dials again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from executor_svc.runtime.attempts.attempt_table import AttemptTable
from executor_svc.runtime.link import Dialer, Link, LinkBroken, LinkRefused
from executor_svc.runtime.messages.commands import (
    AdaptersWanted,
    Assign,
    Cancel,
    Command,
    Drain,
    FetchAssign,
    HeartbeatAck,
    InvalidAssign,
    KeepRole,
    ReleaseKv,
    Resume,
    SleepWanted,
    TokenizerWanted,
)
from executor_svc.runtime.messages.registration import Identity, Welcome
from executor_svc.runtime.messages.reports import Goodbye, Heartbeat
from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.session.control_outbox import ControlOutbox
from executor_svc.runtime.session.kept_role import KeptRole
from executor_svc.runtime.session.load_meter import LoadMeter
from executor_svc.runtime.session.opener import SessionOpener
from executor_svc.runtime.session.prefix_cache_reports import PrefixCacheReports
from executor_svc.runtime.session.timings import DEFAULT_TIMINGS, SessionTimings
from executor_svc.runtime.text.text_source import TextSource

log = logging.getLogger(__name__)


class Session:
    """Keeps one session with a scheduler at a time: reads commands, sends reports, outputs and heartbeats.

    ``run`` lasts as long as the executor and returns after ``leave``.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        addresses: Sequence[str],
        dialer: Dialer,
        attempts: AttemptTable,
        outbox: Outbox,
        meter: LoadMeter,
        timings: SessionTimings = DEFAULT_TIMINGS,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._identity = identity
        self._attempts = attempts
        self._outbox = outbox
        self._meter = meter
        self.cache_reports = PrefixCacheReports(identity.model)
        self._timings = timings
        self._observer = observer
        self._kept_role = KeptRole()
        self._opener = SessionOpener(
            identity=identity,
            addresses=addresses,
            dialer=dialer,
            held=lambda: attempts.held,
            automatic_role=self._kept_role.report,
            timings=timings,
        )
        self._welcome: Welcome | None = None  # the current or latest session's
        self._lease_timer: asyncio.TimerHandle | None = None
        self._resume_timer: asyncio.TimerHandle | None = None
        self._last_ack_at = 0.0
        self._changed = asyncio.Event()
        self._leaving = False
        self._goodbye_sent = False
        self._left = asyncio.Event()
        self.control = ControlOutbox(self._heartbeat, self.cache_reports.next)
        self.text_source: TextSource | None = None  # once the engine is up
        self._connected = asyncio.Event()
        self.on_connection: Callable[[], None] = lambda: None
        self.on_drain: Callable[[bool], None] = lambda resume: None
        self.on_release_kv: Callable[[ReleaseKv], None] = lambda command: None
        self.on_adapters_wanted: Callable[[AdaptersWanted], None] = lambda command: None
        self.on_sleep_wanted: Callable[[SleepWanted], None] = lambda command: None

    # --- for the rest of the executor -------------------------------------------------------------------

    def load_changed(self) -> None:
        """Have a heartbeat sent soon, because the load changed."""
        self._changed.set()

    @property
    def connected(self) -> bool:
        """Whether a session is open."""
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        """Wait until a session is open."""
        await self._connected.wait()

    async def leave(self, reason: str) -> None:
        """Send Goodbye if a session is open, and have ``run`` return.  Takes at most twice ``leave_timeout_s``."""
        self._leaving = True
        self.control.say_goodbye(reason)
        if self.connected:
            try:
                async with asyncio.timeout(2 * self._timings.leave_timeout_s):
                    await self._left.wait()
            except TimeoutError:
                log.warning("the scheduler did not close the session in time after Goodbye")

    def _heartbeat(self) -> Heartbeat:
        interval = self._welcome.heartbeat_interval_s if self._welcome else 1.0
        return self._meter.heartbeat(self._attempts.last_assign, interval)

    # --- sessions one after the other --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep a session until ``leave``.  Raises RegistrationRefused; anything else it raises is a defect."""
        while not self._leaving:
            link, welcome = await self._opener.open()
            pause_s = 0.0
            try:
                await self._serve(link, welcome)
            except LinkBroken as broken:
                log.warning("the session with the scheduler broke: %s", str(broken))  # its traceback has the link
            except LinkRefused as refused:
                # The scheduler accepted this executor before, so the engine keeps running and a new session is opened.
                log.error("the scheduler ended the session: %s", refused.message)
                pause_s = self._timings.most_retry_s
            finally:
                self._disconnected()
                await link.close()
            await asyncio.sleep(pause_s)  # the lease runs meanwhile
        self._left.set()

    def _disconnected(self) -> None:
        """Let attempts run on for a while: until then a scheduler may keep or adopt them in a new session."""
        self._connected.clear()
        self._attempts.end_session()
        self.on_connection()
        if self._welcome is not None:
            loop = asyncio.get_running_loop()
            self._lease_timer = loop.call_later(self._welcome.kept_s, self._lease_over)
        if self._resume_timer is not None:
            self._resume_timer.cancel()

    def _lease_over(self) -> None:
        if self._welcome is None or self._welcome.leader_lease_s is None:
            self._opener.epoch_floor = 0  # the next scheduler's may be lower, if its clock was set back
        self._attempts.fence_all("no scheduler was connected in time")

    # --- one session ------------------------------------------------------------------------------------------------

    async def _serve(self, link: Link, welcome: Welcome) -> None:
        """Run one session until Goodbye.  Raises LinkBroken."""
        self._begin(welcome)
        work: dict[str, Coroutine[Any, Any, None]] = {
            "control-writer": self._write_control(link),
            "control-reader": self._read_control(link),
            "outputs-writer": self._write_outputs(link),
            "outputs-reader": self._read_outputs(link),
            "heartbeats": self._send_heartbeats(welcome),
        }
        tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if tasks[0] in done and tasks[0].exception() is None:
            return  # after Goodbye the streams are expected to end
        for task in done:
            task.result()

    def _begin(self, welcome: Welcome) -> None:
        loop = asyncio.get_running_loop()
        if self._lease_timer is not None:
            self._lease_timer.cancel()
        self._welcome = welcome
        self._opener.epoch_floor = welcome.epoch
        self._last_ack_at = loop.time()
        self._opener.reset()
        self._attempts.begin_session(welcome.epoch, welcome.keep, adopts=welcome.adopt_s is not None)
        self._resume_timer = loop.call_later(
            welcome.lease_s, self._attempts.fence_unresumed, "the scheduler neither resumed nor adopted the attempt"
        )
        if welcome.role is not self._identity.role:
            log.warning(
                "role %s in force, set by the scheduler, instead of %s", welcome.role.value, self._identity.role.value
            )
        self.cache_reports.restart()
        self.control.restart()
        self._connected.set()
        self._observer.connected()
        self.on_connection()

    async def _write_control(self, link: Link) -> None:
        while True:
            message = await self.control.next()
            await link.send_control(message)
            if isinstance(message, Goodbye):
                await self._part(link)
                return

    async def _part(self, link: Link) -> None:
        self._goodbye_sent = True
        try:
            async with asyncio.timeout(self._timings.leave_timeout_s):
                await link.leave()
        except TimeoutError:
            log.warning("the scheduler kept its streams open after the goodbye")

    async def _write_outputs(self, link: Link) -> None:
        while True:
            await link.send_output(await self._outbox.next())

    async def _read_outputs(self, link: Link) -> None:
        async for acks in link.acks():
            self._attempts.acknowledge(acks)
        await self._stream_over("output")

    async def _read_control(self, link: Link) -> None:
        async for command in link.commands():
            self._execute(command)
        await self._stream_over("control")

    async def _stream_over(self, name: str) -> None:
        """Raise LinkBroken; after Goodbye wait instead, until the control writer ends the session."""
        if self._goodbye_sent:
            await asyncio.get_running_loop().create_future()
        raise LinkBroken(f"the scheduler closed the {name} stream")

    def _execute(self, command: Command) -> None:
        match command:
            case Assign():
                self._attempts.assign(command)
            case InvalidAssign():
                self._attempts.refuse_invalid(command)
            case Cancel():
                self._attempts.cancel(command.attempt, command.reason)
            case Resume():
                self._attempts.resume(command.attempt, command.from_index)
            case HeartbeatAck():
                self._last_ack_at = asyncio.get_running_loop().time()
            case TokenizerWanted():
                self._upload_tokenizer(command.tokenizer_hash)
            case Drain():
                self.on_drain(command.resume)
            case ReleaseKv():
                self.on_release_kv(command)
            case AdaptersWanted():
                self.on_adapters_wanted(command)
            case SleepWanted():
                self.on_sleep_wanted(command)
            case KeepRole():
                self._kept_role.keep(command.role)
            case FetchAssign():
                self.control.answer(self._attempts.held_assign(command.attempt))

    def _upload_tokenizer(self, wanted: str) -> None:
        if self.text_source is None or self.text_source.hash != wanted:
            log.warning("the scheduler asked for tokenizer %s, which is not this model's", wanted[:12])
            return
        self.control.want_tokenizer(self.text_source.chunks())

    async def _send_heartbeats(self, welcome: Welcome) -> None:
        """Send a heartbeat every interval and soon after a change of load.

        Raises LinkBroken if the scheduler acknowledges no heartbeat for the length of the lease, or of the leader's.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self._timings.heartbeat_gap_s, welcome.heartbeat_interval_s))
            try:
                async with asyncio.timeout(welcome.heartbeat_interval_s - self._timings.heartbeat_gap_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            silence = loop.time() - self._last_ack_at
            if silence > welcome.silence_s:
                raise LinkBroken(f"the scheduler acknowledged no heartbeat for {silence:.1f} s")
            self.control.want_heartbeat()
