"""Modelled executors that can hand KV over, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.pairs import PairState
from tests.unit.control.world import ModelledExecutor, Running, World

PREFILL_S = 0.05
PULL_S = 0.02
LEASE_S = 5.0
LEASE_MARGIN_S = 1.0  # less than that is left: the decode leg is refused


@dataclass
class PdExecutor(ModelledExecutor):
    """Runs prefill legs, leaves blocks behind, fetches what others left."""

    kv_connector: str = "modelled"
    pinned: dict[str, float] = field(default_factory=dict)  # handoff -> end of its lease; held for others
    prefills: dict[int, AssignOrder] = field(default_factory=dict)
    pulls: dict[int, AssignOrder] = field(default_factory=dict)
    unreachable: bool = False  # nobody can fetch from it
    leaves_nothing: bool = False  # prefill ends without blocks
    hears_late_s: float = 0.0  # orders to fetch are on their way for so long
    speaks_late_s: float = 0.0  # the end of prefill is
    before_engine: bool = False  # a cancel finds the order to fetch before the engine does
    alters: bool = False  # handoffs change on their way here
    recomputes: bool = False  # what cannot be fetched is computed here

    @property
    def pd(self) -> PdWorld:
        assert isinstance(self.world, PdWorld)
        return self.world

    def assign(self, order: AssignOrder) -> None:
        whole = order.phase is Phase.HYBRID
        if whole or self.refuses or self.fails or self.invalid or self.lost_assigns or not self.connected:
            super().assign(order)
            return
        number = order.attempt_number
        self.last_assign = order.number
        self.log.append(f"{order.phase.value} {order.request.key.request_id}")
        waiting = self.prefills if order.phase is Phase.PREFILLING else self.pulls
        waiting[number] = order
        if order.phase is Phase.PREFILLING:
            self._after(PREFILL_S, lambda: self._work(number, waiting))
        else:
            self._after(self.hears_late_s, lambda: self._hear(number, order))

    def _hear(self, number: int, order: AssignOrder) -> None:
        """Leases are told as durations: they count from now on."""
        assert order.handoff is not None
        if number not in self.pulls or self.dead:
            return
        if order.handoff.lease_s < LEASE_MARGIN_S:
            del self.pulls[number]
            self._later(
                lambda: self.world.plane.attempts.rejected(self.instance_id, number, "kv_lease_expired", "as told")
            )
            return
        self._later(lambda: self.world.plane.attempts.accepted(self.instance_id, number))
        self._after(PULL_S, lambda: self._work(number, self.pulls))

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self.world.clock.call_at(self.world.clock.now() + seconds, call)

    def cancel(self, attempt_number: int, reason: str) -> None:
        pull = self.pulls.get(attempt_number)
        if pull is None and attempt_number not in self.prefills:
            super().cancel(attempt_number, reason)
            return
        self.log.append(f"cancel {attempt_number}: {reason}")
        if self.hung or not self.connected:
            return
        unclaimed = pull is not None and self.before_engine
        if pull is not None and pull.handoff is not None and not unclaimed:
            self.pd.unpin(pull.handoff.params.decode())  # the connector tells the other side
        self.prefills.pop(attempt_number, None)
        self.pulls.pop(attempt_number, None)
        end = AttemptEnd(attempt_number=attempt_number, cause=EndCause.CANCELLED, kv_unclaimed=unclaimed)
        self._later(lambda: self.world.plane.attempts.ended(self.instance_id, end))

    def release_kv(self, number: int, params: bytes) -> None:
        super().release_kv(number, params)
        if self.connected and not self.hung:
            self.pd.unpin(params.decode())
            kv_releases = self.world.plane.kv_releases
            self._later(lambda: kv_releases.answered(self.instance_id, number, released=True, message=""))

    def crash(self) -> None:
        self.pinned.clear()
        self.prefills.clear()
        self.pulls.clear()
        super().crash()

    def expire(self) -> None:
        now = self.world.clock.now()
        self.pinned = {name: end for name, end in self.pinned.items() if end > now}

    def _work(self, number: int, waiting: dict[int, AssignOrder]) -> None:
        if self.dead or self.hung:
            return
        order = waiting.pop(number, None)
        if order is None:
            return
        self.iterations += 1
        if order.phase is Phase.PREFILLING:
            self._leave_behind(number)
        else:
            self._pull(number, order)

    def _leave_behind(self, number: int) -> None:
        name = f"{self.instance_id}/{self.start_id}/{number}"
        if not self.leaves_nothing:
            self.pinned[name] = self.world.clock.now() + LEASE_S
        end = AttemptEnd(
            attempt_number=number,
            cause=EndCause.FINISHED,
            finish_reason="length",
            kv_transfer_params=b"" if self.leaves_nothing else name.encode(),
            kv_lease_s=LEASE_S,
        )
        self._after(
            self.speaks_late_s, lambda: self._later(lambda: self.world.plane.attempts.ended(self.instance_id, end))
        )

    def _pull(self, number: int, order: AssignOrder) -> None:
        assert order.handoff is not None
        name = order.handoff.params.decode()
        if self.alters:
            message = "the handoff was changed, or has no seal"
            end = AttemptEnd(attempt_number=number, cause=EndCause.FAILED, message=message, kv_unclaimed=True)
        elif self.pd.reachable(name):
            # Blocks that are not there any more are another prompt's by now, and nothing says so.
            wrong_by = 0 if self.pd.unpin(name) else 1
            self.held[number] = Running(order=order, tokens=0, sent=0, wrong_by=wrong_by)
            return
        elif self.recomputes:
            self.held[number] = Running(order=order, tokens=0, sent=0, recomputed=True)
            return
        else:
            end = AttemptEnd(attempt_number=number, cause=EndCause.FAILED, message="nothing to fetch")
        self._later(lambda: self.world.plane.attempts.ended(self.instance_id, end))


class PdWorld(World):
    """``await ready()`` once the executors are added."""

    def __init__(self, **settings: Any) -> None:
        settings.setdefault("pd_separation", {"enabled": True, "routing_policy": "always"})
        super().__init__(**settings)

    def add_pd(self, instance_id: str, role: InstanceRole, **options: Any) -> PdExecutor:
        executor = PdExecutor(world=self, instance_id=instance_id, role=role, **options)
        self.executors[instance_id] = executor
        executor.connect()
        return executor

    async def ready(self) -> None:
        """Every pair is warmed up."""
        await self.advance(1.0)
        assert all(pair.state is PairState.USABLE for pair in self.plane.scheduler.pairs()), list(
            self.plane.scheduler.pairs()
        )
        for executor in self.executors.values():
            executor.log.clear()

    def reachable(self, name: str) -> bool:
        """Whether who left this behind can be fetched from."""
        owner = self._owner(name)
        return not owner.dead and not owner.unreachable and owner.start_id == name.split("/")[1]

    def unpin(self, name: str) -> bool:
        """Fetch or free what an executor left behind; False if it is not there or cannot be reached."""
        owner = self._owner(name)
        owner.expire()
        return self.reachable(name) and owner.pinned.pop(name, None) is not None

    def _owner(self, name: str) -> PdExecutor:
        owner = self.executors[name.partition("/")[0]]
        assert isinstance(owner, PdExecutor)
        return owner

    def assert_all_room_is_free(self) -> None:
        super().assert_all_room_is_free()
        for executor in self.executors.values():
            if isinstance(executor, PdExecutor):
                executor.expire()
                assert not executor.pinned, f"{executor.instance_id} still holds {executor.pinned}"
