"""The two roles between which instances change."""

from __future__ import annotations

from scheduler_svc.domain.instance_spec import InstanceRole

SIDES = frozenset({InstanceRole.PREFILLING, InstanceRole.DECODING})
