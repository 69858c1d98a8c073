"""The vLLM adapter at the other end of its range: against the recorded signatures of 0.26."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from executor_svc.engine.common_settings import KvTransferSettings, ModelSettings
from executor_svc.engine.handoff_seal import sealed
from executor_svc.engine.vllm import kv_release
from executor_svc.engine.vllm.constraints.gate import Turn
from executor_svc.engine.vllm.kv_connectors.nixl import NixlConnector
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineRequest,
    FinishReason,
    InvalidRequestError,
    ModelError,
    Sampling,
    StructuredKind,
    StructuredOutput,
)
from tests.unit.engine.vllm.conftest import SETTINGS
from tests.unit.engine.vllm.record_vllm_signatures import NIXL_WORDS
from tests.unit.engine.vllm.recorded_vllm import RecordedVllm
from tests.unit.engine.vllm.release import Release

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
    assert facts.adapter_slots == 0
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


# --- KV for and from other engines ----------------------------------------------------------------------------

CONNECTED = SETTINGS.model_copy(update={"kv_transfer": KvTransferSettings(connector="NixlConnector", lease_s=12)})
KEPT: dict[str, Any] = {
    "do_remote_prefill": True,
    "do_remote_decode": False,
    "remote_block_ids": ([3],),  # as vLLM has them before they travel
    "remote_engine_id": "the other",
    "remote_request_id": "r/1-0a0a0a0a",
    "remote_host": "127.0.0.1",
    "remote_port": 5600,
    "tp_size": 1,
    "remote_num_tokens": 2,
}


@pytest.fixture
async def connected(vllm: RecordedVllm, model_path: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[VllmEngine]:
    monkeypatch.setattr(NixlConnector, "refuse_missing", lambda self: None)
    monkeypatch.setattr(kv_release, "HANDSHAKE_PAUSES_S", (0.0, 0.0))
    engine = await VllmEngineFactory(ModelSettings(model=model_path), CONNECTED).start(lambda *report: None)
    vllm.calls.clear()
    yield engine
    await engine.shutdown()


def ending(vllm: RecordedVllm, **more: Any) -> Callable[[Any], AsyncIterator[Any]]:
    async def script(call: Any) -> AsyncIterator[Any]:
        yield vllm.output([500], finish_reason="length", **more)

    return script


async def kept_by(engine: VllmEngine, vllm: RecordedVllm) -> Any:
    """A handoff, after its travels."""
    vllm.script = ending(vllm, kv_transfer_params=dict(KEPT))
    (output,) = await run(engine, request(Sampling(max_tokens=1), prefill_only=True))
    return json.loads(json.dumps(output.kv_transfer_params))


async def test_what_was_read_late_says_how_long_its_kv_has_been_kept(connected: VllmEngine, vllm: RecordedVllm) -> None:
    vllm.script = ending(vllm, kv_transfer_params=dict(KEPT), metrics=vllm.timed(3.0))
    (output,) = await run(connected, request(Sampling(max_tokens=1), prefill_only=True))
    assert 3.0 <= output.kv_kept_s < 13.0


async def test_a_request_is_stopped_in_the_engine_core_before_it_is_forgotten(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    vllm.internal_ids["r/1"] = ["r/1-0a0b0c0d"]
    await connected.stop("r/1")
    assert vllm.stops == [
        ("abort_requests_async", ["r/1-0a0b0c0d"]),
        ("get_supported_tasks_async", None),
        ("abort", "r/1"),
    ]


async def test_workers_go_back_to_the_cores_that_the_connector_took_them_off(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    assert vllm.worker_calls == ["compute_on_own_cores"]


async def test_without_a_connector_nothing_moves_them(engine: VllmEngine, vllm: RecordedVllm) -> None:
    assert vllm.worker_calls == []


async def test_it_starts_with_a_transfer_config_that_release_has(connected: VllmEngine, vllm: RecordedVllm) -> None:
    config = vllm.engine_args.kv_transfer_config
    assert (config.kv_connector, config.kv_role, config.kv_load_failure_policy) == (
        "NixlConnector",
        "kv_both",
        "recompute",
    )
    assert (config.kv_buffer_device, config.kv_connector_extra_config) == ("cpu", {"kv_lease_duration": 12})
    assert os.environ["VLLM_NIXL_SIDE_CHANNEL_HOST"] == "127.0.0.1"
    assert int(os.environ["VLLM_NIXL_SIDE_CHANNEL_PORT"]) > 0


async def test_its_facts_say_what_it_hands_over(connected: VllmEngine) -> None:
    facts = connected.facts
    assert (facts.kv_connector, facts.kv_lease_s) == ("NixlConnector", 12.0)
    assert facts.compatibility_key.startswith("NixlConnector/vllm-0.26.0/")


def test_our_words_are_that_releases() -> None:
    assert set(Release().nixl_words) == set(NIXL_WORDS)


async def test_a_prefill_asks_for_remote_decode(connected: VllmEngine, vllm: RecordedVllm) -> None:
    await kept_by(connected, vllm)
    transfer = vllm.calls[0]["sampling_params"].extra_args["kv_transfer_params"]
    assert (transfer["do_remote_decode"], transfer["do_remote_prefill"]) == (True, False)


async def test_a_decode_leg_gives_the_parameters_on_as_they_were(connected: VllmEngine, vllm: RecordedVllm) -> None:
    params = await kept_by(connected, vllm)
    vllm.script = ending(vllm, num_cached_tokens=2)
    (output,) = await run(connected, request(Sampling(max_tokens=1), kv_transfer_params=params))
    given = vllm.calls[1]["sampling_params"].extra_args["kv_transfer_params"]
    assert given == {**KEPT, "remote_block_ids": [[3]]}
    assert (output.kv_pull_failed, output.cached_prompt_tokens, output.kv_transfer_params) == (False, 0, None)


async def test_fewer_tokens_than_were_to_be_fetched_are_a_failed_pull(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    params = await kept_by(connected, vllm)
    vllm.script = ending(vllm, num_cached_tokens=1)
    (output,) = await run(connected, request(Sampling(max_tokens=1), kv_transfer_params=params))
    assert (output.kv_pull_failed, output.cached_prompt_tokens) == (True, 1)


@pytest.mark.parametrize(("failures", "told"), [(1, [True]), (1, [False, True]), (2, [True, True])])
async def test_a_failed_pull_is_told_of_a_request_whose_beginning_was_cached_here(
    connected: VllmEngine, vllm: RecordedVllm, failures: int, told: list[bool]
) -> None:
    params = await kept_by(connected, vllm)

    async def waiting(call: Any) -> AsyncIterator[Any]:
        await over.wait()
        yield vllm.output([500], finish_reason="length", num_cached_tokens=2)

    over = asyncio.Event()
    vllm.script = waiting
    legs = [
        asyncio.create_task(
            run(connected, replace(request(kv_transfer_params=params), engine_request_id=f"leg/{number}"))
        )
        for number in range(len(told))
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    vllm.record(0, kv_connector_stats={"num_failed_transfers": [1] * failures})
    over.set()
    assert [output.kv_pull_failed for leg in legs for output in await leg] == told


async def test_parameters_of_another_prompt_never_reach_vllm(connected: VllmEngine, vllm: RecordedVllm) -> None:
    params = await kept_by(connected, vllm)
    wanted = EngineRequest(
        engine_request_id="r/2", prompt_token_ids=(300, 302), sampling=Sampling(), kv_transfer_params=params
    )
    with pytest.raises(EngineError, match="another prompt"):
        await run(connected, wanted)
    assert len(vllm.calls) == 1
    assert connected.load().unfinished == 0


async def test_parameters_vllm_would_choke_on_never_reach_it(connected: VllmEngine, vllm: RecordedVllm) -> None:
    params = sealed({**KEPT, "remote_block_ids": [[]]}, (300, 301), None)
    with pytest.raises(EngineError, match="the handoff has 0 blocks"):
        await run(connected, request(kv_transfer_params=params))
    with pytest.raises(EngineError, match="the handoff has no remote_host"):
        await connected.release_kv(sealed({**KEPT, "remote_host": None, "remote_block_ids": [[3]]}, (300,), None))
    assert not vllm.calls
    assert not vllm.rejections


async def test_a_release_is_a_rejection(connected: VllmEngine, vllm: RecordedVllm) -> None:
    params = await kept_by(connected, vllm)
    vllm.script = ending(vllm, num_cached_tokens=2)
    await run(connected, request(Sampling(max_tokens=1), kv_transfer_params=params))
    vllm.calls.clear()
    assert await connected.release_kv(params)
    assert [given for _, given in vllm.rejections] == [{**KEPT, "remote_block_ids": [[3]]}]
    assert vllm.calls == []


async def never(constraint: StructuredOutput) -> Turn:
    await asyncio.Event().wait()
    raise AssertionError("nothing sets it")


async def test_a_cancel_while_the_constraint_waits_releases_what_was_to_be_fetched(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    params = await kept_by(connected, vllm)
    vllm.script = ending(vllm, num_cached_tokens=2)
    await run(connected, request(Sampling(max_tokens=1), kv_transfer_params=params))
    assert connected._constraints is not None
    connected._constraints.admit = never  # type: ignore[method-assign]
    constrained = Sampling(structured_output=StructuredOutput(kind=StructuredKind.REGEX, value="a"))
    for _ in range(2):
        task = asyncio.create_task(run(connected, request(constrained, kv_transfer_params=params)))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    async with asyncio.timeout(10):
        while len(vllm.rejections) < 2:
            await asyncio.sleep(0)
    assert [given for _, given in vllm.rejections] == [{**KEPT, "remote_block_ids": [[3]]}] * 2
    assert connected.load().unfinished == 0


async def test_a_release_to_an_engine_it_never_met_keeps_stepping_until_they_have(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    assert await connected.release_kv(await kept_by(connected, vllm))
    assert len(vllm.calls) == 1 + 2


async def test_a_release_during_which_something_failed_is_not_said_to_have_worked(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    params = await kept_by(connected, vllm)

    async def script(call: Any) -> AsyncIterator[Any]:
        vllm.record(0, iteration_details=None, kv_connector_stats={"num_failed_notifications": [1]})
        yield vllm.output([500], finish_reason="length")

    vllm.script = script
    assert not await connected.release_kv(params)
    assert connected.load().kv_pulls_failed == 0


async def test_a_peer_whose_last_pull_failed_is_not_said_to_know_until_one_works_again(
    connected: VllmEngine, vllm: RecordedVllm
) -> None:
    params = await kept_by(connected, vllm)
    for fetched_tokens, released in ((1, False), (2, True)):
        vllm.script = ending(vllm, num_cached_tokens=fetched_tokens)
        await run(connected, request(Sampling(max_tokens=1), kv_transfer_params=params))
        assert await connected.release_kv(params) is released


async def test_transfers_are_counted(connected: VllmEngine, vllm: RecordedVllm) -> None:
    vllm.record(0, kv_connector_stats={"transfer_duration": [0.1, 0.1], "num_kv_expired_reqs": [1]})
    load = connected.load()
    assert (load.kv_pulls, load.kv_pulls_failed, load.kv_leases_expired) == (2, 0, 1)


async def test_without_a_connector_nothing_is_kept_fetched_or_released(engine: VllmEngine) -> None:
    for refused in (request(prefill_only=True), request(kv_transfer_params={})):
        with pytest.raises(InvalidRequestError, match="no KV connector"):
            await run(engine, refused)
    with pytest.raises(EngineError, match="no KV connector"):
        await engine.release_kv({})


async def test_a_side_channel_that_is_taken_is_said_before_anything_is_loaded(
    vllm: RecordedVllm, model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NixlConnector, "refuse_missing", lambda self: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        transfer = KvTransferSettings(connector="NixlConnector", side_channel_port=taken.getsockname()[1])
        settings = SETTINGS.model_copy(update={"kv_transfer": transfer})
        with pytest.raises(EngineError, match="side channel"):
            await VllmEngineFactory(ModelSettings(model=model_path), settings).start(lambda *report: None)
    assert vllm.engine_args is None


async def test_a_connector_without_its_library_is_said_before_anything_is_loaded(
    vllm: RecordedVllm, model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nixl", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="NIXL, which is not installed"):
        await VllmEngineFactory(ModelSettings(model=model_path), CONNECTED).start(lambda *report: None)
    assert vllm.engine_args is None


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


async def test_a_shutdown_while_a_constraint_waits_for_its_turn_is_told(vllm: RecordedVllm, model_path: str) -> None:
    engine = await VllmEngineFactory(ModelSettings(model=model_path), SETTINGS).start(lambda *report: None)
    go_on = asyncio.Event()
    ended: list[bool] = []

    async def admit(constraint: StructuredOutput) -> Turn:
        await go_on.wait()
        return Turn(ended.append)

    assert engine._constraints is not None
    engine._constraints.admit = admit  # type: ignore[method-assign]
    constraint = StructuredOutput(kind=StructuredKind.REGEX, value="a")
    task = asyncio.create_task(run(engine, request(Sampling(structured_output=constraint))))
    await asyncio.sleep(0)
    await engine.shutdown()
    go_on.set()
    with pytest.raises(EngineDeadError, match="shut down"):
        await task
    assert (engine.load().unfinished, ended) == (0, [False])


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
