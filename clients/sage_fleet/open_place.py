"""Opens the place that a fleet's specification names."""

from __future__ import annotations

from sage_fleet.errors import FleetError
from sage_fleet.places.place import Place
from sage_fleet.specification.fleet import Fleet


def open_place(fleet: Fleet) -> Place:
    """Return the fleet's place; nothing is started or asked.  Raises FleetError for a group that cannot run there."""
    for name, group in fleet.groups.items():
        if group.device_group and fleet.place != "local":
            raise FleetError(f"groups.{name}.device_group: {fleet.place} gives each executor GPUs of its own")
    if fleet.place == "kubernetes":
        from sage_fleet.kubernetes_place.place import KubernetesPlace

        return KubernetesPlace(fleet)
    if fleet.place == "ray":
        from sage_fleet.ray_place.place import RayPlace

        return RayPlace(fleet)
    from sage_fleet.local_place.place import LocalPlace

    return LocalPlace(fleet)
