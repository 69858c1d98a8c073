"""By class, and the cheapest to serve first within a class."""

from __future__ import annotations

from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.waiting_request import WaitingRequest


class CheapestFirst:
    """Orders by class, and by predicted service within a class.

    Key: arrival + ``ageing_s_per_class`` for every class below CRITICAL + predicted seconds of service, up to a cap.
    Serving the cheap first shortens the mean wait; the cap keeps an expensive request from waiting for ever, and is
    less than a class is worth, so that classes stay apart.  If the request's
    deadline needs an earlier start, the key is that start.
    """

    def __init__(self, *, ageing_s_per_class: float, delay_cap_s: float) -> None:
        self._ageing_s = ageing_s_per_class
        self._cap_s = min(delay_cap_s, ageing_s_per_class)

    @property
    def max_delay_s(self) -> float:
        """Seconds by which a key may be later than arrival."""
        return self._ageing_s * (Priority.BACKGROUND - Priority.CRITICAL) + self._cap_s

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return arrival + class + predicted service, or the latest start that meets the deadline if earlier."""
        request = waiting.request
        service_s = self._service_s(waiting)
        by_class = self._ageing_s * (request.priority - Priority.CRITICAL)
        due = request.arrived_at + by_class + min(service_s, self._cap_s)
        if request.target_at is not None:
            due = min(due, request.target_at - service_s)
        return max(due, request.arrived_at)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return None: a key never changes."""
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        priority = waiting.request.priority.name
        service_s = self._service_s(waiting)
        return f"class {priority}, predicted service {service_s:.2f} s: due in {waiting.key - now:.2f} s"

    def _service_s(self, waiting: WaitingRequest) -> float:
        return waiting.pace.service_s(waiting.prompt_tokens, waiting.output_tokens)
