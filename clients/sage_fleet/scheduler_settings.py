"""The settings of a fleet's scheduler, as environment variables: every place that starts one starts it with these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sage_fleet.executor_settings import variables
from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.group import GroupSection

PREFIX = "SAGE_SCHEDULER_"


def scheduler_settings(fleet: Fleet) -> dict[str, str]:
    """Return the scheduler's variables: what ``scheduler.settings`` says, its journal, and the bounds of scaled models.

    The place adds its address, its directory and its TLS files.
    """
    found = dict(variables(PREFIX, fleet.scheduler.settings))
    if fleet.scheduler.insecure:
        found[f"{PREFIX}INSECURE"] = "true"
    if fleet.scheduler.journal:
        found[f"{PREFIX}JOURNAL__URL"] = fleet.scheduler.journal
    if bounds := scaled_models(fleet):
        found[f"{PREFIX}SCALING__ENABLED"] = "true"
        found[f"{PREFIX}SCALING__MODELS"] = json.dumps(_with_bounds(fleet, bounds))
    return found


def _with_bounds(fleet: Fleet, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the models that ``scheduler.settings`` declares, with the bounds of the groups in place of its own."""
    scaling = fleet.scheduler.settings.get("scaling")
    declared = scaling.get("models") if isinstance(scaling, Mapping) else None
    found: dict[str, Any] = dict(declared) if isinstance(declared, Mapping) else {}
    for model, roles in bounds.items():
        own = found.get(model)
        found[model] = {**own, **roles} if isinstance(own, Mapping) else roles
    return found


def scaled_role(group: GroupSection) -> str:
    """Return the role under which the scheduler counts a group's instances: hybrid ones are general ones."""
    return "general" if group.role == "hybrid" else group.role


def scaled_models(fleet: Fleet) -> Mapping[str, Any]:
    """Return the bounds of each model and role of which a group has ``min`` and ``max``: those of all its groups."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    scaled = {(each.name_in_requests, scaled_role(each)) for each in fleet.groups.values() if each.is_scaled}
    for model, role in sorted(scaled):
        own = [each for each in fleet.groups.values() if (each.name_in_requests, scaled_role(each)) == (model, role)]
        found.setdefault(model, {})[role] = {
            "min": sum(each.least for each in own),
            "max": sum(each.most for each in own),
        }
    return found
