"""The vLLM adapter at the other end of its range: against the recorded signatures of 0.26."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.port import (
    EngineDeadError,
    EngineError,
    EngineRequest,
    EngineState,
    FinishReason,
    InvalidRequestError,
    Sampling,
    StructuredKind,
    StructuredOutput,
)
from executor_svc.engine.settings import ModelSettings, VllmSettings
from executor_svc.engine.vllm_engine import VllmEngine, VllmEngineFactory
from tests.unit.engine.recorded_vllm import RecordedVllm, Release

SETTINGS = VllmSettings(adapters={"dialect": "/adapters/dialect"}, max_running=8, cpu_cores="0", kv_cache_bytes=1 << 26)
EVERYTHING = Sampling(
    temperature=0.5,
    top_p=0.9,
    top_k=5,
    min_p=0.1,
    presence_penalty=0.1,
    frequency_penalty=0.1,
    repetition_penalty=1.1,
    seed=1,
    stop_token_ids=(5,),
    bad_words=("word",),
    min_tokens=1,
    max_tokens=4,
    logprobs=1,
    prompt_logprobs=1,
    ignore_eos=True,
    logit_bias={5: 1.0},
    allowed_token_ids=(5, 6),
)


@pytest.fixture
def model_path(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return str(tmp_path)


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> RecordedVllm:
    recorded = RecordedVllm(Release())
    assert recorded.release.version == "0.26.0"
    recorded.install(monkeypatch)
    for name in (
        "VLLM_ENGINE_READY_TIMEOUT_S",
        "VLLM_CPU_OMP_THREADS_BIND",
        "OMP_WAIT_POLICY",
        "SAGE_EXECUTOR_PROCESS",
    ):
        monkeypatch.setenv(name, "")  # so that what the adapter sets is undone
    return recorded


@pytest.fixture
async def engine(vllm: RecordedVllm, model_path: str) -> AsyncIterator[VllmEngine]:
    states: list[EngineState] = []
    factory = VllmEngineFactory(ModelSettings(model=model_path, served_name="tiny"), SETTINGS)
    engine = await factory.start(lambda state, fraction, message: states.append(state))
    assert list(dict.fromkeys(states)) == [EngineState.DOWNLOADING, EngineState.LOADING, EngineState.WARMING]
    vllm.calls.clear()
    yield engine
    await engine.shutdown()
    assert vllm.stopped


def request(sampling: Sampling | None = None, **more: Any) -> EngineRequest:
    return EngineRequest(
        engine_request_id="r/1", prompt_token_ids=(300, 301), sampling=sampling or Sampling(max_tokens=4), **more
    )


async def run(engine: VllmEngine, wanted: EngineRequest) -> list[Any]:
    return [output async for output in engine.generate(wanted)]


def failing(error: Exception, after: int = 0) -> Callable[[RecordedVllm], Callable[[Any], AsyncIterator[Any]]]:
    """A script that gives ``after`` tokens and then raises."""

    def script_of(vllm: RecordedVllm) -> Callable[[Any], AsyncIterator[Any]]:
        async def script(call: Any) -> AsyncIterator[Any]:
            for index in range(after):
                yield vllm.output([500 + index])
            raise error

        return script

    return script_of


async def test_it_starts_with_arguments_that_release_has(engine: VllmEngine, vllm: RecordedVllm) -> None:
    assert vllm.engine_args.scheduling_policy == "priority"
    assert vllm.engine_args.enable_logging_iteration_details is True
    assert vllm.engine_args.distributed_executor_backend == "uni"
    assert vllm.engine_args.structured_outputs_config.backend == "xgrammar"


async def test_its_facts_are_complete(engine: VllmEngine) -> None:
    facts = engine.facts
    assert (facts.engine, facts.engine_version, facts.model) == ("vllm", "0.26.0", "tiny")
    assert (facts.kv_capacity_tokens, facts.kv_block_size, facts.max_running) == (4096, 16, 8)
    assert facts.eos_token_ids == {7, 258}
    assert facts.tokenizer.chat_template == "{{ messages }}"
    assert facts.tokenizer.special_tokens == {"eos_token": "<|im_end|>"}
    assert facts.adapters == ("dialect",)
    assert facts.supports_priority


async def test_every_sampling_option_is_one_that_release_has(engine: VllmEngine, vllm: RecordedVllm) -> None:
    await run(engine, request(EVERYTHING, adapter="dialect", priority=3, trace_headers={"traceparent": "00-1-2-01"}))
    (call,) = vllm.calls
    params = call["sampling_params"]
    assert (params.detokenize, params.output_kind) == (False, vllm.output_kind.DELTA)
    assert (params.seed, params.logit_bias, params.allowed_token_ids) == (1, {5: 1.0}, [5, 6])
    assert (call["request_id"], call["priority"], call["lora_request"].lora_name) == ("r/1", 3, "dialect")
    assert call["trace_headers"] is None  # no traces endpoint: the engine would only warn


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        (StructuredKind.JSON_SCHEMA, '{"type": "object"}', "json"),
        (StructuredKind.JSON_OBJECT, "", "json_object"),
        (StructuredKind.REGEX, "a+", "regex"),
        (StructuredKind.CHOICE, '["a"]', "choice"),
        (StructuredKind.GRAMMAR, "root ::= 'a'", "grammar"),
    ],
)
async def test_every_constraint_is_one_that_release_has(
    engine: VllmEngine, vllm: RecordedVllm, kind: StructuredKind, value: str, field: str
) -> None:
    await run(engine, request(Sampling(max_tokens=1, structured_output=StructuredOutput(kind=kind, value=value))))
    assert getattr(vllm.calls[0]["sampling_params"].structured_outputs, field)


async def test_outputs_are_read(engine: VllmEngine, vllm: RecordedVllm) -> None:
    outputs = await run(engine, request())
    assert [output.token_ids for output in outputs] == [[500], [501], [502], [503]]
    assert [output.cached_prompt_tokens for output in outputs] == [3, None, None, None]
    assert outputs[-1].finish_reason is FinishReason.LENGTH


@pytest.mark.parametrize(("stop_reason", "stop_token"), [(77, 77), (None, 501)])
async def test_the_token_that_ended_it_is_told(
    engine: VllmEngine, vllm: RecordedVllm, stop_reason: int | None, stop_token: int
) -> None:
    async def script(call: Any) -> AsyncIterator[Any]:
        yield vllm.output([500, 501], finish_reason="stop", stop_reason=stop_reason)

    vllm.script = script
    (output,) = await run(engine, request())
    assert (output.finish_reason, output.stop_token_id) == (FinishReason.STOP, stop_token)


async def test_an_abort_by_the_engine_is_told(engine: VllmEngine, vllm: RecordedVllm) -> None:
    async def script(call: Any) -> AsyncIterator[Any]:
        yield vllm.output([], finish_reason="abort")

    vllm.script = script
    (output,) = await run(engine, request())
    assert (output.token_ids, output.finish_reason) == ([], FinishReason.ABORTED)


async def test_logprobs_are_read(engine: VllmEngine, vllm: RecordedVllm) -> None:
    def row(*ids: int) -> dict[int, Any]:
        entries = enumerate(ids, start=1)
        return {i: vllm.release.thing("vllm.logprobs:Logprob", logprob=-float(rank), rank=rank) for rank, i in entries}

    async def script(call: Any) -> AsyncIterator[Any]:
        yield vllm.output([5], finish_reason="length", logprobs=[row(5, 6)], prompt_logprobs=[None, row(301)])

    vllm.script = script
    (output,) = await run(engine, request())
    assert [(entry.token_id, entry.logprob, entry.rank) for entry in output.logprobs[0]] == [(5, -1.0, 1), (6, -2.0, 2)]
    assert output.prompt_logprobs[0] is None
    assert output.prompt_logprobs[1][0].token_id == 301


async def test_statistics_are_read(engine: VllmEngine, vllm: RecordedVllm) -> None:
    before = engine.load()
    steps: list[int] = []
    engine.on_step(lambda: steps.append(1))
    await run(engine, request())
    load = engine.load()
    assert (load.running, load.waiting, load.unfinished) == (1, 3, 0)  # as the last step said; nothing is ours
    assert load.kv_used_tokens == 1024
    assert load.generation_tokens_total - before.generation_tokens_total == 4
    assert load.iterations - before.iterations == 4
    assert load.prefix_queries_tokens - before.prefix_queries_tokens == 40
    assert load.prefix_hits_tokens - before.prefix_hits_tokens == 16
    assert len(steps) == 4


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"sampling": Sampling(structured_output=StructuredOutput(kind=StructuredKind.REGEX, value="a"))}, "grammar"),
        ({}, None),
    ],
)
async def test_a_wait_for_a_grammar_is_known(
    engine: VllmEngine, vllm: RecordedVllm, more: dict[str, Any], why: str | None
) -> None:
    async def script(call: Any) -> AsyncIterator[Any]:
        vllm.record(0, num_running_reqs=0, iteration_details=None)
        waits.append(engine.load().known_wait)
        yield vllm.output([5], finish_reason="length")

    waits: list[str | None] = []
    vllm.script = script
    await run(engine, request(**more))
    assert (waits[0] is None) if why is None else (why in str(waits[0]))


# --- errors ---------------------------------------------------------------------------------------------------


async def test_a_validation_error_names_our_field(engine: VllmEngine, vllm: RecordedVllm) -> None:
    error = vllm.exceptions.VLLMValidationError("too hot")
    error.parameter = "temperature"
    vllm.script = failing(error)(vllm)
    with pytest.raises(InvalidRequestError, match="too hot") as caught:
        await run(engine, request())
    assert caught.value.field_name == "sampling.temperature"


async def test_a_value_error_before_the_first_token_is_the_callers(engine: VllmEngine, vllm: RecordedVllm) -> None:
    vllm.script = failing(ValueError("no such grammar"))(vllm)
    constraint = StructuredOutput(kind=StructuredKind.GRAMMAR, value="x")
    with pytest.raises(InvalidRequestError) as caught:
        await run(engine, request(Sampling(structured_output=constraint)))
    assert caught.value.field_name == "sampling.structured_output.grammar"


async def test_a_value_error_later_is_the_engines(engine: VllmEngine, vllm: RecordedVllm) -> None:
    vllm.script = failing(ValueError("a bug"), after=1)(vllm)
    with pytest.raises(EngineError, match="a bug"):
        await run(engine, request())


async def test_a_constraint_that_does_not_compile_is_the_callers(engine: VllmEngine, vllm: RecordedVllm) -> None:
    async def script(call: Any) -> AsyncIterator[Any]:
        yield vllm.output([], finish_reason="error")

    vllm.script = script
    constraint = StructuredOutput(kind=StructuredKind.REGEX, value="a{9999999}")
    with pytest.raises(InvalidRequestError):
        await run(engine, request(Sampling(structured_output=constraint)))
    with pytest.raises(EngineError, match="'error'"):
        await run(engine, request())


async def test_the_cause_of_a_wrapped_error_is_told(engine: VllmEngine, vllm: RecordedVllm) -> None:
    error = vllm.engine_exceptions.EngineGenerateError()
    error.__cause__ = RuntimeError("out of luck")
    vllm.script = failing(error)(vllm)
    with pytest.raises(EngineError, match="out of luck") as caught:
        await run(engine, request())
    assert not isinstance(caught.value, EngineDeadError)


async def test_death_is_death(engine: VllmEngine, vllm: RecordedVllm) -> None:
    vllm.script = failing(vllm.engine_exceptions.EngineDeadError(), after=1)(vllm)
    with pytest.raises(EngineDeadError):
        await run(engine, request())
    assert engine.load().unfinished == 0


async def test_an_argument_it_does_not_know_is_refused_by_name(vllm: RecordedVllm, model_path: str) -> None:
    newer = VllmSettings(engine_args={"max_num_queued_reqs": 5, "max_logprobs": 5})  # came with a later release
    with pytest.raises(EngineError, match=r"vLLM 0\.26\.0 has no engine argument 'max_num_queued_reqs'"):
        await VllmEngineFactory(ModelSettings(model=model_path), newer).start(lambda *report: None)


async def test_without_vllm_it_says_what_to_install(model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    for name in ("VLLM_ENGINE_READY_TIMEOUT_S", "SAGE_EXECUTOR_PROCESS"):
        monkeypatch.setenv(name, "")
    with pytest.raises(EngineError, match=r"vLLM is not installed.*vllm>=0\.26"):
        await VllmEngineFactory(ModelSettings(model=model_path), VllmSettings()).start(lambda *report: None)
