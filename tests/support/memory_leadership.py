"""The row that schedulers agree on, in memory and on a clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from sage_common.clock import Clock
from scheduler_svc.control.leadership.leader_store import Leader, StoreFailed, Won

A = TypeVar("A")


@dataclass
class Row:
    """What all stores of one fleet share."""

    clock: Clock
    holder: object = None
    addresses: tuple[str, ...] = ()
    epoch: int = 0
    lease_until: float = float("-inf")
    away: bool = False  # the database does not answer
    late_s: float = 0.0  # it answers so much later
    asked: list[str] = field(default_factory=list)


class MemoryLeadership:
    """Implements ``LeaderStore`` for one scheduler."""

    def __init__(self, row: Row, address: str) -> None:
        self._row = row
        self._address = address

    async def claim(self, lease_s: float) -> Won | Leader:
        row = await self._asked("claim")
        now = row.clock.now()
        if row.lease_until > now:
            return Leader(addresses=row.addresses, epoch=row.epoch, lease_left_s=row.lease_until - now)
        row.holder, row.addresses, row.epoch, row.lease_until = self, (self._address,), row.epoch + 1, now + lease_s
        return await self._answer(Won(epoch=row.epoch, secret=b"secret"))

    async def renew(self, epoch: int, lease_s: float) -> bool:
        row = await self._asked("renew")
        ours = row.holder is self and row.epoch == epoch and row.lease_until > row.clock.now()
        if ours:
            row.lease_until = row.clock.now() + lease_s
        return await self._answer(ours)

    async def release(self, epoch: int) -> None:
        row = await self._asked("release")
        if row.holder is self and row.epoch == epoch:
            row.lease_until = row.clock.now()

    async def _asked(self, what: str) -> Row:
        self._row.asked.append(what)
        if self._row.away:
            raise StoreFailed("nobody is there")
        return self._row

    async def _answer(self, answer: A) -> A:
        if self._row.late_s:
            await self._row.clock.sleep(self._row.late_s)
        return answer
