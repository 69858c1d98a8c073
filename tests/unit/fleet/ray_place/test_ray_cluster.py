"""The connection to a Ray cluster, where there is none."""

from __future__ import annotations

import sys

import pytest

from sage_fleet.errors import FleetError
from sage_fleet.ray_place.ray_cluster import RayCluster


async def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FleetError, match=r"^ray is not installed: pip install 'sage-control-plane\[ray\]'$"):
        await RayCluster("auto").actors("f")
