"""The connection to a Ray cluster, where there is none, or one that does not answer."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest

from sage_fleet.errors import FleetError
from sage_fleet.ray_place import ray_cluster
from sage_fleet.ray_place.blocking_calls import hanging
from sage_fleet.ray_place.ray_cluster import RayCluster
from tests.support.eventually import eventually


async def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(FleetError, match=r"^ray is not installed: pip install 'sage-control-plane\[ray\]'$"):
        await RayCluster("auto").actors("f")


class HangingRay(ModuleType):
    """In the place of the package ray: connects, and then nothing returns before ``release``."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.release = threading.Event()

    def init(self, **options: object) -> None: ...

    def is_initialized(self) -> bool:
        return False

    def nodes(self) -> list[object]:
        self.release.wait()
        return []

    def shutdown(self) -> None:
        self.release.wait()


async def test_a_cluster_that_hangs_is_given_up_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = HangingRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    for limit in ("CALL_TIMEOUT_S", "CLOSE_TIMEOUT_S"):
        monkeypatch.setattr(ray_cluster, limit, 0.01)
    cluster = RayCluster("auto")
    with pytest.raises(FleetError, match=r"^the Ray cluster at auto did not answer in 0\.01 s$"):
        await cluster.actors("f")
    await cluster.close()
    assert hanging()
    ray.release.set()
    await eventually(lambda: not hanging(), what="calls to return")


class LateRay(ModuleType):
    """In the place of the package ray: the first connection comes after ``release``."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.release = threading.Event()
        self.connections = 0

    def is_initialized(self) -> bool:
        return self.connections > 0

    def init(self, **options: object) -> None:
        assert not self.connections, "connected twice"
        self.release.wait()
        self.connections = 1

    def shutdown(self) -> None:
        self.connections = 0


async def test_a_connection_that_came_too_late_is_ended_and_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = LateRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_cluster, "_records", lambda ray, fleet: ())
    monkeypatch.setattr(ray_cluster, "CONNECT_TIMEOUT_S", 0.01)
    cluster = RayCluster("auto")
    with pytest.raises(FleetError, match="did not answer"):
        await cluster.actors("f")
    ray.release.set()
    await eventually(lambda: not hanging(), what="the call to return")
    monkeypatch.setattr(ray_cluster, "CONNECT_TIMEOUT_S", 30.0)
    assert await cluster.actors("f") == ()
    assert ray.connections == 1
