"""Names what was applied by a hash, so that a place can tell what a later ``apply`` changes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from sage_fleet.executor_settings import executor_settings
from sage_fleet.scheduler_settings import scaled_models
from sage_fleet.specification.fleet import Fleet

_SIZE_BYTES = 6
_DIALLED: Any = {"address": True, "standby": True, "insecure": True, "tls": {"ca"}, "access": {"executor_token_file"}}
"""Fields of the scheduler that executors connect by."""


def group_version(fleet: Fleet, group: str) -> str:
    """Return the version of a group: what its executors are started with, but neither their names nor number."""
    described = fleet.groups[group]
    own: dict[str, object] = {"cpus": described.cpus, "memory_gib": described.memory_gib, "gpus": described.gpus}
    if fleet.place == "ray":  # an actor keeps what it was created with
        scheduler = fleet.scheduler.model_dump(mode="json", include=_DIALLED)
        own |= {"scheduler": scheduler, "ray": fleet.ray.model_dump(exclude={"address"})}
    return _hash([executor_settings(fleet, group), own])


def services_version(fleet: Fleet) -> str:
    """Return the version of the scheduler and the gateway."""
    gateway = fleet.gateway.model_dump(mode="json") if fleet.gateway else None
    own = [fleet.scheduler.model_dump(mode="json"), scaled_models(fleet), gateway]
    return _hash([own, fleet.splits, fleet.drain_timeout_s])


def _hash(of: object) -> str:
    text = json.dumps(of, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=_SIZE_BYTES).hexdigest()
