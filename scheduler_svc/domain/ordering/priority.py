"""By class, with ageing."""

from __future__ import annotations

from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.waiting_request import WaitingRequest


class ByClass:
    """Orders by class, with ageing.

    Key: arrival + ``ageing_s_per_class`` for every class below CRITICAL.  So waiting that long makes up for one class,
    and a request is overtaken only by those that arrive within 4 x ``ageing_s_per_class`` of it.
    """

    by_arrival = True  # within a class

    def __init__(self, ageing_s_per_class: float) -> None:
        self._ageing_s = ageing_s_per_class

    @property
    def max_delay_s(self) -> float:
        """Seconds by which a key may be later than arrival."""
        return self._ageing_s * (Priority.BACKGROUND - Priority.CRITICAL)

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return arrival + class."""
        request = waiting.request
        return request.arrived_at + self._ageing_s * (request.priority - Priority.CRITICAL)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return None: a key never changes."""
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        request = waiting.request
        worth = self._ageing_s * (request.priority - Priority.CRITICAL)
        waited = now - request.arrived_at
        return f"class {request.priority.name} ({worth:.0f} s behind CRITICAL), aged by {waited:.2f} s of waiting"
