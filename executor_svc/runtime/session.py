"""The session with a scheduler: dialled, kept, and dialled again when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from executor_svc.runtime.assignments import Assignments
from executor_svc.runtime.backoff import Backoff
from executor_svc.runtime.control_outbox import ControlOutbox
from executor_svc.runtime.link import Dialer, Link, LinkBroken, LinkRefused
from executor_svc.runtime.load_meter import LoadMeter
from executor_svc.runtime.messages import (
    Assign,
    Cancel,
    Command,
    Drain,
    Goodbye,
    Heartbeat,
    HeartbeatAck,
    Identity,
    InvalidAssign,
    Register,
    ReleaseKv,
    Resume,
    TokenizerWanted,
    Welcome,
)
from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.runtime.outbox import Outbox
from executor_svc.runtime.text_source import TextSource

log = logging.getLogger(__name__)


class RegistrationRefused(Exception):
    """Every scheduler turned this executor down for a reason that trying again does not change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionTimings:
    """Seconds."""

    dial_timeout_s: float = 5.0  # to connect, register and be welcomed
    leave_timeout_s: float = 2.0  # for the scheduler to close after Goodbye
    beat_gap_s: float = 0.05  # heartbeats after changes come at least this far apart
    first_retry_s: float = 0.05
    most_retry_s: float = 5.0


