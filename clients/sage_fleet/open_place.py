"""Opens the place that a fleet's specification names."""

from __future__ import annotations

from sage_fleet.errors import FleetError
from sage_fleet.places.place import Place
from sage_fleet.specification.fleet import Fleet


def open_place(fleet: Fleet) -> Place:
    """Return the fleet's place; nothing is started or asked.  Raises FleetError where it cannot be used from here."""
    if fleet.place == "kubernetes":
        from sage_fleet.kubernetes_place.place import KubernetesPlace

        return KubernetesPlace(fleet)
    if fleet.place == "ray":
        raise FleetError("place: ray is not available in this version")
    from sage_fleet.local_place.place import LocalPlace

    return LocalPlace(fleet)
