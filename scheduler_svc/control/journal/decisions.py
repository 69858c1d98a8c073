"""What operators decided, and the port through which it outlives the scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from scheduler_svc.domain.instance_spec import InstanceRole

Plain: TypeAlias = str | int | float
"""What a fleet decision's fields hold."""

POLICY, SHADOW, SPLITTING = "policy", "shadow_policy", "prefill_decode"
"""What can be decided about the fleet."""

ADAPTER = "adapter "
"""How the names of decisions begin each of which is a LoRA adapter that operators added."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceDecision:
    """What operators decided about one instance."""

    instance_id: str
    drained: bool = False
    drain_reason: str = ""  # in the operator's words; empty if none were given
    role: InstanceRole | None = None  # None: the one its executor registers with

    @property
    def is_empty(self) -> bool:
        """Whether nothing is decided (any more)."""
        return not self.drained and self.role is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Decisions:
    """Decisions, or changes of them.  An empty one is taken back."""

    fleet: Mapping[str, Mapping[str, Plain]] = field(default_factory=dict)  # by what is decided, such as "policy"
    instances: tuple[InstanceDecision, ...] = ()


class DecisionStore(Protocol):
    """Keeps decisions; ``storage.journal.decision_store`` implements it."""

    async def load(self) -> Decisions:
        """Return every decision.  Raises JournalUnavailable."""
        ...

    async def save(self, changes: Decisions) -> None:
        """Write changes, all or none; on return they are on the disk.  Raises JournalUnavailable."""
        ...
