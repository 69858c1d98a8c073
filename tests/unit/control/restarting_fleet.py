"""A fleet whose schedulers die one after the other, in virtual time, with clients that read on."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.leadership.term import Term
from scheduler_svc.control.leadership.term_clock import TermClock
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.submission import Submission, TokenPrompt
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.domain.errors import (
    GenerationFailed,
    NoInstance,
    OutputLost,
    Recovering,
    RequestCancelled,
    RequestNotFound,
)
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.transport.signed_receipts import SignedReceipts
from scheduler_svc.wiring.control_plane import ControlPlane, build_control
from scheduler_svc.wiring.earlier_scheduler import EarlierScheduler
from tests.unit.control.freezable_clock import FreezableClock
from tests.unit.control.restarting_executor import STEP_S, UNSEEDED, Executor, next_token
from tests.unit.control.world import KEY, MODEL, NoTokenizers

ENDS_WITHIN_S = 120.0
LEASE_S = 2.0
MARGIN_S = 0.1  # by which a leader stops before its lease ends in the database
NOTICED_SHARE = 0.01
"""How likely a process that leads no more finds out in one step."""

LOST = (OutputLost, RequestNotFound, GenerationFailed)
"""How a request may end that is lost together with its executor: its reader is told."""


class Reign:
    """One scheduler, from its start until it is killed, or finds that it leads no more.

    While it is ``frozen`` what comes waits in front of it, and so do its timers.
    """

    def __init__(self, fleet: Fleet, epoch: int, expected: Mapping[str, EarlierInstance], lease_s: float) -> None:
        """``lease_s``: for how long it leads without ``renew``."""
        self.epoch = epoch
        self.process = FreezableClock(fleet.clock)
        self.cut_off = False  # from the database: its lease is not renewed
        self.over = False  # the process is gone, or stands by
        self.wrote_at = fleet.clock.now()  # until when it could write
        self.term = Term(self.process, epoch=epoch, lease_s=lease_s, until=fleet.clock.now() + lease_s - MARGIN_S)
        self.plane: ControlPlane = build_control(
            SchedulerConfig(policy="fifo"),
            TermClock(self.process, lambda: self.term.over),
            NoTokenizers(),
            epoch=epoch,
            earlier=EarlierScheduler(
                instances=expected,
                proofs=KEY,
                receipts=SignedReceipts(KEY),
                keep_instances=lambda seen: fleet.keep_seen(epoch, seen),
                wall=fleet.clock.now,
            ),
        )
        self.connections: dict[asyncio.Task[None], None] = {}  # in the order in which they began
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.plane.dispatcher.run()), loop.create_task(self.plane.watchdog.run())]

    @property
    def frozen(self) -> bool:
        """Whether the process stands still."""
        return self.process.frozen

    @property
    def writes(self) -> bool:
        """Whether something that it sends now arrives: it runs, and its lease is not over."""
        return not (self.over or self.frozen or self.term.over)

    def renew(self, now: float) -> None:
        """Renew the lease, if the process runs and the database answers it."""
        if not (self.frozen or self.cut_off):
            self.term.renewed(now + self.term.lease_s - MARGIN_S)

    def receive(self, message: Callable[[], object]) -> None:
        """Take what an executor or a client sent, now or when the process goes on; nobody takes it once it is over."""
        if not self.over:
            self.process.run(message)

    async def end(self) -> None:
        self.over = True
        for task in self._tasks:
            assert not task.done(), f"a background task died: {task}"
        ending = [*self._tasks, *self.connections]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


@dataclass
class Tally:
    finished: int = 0
    cancelled: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    resumed: int = 0  # connections after the first one that went on with a request


class Fleet:
    """A scheduler, a few executors, one clock and one source of chance.

    With ``standby`` another one leads once the lease of the first is over, which may still be alive then.
    """

    def __init__(self, seed: int, executors: int = 3, *, standby: bool = False) -> None:
        self.standby = standby
        self.deposed: list[Reign] = []  # alive, replaced, and not told yet
        self.lease_until = math.inf  # as the database has it
        self.takeovers = 0
        self.clock = VirtualClock(1_000.0)
        self.dice = random.Random(seed)
        self.reign: Reign | None = None
        self.executors = [Executor(self, name) for name in "abcdefgh"[:executors]]
        self.tally = Tally()
        self.executor_was_lost = False
        self._seen: Mapping[str, EarlierInstance] = {}
        self._epoch = 0
        self._nonces: dict[str, list[int]] = {}
        self._steps: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self.start_scheduler()
        self._steps = asyncio.get_running_loop().create_task(self._run())
        await self.clock.advance(0.5)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._steps is not None:
            if self._steps.done():
                self._steps.result()
            self._steps.cancel()
            await asyncio.gather(self._steps, return_exceptions=True)
        for each in self.deposed:
            await each.end()
        await self.kill_scheduler()

    def keep_seen(self, epoch: int, instances: Mapping[str, EarlierInstance]) -> None:
        """Keep the instances that have a session; what an earlier leader says is refused."""
        if epoch == self._epoch:
            self._seen = instances

    def delay_s(self) -> float:
        return self.dice.uniform(0.0005, 0.01)

    def new_nonce(self, request_id: str) -> int:
        nonces = self._nonces.setdefault(request_id, [])
        nonces.append(self.dice.randint(1, 2**32))
        return nonces[-1]

    def nonces(self, request_id: str) -> list[int]:
        return self._nonces.get(request_id, [])

    def start_scheduler(self) -> None:
        self._epoch += 1
        lease_s = LEASE_S if self.standby else 1e9
        self.lease_until = self.clock.now() + lease_s
        self.reign = Reign(self, self._epoch, self._seen, lease_s)

    def _leave(self, reign: Reign) -> None:
        """Have everybody leave a scheduler."""
        for executor in self.executors:
            if executor.reign is reign:
                executor.break_link()
        for connection in list(reign.connections):
            connection.cancel()

    async def _leaderships(self) -> None:
        """Renew the lease, have another scheduler lead once it is over, and tell those that lead no more.

        Executors and clients leave a scheduler that is silent for a lease.
        """
        now, reign = self.clock.now(), self.reign
        if reign is not None and not (reign.frozen or reign.cut_off or reign.term.over):
            reign.renew(now)
            self.lease_until = now + LEASE_S
        if reign is not None and now >= self.lease_until:
            self.deposed.append(reign)
            self.takeovers += 1
            self.start_scheduler()
        for each in (self.reign, *self.deposed):
            if each is not None and each.writes:
                each.wrote_at = now
            elif each is not None and now > each.wrote_at + LEASE_S:
                self._leave(each)
        for each in list(self.deposed):
            if not each.frozen and self.dice.random() < NOTICED_SHARE:
                self.deposed.remove(each)
                self._leave(each)
                await each.end()

    async def kill_scheduler(self, *, hands_over: bool = False) -> None:
        """End the scheduler; ``hands_over``: it may still write down what its instances hold."""
        reign, self.reign = self.reign, None
        if reign is None:
            return
        if hands_over and reign.writes:
            reign.plane.instances.sessions.end_all("the scheduler hands over")
            self._seen = reign.plane.handed_over()
        seen = self._seen
        for executor in self.executors:
            if executor.reign is reign:
                executor.disconnected()
        await reign.end()
        self._seen = seen

    async def _run(self) -> None:
        steps = 0
        while True:
            await self.clock.sleep(STEP_S)
            steps += 1
            if self.standby:
                await self._leaderships()
            for executor in self.executors:
                executor.step()
                if not steps % 10:
                    executor.beat(steps)

    def assert_nothing_is_left(self) -> None:
        reign = self.reign
        assert reign is not None
        assert len(reign.plane.attempts) == 0
        assert len(reign.plane.requests) == 0
        for instance in reign.plane.scheduler.instances():
            assert not instance.account.reservations, f"{instance.instance_id} still holds reservations"
        for executor in self.executors:
            assert not executor.held, f"{executor.instance_id} still holds {list(executor.held)}"


@dataclass(eq=False)
class Client:
    """Reads one request to its end over however many connections, as docs/scheduler-life.md says."""

    fleet: Fleet
    request_id: str
    max_tokens: int
    unseeded: bool
    confirms: bool  # acknowledges the end, as a client of a session does
    token_ids: list[int] = field(default_factory=list)
    attempt: tuple[int, int] | None = None
    receipt: bytes = b""
    fresh: bool = False
    connections: int = 0
    cancels: bool = False  # a cancel of it was sent
    over: str = ""  # how it ended

    async def run(self) -> None:
        """Connect again until it is over."""
        while not self.over:
            reign = self.fleet.reign
            if reign is None or not reign.writes:
                await self.fleet.clock.sleep(0.1)
                continue
            connection = asyncio.get_running_loop().create_task(self._connect(reign))
            reign.connections[connection] = None
            await asyncio.wait([connection])
            reign.connections.pop(connection, None)
            if not connection.cancelled() and (error := connection.exception()) is not None:
                raise error
            self.fresh = False
            await self.fleet.clock.sleep(self.fleet.dice.uniform(0.02, 0.4))

    def vanish(self) -> None:
        """Lose the connection."""
        reign = self.fleet.reign
        for each in list(reign.connections) if reign is not None else ():
            if each.get_name() == self.request_id:
                each.cancel()

    def _submission(self) -> Submission:
        content = f"{self.request_id} {self.max_tokens} {self.unseeded}"
        return Submission(
            key=RequestKey(tenant="t", request_id=self.request_id),
            digest=hashlib.sha256(content.encode()).digest(),
            model=MODEL,
            prompt=TokenPrompt(token_ids=list(range(10))),
            sampling={"max_tokens": self.max_tokens, "temperature": 1.0 if self.unseeded else 0.0},
            tags={"kind": UNSEEDED if self.unseeded else "greedy"},
            wait_for_instance=True,
            after_token=len(self.token_ids),
            after_attempt=self.attempt if self.token_ids else None,
            receipt=self.receipt,
            fresh=self.fresh,
            deadline_s=ENDS_WITHIN_S,
        )

    async def _connect(self, reign: Reign) -> None:
        intake = reign.plane.intake
        task = asyncio.current_task()
        assert task is not None
        task.set_name(self.request_id)
        self.connections += 1
        try:
            subscription = await intake.submit(self._submission())
        except Recovering:
            return
        except LOST as error:
            self._lost(error)
            return
        except NoInstance:
            return
        self.receipt = intake.receipts.of(subscription.live)
        self.fleet.tally.resumed += self.connections > 1
        try:
            await self._read(reign, subscription)
        except asyncio.CancelledError:
            reign.receive(lambda: intake.readers.lose(subscription))
            raise
        if reign.writes:
            self._confirm(reign, subscription)
            intake.readers.leave(subscription)

    async def _read(self, reign: Reign, subscription: Subscription) -> None:
        while True:
            event = await subscription.next()
            await reign.process.runs()
            if not reign.writes:
                return  # the gate writes nothing more
            if isinstance(event, TokenSlice):
                assert event.first_index == len(self.token_ids), f"{self.request_id}: position {event.first_index}"
                if event.token_ids:
                    self.token_ids += event.token_ids
                    self.attempt = subscription.live.name_of(event.attempt_number, reign.epoch)
                    self._check()
            elif isinstance(event, Finished):
                assert len(self.token_ids) == self.max_tokens == event.completion_tokens, self.request_id
                self._end("finished")
                self.fleet.tally.finished += 1
                return
            elif isinstance(event, RequestCancelled):
                if self.cancels:
                    self._end("cancelled")
                    self.fleet.tally.cancelled += 1
                return
            elif isinstance(event, LOST):
                self._lost(event)
                return
            elif isinstance(event, Exception):
                raise event

    def _confirm(self, reign: Reign, subscription: Subscription) -> None:
        ends, live = reign.plane.intake.ends, subscription.live
        if not self.confirms:
            ends.settles(live)
        elif ends.taken(live):
            clock = self.fleet.clock
            clock.call_at(clock.now() + 0.3, lambda: reign.receive(lambda: ends.confirmed(live)))

    def _check(self) -> None:
        """Every token is one that some attempt at this request makes of exactly this prefix."""
        nonces = self.fleet.nonces(self.request_id) if self.unseeded else [0]
        for position in range(max(0, len(self.token_ids) - 5), len(self.token_ids)):
            prefix = self.token_ids[:position]
            assert self.token_ids[position] in {next_token(prefix, each) for each in nonces}, (
                f"{self.request_id}: the token at {position} does not follow its prefix"
            )

    def _lost(self, error: Exception) -> None:
        assert self.fleet.executor_was_lost or self.cancels, f"{self.request_id} is lost and no executor was: {error!r}"
        self._end("lost")
        self.fleet.tally.lost[type(error).__name__] += 1

    def _end(self, how: str) -> None:
        assert not self.over, f"{self.request_id} ends twice: {self.over}, {how}"
        self.over = how


Fault = Callable[[], Any]