class Session:
    """``run`` goes on for as long as the executor does; it returns after ``leave``."""

    def __init__(
        self,
        *,
        identity: Identity,
        addresses: Sequence[str],
        dialer: Dialer,
        assignments: Assignments,
        outbox: Outbox,
        meter: LoadMeter,
        timings: SessionTimings = SessionTimings(),  # frozen
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._identity = identity
        self._addresses = tuple(addresses)
        self._dialer = dialer
        self._assignments = assignments
        self._outbox = outbox
        self._meter = meter
        self._timings = timings
        self._observer = observer
        self._backoff = Backoff(first_s=timings.first_retry_s, most_s=timings.most_retry_s)
        self._welcome: Welcome | None = None  # of the current or latest session
        self._epoch_floor = 0  # older epochs are refused while attempts of this one may live
        self._orphan_timer: asyncio.TimerHandle | None = None
        self._resume_timer: asyncio.TimerHandle | None = None
        self._last_ack_at = 0.0
        self._changed = asyncio.Event()
        self._complaints: dict[str, str] = {}  # by address, the latest one since the last session
        self._leaving = False
        self._parting = False  # Goodbye is said
        self._left = asyncio.Event()
        self.control = ControlOutbox(self._heartbeat)
        self.text_source: TextSource | None = None  # once the engine is up
        self._connected = asyncio.Event()
        self.on_connection: Callable[[], None] = lambda: None
        self.on_drain: Callable[[bool], None] = lambda resume: None
        self.on_release_kv: Callable[[ReleaseKv], None] = lambda command: None

    # --- what the rest of the executor asks of it -------------------------------------------------------------------

    def touch(self) -> None:
        """Load changed: a heartbeat is due soon."""
        self._changed.set()

    @property
    def connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        await self._connected.wait()

    async def leave(self, reason: str) -> None:
        """Say Goodbye if there is anyone to say it to.  Bounded; ``run`` returns."""
        self._leaving = True
        self.control.say_goodbye(reason)
        if self.connected:
            try:
                async with asyncio.timeout(2 * self._timings.leave_timeout_s):
                    await self._left.wait()
            except TimeoutError:
                log.warning("the scheduler did not take the goodbye in time")

    def _heartbeat(self) -> Heartbeat:
        interval = self._welcome.heartbeat_interval_s if self._welcome else 1.0
        return self._meter.heartbeat(self._assignments.last_handed_over, interval)

    # --- one session after the other --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Raises RegistrationRefused; anything else it raises is a defect."""
        while not self._leaving:
            link, welcome = await self._connect()
            try:
                await self._serve(link, welcome)
            except LinkBroken as broken:
                log.warning("the session with the scheduler broke: %s", broken)
            except LinkRefused as refused:
                # It was taken on once: the engine is not given up for what one message was refused for.
                log.error("the scheduler ended the session: %s", refused.message)
                await asyncio.sleep(self._timings.most_retry_s)
            finally:
                self._disconnected()
                await link.close()
        self._left.set()

    def _disconnected(self) -> None:
        """Attempts run on for as long as the scheduler may still want them: the rest of its lease."""
        self._connected.clear()
        self._assignments.end_session()
        self.on_connection()
        if self._welcome is not None:
            loop = asyncio.get_running_loop()
            self._orphan_timer = loop.call_later(self._welcome.lease_s, self._orphaned)
        if self._resume_timer is not None:
            self._resume_timer.cancel()

    def _orphaned(self) -> None:
        self._epoch_floor = 0
        self._assignments.let_all_go("the scheduler stayed away for longer than its lease")

    async def _connect(self) -> tuple[Link, Welcome]:
        """Try the addresses in turn, the one that was good last first, until one takes this executor on."""
        while True:
            refusals: list[str] = []
            for address in self._addresses:
                try:
                    connection = await self._dial(address)
                    self._addresses = (address, *(other for other in self._addresses if other != address))
                    return connection
                except LinkBroken as broken:
                    self._complain(address, str(broken))
                except LinkRefused as refused:
                    log.error("scheduler %s refused the registration: %s", address, refused.message)
                    if refused.permanent:
                        refusals.append(f"{address}: {refused.message}")
                await asyncio.sleep(self._backoff.next())
            if len(refusals) == len(self._addresses):
                raise RegistrationRefused("; ".join(refusals))

    def _complain(self, address: str, why: str) -> None:
        """Once per reason: a scheduler that stays away would fill the log."""
        level = logging.DEBUG if self._complaints.get(address) == why else logging.WARNING
        self._complaints[address] = why
        log.log(level, "scheduler %s: %s", address, why)

    async def _dial(self, address: str) -> tuple[Link, Welcome]:
        """Raises LinkBroken, LinkRefused."""
        link = self._dialer.dial(address)
        try:
            async with asyncio.timeout(self._timings.dial_timeout_s):
                welcome = await link.register(Register(identity=self._identity, held=self._assignments.held))
                self._refuse_older(welcome)
                await link.open_outputs(welcome.session_id)
        except TimeoutError:
            await link.close()
            raise LinkBroken(f"no answer in {self._timings.dial_timeout_s:g} s") from None
        except BaseException:
            await link.close()
            raise
        log.info("registered with scheduler %s, epoch %d, session %s", address, welcome.epoch, welcome.session_id)
        return link, welcome

    def _refuse_older(self, welcome: Welcome) -> None:
        if welcome.epoch < self._epoch_floor:
            raise LinkRefused(
                "STALE_EPOCH", f"its epoch {welcome.epoch} is older than {self._epoch_floor}", permanent=False
            )

    # --- one session ------------------------------------------------------------------------------------------------

    async def _serve(self, link: Link, welcome: Welcome) -> None:
        """Returns after Goodbye.  Raises LinkBroken."""
        self._begin(welcome)
        work: dict[str, Coroutine[Any, Any, None]] = {
            "control-writer": self._write_control(link),
            "control-reader": self._read_control(link),
            "outputs-writer": self._write_outputs(link),
            "outputs-reader": self._read_outputs(link),
            "heartbeats": self._beat(welcome),
        }
        tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if tasks[0] in done and tasks[0].exception() is None:
            return  # Goodbye is said; the streams ending with it is no news
        for task in done:
            task.result()

    def _begin(self, welcome: Welcome) -> None:
        loop = asyncio.get_running_loop()
        if self._orphan_timer is not None:
            self._orphan_timer.cancel()
        self._welcome = welcome
        self._epoch_floor = welcome.epoch
        self._last_ack_at = loop.time()
        self._backoff.reset()
        self._complaints.clear()
        self._assignments.begin_session(welcome.epoch, welcome.keep)
        self._resume_timer = loop.call_later(
            welcome.lease_s, self._assignments.let_unresumed_go, "it was kept, but its output was never asked for"
        )
        if welcome.role is not self._identity.role:
            log.warning("the scheduler has this instance in role %s", welcome.role.value)
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
        self._parting = True
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
            self._assignments.acknowledge(acks)
        await self._stream_over("output")

    async def _read_control(self, link: Link) -> None:
        async for command in link.commands():
            self._obey(command)
        await self._stream_over("control")

    async def _stream_over(self, name: str) -> None:
        """After Goodbye that is what is waited for, and whoever said Goodbye waits for it (bounded)."""
        if self._parting:
            await asyncio.get_running_loop().create_future()
        raise LinkBroken(f"the scheduler closed the {name} stream")

    def _obey(self, command: Command) -> None:
        match command:
            case Assign():
                self._assignments.assign(command)
            case InvalidAssign():
                self._assignments.refuse_invalid(command)
            case Cancel():
                self._assignments.cancel(command.attempt, command.reason)
            case Resume():
                self._assignments.resume(command.attempt, command.from_index)
            case HeartbeatAck():
                self._last_ack_at = asyncio.get_running_loop().time()
            case TokenizerWanted():
                self._upload_tokenizer(command.tokenizer_hash)
            case Drain():
                self.on_drain(command.resume)
            case ReleaseKv():
                self.on_release_kv(command)

    def _upload_tokenizer(self, wanted: str) -> None:
        if self.text_source is None or self.text_source.hash != wanted:
            log.warning("the scheduler wants tokenizer %s, which is not this model's", wanted[:12])
            return
        self.control.want_tokenizer(self.text_source.chunks())

    async def _beat(self, welcome: Welcome) -> None:
        """A heartbeat every interval, and soon after a change.  Raises LinkBroken when none is answered."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self._timings.beat_gap_s, welcome.heartbeat_interval_s))
            try:
                async with asyncio.timeout(welcome.heartbeat_interval_s - self._timings.beat_gap_s):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            silence = loop.time() - self._last_ack_at
            if silence > welcome.lease_s:
                raise LinkBroken(f"no heartbeat was answered for {silence:.1f} s")
            self.control.want_heartbeat()
