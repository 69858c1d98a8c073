"""A metrics page, fetched and parsed as Prometheus would."""

from __future__ import annotations

import asyncio
import urllib.request
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families


@dataclass(frozen=True, slots=True)
class Page:
    families: dict[str, Metric]  # by name, a counter's without _total

    def total(self, name: str, **labels: str) -> float:
        """Sum over the samples of one series name whose labels include these."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def label_sets(self, name: str) -> list[dict[str, str]]:
        return [s.labels for family in self.families.values() for s in family.samples if s.name == name]


async def scrape(port: int) -> Page:
    return parse(await asyncio.to_thread(fetch, port))


def fetch(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        body: bytes = answer.read()
    return body.decode()


def parse(text: str) -> Page:
    return Page({family.name: family for family in text_string_to_metric_families(text)})
