"""An engine on several nodes: its workers run in the placement group that the fleet reserved."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from executor_svc.engine.vllm.gpus import Gpus
from executor_svc.engine.vllm.ray_group import in_group
from executor_svc.runtime.engine_port import EngineError


class EngineArgs:
    distributed_executor_backend: str | None = None

    def create_engine_config(self, usage_context: str) -> Any:
        return types.SimpleNamespace(parallel_config=types.SimpleNamespace(placement_group=None), usage=usage_context)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The placement groups of a Ray that this process is connected to."""
    known: dict[str, object] = {}

    def get_placement_group(name: str) -> object:
        if name not in known:
            raise ValueError(f"Failed to look up {name}")
        return known[name]

    ray: Any = types.ModuleType("ray")
    ray.is_initialized = lambda: True
    ray.util = types.SimpleNamespace(get_placement_group=get_placement_group)
    monkeypatch.setitem(sys.modules, "ray", ray)
    return known


def test_the_configuration_has_the_group_and_the_backend_that_uses_it(groups: dict[str, object]) -> None:
    groups["sage/f/g/1/v"] = group = object()
    engine_args = in_group(EngineArgs(), "sage/f/g/1/v")
    config = engine_args.create_engine_config("engine")
    assert config.parallel_config.placement_group is group
    assert config.usage == "engine"
    assert engine_args.distributed_executor_backend == "ray"


def test_a_group_that_ray_does_not_have_is_named(groups: dict[str, object]) -> None:
    with pytest.raises(EngineError, match=r"vllm\.ray_placement_group: other: Failed to look up"):
        in_group(EngineArgs(), "other")


def test_the_memory_of_gpus_on_other_machines_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    platforms: Any = types.ModuleType("vllm.platforms")
    platforms.current_platform = types.SimpleNamespace(is_cpu=lambda: False, is_cuda=lambda: True)
    monkeypatch.setitem(sys.modules, "vllm", types.ModuleType("vllm"))
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    parallel = types.SimpleNamespace(world_size=16, placement_group=object())
    gpus = Gpus(types.SimpleNamespace(parallel_config=parallel))
    assert (gpus.count, gpus.total_bytes, gpus.used_bytes()) == (16, None, None)
