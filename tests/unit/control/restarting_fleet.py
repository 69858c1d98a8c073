"""A fleet whose schedulers die one after the other, in virtual time, with clients that read on."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
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
from tests.unit.control.restarting_executor import STEP_S, UNSEEDED, Executor, next_token
from tests.unit.control.world import KEY, MODEL, NoTokenizers

ENDS_WITHIN_S = 120.0
LOST = (OutputLost, RequestNotFound, GenerationFailed)
"""How a request may end that is lost together with its executor: its reader is told."""


class Reign:
    """One scheduler, from its start until it is killed."""

    def __init__(self, fleet: Fleet, epoch: int, expected: Mapping[str, EarlierInstance]) -> None:
        self.epoch = epoch
        self.plane: ControlPlane = build_control(
            SchedulerConfig(policy="fifo"),
            fleet.clock,
            NoTokenizers(),
            epoch=epoch,
            earlier=EarlierScheduler(
                instances=expected,
                proofs=KEY,
                receipts=SignedReceipts(KEY),
                keep_instances=fleet.keep_seen,
                wall=fleet.clock.now,
            ),
        )
        self.connections: dict[asyncio.Task[None], None] = {}  # in the order in which they began
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self.plane.dispatcher.run()), loop.create_task(self.plane.watchdog.run())]

    async def end(self) -> None:
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
    """Schedulers one at a time, a few executors, one clock and one source of chance."""

    def __init__(self, seed: int, executors: int = 3) -> None:
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
        await self.kill_scheduler()

    def keep_seen(self, instances: Mapping[str, EarlierInstance]) -> None:
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
        self.reign = Reign(self, self._epoch, self._seen)

    async def kill_scheduler(self, *, hands_over: bool = False) -> None:
        """End the scheduler; ``hands_over``: it may still write down what its instances hold."""
        reign, self.reign = self.reign, None
        if reign is None:
            return
        if hands_over:
            reign.plane.sessions.end_all("the scheduler hands over")
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
            if reign is None:
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
            if self.fleet.reign is reign:
                intake.lose(subscription)
            raise
        if self.fleet.reign is reign:
            self._confirm(reign, subscription)
            intake.leave(subscription)

    async def _read(self, reign: Reign, subscription: Subscription) -> None:
        while True:
            event = await subscription.next()
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
            clock.call_at(clock.now() + 0.3, lambda: ends.confirmed(live) if self.fleet.reign is reign else None)

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
