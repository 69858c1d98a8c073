"""A modelled fleet as a file: what ``sagectl simulate calibrate`` writes and ``--fleet FILE`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sage_simulator.fleet_spec import FleetSpecError, InstanceModel
from sage_simulator.heartbeats import HeartbeatTimes
from sage_simulator.simulation_settings import SimulationSettings
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.prediction.pace import Pace

FORMAT = "sage_fleet"
VERSION = 1

_NEITHER = "neither a fleet of `sagectl simulate calibrate --out` nor a recording"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetFile:
    """Instances, and what lies between them and the scheduler."""

    instances: Sequence[InstanceModel]
    delay_s: float  # between scheduler and engine, one way
    noise: float  # sigma of the logarithm of a step's random factor
    heartbeats: HeartbeatTimes

    def settings(self) -> SimulationSettings:
        """Return the default settings with what lies between the scheduler and these instances."""
        return SimulationSettings(network_delay_s=self.delay_s, noise=self.noise, heartbeats=self.heartbeats)


def write_fleet(fleet: FleetFile, path: Path) -> None:
    """Write a fleet.  Raises OSError."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "delay_s": fleet.delay_s,
        "noise": fleet.noise,
        "heartbeats": _values(fleet.heartbeats),
        "instances": [_instance(each) for each in fleet.instances],
    }
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_fleet(path: Path) -> FleetFile:
    """Read a fleet.  Raises FleetSpecError, which names the file and what is wrong, and OSError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FleetSpecError(f"{path}: {_NEITHER}: not JSON: {error}") from None
    try:
        return _fleet(content)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise FleetSpecError(f"{path}: {what}") from None


def _fleet(content: Any) -> FleetFile:
    found = _object(content, "the file")
    if (found.get("format"), found.get("version")) != (FORMAT, VERSION):
        raise ValueError(f"{_NEITHER}: expected the format {FORMAT!r}, version {VERSION}")
    instances = found["instances"]
    if not isinstance(instances, list) or not instances:
        raise ValueError("instances: expected a list of at least one")
    delay_s, noise = _number(found, "delay_s"), _number(found, "noise")
    return FleetFile(
        instances=tuple(_instance_model(each, f"instances[{number}]") for number, each in enumerate(instances)),
        delay_s=delay_s,
        noise=noise,
        heartbeats=HeartbeatTimes(**_known(found["heartbeats"], HeartbeatTimes, "heartbeats")),
    )


def _instance(model: InstanceModel) -> dict[str, Any]:
    values = _values(model)
    return values | {"role": model.role.value, "pace": _values(model.pace)}


def _instance_model(content: Any, where: str) -> InstanceModel:
    values = _known(content, InstanceModel, where)
    if "pace" in values:
        values["pace"] = Pace(**_known(values["pace"], Pace, f"{where}.pace"))
    if "role" in values:
        values["role"] = InstanceRole(values["role"])
    return InstanceModel(**values)


def _values(of: Any) -> dict[str, Any]:
    return {each.name: getattr(of, each.name) for each in fields(of)}


def _known(content: Any, kind: type[Any], where: str) -> dict[str, Any]:
    """Return an object's fields, each a number, or what its default is.  Raises ValueError, which names the field."""
    values = dict(_object(content, where))
    names = {each.name: each.default for each in fields(kind)}
    for name, value in values.items():
        if name not in names:
            raise ValueError(f"{where}.{name}: there is no such field")
        expected = type(names[name]) if isinstance(names[name], bool | str) else None
        if name in ("pace", "role"):
            continue
        if expected is None and isinstance(value, int | float) and not isinstance(value, bool):
            continue
        if expected is None or not isinstance(value, expected):
            raise ValueError(
                f"{where}.{name}: {value!r:.80} is no {'number' if expected is None else expected.__name__}"
            )
    return values


def _object(content: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(content, dict):
        raise ValueError(f"{where}: expected an object, got {type(content).__name__}")
    return content


def _number(content: Mapping[str, Any], name: str) -> float:
    value = content[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"{name}: {value!r:.80} is not zero or a positive number")
    return float(value)
