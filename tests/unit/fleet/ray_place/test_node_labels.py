"""Settings from the labels of a node."""

from __future__ import annotations

import pytest

from sage_fleet.ray_place.node_labels import node_settings


def test_zone_and_price_come_from_the_nodes_labels() -> None:
    labels = {"ray.io/node-id": "1", "ray.io/availability-zone": "eu-1a", "sage/price-per-hour": "3.20"}
    assert node_settings(labels) == {
        "SAGE_EXECUTOR_LOCATION__ZONE": "eu-1a",
        "SAGE_EXECUTOR_PRICE_PER_HOUR": "3.20",
    }


@pytest.mark.parametrize("price", ["", "cheap", "-1", "nan", "inf"])
def test_a_price_that_is_none_is_ignored(price: str) -> None:
    assert node_settings({"sage/price-per-hour": price}) == {}
