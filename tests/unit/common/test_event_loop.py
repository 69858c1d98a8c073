"""The event loop that the executor runs on."""

from __future__ import annotations

import asyncio
import sys
import types

import pytest

from executor_svc import config as config_module
from executor_svc.config import ConfigError, load
from sage_common.event_loop import loop_factory

MODEL = ["--model", "sim", "--engine.kind", "simulated"]


def test_asyncios_own_is_the_default() -> None:
    assert load(MODEL, {}).uvloop is False
    assert loop_factory(uvloop=False) is asyncio.new_event_loop


def test_uvloop_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("uvloop")
    stand_in.new_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", stand_in)
    monkeypatch.setattr(config_module, "find_spec", lambda name: stand_in)
    assert load([*MODEL, "--uvloop"], {}).uvloop
    assert loop_factory(uvloop=True) is stand_in.new_event_loop


def test_without_the_package_the_key_is_named_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"uvloop.*pip install 'sage-control-plane\[uvloop\]'"):
        load([*MODEL, "--uvloop"], {})
