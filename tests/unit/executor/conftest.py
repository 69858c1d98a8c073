"""The two ways in which an engine gives outputs: tests that use ``way`` run over both."""

from __future__ import annotations

import pytest

from executor_svc.engine.simulated.engine import SimulatedEngine


@pytest.fixture(params=["steps", "streams"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How attempts take the simulated engine's outputs: a step at a time, or each from a stream of its own."""
    if request.param == "streams":
        monkeypatch.setattr(SimulatedEngine, "submit", lambda self, request, reader: False)
    return str(request.param)
