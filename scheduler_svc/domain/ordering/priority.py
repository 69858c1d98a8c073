"""By class, with ageing."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.waiting_request import WaitingRequest

#: Classes that CRITICAL is ahead of HIGH by, beyond the one: a queue that an overload made a minute long holds requests
#: that have aged past every other class, and CRITICAL ones would wait until all of those are served.
_LEAD = 4


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class ByClass:
    """Orders by class, with ageing.

    Key: arrival + ``ageing_s_per_class`` for every class below CRITICAL, which counts as five classes above HIGH.  So
    waiting that long makes up for one class.  A BACKGROUND request is overtaken only by those of other classes that
    arrive within 3 x ``ageing_s_per_class`` of it, and by CRITICAL ones that arrive within 8 x of it.
    """

    by_arrival = True  # within a class

    def __init__(self, ageing_s_per_class: float) -> None:
        self._ageing_s = ageing_s_per_class

    @property
    def max_delay_s(self) -> float:
        """Seconds by which a key may be later than arrival."""
        return self._behind_critical_s(Priority.BACKGROUND)

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return arrival + class."""
        request = waiting.request
        return request.arrived_at + self._behind_critical_s(request.priority)

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return None: a key never changes."""
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        request = waiting.request
        worth = self._behind_critical_s(request.priority)
        waited = now - request.arrived_at
        return f"class {request.priority.name} ({worth:.0f} s behind CRITICAL), aged by {waited:.2f} s of waiting"

    def _behind_critical_s(self, priority: Priority) -> float:
        if priority is Priority.CRITICAL:
            return 0.0
        return self._ageing_s * (priority - Priority.CRITICAL + _LEAD)
