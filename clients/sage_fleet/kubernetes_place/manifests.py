"""Finds our manifests, ``docker/kubernetes``, on which every overlay stands."""

from __future__ import annotations

from pathlib import Path

from sage_fleet.errors import FleetError
from sage_fleet.specification.fleet import Fleet

IN_CHECKOUT = Path(__file__).parents[3] / "docker" / "kubernetes"
PARTS = ("base", "executor", "multinode", "components")


def manifests_of(fleet: Fleet) -> Path:
    """Return the folder of the manifests.  Raises FleetError if there is none."""
    folder = fleet.kubernetes.manifests or IN_CHECKOUT
    for part in PARTS:
        if not (folder / part).is_dir():
            raise FleetError(
                f"kubernetes.manifests: {folder} has no folder {part}; give that of docker/kubernetes in a checkout"
            )
    return folder
