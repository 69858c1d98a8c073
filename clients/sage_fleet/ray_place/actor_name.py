"""The names of the actors and placement groups of executors: all that Ray has to remember of a fleet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

NAMESPACE = "sage"  # Ray's, of the actors and placement groups of all fleets
_MARK = "sage"  # begins every name, so that actors of other applications in the namespace are left alone
_PARTS = 5


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ActorName:
    """Names the actor of an executor and its placement group, as ``sage/FLEET/GROUP/NUMBER/VERSION``.

    No part can have a slash (``specification/names.py``).
    """

    fleet: str
    group: str
    number: int  # from 1
    version: str  # ``group_version`` of the specification that it was started from

    @property
    def instance_id(self) -> str:
        """The executor's instance id."""
        return f"{self.group}-{self.number}"

    def __str__(self) -> str:
        return "/".join((_MARK, self.fleet, self.group, str(self.number), self.version))

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a name; None if it is no executor's."""
        parts = name.split("/")
        if len(parts) != _PARTS or parts[0] != _MARK or not parts[3].isdecimal():
            return None
        return cls(fleet=parts[1], group=parts[2], number=int(parts[3]), version=parts[4])
