from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest

from sage_telemetry import loop_source
from scheduler_svc.domain.policies import catalogue


@pytest.fixture(scope="session", autouse=True)
def _plugins_found_once() -> Iterator[None]:
    """Every scheduler looks for installed policies, which takes longer than most tests here."""
    found = entry_points(group=catalogue.ENTRY_POINT_GROUP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "entry_points", lambda group: found)
        yield


@pytest.fixture(autouse=True)
def every_scrape_reads_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this a metrics page may show what was read a moment before, for another scrape or a push."""
    monkeypatch.setattr(loop_source, "FRESH_S", 0.0)
