"""The settings of a group's executors, as environment variables: every place starts ``executor_svc`` with these."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sage_fleet.specification.fleet import Fleet
from sage_fleet.specification.group import SPLIT_ROLES, GroupSection

PREFIX = "SAGE_EXECUTOR_"
GROUP_LABEL = "group"  # label of every instance, with the name of its group
KV_CONNECTOR = "NixlConnector"  # transfers KV between executors that prefill and executors that decode


def executor_settings(fleet: Fleet, group: str) -> dict[str, str]:
    """Return the variables that all executors of a group have in common.

    The place adds each executor's ``SAGE_EXECUTOR_INSTANCE_ID``, what connects it to the scheduler
    (``SAGE_EXECUTOR_SCHEDULER``, TLS, token), and the node's zone where the group names none.
    """
    described = fleet.groups[group]
    settings: dict[str, Any] = {
        "role": described.role,
        "labels": {GROUP_LABEL: group},
        "price_per_hour": described.price_per_hour,
        "drain_timeout_s": fleet.drain_timeout_s,
        "engine": _engine(fleet, described),
    }
    if described.device_group:
        settings["device_group"] = {"name": f"{fleet.name}.{described.device_group}"}
    if described.zone:
        settings["location"] = {"zone": described.zone}
    return dict(variables(PREFIX, settings))


def variables(prefix: str, settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Give settings of a service as environment variables: ``{engine: {kind: vllm}}`` is PREFIX + ``ENGINE__KIND``.

    A list is JSON; so is a mapping with keys that no variable could have.
    """
    for key, value in settings.items():
        name = f"{prefix}{key.upper()}"
        if isinstance(value, Mapping) and key not in _AS_JSON:
            yield from variables(f"{name}__", value)
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


_AS_JSON = frozenset({"labels", "adapters", "engine_args", "extra", "tenants", "models", "wait_limit_s"})
"""Settings whose keys are names of the user's, in which upper and lower case differ."""


def _engine(fleet: Fleet, group: GroupSection) -> dict[str, Any]:
    own: dict[str, Any] = {}
    if group.sleeps:
        own["sleep_mode"] = True
    elif fleet.splits and group.role in SPLIT_ROLES | {"general"}:
        # A general executor gets a connector too, because `sagectl role` can give it another role later.
        own["kv_transfer"] = {"connector": KV_CONNECTOR}
    if group.engine == "vllm" and group.gpus > 1:
        own |= {"tensor_parallel_size": group.tensor_parallel, "pipeline_parallel_size": group.pipeline_parallel}
    model = {"model": group.model, "served_name": group.name_in_requests, "revision": group.revision}
    return {
        "kind": group.engine,
        "model": {name: value for name, value in model.items() if value},
        group.engine: own | group.engine_arguments,
    }
