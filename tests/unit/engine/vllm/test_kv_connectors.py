"""KV connectors: what vLLM is told, what is refused, and which engines can hand over to each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from executor_svc.engine.common_settings import KV_CONNECTORS, KvTransferSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.vllm.kv_connectors import CONNECTORS, connector_named
from executor_svc.engine.vllm.kv_connectors.connector import KvLayout, UnusableParams
from executor_svc.engine.vllm.kv_connectors.nixl import NixlConnector
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import JsonValue, ModelError

NIXL = NixlConnector()
SETTINGS = KvTransferSettings(connector="NixlConnector")
LAYOUT = KvLayout(
    engine_version="0.32.0",
    model="/models/tiny",
    weights="f00",
    dtype="float32",
    cache_dtype="auto",
    block_size=128,
    kv_heads=2,
    head_size=64,
    layers=4,
    tensor_parallel_size=1,
    pipeline_parallel_size=1,
)
PARAMS: Mapping[str, JsonValue] = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": [[4, 5, 6]],
    "remote_engine_id": "engine",
    "remote_request_id": "r/1-0a0a0a0a",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
    "tp_size": 1,
    "remote_num_tokens": 300,
    "remote_prefill_cached_tokens": 128,
    "a_field_of_a_later_release": None,
}


# --- settings -------------------------------------------------------------------------------------------------


def test_without_a_connector_nothing_is_handed_over() -> None:
    assert VllmSettings().kv_transfer.connector == SimulatedSettings().kv_transfer.connector == ""


def test_an_unknown_connector_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError, match="unknown KV connector 'Nixl'; there are: NixlConnector"):
        KvTransferSettings(connector="Nixl")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "*", ""])
def test_an_address_nobody_could_be_told_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="side_channel_host"):
        KvTransferSettings(side_channel_host=host)


def test_vllms_own_argument_is_refused_in_favour_of_ours() -> None:
    with pytest.raises(ValidationError, match=r"use vllm\.kv_transfer"):
        VllmSettings(engine_args={"kv_transfer_config": {}})


def test_connectors_are_found_by_their_own_name() -> None:
    assert {name: connector.name for name, connector in CONNECTORS.items()} == {"NixlConnector": "NixlConnector"}
    assert connector_named("NixlConnector") is CONNECTORS["NixlConnector"]


# --- NIXL: starting -------------------------------------------------------------------------------------------


def test_lease_and_failure_policy_are_set_on_purpose() -> None:
    assert NIXL.config(SETTINGS, "cpu") == {
        "kv_connector": "NixlConnector",
        "kv_role": "kv_both",
        "kv_buffer_device": "cpu",
        "kv_load_failure_policy": "recompute",
        "kv_connector_extra_config": {"kv_lease_duration": 30},
    }


def test_what_the_operator_adds_is_passed_on_and_cannot_change_the_lease() -> None:
    settings = KvTransferSettings(
        connector="NixlConnector", lease_s=7, extra={"backends": ["UCX"], "kv_lease_duration": 9}
    )
    extra = NIXL.config(settings, "cuda")["kv_connector_extra_config"]
    assert extra == {"backends": ["UCX"], "kv_lease_duration": 7}


@pytest.mark.parametrize("lease_s", [1.0, 2.5])
def test_a_lease_that_nixl_cannot_count_is_refused(lease_s: float) -> None:
    with pytest.raises(ModelError, match="whole seconds"):
        NIXL.config(KvTransferSettings(lease_s=lease_s), "cpu")


def test_the_side_channel_goes_into_the_environment() -> None:
    settings = KvTransferSettings(side_channel_host="10.0.0.7")
    assert NIXL.environment(settings, 4711) == {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "10.0.0.7",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": "4711",
        "SAGE_NIXL_THREADS": "none",
    }


def test_without_nixl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nixl" else object())
    with pytest.raises(ModelError, match=r"sage-control-plane\[nixl\].*make setup-vllm"):
        NIXL.refuse_missing()


# --- NIXL: who can hand over to whom --------------------------------------------------------------------------


def test_equal_engines_have_equal_keys() -> None:
    key = NIXL.compatibility_key(LAYOUT, SETTINGS)
    assert key == NIXL.compatibility_key(replace(LAYOUT), replace_settings(lease_s=9, side_channel_port=1))
    assert key.startswith("NixlConnector/vllm-0.32.0/")


@pytest.mark.parametrize("field", list(KvLayout.__dataclass_fields__))
def test_whatever_is_different_about_the_layout_makes_another_key(field: str) -> None:
    value = getattr(LAYOUT, field)
    other = replace(LAYOUT, **{field: value + 1 if isinstance(value, int) else f"{value}x"})  # type: ignore[arg-type]
    assert NIXL.compatibility_key(other, SETTINGS) != NIXL.compatibility_key(LAYOUT, SETTINGS)


def test_what_the_connector_is_told_further_makes_another_key() -> None:
    other = replace_settings(extra={"enforce_handshake_compat": False})
    assert NIXL.compatibility_key(LAYOUT, other) != NIXL.compatibility_key(LAYOUT, SETTINGS)


def replace_settings(**changes: Any) -> KvTransferSettings:
    return SETTINGS.model_copy(update=changes)


# --- NIXL: parameters -----------------------------------------------------------------------------------------


def test_a_prefill_asks_for_remote_decode() -> None:
    params = NIXL.prefill_params()
    assert (params["do_remote_decode"], params["do_remote_prefill"]) == (True, False)


def test_a_pull_knows_how_much_it_fetches_and_what_was_cached() -> None:
    pull = NIXL.pull(PARAMS, 300, 128)
    assert (pull.tokens, pull.cached_tokens, pull.peer) == (300, 128, "engine")
    assert dict(pull.params) == {n: value for n, value in PARAMS.items() if n != "remote_prefill_cached_tokens"}


def test_parameters_of_an_older_release_do() -> None:
    newer = ("remote_num_tokens", "remote_prefill_cached_tokens")
    pull = NIXL.pull({name: value for name, value in PARAMS.items() if name not in newer}, 300, 128)
    assert (pull.tokens, pull.cached_tokens) == (300, None)


@pytest.mark.parametrize(
    "change",
    [
        {"do_remote_prefill": False},
        {"do_remote_decode": True},
        {"remote_engine_id": None},
        {"remote_request_id": None},
        {"remote_host": 7},
        {"remote_port": "5600"},
        {"tp_size": None},
        {"remote_block_ids": None},
        {"remote_block_ids": []},
        {"remote_block_ids": [4, 5, 6]},
        {"remote_block_ids": [[4, "5"]]},
        {"remote_block_ids": [[4, -5]]},
    ],
)
def test_parameters_that_would_bring_the_engine_down_are_refused(change: dict[str, JsonValue]) -> None:
    with pytest.raises(UnusableParams):
        NIXL.check({**PARAMS, **change})
    with pytest.raises(UnusableParams):
        NIXL.pull({**PARAMS, **change}, 300, 128)


def test_too_few_blocks_for_the_prompt_are_refused() -> None:
    with pytest.raises(UnusableParams, match="3 blocks of 128 tokens for a prompt of 400 tokens"):
        NIXL.pull({**PARAMS, "remote_num_tokens": 400}, 400, 128)


def test_statistics_become_counts() -> None:
    counts = NIXL.counts(
        {
            "transfer_duration": [0.1, 0.2],
            "num_failed_transfers": [1],
            "num_failed_notifications": [1],
            "num_failed_handshakes": [1, 1],
            "num_kv_expired_reqs": [1],
            "bytes_transferred": [5],
        }
    )
    assert (counts.pulls, counts.failed, counts.notices_failed, counts.expired) == (2, 3, 1, 1)
    assert NIXL.counts({}) == NIXL.counts({"transfer_duration": []})


def test_the_connectors_that_can_be_configured_are_the_ones_there_are() -> None:
    assert set(KV_CONNECTORS) == set(CONNECTORS)
