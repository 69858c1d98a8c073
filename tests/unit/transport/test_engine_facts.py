"""What executors say of their engines arrives in control.

Each test fills every field with its own value, so that one that is added and forgotten, or crossed with another, fails.
"""

from __future__ import annotations

from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2, inference_pb2
from sage_wire.protocol import MODEL_CONFIG_LIMIT_BYTES
from scheduler_svc.domain.engine_facts import Parallelism
from scheduler_svc.transport import engine_facts
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.executor_fields import TEXT_BYTES
from tests.unit.transport.completeness import at_default, unset
from tests.unit.transport.filled_values import FACTS


def the_facts() -> executor_pb2.EngineFacts:
    return executor_pb2.EngineFacts(
        engine="vllm",
        engine_version="0.32",
        model="m",
        revision="abc",
        dtype="float32",
        vocab_size=4096,
        max_model_len=2048,
        kv_capacity_tokens=65536,
        kv_block_size=32,
        max_running=64,
        max_batched_tokens=1024,
        parallelism_config=common_pb2.ParallelismConfig(
            tensor_parallel_size=2, pipeline_parallel_size=3, data_parallel_size=4, gpu_count=24
        ),
        gpu_name="H200",
        gpu_memory_bytes=141,
        adapters=["lora"],
        adapter_slots=6,
        can_sleep=True,
        supports_priority=True,
        structured_output_kinds=["regex"],
        kv_connector="nixl",
        compatibility_key="key",
        tokenizer_hash="hash",
        prefix_caching=True,
        keeps_output_history=True,
        weights="w1",
        adapter_weights={"lora": "l1"},
        config_json="{}",
        generation_config_json="[]",
        embedding_dimensions=256,
        classifies=True,
        image_input=executor_pb2.ImageInput(placeholder_token_id=9, most_tokens=19, most_images=4),
        audio_input=inference_pb2.AudioInput(
            placeholder_token_id=8, most_tokens=750, most_clips=3, most_seconds=30.0, rate_hz=16_000
        ),
        processor_files={"processor_config.json": "{}"},
        measured_iterations=[measured_iteration()],
    )


def measured_iteration(**changes: Any) -> executor_pb2.Iteration:
    values = {"prefill_tokens": 31, "decode_tokens": 32, "running": 33, "kv_used_tokens": 34, "elapsed_s": 0.75}
    return executor_pb2.Iteration(**values | changes)


def test_engine_facts() -> None:
    wire = the_facts()
    assert unset(wire) == set(), "the test itself must fill everything"
    assert engine_facts.facts(wire) == FACTS
    assert engine_facts.facts(wire).measured == FACTS.measured, "it does not count when facts are compared"
    assert at_default(FACTS) == {"run_time"}  # comes with AdapterStates


@pytest.mark.parametrize(
    "field", ["vocab_size", "max_model_len", "kv_capacity_tokens", "max_running", "max_batched_tokens"]
)
def test_an_engine_without_room_is_refused(field: str) -> None:
    wire = the_facts()
    wire.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(WireError, match=f"facts.{field}"):
        engine_facts.facts(wire)


def test_sizes_that_are_not_said_are_one() -> None:
    wire = the_facts()
    wire.ClearField("parallelism_config")
    wire.ClearField("kv_block_size")
    found = engine_facts.facts(wire)
    assert found.kv_block_size == 1
    assert found.parallelism == Parallelism()


def test_an_engine_that_takes_images_of_no_size_is_refused() -> None:
    wire = the_facts()
    wire.image_input.most_tokens = 0
    with pytest.raises(WireError, match="image_input"):
        engine_facts.facts(wire)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("most_tokens", 0), ("most_clips", 0), ("rate_hz", 0), ("rate_hz", 4_000_000_000)),
        *(("most_seconds", 0.0), ("most_seconds", float("nan")), ("most_seconds", float("inf"))),
    ],
)
def test_an_engine_that_takes_audio_of_no_size_or_out_of_bounds_is_refused(field: str, value: float) -> None:
    wire = the_facts()
    setattr(wire.audio_input, field, value)
    with pytest.raises(WireError, match="audio_input"):
        engine_facts.facts(wire)


def test_of_the_files_that_images_are_processed_with_only_known_ones_are_kept_and_bounded() -> None:
    wire = the_facts()
    wire.processor_files["../../elsewhere.json"] = "{}"
    assert engine_facts.facts(wire).processor_files.keys() == {"processor_config.json"}
    wire.processor_files["processor_config.json"] = "x" * (MODEL_CONFIG_LIMIT_BYTES + 1)
    with pytest.raises(WireError, match="processor_files"):
        engine_facts.facts(wire)


def test_of_measured_iterations_those_that_no_engine_can_have_and_too_many_are_left_out() -> None:
    wire = the_facts()
    for elapsed_s in (0.0, -1.0, float("nan"), float("inf")):
        wire.measured_iterations.append(measured_iteration(elapsed_s=elapsed_s))
    assert engine_facts.facts(wire).measured == FACTS.measured
    wire.measured_iterations.extend([measured_iteration()] * 1_000)
    assert len(engine_facts.facts(wire).measured) <= engine_facts.MEASURED_LIMIT


def test_an_engines_texts_are_bounded_in_bytes() -> None:
    sizes = ("vocab_size", "max_model_len", "kv_capacity_tokens", "max_running", "max_batched_tokens")
    texts = [each.name for each in executor_pb2.EngineFacts.DESCRIPTOR.fields if each.type == each.TYPE_STRING]
    limits = dict.fromkeys(("config_json", "generation_config_json"), MODEL_CONFIG_LIMIT_BYTES)
    for name in texts:
        long = "x" * (limits.get(name, TEXT_BYTES) + 1)
        value: Any = long if isinstance(getattr(executor_pb2.EngineFacts(), name), str) else [long]
        wire = executor_pb2.EngineFacts(**{**dict.fromkeys(sizes, 1), name: value})
        with pytest.raises(WireError, match=rf"facts\.{name}: is longer"):
            engine_facts.facts(wire)
