"""What a scheduler left about its instances, as text for a file or a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.domain.request import RequestKey

INSTANCES_LIMIT = 65_536
"""Instances that are written down."""

EarlierInstances = Mapping[str, EarlierInstance]
"""The instances that had a session, by id."""


def encode(instances: EarlierInstances, epoch: int) -> str:
    """Return the first INSTANCES_LIMIT instances as JSON, sorted by id.  ``epoch``: of the scheduler that writes."""
    kept = sorted(list(instances.items())[:INSTANCES_LIMIT])
    return json.dumps({"epoch": epoch, "instances": {instance_id: _as_json(each) for instance_id, each in kept}})


def decode(text: str | bytes, last_epoch: int) -> dict[str, EarlierInstance]:
    """Return the instances.  A plain list of ids is read too.

    ``last_epoch``: of the scheduler that led last.  What instances hold counts only if that one wrote the text: one
    that led after the writer may have placed other requests.  Raises ValueError.
    """
    found = json.loads(text)
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return {instance_id: EarlierInstance() for instance_id in found}
    if not isinstance(found, dict) or not isinstance(found.get("instances"), dict):
        raise ValueError("it does not name instances")
    told = found.get("epoch") == last_epoch
    return {instance_id: _instance(each, told) for instance_id, each in found["instances"].items()}


def _as_json(instance: EarlierInstance) -> dict[str, Any]:
    written: dict[str, Any] = {"model": instance.model}
    if instance.holds is not None:
        written["holds"] = sorted(instance.holds)
    return written


def _instance(found: Any, told: bool) -> EarlierInstance:
    """Return one instance.  Raises ValueError."""
    try:
        holds = found.get("holds") if told else None
        keys = None if holds is None else frozenset(RequestKey(tenant=str(t), request_id=str(r)) for t, r in holds)
        return EarlierInstance(model=str(found.get("model", "")), holds=keys)
    except (AttributeError, TypeError) as error:
        raise ValueError("what it says of an instance makes no sense") from error
