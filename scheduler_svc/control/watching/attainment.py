"""Decides whether a request met its targets.  Telemetry and FleetStatistics count by it.

A request that failed or was refused met no target, unless the caller was at fault: then it does not count.

Requests for a model without an instance miss their targets while the model is known: as long as a lost instance is
remembered (they end with NoInstance, or expire), and always if the configuration names the model.  After that they end
with UnknownModel and do not count; but if no model at all is known, they end with NoInstance and count.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler_svc.control.requests.observed_request import ObservedRequest
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.domain.errors import InvalidRequest, RequestCancelled, RequestConflict, UnknownModel
from scheduler_svc.domain.request import Priority, RequestState
from scheduler_svc.domain.targets import Targets, states_targets

ANY = "any"
"""Stands for the request as a whole: met if no target was missed."""

CALLERS_OWN = (InvalidRequest, RequestConflict, UnknownModel)
"""Errors that are the caller's own and say nothing about the service."""

LEFT = (asyncio.CancelledError, RequestCancelled)
"""Errors that mean that the caller no longer wanted the answer."""


@dataclass(frozen=True, slots=True)
class Attainment:
    """The targets that a request met and missed: "ttft", "tpot", "deadline" and ``ANY``.

    A target that does not count is in neither.
    """

    met: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether the request counts at all."""
        return bool(self.met or self.missed)

    @property
    def kept(self) -> bool:
        """Whether nothing was missed."""
        return not self.missed


NOTHING_COUNTS = Attainment()


def of_refused(submission: Submission, error: BaseException) -> Attainment:
    """Judge a refused request: it missed all targets it stated, and ``ANY``, unless the caller was at fault."""
    if isinstance(error, (*CALLERS_OWN, *LEFT)):
        return NOTHING_COUNTS
    stated = {"ttft": submission.ttft_target_s, "tpot": submission.tpot_target_s, "deadline": submission.deadline_s}
    return Attainment(missed=(*(name for name, target in stated.items() if target is not None), ANY))


def of_ended(live: ObservedRequest, now: float, defaults: Mapping[Priority, Targets]) -> Attainment:
    """Judge a request that ended ``now``, by its own targets or else by its class's default."""
    if isinstance(live.outcome, CALLERS_OWN):
        return NOTHING_COUNTS
    if live.state is RequestState.CANCELLED:
        missed = tuple(each.target for each in live.measure_slo(now) if not each.met)
        late = missed or not _default_met(live, now, defaults)
        return Attainment(missed=(*missed, ANY)) if late else NOTHING_COUNTS
    if live.state is not RequestState.FINISHED:
        return Attainment(missed=(*_stated(live), ANY))
    measured = live.measure_slo(now)
    met = tuple(each.target for each in measured if each.met)
    missed = tuple(each.target for each in measured if not each.met)
    if missed or not _default_met(live, now, defaults):
        return Attainment(met=met, missed=(*missed, ANY))
    return Attainment(met=(*met, ANY))


def _stated(live: ObservedRequest) -> list[str]:
    request = live.request
    stated = {"ttft": request.ttft_target_s, "tpot": request.tpot_target_s, "deadline": request.target_at}
    return [name for name, target in stated.items() if target is not None]


def _default_met(live: ObservedRequest, now: float, defaults: Mapping[Priority, Targets]) -> bool:
    """Return whether a request without a stated target met its class's default for the first token."""
    wanted = defaults[live.request.priority].ttft_s
    if states_targets(live.request) or wanted is None:
        return True
    until = live.first_token_at if live.first_token_at is not None else now
    return until - live.request.arrived_at <= wanted
