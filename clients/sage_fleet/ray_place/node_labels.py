"""The settings of an executor that follow from the labels of the Ray node that it runs on."""

from __future__ import annotations

import math
from collections.abc import Mapping

ZONE_LABEL = "ray.io/availability-zone"  # Ray's own name; cloud providers' node providers fill it
PRICE_LABEL = "sage/price-per-hour"  # price of one executor on this node per hour


def node_settings(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of ``executor_svc`` that a node's labels give: its zone and its price.

    They win over the specification's, as an executor that Ray restarts may come to another node.  A price that is no
    number of at least 0 is ignored.
    """
    settings = {}
    if zone := labels.get(ZONE_LABEL):
        settings["SAGE_EXECUTOR_LOCATION__ZONE"] = zone
    if _is_price(price := labels.get(PRICE_LABEL, "")):
        settings["SAGE_EXECUTOR_PRICE_PER_HOUR"] = price
    return settings


def _is_price(text: str) -> bool:
    try:
        price = float(text)
    except ValueError:
        return False
    return math.isfinite(price) and price >= 0
