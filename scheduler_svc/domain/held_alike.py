"""What a pass need not look at, because something that asks for no more is held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler_svc.domain.objectives.held_back import MOST_S, is_patient
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, effective_targets
from scheduler_svc.domain.waiting_request import WaitingRequest

_MOST = 16  # requests that are remembered
_ABOUT = 0.9  # share of another output length that counts as no shorter: both are predictions


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What a request asks for that decides whether it makes others late."""

    tpot_s: float | None
    prompt_tokens: int
    output_tokens: int
    patient: bool

    def covers(self, other: _Asked) -> bool:
        """Whether the other one is held back as well: it asks for as much, and is not the first whose wait is over."""
        return (
            self.tpot_s == other.tpot_s
            and self.prompt_tokens <= other.prompt_tokens
            and self.output_tokens * _ABOUT <= other.output_tokens
            and (other.patient or not self.patient)
        )


class HeldAlike:
    """Remembers what was held back in one pass.

    Where a request makes others late, so does one with the same TPOT target and a longer prompt; and what is placed
    during a pass makes no room.  Where hundreds are held back, a pass looks at a few of them.
    """

    __slots__ = ("_defaults", "_held", "_now")

    def __init__(self, defaults: Mapping[Priority, Targets], now: float) -> None:
        self._defaults = defaults
        self._now = now
        self._held: list[_Asked] = []

    def add(self, waiting: WaitingRequest) -> None:
        """Note a request that was held back."""
        if len(self._held) < _MOST and waiting.plain:
            self._held.append(self._asked(waiting))

    def covers(self, waiting: WaitingRequest) -> bool:
        """Whether a request is held back like one that was noted."""
        if not self._held or not waiting.plain or waiting.emitted_tokens:
            return False
        if self._now - waiting.request.arrived_at >= MOST_S:
            return False
        asked = self._asked(waiting)
        return any(held.covers(asked) for held in self._held)

    def _asked(self, waiting: WaitingRequest) -> _Asked:
        request = waiting.request
        return _Asked(
            tpot_s=effective_targets(request, self._defaults).tpot_s,
            prompt_tokens=waiting.prompt_tokens,
            output_tokens=waiting.output_tokens,
            patient=is_patient(request, self._defaults, self._now),
        )
