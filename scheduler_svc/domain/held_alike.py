"""What a pass need not look at, because something that asks for no more is held back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler_svc.domain.objectives.held_back import MOST_LATE_S, is_patient
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.targets import Targets, effective_targets, ttft_target_of
from scheduler_svc.domain.waiting_request import WaitingRequest

_MOST = 16  # requests that are remembered
#: How many times longer a prompt may be: one that is far longer may have to go before the wait makes it late.
_LONGER = 2
_ABOUT = 0.9  # share of another output length that counts as no shorter: both are predictions


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What a request asks for that decides whether it makes others late."""

    targets: Targets
    ttft_s: float | None  # by which it is patient, its class's where it states none
    prompt_tokens: int
    output_tokens: int
    patient: bool

    def covers(self, other: _Asked) -> bool:
        """Whether the other one is held back as well: it asks for as much, and is not the first whose wait is over."""
        return (
            self.targets == other.targets
            and self.ttft_s == other.ttft_s
            and self.prompt_tokens <= other.prompt_tokens <= _LONGER * self.prompt_tokens
            and self.output_tokens * _ABOUT <= other.output_tokens
            and (other.patient or not self.patient)
        )


class HeldAlike:
    """Remembers what was held back in one pass.

    Where a request makes others late, so does one with the same targets and a longer prompt that may go to the same
    instances; and what is placed during a pass makes no room.  Where hundreds are held back, a pass looks at a few of
    them.  Requests with wishes or limits of their own are always looked at.
    """

    __slots__ = ("_defaults", "_held", "_now")

    def __init__(self, defaults: Mapping[Priority, Targets], now: float) -> None:
        self._defaults = defaults
        self._now = now
        self._held: list[_Asked] = []

    def add(self, waiting: WaitingRequest) -> None:
        """Note a request that was held back."""
        if len(self._held) < _MOST and _is_simple(waiting):
            self._held.append(self._asked(waiting))

    def covers(self, waiting: WaitingRequest) -> bool:
        """Whether a request is held back like one that was noted."""
        if not self._held or not _is_simple(waiting):
            return False
        asked = self._asked(waiting)
        if not asked.patient and self._now - waiting.request.arrived_at >= MOST_LATE_S:
            return False
        return any(held.covers(asked) for held in self._held)

    def _asked(self, waiting: WaitingRequest) -> _Asked:
        request = waiting.request
        return _Asked(
            targets=effective_targets(request, self._defaults),
            ttft_s=ttft_target_of(request, self._defaults),
            prompt_tokens=waiting.prompt_tokens,
            output_tokens=waiting.output_tokens,
            patient=is_patient(request, self._defaults, self._now),
        )


def _is_simple(waiting: WaitingRequest) -> bool:
    """Whether nothing but its size, its targets and its wait decides whether a request is held back."""
    request = waiting.request
    limited = waiting.excluded or request.cost_budget is not None or request.target_at is not None
    wishes = request.session or request.preferred_instance
    return waiting.plain and not (waiting.emitted_tokens or limited or wishes)
