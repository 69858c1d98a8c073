"""What a scheduler has of the process in which it leads for one term."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sage_wire.health import HealthServicer
from scheduler_svc.control.leadership.term import Term
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.state import State
from scheduler_svc.transport.leader_gate import LeaderGate


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """A term, and what outlives it: the process's servers and its connection to the database of the lease."""

    term: Term
    state: State
    journal: Journal
    release: Callable[[], Awaitable[None]]  # gives the lease back
    health: HealthServicer
    gate: LeaderGate
    trouble: Callable[[], str]  # what is wrong with the database of the lease
