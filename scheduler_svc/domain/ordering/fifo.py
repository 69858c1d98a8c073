"""First come, first served."""

from __future__ import annotations

from mypy_extensions import mypyc_attr

from scheduler_svc.domain.waiting_request import WaitingRequest


@mypyc_attr(allow_interpreted_subclasses=True)  # policies of others may extend it
class Fifo:
    """Orders by arrival.  A resumed request keeps its arrival, so it goes to the front."""

    max_delay_s = 0.0
    by_class = False  # tenants share out all classes together
    by_arrival = True

    def key(self, waiting: WaitingRequest, now: float) -> float:
        """Return the arrival."""
        return waiting.request.arrived_at

    def revise(self, waiting: WaitingRequest, now: float) -> float | None:
        """Return None: a key never changes."""
        return None

    def describe(self, waiting: WaitingRequest, now: float) -> str:
        """Say what the request is ordered by."""
        return f"arrival, {now - waiting.request.arrived_at:.2f} s ago"
