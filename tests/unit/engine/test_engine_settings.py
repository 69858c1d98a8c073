"""Engine settings: what is refused, with its name; and what reaches vLLM."""

from __future__ import annotations

import os
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from executor_svc.engine.common_settings import KvTransferSettings, ModelSettings
from executor_svc.engine.factory import engine_factory
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.engine.vllm.arguments import engine_arguments, refuse_unknown, set_environment
from executor_svc.engine.vllm.settings import FIXED_ENGINE_ARGS, OWNED_ENGINE_ARGS, VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import EngineError

MODEL = ModelSettings(model="someone/model", served_name="served")


def arguments(**settings: Any) -> dict[str, Any]:
    return engine_arguments(MODEL, VllmSettings(**settings), "/files")


def environment(before: dict[str, str] | None = None, **settings: Any) -> dict[str, str]:
    variables = dict(before or {})
    set_environment(VllmSettings(**settings), variables)
    return variables


@pytest.mark.parametrize("kind", [ModelSettings, VllmSettings, SimulatedSettings, EngineSettings])
def test_an_unknown_setting_is_refused_by_name(kind: type[Any]) -> None:
    with pytest.raises(ValidationError, match="no_such_setting"):
        kind(no_such_setting=1)


@pytest.mark.parametrize("kind", [ModelSettings, VllmSettings, SimulatedSettings, EngineSettings])
def test_every_setting_is_described(kind: type[Any]) -> None:
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", OWNED_ENGINE_ARGS)
def test_an_engine_argument_with_a_setting_of_its_own_is_refused_and_the_setting_named(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}'.*{OWNED_ENGINE_ARGS[name]}"):
        VllmSettings(engine_args={name: 1})


@pytest.mark.parametrize("name", FIXED_ENGINE_ARGS)
def test_an_engine_argument_that_is_ours_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"'{name}'"):
        VllmSettings(engine_args={name: 1})


@pytest.mark.parametrize("setting", sorted(set(OWNED_ENGINE_ARGS.values())))
def test_every_setting_named_in_place_of_an_argument_exists(setting: str) -> None:
    section, _, name = setting.partition(".")
    fields = {"model": ModelSettings.model_fields, "vllm": VllmSettings.model_fields}
    assert name in fields[section]


def test_what_vllm_does_not_know_is_refused_by_name() -> None:
    settings = VllmSettings(engine_args={"max_logprobs": 5, "b": 1, "a": 2})
    with pytest.raises(EngineError, match=r"vLLM 9\.9 has no engine argument 'a', 'b'"):
        refuse_unknown(settings, ["max_logprobs"], "9.9")


def test_what_the_operator_left_open_is_left_to_vllm() -> None:
    left_open = {"max_model_len", "max_num_seqs", "gpu_memory_utilization", "kv_cache_memory_bytes", "block_size"}
    assert not left_open & set(arguments())


def test_settings_reach_vllm_under_its_names() -> None:
    made = arguments(max_running=4, max_batched_tokens=512, kv_cache_bytes=1 << 30, kv_block_size=32)
    assert (made["max_num_seqs"], made["max_num_batched_tokens"]) == (4, 512)
    assert (made["kv_cache_memory_bytes"], made["block_size"]) == (1 << 30, 32)
    assert (made["model"], made["served_model_name"]) == ("/files", "served")


def test_further_arguments_are_passed_on() -> None:
    assert arguments(engine_args={"max_logprobs": 5})["max_logprobs"] == 5


def test_one_gpu_needs_no_worker_processes_and_several_do() -> None:
    assert arguments()["distributed_executor_backend"] == "uni"
    assert "distributed_executor_backend" not in arguments(tensor_parallel_size=2)
    assert arguments(engine_args={"distributed_executor_backend": "mp"})["distributed_executor_backend"] == "mp"


def test_the_lora_switch_follows_the_adapters() -> None:
    assert arguments(adapters={"a": "/a"})["enable_lora"] is True
    assert arguments()["enable_lora"] is False


def test_sleep_mode_is_asked_for_where_it_is_set() -> None:
    assert arguments(sleep_mode=True)["enable_sleep_mode"] is True
    assert "enable_sleep_mode" not in arguments()
    with pytest.raises(ValidationError, match="sleep_mode"):
        VllmSettings(sleep_mode=True, kv_transfer=KvTransferSettings(connector="NixlConnector"))


