"""NIXL in an engine that is bound to CPU cores."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import pytest

from executor_svc.engine.common_settings import KvTransferSettings
from executor_svc.engine.vllm.arguments import set_environment
from executor_svc.engine.vllm.kv_connectors import nixl_on_cores
from executor_svc.engine.vllm.settings import VllmSettings

CONNECTED = KvTransferSettings(connector="NixlConnector")


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (VllmSettings(cpu_cores="1", kv_transfer=CONNECTED), True),
        (VllmSettings(kv_transfer=CONNECTED), False),
        (VllmSettings(cpu_cores="1"), False),
        (VllmSettings(cpu_cores="1", kv_transfer=CONNECTED.model_copy(update={"extra": {"num_threads": 2}})), False),
    ],
)
def test_only_an_engine_that_is_bound_and_connected_goes_without_threads_unless_they_are_asked_for(
    settings: VllmSettings, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment: dict[str, str] = {}
    set_environment(settings, environment, 5600 if settings.kv_transfer.connector else None)
    monkeypatch.setattr(os, "environ", environment)
    assert nixl_on_cores.wanted() is wanted


def test_agents_are_configured_without_threads_and_otherwise_as_vllm_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    api: Any = types.ModuleType("nixl._api")
    api.nixl_agent_config = lambda **arguments: arguments
    monkeypatch.setitem(sys.modules, "nixl", types.ModuleType("nixl"))
    monkeypatch.setitem(sys.modules, "nixl._api", api)
    monkeypatch.setenv("UCX_RCACHE_MAX_UNRELEASED", "")
    nixl_on_cores.without_threads()
    assert api.nixl_agent_config(num_threads=4, capture_telemetry=True) == {
        "enable_prog_thread": False,
        "num_threads": 0,
        "capture_telemetry": True,
    }
