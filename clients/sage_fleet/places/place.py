"""The port to a place that runs a fleet: this machine, a Ray cluster, a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sage_fleet.places.place_status import PlaceStatus
from sage_fleet.specification.fleet import Fleet


class Place(Protocol):
    """Runs one fleet.  Every method may be called again with the same arguments, and then changes nothing.

    All methods raise ``FleetError`` where the place cannot do what it is asked for, and are bounded in time: by the
    fleet's ``start_timeout_s`` where executors start, by its ``drain_timeout_s`` where they stop.
    """

    async def apply(self, fleet: Fleet) -> None:
        """Make the place run ``fleet``, and change only what differs; return once all executors are READY.

        A group with ``min`` and ``max`` keeps the number of executors that it has, as far as these allow.  Executors
        that are too many or of another version are drained before they end.
        """
        ...

    async def status(self) -> PlaceStatus:
        """Return what runs now; ``running`` is False where nothing was applied, or all of it was deleted."""
        ...

    async def scale(self, group: str, count: int, remove_first: Sequence[str] = ()) -> None:
        """Give a group ``count`` executors, and return once this is decided: they start and drain meanwhile.

        ``remove_first``: names of executors that had better go when there are too many, the first one first; names of
        other groups are passed over.  A place that cannot choose takes the highest numbers.

        Raises FleetError for an unknown group and a count beyond the group's bounds.
        """
        ...

    async def delete(self) -> None:
        """Drain and end everything, and return once nothing is left."""
        ...

    async def close(self) -> None:
        """Close connections to the place; what runs there goes on."""
        ...
