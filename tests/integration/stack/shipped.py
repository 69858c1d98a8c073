"""What lies in docker/, read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
DOCKER = ROOT / "docker"
ALERTS = DOCKER / "prometheus" / "alerts.yml"
PROMETHEUS = DOCKER / "prometheus" / "prometheus.yml"
DOCKERFILES = sorted([*DOCKER.glob("*.Dockerfile"), *DOCKER.glob("*/Dockerfile")])
DASHBOARDS = sorted(DOCKER.glob("grafana/dashboards/*.json"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One PromQL expression and where it is."""

    where: str
    expression: str

    @property
    def filled(self) -> str:
        """As Grafana would send it, for every model."""
        return self.expression.replace("$model", ".*").replace("$__rate_interval", "1m")


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def panels(path: Path) -> list[dict[str, Any]]:
    """Without the rows that only hold them apart."""
    return [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]


def dashboard_queries() -> Iterator[Query]:
    for path in DASHBOARDS:
        for panel in panels(path):
            for target in panel["targets"]:
                yield Query(where=f"{path.stem}: {panel['title']}", expression=target["expr"])


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(ALERTS)["groups"] for rule in group["rules"]]
