"""A scheduler with a journal of detached work that outlives it, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.request_records import held_request
from scheduler_svc.wiring.control_plane import build_control
from scheduler_svc.wiring.earlier_scheduler import EarlierScheduler
from tests.support.memory_detached_store import MemoryDetachedStore
from tests.unit.control.world import EPOCH, MODEL, ModelledExecutor, NoTokenizers, Reader, World, token_at

KEY = AdoptionKey(b"k" * 32)
WALL_S = 1.8e9
"""Seconds since 1970 when a test begins."""


class Executor(ModelledExecutor):
    """Remembers the orders that it got."""

    def assign(self, order: AssignOrder) -> None:
        if order.continuation is not None:  # what it says now
            emitted = list(order.continuation.emitted_token_ids)
            order = replace(order, continuation=replace(order.continuation, emitted_token_ids=emitted))
        self.__dict__.setdefault("orders", []).append(order)
        super().assign(order)

    def resend(self, attempt_number: int, from_index: int) -> None:
        self.log.append(f"resend {attempt_number} from {from_index}")


class DetachedReader(Reader):
    """A client that attached by the id alone."""

    def attempt_name(self) -> tuple[int, int]:
        last = [e for e in self.events if isinstance(e, TokenSlice)][-1]
        return self.live.name_of(last.attempt_number, self._world.plane.epoch)

    def finished_not_yet(self) -> bool:
        return not any(isinstance(e, TokenSlice) for e in self.events)


class DetachedWorld(World):
    """A world whose detached work is kept in ``store``."""

    def __init__(
        self,
        *,
        store: MemoryDetachedStore | None = None,
        epoch: int = EPOCH,
        expected: tuple[str, ...] = (),
        left: Mapping[str, EarlierInstance] | None = None,
        started_at: float = 0.0,
        **settings: Any,
    ) -> None:
        """``expected``, ``left``: instances of an earlier scheduler; of ``expected`` nothing else is known.

        ``started_at``: seconds after the tests' beginning, on the wall clock."""
        super().__init__(**settings)
        self.store = store or MemoryDetachedStore()
        self.clock = VirtualClock()
        config = SchedulerConfig(policy="fifo", **{k: v for k, v in settings.items() if k != "policy"})
        self.plane = build_control(
            config,
            self.clock,
            NoTokenizers(),
            epoch=epoch,
            earlier=EarlierScheduler(instances=left or {each: EarlierInstance() for each in expected}, proofs=KEY),
            detached_store=self.store,
            wall_clock=lambda: WALL_S + started_at + self.clock.now(),
        )

    async def __aenter__(self) -> Self:
        await self.plane.load_detached()
        await super().__aenter__()
        assert self.plane.detached is not None
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self.plane.detached.run()))
        self._tasks.append(loop.create_task(self.plane.keep_detached()))
        return self

    @property
    def work(self) -> DetachedWork:
        assert self.plane.detached is not None
        return self.plane.detached

    def add(self, instance_id: str, **options: Any) -> ModelledExecutor:
        executor = Executor(world=self, instance_id=instance_id, **options)
        self.executors[instance_id] = executor
        executor.connect()
        return executor

    async def leave(self, request_id: str, **options: Any) -> tuple[LiveRequest, bool]:
        """Submit detached work."""
        return await self.plane.intake.leave_behind(self.submission(request_id, detached=True, **options))

    def read(
        self, request_id: str, *, after_token: int = 0, after_attempt: tuple[int, int] | None = None
    ) -> DetachedReader:
        subscription = Subscription(self.plane.loop_lag)
        self.plane.intake.readers.attach(
            RequestKey(tenant="t", request_id=request_id), subscription, after_token, after_attempt
        )
        return DetachedReader(self, subscription)

    def come_back(self, instance_id: str, *orders: AssignOrder, tokens: int) -> ModelledExecutor:
        """An executor registers that holds attempts of an earlier scheduler, and gives their Assigns."""
        link = self.executors[instance_id] = Executor(world=self, instance_id=instance_id)
        held = [
            HeldAttempt(
                epoch=order.epoch,
                number=order.attempt_number,
                tokens=tokens,
                ended=False,
                adoption_proof=assign_message(order, instance_id, KEY).adoption_proof,
            )
            for order in orders
        ]
        spec = InstanceSpec(instance_id=instance_id, model=MODEL, engine_start_id="start-1")
        welcome = self.plane.instances.registrar.register(Registration(spec=spec, held=tuple(held)), link)
        session = link.session = self.plane.instances.sessions.by_id(welcome.session_id)
        link.connected = True
        self.plane.instances.reports.engine_status(session, InstanceState.READY, None, "", link.facts())
        self.plane.instances.sessions.outputs_opened(welcome.session_id)
        for order in orders:
            wire = executor_pb2.HeldAssign(
                attempt=common_pb2.Attempt(epoch=order.epoch, number=order.attempt_number),
                assign=assign_message(order, instance_id, KEY),
                tokens=tokens,
            )
            found = held_request(wire, instance_id, KEY, self.clock.now())
            self.plane.instances.reports.held_assign(session, (order.epoch, order.attempt_number), found)
        return link

    def send(self, instance_id: str, live: LiveRequest, start: int, end: int) -> None:
        """The executor sends output of an adopted attempt."""
        number = live.placements[0].decision.attempt_number
        ids = [token_at(i) for i in range(start, end)]
        columns = OutputColumns([number], [start], [len(ids)], [len(ids)], ids, "x" * len(ids))
        self.plane.attempts.columns(instance_id, columns)

    def orders(self, instance_id: str) -> list[AssignOrder]:
        found: list[AssignOrder] = self.executors[instance_id].__dict__["orders"]
        return found

    def first_order(self, instance_id: str) -> AssignOrder:
        orders: list[AssignOrder] = self.executors[instance_id].__dict__["orders"]
        return orders[0]
