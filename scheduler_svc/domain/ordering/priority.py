"""By class, with ageing."""

from __future__ import annotations

from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.waiting_request import WaitingRequest


class ByClass:
    """Key: arrival + ``ageing_s_per_class`` for every class below CRITICAL.

    So waiting that long makes up for one class, and a request is overtaken only by what arrives within
    4 x ``ageing_s_per_class`` of it.
    """

    def __init__(self, ageing_s_per_class: float) -> None:
        self._ageing_s = ageing_s_per_class

    @property
    def max_delay_s(self) -> float:
        return self._ageing_s * (Priority.BACKGROUND - Priority.CRITICAL)

    def key(self, waiting: WaitingRequest, now: float) -> float:
        request = waiting.request
        return request.arrived_at + self._ageing_s * (request.priority - Priority.CRITICAL)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        request = waiting.request
        worth = self._ageing_s * (request.priority - Priority.CRITICAL)
        waited = now - request.arrived_at
        return f"class {request.priority.name} ({worth:.0f} s behind CRITICAL), aged by {waited:.2f} s of waiting"
