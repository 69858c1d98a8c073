"""The variables that services are started with: their own configuration takes every one of them."""

from __future__ import annotations

import pytest

from executor_svc.config import load as load_executor
from sage_fleet.executor_settings import executor_settings
from sage_fleet.processes import executor_connection
from sage_fleet.scheduler_settings import scheduler_settings
from sage_fleet.specification.fleet_file import parse_fleet
from scheduler_svc.config import load as load_scheduler

FLEET = parse_fleet(
    """
drain_timeout_s: 7
scheduler:
  journal: postgresql://db/sage
  settings:
    queue: {limit_per_model: 77}
    scaling: {up_delay_s: 3}
    tenants: {Team-A: {weight: 2}}
    pd_separation: {enabled: true}
    automatic_roles: {enabled: true, least_decode: 2}
groups:
  chat:
    model: org/name
    revision: abc
    gpus: 4
    tensor_parallel: 2
    pipeline_parallel: 2
    price_per_hour: 2.5
    zone: z1
    engine_arguments: {max_model_len: 100, enforce_eager: true, engine_args: {max_logprobs: 5, Some: [1]}}
  small: {model: sim, served_name: org/name, engine: simulated, engine_arguments: {max_running: 3}, min: 0, max: 4}
  hybrid: {model: org/name, role: hybrid, min: 1, max: 2}
  vectors: {model: org/vectors, role: embedding}
"""
)


def test_an_executor_takes_what_its_group_says() -> None:
    config = load_executor([], executor_settings(FLEET, "chat"))
    assert (config.role, config.price_per_hour, config.location.zone) == ("general", 2.5, "z1")
    assert (config.labels, config.drain_timeout_s) == ({"group": "chat"}, 7)
    model, engine = config.engine.model, config.engine.vllm
    assert (model.model, model.revision, model.name) == ("org/name", "abc", "org/name")
    assert (engine.tensor_parallel_size, engine.pipeline_parallel_size) == (2, 2)
    assert (engine.max_model_len, engine.enforce_eager) == (100, True)
    assert engine.engine_args == {"max_logprobs": 5, "Some": [1]}


def test_executors_that_share_a_gpu_sleep_and_hand_no_kv_over() -> None:
    fleet = parse_fleet(
        "name: chat\ngroups: {a: {model: m, gpus: 1, device_group: gpu0}, b: {model: n, role: hybrid, count: 1}}"
    )
    config = load_executor([], executor_settings(fleet, "a"))
    assert config.device_group.name == "chat.gpu0"
    assert (config.engine.vllm.sleep_mode, config.engine.vllm.kv_transfer.connector) == (True, "")


def test_a_simulated_engine_takes_its_own() -> None:
    config = load_executor([], executor_settings(FLEET, "small"))
    assert (config.engine.kind, config.engine.simulated.max_running) == ("simulated", 3)
    assert (config.engine.model.model, config.engine.model.name) == ("sim", "org/name")


@pytest.mark.parametrize(("group", "connector"), [("chat", "NixlConnector"), ("vectors", "")])
def test_engines_of_a_fleet_that_splits_can_hand_over_unless_they_embed(group: str, connector: str) -> None:
    config = load_executor([], executor_settings(FLEET, group))
    assert config.engine.vllm.kv_transfer.connector == connector


def test_models_that_the_settings_declare_are_kept_beside_the_bounds_of_the_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = parse_fleet(
        """
scheduler: {settings: {scaling: {models: {a: {general: {min: 9}, decoding: {max: 2}}, Elsewhere: {general: {max: 3}}}}}}
groups: {a: {model: a, min: 1, max: 4}}
"""
    )
    for name, value in scheduler_settings(fleet).items():
        monkeypatch.setenv(name, value)
    models = load_scheduler([]).scaling.models
    assert (models["a"]["general"].min, models["a"]["general"].max) == (1, 4)
    assert models["a"]["decoding"].max == 2
    assert models["Elsewhere"]["general"].max == 3


def test_a_scheduler_takes_its_settings_and_the_bounds_of_scaled_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in scheduler_settings(FLEET).items():
        monkeypatch.setenv(name, value)
    config = load_scheduler([])
    assert (config.queue.limit_per_model, config.journal.url) == (77, "postgresql://db/sage")
    assert config.tenants["Team-A"].weight == 2
    assert (config.pd_separation.enabled, config.automatic_roles.enabled) == (True, True)
    assert config.automatic_roles.least_decode == 2
    assert (config.scaling.enabled, config.scaling.up_delay_s) == (True, 3)
    bounds = config.scaling.models["org/name"]["general"]
    assert (bounds.min, bounds.max) == (2, 7), "the fixed group counts, and so do hybrid ones"
    assert set(config.scaling.models) == {"org/name"}


def test_services_of_an_insecure_fleet_use_addresses_that_others_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = parse_fleet("scheduler: {address: 10.0.0.5:50051, insecure: true}\ngroups: {a: {model: m}}")
    for name, value in (scheduler_settings(fleet) | executor_connection(fleet)).items():
        monkeypatch.setenv(name, value)
    assert load_scheduler(["--listen", fleet.scheduler.address]).insecure
    assert load_executor(["--model", "m"]).scheduler == (fleet.scheduler.address,)


def test_a_fleet_of_fixed_counts_has_nothing_worked_out() -> None:
    assert scheduler_settings(parse_fleet("groups: {a: {model: m, count: 2}}")) == {}
