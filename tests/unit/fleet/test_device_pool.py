"""Which GPUs and CPU cores of this machine each executor gets."""

from __future__ import annotations

import pytest

from sage_fleet.errors import FleetError
from sage_fleet.local_place.device_pool import DevicePool
from sage_fleet.specification.group import GroupSection


def gpu_group(gpus: int) -> GroupSection:
    return GroupSection(model="m", gpus=gpus, tensor_parallel=gpus)


def test_each_executor_gets_gpus_of_its_own_until_none_is_free() -> None:
    pool = DevicePool(["0", "1", "2"], [0])
    assert pool.take("a", gpu_group(2)).environment == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert not pool.has_room(gpu_group(2))
    assert pool.take("b", gpu_group(1)).where == "GPU 2"
    pool.give_back("a")
    assert pool.has_room(gpu_group(2))
    assert pool.take("c", gpu_group(1)).environment == {"CUDA_VISIBLE_DEVICES": "0"}


def test_executors_of_a_device_group_share_their_gpus() -> None:
    shared = GroupSection(model="m", gpus=1, device_group="g")
    other = GroupSection(model="n", gpus=1, device_group="h")
    pool = DevicePool(["0", "1"], [0])
    assert [pool.take(name, shared).where for name in ("a", "b")] == ["GPU 0", "GPU 0"]
    assert pool.take("c", gpu_group(1)).where == "GPU 1"
    assert pool.has_room(shared)
    assert not pool.has_room(other)
    pool.give_back("a")
    assert not pool.has_room(other), "another one still has it"
    pool.give_back("b")
    assert pool.take("d", other).where == "GPU 0"


def test_simulated_engines_need_no_gpus_whatever_the_file_says() -> None:
    pool = DevicePool([], [0])
    group = GroupSection(model="m", engine="simulated", gpus=1, device_group="g")
    pool.check(group)
    assert pool.has_room(group)
    assert pool.take("a", group).where == ""


def test_more_gpus_than_there_are_are_refused() -> None:
    with pytest.raises(FleetError, match="gpus is 2: this machine has 1"):
        DevicePool(["0"], [0]).check(gpu_group(2))
    DevicePool(["0"], [0]).check(gpu_group(1))


def test_an_engine_on_the_cpu_gets_the_cores_that_fewest_use() -> None:
    pool = DevicePool([], [0, 1, 2])
    first = pool.take("a", GroupSection(model="m", cpus=2))
    assert (first.cores, first.warning) == ("0,1", "")
    second = pool.take("b", GroupSection(model="m", cpus=2))
    assert (second.cores, second.warning) == ("0,2", "cores shared with other executors: 0")
    pool.give_back("a")
    assert pool.take("c", GroupSection(model="m")).cores == "1"


def test_what_a_group_says_of_its_engine_counts_more_than_what_suits_a_cpu() -> None:
    bare = DevicePool([], [0]).take("a", GroupSection(model="m")).arguments
    assert "--engine.vllm.enforce-eager" in bare
    assert "--engine.vllm.kv-cache-bytes" in bare
    own = GroupSection(model="m", engine_arguments={"enforce_eager": False, "kv_cache_bytes": 5})
    assert DevicePool([], [0]).take("a", own).arguments == ("--engine.vllm.cpu-cores", "0")


def test_a_simulated_engine_needs_none() -> None:
    pool = DevicePool([], [0])
    assert pool.take("a", GroupSection(model="m", engine="simulated")).cores == ""
    assert pool.has_room(GroupSection(model="m", engine="simulated"))
