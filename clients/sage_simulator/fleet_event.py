"""What happens to a fleet during a simulation: an instance fails, drains, or instances are added."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sage_simulator.fleet_spec import FleetSpecError, InstanceModel, parse_instances

_FORM = re.compile(r"\s*(?P<at>\d+(\.\d*)?)\s*s?\s+(?P<what>fail|drain|add)\s+(?P<of>\S.*?)\s*")
_NUMBERED = re.compile(r"(?:instance-|i)(\d{1,6})")


class FleetChange(Enum):
    """What happens."""

    FAIL = "fail"  # its executor dies with everything on it
    DRAIN = "drain"  # it finishes what it has, takes nothing new, and leaves
    ADD = "add"  # instances join, ready at once


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetEvent:
    """One change of the fleet."""

    at_s: float  # since the trace began
    change: FleetChange
    instance_id: str = ""  # that fails or drains
    added: tuple[InstanceModel, ...] = ()


def instance_id_of(number: int) -> str:
    """Return the id of a fleet's instance; those that join later go on counting."""
    return f"i{number:03d}"


def parse_event(text: str, kinds: Mapping[str, InstanceModel] | None = None) -> FleetEvent:
    """Read an event: ``120s fail i003``, ``200s add 2xspeed=2,price=7`` or ``300s drain i001``.

    What is added is in the notation of ``parse_instances``, ``kinds`` included; ``instance-3`` is i003.
    Raises FleetSpecError.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise FleetSpecError(f"{text!r}: an event is a time, then fail, drain or add, such as '120s fail i003'")
    at_s, change = float(found["at"]), FleetChange(found["what"])
    if change is FleetChange.ADD:
        return FleetEvent(at_s=at_s, change=change, added=parse_instances(found["of"], kinds))
    numbered = _NUMBERED.fullmatch(found["of"])
    if numbered is None:
        raise FleetSpecError(f"{text!r}: {found['of']!r} is no instance; they are i000, i001 and so on")
    return FleetEvent(at_s=at_s, change=change, instance_id=instance_id_of(int(numbered[1])))
