"""A role that an executor kept: an earlier scheduler gave it by itself."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRole:
    """The change by which the role came."""

    role: InstanceRole
    previous: InstanceRole
    cause: Cause
    reason: str  # in words
    age_s: float  # seconds since the change
