"""The entrance of the domain: who goes next, where, and why, as one synchronous object.

It has no clock and no tasks: ``now`` (seconds on the scheduler's monotonic clock, never going back) comes with every
call, and nothing happens between calls.
"""

from __future__ import annotations

from scheduler_svc.domain.entrance.instances import Instances
from scheduler_svc.domain.entrance.models import Models
from scheduler_svc.domain.entrance.passes import Passes
from scheduler_svc.domain.entrance.waiting_room import WaitingRoom
from scheduler_svc.domain.fleet.running_attempts import PROGRESS_TOKENS
from scheduler_svc.domain.settings import SchedulerSettings

__all__ = ["PROGRESS_TOKENS", "Scheduler", "SchedulerSettings"]


class Scheduler(Instances, WaitingRoom, Passes, Models):
    """Takes instances and requests in and gives decisions out.  The entrance of the domain.

    One per scheduler service.  Bounds are in ``SchedulerSettings``; each method says what happens at its bound.  Its
    methods are in ``entrance/``, by what they are about.
    """
