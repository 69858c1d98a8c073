"""A request that an earlier scheduler accepted, as the executor that runs it describes it."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.requests.earlier_attempt import AdoptedAttempt
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import Request


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldRequest:
    """A request and its attempt.  Times are seconds on this scheduler's control clock."""

    attempt: AdoptedAttempt
    request: Request
    digest: bytes  # of its content
    detached: bool
    warnings: tuple[str, ...]  # of its acceptance
    identity: ModelIdentity | None  # of the model that gave its first token
    phase: Phase  # what the attempt runs
    delivered: int  # output positions that earlier attempts filled
    first_assigned_at: float
    first_token_at: float | None  # of an earlier attempt or of this one; None: it has none
    cost: float  # of earlier attempts
    attempts: int  # before this one
    policy: str  # that placed it
