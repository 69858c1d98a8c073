"""The resources that Ray reserves."""

from __future__ import annotations

from typing import Any

from sage_fleet.ray_place.bundles import reservation
from sage_fleet.specification.group import GroupSection


def group(**fields: Any) -> GroupSection:
    return GroupSection.model_validate({"model": "m"} | fields)


def test_an_engine_without_gpus_takes_cpus_of_one_node() -> None:
    found = reservation(group(cpus=4), gpus_per_node=8)
    assert found.bundles == ({"CPU": 4.0},)
    assert (found.strategy, found.actor_cpus, found.actor_gpus) == ("STRICT_PACK", 4, 0)


def test_an_engine_that_a_node_can_hold_is_on_one_node() -> None:
    found = reservation(group(gpus=8, tensor_parallel=8), gpus_per_node=8)
    assert found.bundles == ({"CPU": 1.0, "GPU": 8.0},)
    assert (found.strategy, found.actor_gpus, found.spans_nodes) == ("STRICT_PACK", 8, False)


def test_a_larger_engine_has_a_bundle_for_each_gpu_and_its_actor_leaves_them_to_the_workers() -> None:
    found = reservation(group(gpus=4, tensor_parallel=2, pipeline_parallel=2), gpus_per_node=2)
    assert found.bundles == ({"CPU": 1.0, "GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0}, {"GPU": 1.0})
    assert (found.strategy, found.actor_cpus, found.actor_gpus, found.spans_nodes) == ("PACK", 1, 0, True)