def test_processes_are_spawned_unless_the_operator_knows_better() -> None:
    assert environment()["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    theirs = environment({"VLLM_WORKER_MULTIPROC_METHOD": "fork", "VLLM_NO_USAGE_STATS": "0"})
    assert (theirs["VLLM_WORKER_MULTIPROC_METHOD"], theirs["VLLM_NO_USAGE_STATS"]) == ("fork", "0")


def test_cores_are_bound_and_waiting_threads_leave_them_alone() -> None:
    bound = environment(cpu_cores="0-3,8")
    assert (bound["VLLM_CPU_OMP_THREADS_BIND"], bound["OMP_WAIT_POLICY"]) == ("0-3,8", "PASSIVE")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in environment()


def test_a_kv_size_from_the_settings_beats_the_environments() -> None:
    before = {"VLLM_CPU_KVCACHE_SPACE": "8"}
    assert "VLLM_CPU_KVCACHE_SPACE" not in environment(before, kv_cache_bytes=1 << 30)
    assert environment(before)["VLLM_CPU_KVCACHE_SPACE"] == "8"


@pytest.mark.parametrize("cores", ["", "a", "0-", "0,,1", "0;1", "-1"])
def test_cores_are_numbers_and_ranges(cores: str) -> None:
    with pytest.raises(ValidationError, match="cpu_cores"):
        VllmSettings(cpu_cores=cores)


def test_a_simulated_kv_cache_must_hold_one_request() -> None:
    with pytest.raises(ValidationError, match=r"kv_capacity_tokens \(1000.*max_model_len \(2000\)"):
        SimulatedSettings(kv_capacity_tokens=1000, max_model_len=2000)


def test_a_simulated_step_must_hold_every_sequence() -> None:
    with pytest.raises(ValidationError, match="max_batched_tokens"):
        SimulatedSettings(max_running=64, max_batched_tokens=63)


def test_the_kind_decides_the_factory() -> None:
    simulated = engine_factory(EngineSettings(kind="simulated", model=MODEL))
    real = engine_factory(EngineSettings(kind="vllm", model=MODEL))
    assert isinstance(simulated, SimulatedEngineFactory)
    assert isinstance(real, VllmEngineFactory)


async def test_the_setting_decides_whether_the_engines_speed_is_measured() -> None:
    quick = SimulatedSettings(step_base_s=0.0, step_per_sequence_s=0.0, prefill_tokens_per_s=1e9)
    measured = []
    for measure_speed_s in (0.0, 30.0):
        settings = EngineSettings(kind="simulated", model=MODEL, simulated=quick, measure_speed_s=measure_speed_s)
        engine = await engine_factory(settings).start(lambda *report: None)
        measured.append(bool(engine.facts.measured))
        await engine.shutdown()
    assert measured == [False, True]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValidationError, match="kind"):
        EngineSettings(kind="other", model=MODEL)  # type: ignore[arg-type]


def test_vllms_spans_have_a_service_of_their_own_unless_the_operator_names_it() -> None:
    endpoint = "http://127.0.0.1:4317"
    assert environment(traces_endpoint=endpoint)["OTEL_SERVICE_NAME"] == "vllm"
    assert environment({"OTEL_SERVICE_NAME": "ours"}, traces_endpoint=endpoint)["OTEL_SERVICE_NAME"] == "ours"
    assert "OTEL_SERVICE_NAME" not in environment()


def test_without_a_cpp_compiler_an_eager_engine_compiles_nothing() -> None:
    lacking, having = {"CXX": "no-such-compiler"}, {"CXX": sys.executable}
    assert environment(lacking, enforce_eager=True)["TORCHDYNAMO_DISABLE"] == "1"
    assert environment(lacking | {"TORCHDYNAMO_DISABLE": "0"}, enforce_eager=True)["TORCHDYNAMO_DISABLE"] == "0"
    assert "TORCHDYNAMO_DISABLE" not in environment(having, enforce_eager=True)
    assert "TORCHDYNAMO_DISABLE" not in environment(lacking, enforce_eager=False)


def test_making_a_factory_changes_no_environment() -> None:
    before = dict(os.environ)
    engine_factory(EngineSettings(kind="vllm", model=MODEL, vllm=VllmSettings(cpu_cores="0")))
    assert dict(os.environ) == before
