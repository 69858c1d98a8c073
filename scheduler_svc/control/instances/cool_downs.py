"""Cool-downs: an instance whose attempts fail one after the other gets no work for a while."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sage_common.clock import Clock, Timer
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.domain.request import RequestKey

MAX_DOUBLINGS = 10
"""Bounds the exponent; the cool-down itself is bounded by ``probation_max_s`` long before."""

REQUESTS_KEPT = 256
"""Different requests whose failures on one instance are counted between two successes."""


@dataclass(slots=True, kw_only=True)
class _Record:
    failures: int = 0  # in a row, since the last success or cool-down
    failed: set[RequestKey] = field(default_factory=set)  # requests whose failures were counted since the last success
    cool_downs: int = 0  # in a row, since the last success
    reason: str = ""  # of the latest cool-down
    timer: Timer | None = None  # runs during a cool-down


class CoolDowns:
    """Counts failures in a row by instance, those of different requests only, and times the cool-downs that follow.

    The first cool-down takes ``probation_s``; each further one without a success in between takes twice as long, up to
    ``probation_max_s``.  Bounded by the instances there are: ``succeeded`` and ``forget`` drop a record.
    """

    def __init__(self, clock: Clock, settings: SessionSettings, on_over: Callable[[str], None]) -> None:
        """``on_over`` is called with the instance's id at the end of each cool-down."""
        self._clock = clock
        self._settings = settings
        self._on_over = on_over
        self._records: dict[str, _Record] = {}

    def failed(self, instance_id: str, message: str, *, may_start: bool, key: RequestKey | None = None) -> str | None:
        """Count a failure; after enough in a row, start a cool-down and return its reason, else None.

        After a cool-down a single failure is enough.  ``may_start`` is false if the instance gets no work anyway.
        ``key``: the request whose attempt failed, which counts once; None for a failure that is no request's.
        """
        record = self._records.setdefault(instance_id, _Record())
        if key is not None:
            if key in record.failed or len(record.failed) >= REQUESTS_KEPT:
                return None
            record.failed.add(key)
        record.failures += 1
        enough = 1 if record.cool_downs else self._settings.failures_to_suspect
        if record.failures < enough or not may_start:
            return None
        doublings = min(record.cool_downs, MAX_DOUBLINGS)
        seconds = min(self._settings.probation_s * 2**doublings, self._settings.probation_max_s)
        record.cool_downs += 1
        record.failures = 0
        record.reason = f"failures in a row, the latest: {message}; cools down for {seconds:.0f} s"
        record.timer = self._clock.call_at(self._clock.now() + seconds, lambda: self._end(instance_id))
        return record.reason

    def succeeded(self, instance_id: str) -> None:
        """Forget the failures of an instance, because an attempt succeeded there.

        A success during a cool-down changes nothing: that attempt began before it.
        """
        record = self._records.get(instance_id)
        if record is not None and record.timer is None:
            self.forget(instance_id)

    def forget(self, instance_id: str) -> None:
        """Drop what is known of an instance, and end its cool-down without a call."""
        record = self._records.pop(instance_id, None)
        if record is not None and record.timer is not None:
            record.timer.cancel()

    def reason(self, instance_id: str) -> str | None:
        """Return why the instance cools down; None while it does not."""
        record = self._records.get(instance_id)
        return record.reason if record is not None and record.timer is not None else None

    def _end(self, instance_id: str) -> None:
        record = self._records.get(instance_id)
        if record is not None:
            record.timer = None
        self._on_over(instance_id)
