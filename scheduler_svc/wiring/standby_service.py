"""A scheduler of several: stands by, leads for a term, and stands by again."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from sage_common.addresses import host_of
from sage_common.clock import AsyncioClock
from sage_common.tasks import TaskDied, WatchedTasks
from sage_wire.errors import ErrorReason
from sage_wire.health import HealthServicer
from scheduler_svc.access.audit import Audit
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.leadership.leader_store import StoreFailed, Won
from scheduler_svc.control.leadership.leadership import Leadership
from scheduler_svc.control.leadership.standing import SchedulerState, Standing
from scheduler_svc.control.leadership.term import RETRY_S, Term
from scheduler_svc.domain.errors import NotLeader
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.storage.journal.errors import UnusableJournal
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.leadership import PostgresLeadership
from scheduler_svc.storage.shared_state import SharedState
from scheduler_svc.telemetry.standby import StandbyTelemetry
from scheduler_svc.transport.health import standing_by
from scheduler_svc.transport.leader_gate import LeaderGate
from scheduler_svc.wiring.doors import Doors, server_tls
from scheduler_svc.wiring.lead import Lead
from scheduler_svc.wiring.leaving import DRAINED_GRACE_S
from scheduler_svc.wiring.room_settings import journal_settings, scheduler_settings
from scheduler_svc.wiring.scheduler_service import SchedulerService

log = logging.getLogger(__name__)

T = TypeVar("T")

EVERYWHERE = ("0.0.0.0", "::")

STATEMENT_LIMIT_S = 1.0
"""How long the database may take for one statement about the lease, at most."""

AFTER_FAILURE_S = 1.0
"""Least pause before leading is tried again that failed for want of the database."""


class StandbyService:
    """Serves as ``SchedulerService`` does, while it holds the lease; else it refuses calls with NOT_LEADER.

    The servers live as long as the process; all else of a term is made anew when it begins, and ends with it.
    """

    def __init__(self, config: SchedulerConfig) -> None:
        """Build what does not depend on a term; nothing runs yet.

        Raises:
            UnknownPolicy: no policy has the configured name.
            PolicyLoadError: an installed policy cannot be loaded.
            UnusableJournal: the journal's URL makes no sense.
        """
        Scheduler(scheduler_settings(config), PolicyCatalogue.with_plugins())  # a standby is to say now what is wrong
        assert config.leader_lease_s is not None, "schedulers with a lease"
        self._config = config
        self._lease_s = config.leader_lease_s
        self._store = PostgresLeadership(
            config.journal_url,
            fleet=config.journal.fleet,
            limit_s=min(STATEMENT_LIMIT_S, self._lease_s / 2),
        )
        self._leadership = Leadership(self._store, AsyncioClock(), self._lease_s)
        self._health = HealthServicer()
        standing_by(self._health)
        self._gate = LeaderGate(self._refusal, lambda: self.standing)
        self._service: SchedulerService | None = None  # of the present term
        self._cannot_lead = ""  # why the last term came to nothing; empty: it did not
        self._doors: Doors | None = None
        self._stopping = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._telemetry = StandbyTelemetry(config.telemetry, server_tls(config))
        self._tasks = WatchedTasks()

    async def start(self) -> None:
        """Serve, and claim the lease from now on.

        Raises:
            ListenError: a configured address cannot be listened on, or a file with certificates, keys or public keys
                cannot be used.
            CannotServe: the metrics address cannot be served.
        """
        self._doors = Doors(self._config, self._gate.services(self._health), Audit(), self._call_ended)
        self._store.addresses = advertised(self._config, self._doors.ports)
        self._telemetry.start()
        await self._doors.start()
        self._tasks.start(self._doors.reloader.run(), name="file reloads")
        self._running = self._tasks.start(self._run(), name="leadership")

    @property
    def ports(self) -> dict[str, int]:
        """The ports that are served, by the setting that names the address."""
        return self._doors.ports if self._doors is not None else {}

    @property
    def port(self) -> int:
        """The port of ``listen``; 0 before it is served."""
        return self.ports.get("listen", 0)

    @property
    def standing(self) -> Standing:
        """What this scheduler does now."""
        if self._service is not None:
            return self._service.standing
        leader, left_s = self._leadership.leader, self._leadership.lease_left_s
        known = leader if left_s else None
        return Standing(
            state=SchedulerState.LEAVING if self._stopping.is_set() else SchedulerState.STANDBY,
            epoch=known.epoch if known is not None else 0,
            leader=",".join(known.addresses) if known is not None else "",
            lease_s=self._lease_s,
            lease_left_s=left_s,
            troubles=tuple(each for each in (self._leadership.trouble, self._cannot_lead) if each),
        )

    def reload(self) -> None:
        """Read certificates, keys and public keys again, whether their files changed or not."""
        if self._doors is not None:
            self._doors.reload()

    async def failure(self) -> TaskDied:
        """Wait until a background task dies, which ends the service, and return how it died."""
        return await self._tasks.failure()

    async def stop(self) -> None:
        """Leave running requests to the next leader or let them finish, give the lease back, and end everything."""
        self._health.leave()
        self._stopping.set()
        if self._running is not None:
            await asyncio.wait({self._running})
        await self._tasks.stop()
        if self._doors is not None:
            await self._doors.stop(DRAINED_GRACE_S)
        await self._telemetry.close()
        self._store.close()

    # --- terms ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Lead, again and again, until ``stop``."""
        await self._unless_stopping(self._prepare())
        while not self._stopping.is_set():
            won = await self._unless_stopping(self._leadership.campaign())
            if won is not None:
                self._cannot_lead = await self._lead(*won)
                if not self._stopping.is_set():
                    await self._end_connections()
                    self._telemetry.start()
                if self._cannot_lead:  # another one may be able to, and is to find the lease free
                    await self._unless_stopping(asyncio.sleep(max(AFTER_FAILURE_S, self._lease_s / 4)))

    async def _prepare(self) -> None:
        """Make the journal's tables, once its database is there.  Raises UnusableJournal if they cannot be used."""
        told = ""
        while True:
            try:
                await asyncio.to_thread(self._store.prepare)
                return
            except StoreFailed as failure:
                if str(failure) != told:
                    log.warning("waiting for the database: %s", failure)
                self._leadership.trouble = told = str(failure)
            await asyncio.sleep(AFTER_FAILURE_S)

    async def _unless_stopping(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what ``work`` returns; cancel it and return None when the process stops."""
        working, stopping = asyncio.create_task(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            stopping.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    async def _lead(self, term: Term, won: Won) -> str:
        """Lead until the term is over or the process stops; return why that was not possible, or an empty string."""
        log.info("leading, epoch %d", term.epoch)
        holding = asyncio.create_task(self._leadership.hold(term), name="lease")
        try:
            await self._serve(term, won)
        except UnusableJournal as error:
            log.error("cannot lead: %s", error)
            return f"it cannot lead: {error}"
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            await self._release(term)
            standing_by(self._health)
            log.info("standing by")
        return ""

    async def _end_connections(self) -> None:
        """End the connections of a term that is over.

        Whoever reaches the fleet by one address, through a load balancer, would stay with this scheduler for as long as
        the connection lasts, and hear NOT_LEADER.  Raises ListenError.
        """
        if self._doors is not None and not self._cannot_lead:
            await self._doors.renew()

    async def _release(self, term: Term) -> None:
        """Let another scheduler lead.  Call when nothing of this one's is written any more; idempotent."""
        if not term.released:
            term.released = True
            term.end("it stops leading")
            await self._leadership.release(term)

    async def _serve(self, term: Term, won: Won) -> None:
        settings = journal_settings(self._config)
        assert settings is not None, "schedulers with a lease have a journal"
        journal = await asyncio.to_thread(Journal, settings, self._store.fence(won.epoch))
        await self._telemetry.close()
        service = SchedulerService(
            self._config,
            Lead(
                term=term,
                journal=journal,
                release=lambda: self._release(term),
                state=SharedState(self._store, won),
                health=self._health,
                gate=self._gate,
                trouble=lambda: self._leadership.trouble,
            ),
        )
        try:
            await service.start()
            self._service = service  # from here on it answers calls
            await self._until_over(term, service)
        finally:
            await service.stop()
            self._service = None

    async def _until_over(self, term: Term, service: SchedulerService) -> None:
        """Wait until the term is over or the process stops.  Raises TaskDied if a part of the service does."""
        over = asyncio.create_task(term.wait_over())
        stopping = asyncio.create_task(self._stopping.wait())
        failing = asyncio.create_task(service.failure())
        waiting = {over, stopping, failing}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise failing.result()
            if over.done():
                log.warning("leading no more: %s", over.result())
        finally:
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    # --- calls ------------------------------------------------------------------------------------

    def _refusal(self) -> NotLeader:
        """Return what callers are told while this scheduler does not lead."""
        standing = self.standing
        wait_s = min(max(standing.lease_left_s, RETRY_S / 2), RETRY_S)
        return NotLeader(wait_s, leader=standing.leader, epoch=standing.epoch)

    def _call_ended(self, method: str, reason: ErrorReason) -> None:
        if self._service is not None:
            self._service.call_ended(method, reason)


def advertised(config: SchedulerConfig, ports: Mapping[str, int]) -> tuple[str, ...]:
    """Return the addresses at which others reach this scheduler; ``ports``: the bound ones, by setting."""
    if config.leadership.address:
        return tuple(part.strip() for part in config.leadership.address.split(",") if part.strip())
    found = [_reachable(address, ports[key]) for key, address in config.listeners.items() if key in ports]
    return tuple(dict.fromkeys(found))


def _reachable(address: str, port: int) -> str:
    host = host_of(address)
    if not host:
        return address  # a Unix socket
    if host in EVERYWHERE:
        host = socket.gethostname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
