"""The event loop that the services run on."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest

from executor_svc import config as executor_config
from sage_common import event_loop
from sage_common.configuration import ConfigError
from sage_common.event_loop import loop_factory
from scheduler_svc import config as scheduler_config

MODEL = ["--model", "sim", "--engine.kind", "simulated"]
Load = Callable[..., Any]

of_each_service = pytest.mark.parametrize(
    ("load", "flags"), [(executor_config.load, MODEL), (scheduler_config.load, [])], ids=["executor", "scheduler"]
)


@of_each_service
def test_asyncios_own_is_the_default(load: Load, flags: list[str]) -> None:
    assert load(flags, {}).uvloop is False
    assert loop_factory(uvloop=False) is asyncio.new_event_loop


@of_each_service
def test_uvloop_is_taken_where_it_is_asked_for(load: Load, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("uvloop")
    stand_in.new_event_loop = asyncio.new_event_loop  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "uvloop", stand_in)
    monkeypatch.setattr(event_loop, "find_spec", lambda name: stand_in)
    assert load([*flags, "--uvloop"], {}).uvloop
    assert loop_factory(uvloop=True) is stand_in.new_event_loop


@of_each_service
def test_without_the_package_the_key_is_named_and_what_to_install(
    load: Load, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"uvloop.*pip install 'sage-control-plane\[uvloop\]'"):
        load([*flags, "--uvloop"], {})
