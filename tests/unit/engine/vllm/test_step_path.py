"""Outputs by steps, against the recorded signatures of vLLM 0.26."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.constraints.gate import Turn
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.engine.vllm.step_path import signatures, step_path
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineOutput,
    EngineRequest,
    FinishReason,
    InvalidRequestError,
    Sampling,
    Step,
    StepOutput,
    StructuredKind,
    StructuredOutput,
)
from tests.unit.engine.vllm.conftest import SETTINGS
from tests.unit.engine.vllm.recorded_processor import RecordedProcessor
from tests.unit.engine.vllm.recorded_vllm import RecordedVllm

REQUEST = EngineRequest(engine_request_id="r/1", prompt_token_ids=(300, 301), sampling=Sampling(max_tokens=4))
INTERNAL = "r/1-0a0b0c0d"


CONSTRAINED = replace(
    REQUEST,
    sampling=replace(REQUEST.sampling, structured_output=StructuredOutput(kind=StructuredKind.REGEX, value="a")),
)


class Constraints:
    """A gate for constraints that opens when a test says so."""

    def __init__(self, refusal: InvalidRequestError | None = None) -> None:
        self.refusal = refusal
        self.task: asyncio.Task[Any] | None = None  # that waits
        self.may_go = asyncio.Event()
        self.admitted = asyncio.Event()
        self.ends: list[bool] = []

    async def admit(self, constraint: StructuredOutput) -> Turn:
        self.task = asyncio.current_task()
        async with asyncio.timeout(60):
            await self.may_go.wait()
        self.admitted.set()
        if self.refusal is not None:
            raise self.refusal
        return Turn(self._ended)

    def _ended(self, compiled: bool) -> None:
        self.ends.append(compiled)


class Reader:
    def __init__(self) -> None:
        self.outputs: list[StepOutput] = []

    def take(self, output: StepOutput) -> None:
        self.outputs.append(output)

    @property
    def token_ids(self) -> list[int]:
        parts = [output if isinstance(output, list) else output.token_ids for output in self.outputs]  # type: ignore[union-attr]
        return [token for part in parts for token in part]


class Taken:
    """The steps that an engine delivered."""

    def __init__(self, engine: VllmEngine) -> None:
        self.steps: list[Step] = []
        engine.on_outputs(self._take)

    def _take(self, step: Step) -> None:
        self.steps.append(step)
        for reader, output in step:
            reader.take(output)


@pytest.fixture
def taken(engine: VllmEngine, vllm: RecordedVllm) -> Taken:
    vllm.processor.seen.clear()
    vllm.processor.added.clear()
    vllm.processor.sent.clear()
    vllm.processor.script = lambda internal, params: None
    return Taken(engine)


async def submitted(engine: VllmEngine, request: EngineRequest = REQUEST) -> Reader:
    reader = Reader()
    assert engine.submit(request, reader)
    await asyncio.sleep(0)  # vLLM has it
    return reader


def numbered(number: int) -> EngineRequest:
    """A request with the options of all the others."""
    return replace(REQUEST, engine_request_id=f"r/{number}", prompt_token_ids=(300, number))


def adding() -> list[str]:
    """The names of tasks that add requests to vLLM."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("add-")]


async def started(model_path: str, settings: VllmSettings = SETTINGS) -> VllmEngine:
    return await VllmEngineFactory(ModelSettings(model=model_path), settings).start(lambda *report: None)


async def test_a_request_gets_its_tokens_and_its_end(engine: VllmEngine, vllm: RecordedVllm, taken: Taken) -> None:
    reader = await submitted(engine)
    for ids, ended in (([500], None), ([501, 502], None), ([503], "length")):
        vllm.processor.step({INTERNAL: ids}, ended=ended)
    first, middle, last = reader.outputs
    assert (reader.token_ids, middle) == ([500, 501, 502, 503], [501, 502])
    assert isinstance(first, EngineOutput)
    assert isinstance(last, EngineOutput)
    assert (first.cached_prompt_tokens, last.cached_prompt_tokens) == (3, None)
    assert (first.finish_reason, last.finish_reason) == (None, FinishReason.LENGTH)
    assert engine.load().unfinished == 0
    assert engine.load().submissions == {"steps": 1}


async def test_a_step_of_many_requests_is_one_list_and_others_go_their_way(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    readers = [await submitted(engine, numbered(number)) for number in range(3)]
    queue: list[Any] = []
    vllm.processor.states["other"] = types.SimpleNamespace(
        queue=types.SimpleNamespace(put=queue.append), stats=types.SimpleNamespace(num_generation_tokens=0)
    )
    names = {sent.request_id: number for number, sent in enumerate(vllm.processor.sent)}
    for start in (500, 600):
        vllm.processor.step({"other": [start], **{name: [start + number] for name, number in names.items()}})
    assert [reader.token_ids for reader in readers] == [[500 + number, 600 + number] for number in range(3)]
    assert [len(step) for step in taken.steps] == [3, 3]
    assert [output.outputs[0].token_ids for output in queue] == [[500], [600]]
    assert vllm.processor.seen == [
        "other",
        *names,
        "other",
    ]  # after the first ones, vLLM's method sees no token of ours


async def test_vllms_own_statistics_count_every_token(engine: VllmEngine, vllm: RecordedVllm, taken: Taken) -> None:
    await submitted(engine)
    stats = vllm.processor.states[INTERNAL].stats
    vllm.processor.iteration_stats.clear()
    for ids in ([500], [501, 502], [503]):
        vllm.processor.step({INTERNAL: ids})
    assert [each.num_generation_tokens for each in vllm.processor.iteration_stats] == [1, 2, 1]
    assert (stats.num_generation_tokens, stats.last_token_ts) == (4, 12.5)


async def test_an_output_with_scheduling_events_passes_through_vllms_method(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    reader = await submitted(engine)
    vllm.processor.step({INTERNAL: [500]})
    vllm.processor.step({INTERNAL: [501]}, events=["preempted"])
    assert vllm.processor.seen == [INTERNAL, INTERNAL]
    assert reader.token_ids == [500, 501]


async def test_the_first_output_may_come_before_vllm_says_that_it_has_the_request(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    vllm.processor.script = lambda internal, params: vllm.processor.step({internal: [500]}, ended="length")
    assert (await submitted(engine)).token_ids == [500]


@pytest.mark.parametrize(("stop_reason", "stop_token"), [(77, 77), (None, 500)])
async def test_the_token_that_ended_it_is_told(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken, stop_reason: int | None, stop_token: int
) -> None:
    reader = await submitted(engine)
    vllm.processor.step({INTERNAL: [500]}, ended="stop", stop_reason=stop_reason)
    (output,) = reader.outputs
    assert isinstance(output, EngineOutput)
    assert (output.finish_reason, output.stop_token_id) == (FinishReason.STOP, stop_token)


async def test_an_abort_ends_it_in_vllm_and_nothing_more_comes(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    reader = await submitted(engine)
    vllm.processor.step({INTERNAL: [500]})
    await engine.abort("r/1")
    vllm.processor.step({INTERNAL: [501]})
    assert (vllm.stops, reader.token_ids) == ([("abort", INTERNAL)], [500])
    assert (engine.load().unfinished, vllm.processor.states) == (0, {})


async def test_an_abort_while_vllm_takes_the_request_waits_for_that(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    vllm.processor.core_reads.clear()
    reader = await submitted(engine)
    assert adding() == ["add-r/1"]
    await engine.abort("r/1")
    assert (adding(), vllm.processor.sent, vllm.stops) == ([], [], [("abort", INTERNAL)])
    assert (vllm.processor.states, reader.outputs, engine.load().unfinished) == ({}, [], 0)


async def test_an_abort_by_vllm_is_told(engine: VllmEngine, vllm: RecordedVllm, taken: Taken) -> None:
    reader = await submitted(engine)
    vllm.processor.abort(INTERNAL)
    (output,) = reader.outputs
    assert isinstance(output, EngineOutput)
    assert output.finish_reason is FinishReason.ABORTED
    assert engine.load().unfinished == 0


async def test_death_is_told_to_every_request(engine: VllmEngine, vllm: RecordedVllm, taken: Taken) -> None:
    readers = [await submitted(engine, numbered(number)) for number in range(2)]
    vllm.processor.thing.propagate_error(vllm.engine_exceptions.EngineDeadError())
    assert [type(reader.outputs[0]) for reader in readers] == [EngineDeadError, EngineDeadError]
    assert engine.load().unfinished == 0


async def test_what_vllm_refuses_is_told(engine: VllmEngine, vllm: RecordedVllm, taken: Taken) -> None:
    error = vllm.exceptions.VLLMValidationError("too hot")
    error.parameter = "temperature"

    def refuse(internal: str, params: Any) -> None:
        raise error

    vllm.processor.script = refuse
    (output,) = (await submitted(engine)).outputs
    assert isinstance(output, InvalidRequestError)
    assert output.field_name == "sampling.temperature"
    assert engine.load().unfinished == 0


async def test_an_end_without_a_known_reason_is_the_engines(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    reader = await submitted(engine)
    vllm.processor.step({INTERNAL: []}, ended="error")
    assert isinstance(reader.outputs[0], EngineError)
    assert engine.load().unfinished == 0


async def test_what_needs_a_stream_of_its_own_is_refused(engine: VllmEngine, taken: Taken) -> None:
    for sampling in (Sampling(logprobs=0), Sampling(prompt_logprobs=1)):
        assert not engine.submit(replace(REQUEST, sampling=sampling), Reader())
    assert not engine.submit(replace(REQUEST, kv_transfer_params={}), Reader())
    assert engine.load().submissions == {"logprobs": 2, "kv_transfer": 1}


async def test_a_constraint_is_waited_for_in_a_task_of_its_own(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout around a trial must end no task but the one that adds the request."""
    waits = Constraints()
    monkeypatch.setattr(engine, "_constraints", waits)
    reader = await submitted(engine, CONSTRAINED)
    assert (vllm.processor.states, engine.load().unfinished) == ({}, 0)
    assert waits.task is not asyncio.current_task()
    waits.may_go.set()
    await waits.admitted.wait()
    await asyncio.sleep(0)
    vllm.processor.step({INTERNAL: [500]})
    assert waits.ends == [True]  # the engine has compiled it
    vllm.processor.step({INTERNAL: [501]}, ended="length")
    assert (reader.token_ids, engine.load().unfinished) == ([500, 501], 0)


async def test_a_constraint_that_is_refused_ends_the_request(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Constraints(InvalidRequestError("structured_output.regex", "it does not compile"))
    monkeypatch.setattr(engine, "_constraints", waits)
    reader = await submitted(engine, CONSTRAINED)
    waits.may_go.set()
    await waits.admitted.wait()
    await asyncio.sleep(0)
    assert reader.outputs == [waits.refusal]
    assert (vllm.processor.added, engine.load().unfinished) == ([], 0)


async def test_an_abort_while_a_constraint_waits_ends_the_wait(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Constraints()
    monkeypatch.setattr(engine, "_constraints", waits)
    reader = await submitted(engine, CONSTRAINED)
    await engine.abort("r/1")
    assert waits.task is not None
    assert waits.task.cancelled()
    assert (vllm.processor.added, reader.outputs, engine.load().unfinished) == ([], [], 0)


async def test_shutdown_ends_what_vllm_did_not_have_yet(
    vllm: RecordedVllm, model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await started(model_path)
    Taken(engine)
    vllm.processor.core_reads.clear()
    monkeypatch.setattr(engine, "_constraints", Constraints())
    readers = [await submitted(engine, each) for each in (REQUEST, replace(CONSTRAINED, engine_request_id="r/2"))]
    assert sorted(adding()) == ["add-r/1", "add-r/2"]
    await engine.shutdown()
    await asyncio.sleep(0)
    assert adding() == []
    assert [[type(output) for output in reader.outputs] for reader in readers] == [[EngineDeadError]] * 2


async def test_an_id_is_in_use_while_its_constraint_waits(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = Constraints()
    monkeypatch.setattr(engine, "_constraints", waits)
    reader = await submitted(engine, CONSTRAINED)
    for request in (REQUEST, CONSTRAINED):
        with pytest.raises(EngineError, match="in use"):
            engine.submit(request, Reader())
        with pytest.raises(EngineError, match="in use"):
            await anext(engine.generate(request))
    waits.may_go.set()
    await waits.admitted.wait()
    await asyncio.sleep(0)
    vllm.processor.step({INTERNAL: [500]}, ended="length")
    assert (reader.token_ids, engine.load().unfinished) == ([500], 0)


# --- requests that are made from earlier ones ---------------------------------------------------------------------


async def test_a_request_is_made_from_an_earlier_one_with_its_options(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    first, second = await submitted(engine, numbered(1)), await submitted(engine, numbered(2))
    assert [call["request_id"] for call in vllm.processor.added] == ["r/1"]
    by_vllm, made = vllm.processor.sent
    assert (made.external_req_id, made.prompt_token_ids) == ("r/2", [300, 2])
    assert made.sampling_params is by_vllm.sampling_params
    vllm.processor.step({by_vllm.request_id: [500], made.request_id: [600]})
    vllm.processor.step({by_vllm.request_id: [501]}, ended="length")
    await engine.abort("r/2")
    assert (first.token_ids, second.token_ids) == ([500, 501], [600])
    assert vllm.stops == [("abort", made.request_id)]
    assert (engine.load().unfinished, vllm.processor.states) == (0, {})


async def test_a_dead_engine_is_told_after_the_submission_of_a_request_that_was_made(
    engine: VllmEngine, vllm: RecordedVllm, taken: Taken
) -> None:
    await submitted(engine, numbered(1))
    engine._llm.errored = True
    reader = Reader()
    assert engine.submit(numbered(2), reader)
    assert reader.outputs == []  # not within ``submit``: its caller is not ready for it
    await asyncio.sleep(0)
    assert [type(output) for output in reader.outputs] == [EngineDeadError]
    assert len(vllm.processor.sent) == 1


def fail_the_second_trial(processor: RecordedProcessor) -> None:
    def script(internal: str, params: Any) -> None:
        if "steps-again" in internal:
            raise RuntimeError("unheard of")
        processor.count_up(internal, params)

    processor.script = script


@pytest.mark.parametrize(
    ("trial_fails", "why"),
    [
        (True, "unheard of"),
        (False, "_add_request has the parameters ('request', 'prompt', 'parent_req', 'index', 'queue')"),
    ],
)
async def test_vllm_makes_every_request_where_it_does_not_take_ours(
    vllm: RecordedVllm,
    model_path: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    trial_fails: bool,
    why: str,
) -> None:
    if trial_fails:
        vllm.prepare = fail_the_second_trial
    else:
        monkeypatch.setattr(signatures, "ADD_MADE_REQUEST", ("request", "something_else"))
    engine = await started(model_path)
    assert engine.load().unfinished == 0
    vllm.processor.added.clear()
    Taken(engine)
    for number in (1, 2):
        await submitted(engine, numbered(number))
    assert [call["request_id"] for call in vllm.processor.added] == ["r/1", "r/2"]
    said = [record.message for record in caplog.records if "each request's options anew" in record.message]
    assert len(said) == 1
    assert said[0].endswith(why)
    await engine.shutdown()


# --- another vLLM -------------------------------------------------------------------------------------------------


def with_other_parameters(processor: RecordedProcessor) -> None:
    processor.thing.process_outputs = lambda engine_core_outputs, more, yet_more, unheard_of: None


def without_statistics(processor: RecordedProcessor) -> None:
    processor.thing.log_stats = False


@pytest.mark.parametrize(
    ("prepare", "why"),
    [(with_other_parameters, "process_outputs has the parameters"), (without_statistics, "statistics are off")],
)
async def test_another_vllm_is_read_the_public_way_which_is_said_once_and_counted(
    vllm: RecordedVllm,
    model_path: str,
    caplog: pytest.LogCaptureFixture,
    prepare: Callable[[RecordedProcessor], None],
    why: str,
) -> None:
    vllm.prepare = prepare
    engine = await started(model_path)
    assert [engine.submit(REQUEST, Reader()) for _ in range(3)] == [False] * 3
    assert engine.load().submissions == {"unsupported": 3}
    said = [record.message for record in caplog.records if "twice the CPU" in record.message]
    assert len(said) == 1
    assert why in said[0]
    await engine.shutdown()


async def test_an_attribute_that_is_gone_is_a_difference(
    vllm: RecordedVllm, model_path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys.modules["vllm.v1.engine"].EngineCoreOutput, "events")  # the stand-in's
    engine = await started(model_path)
    assert not engine.submit(REQUEST, Reader())
    assert "EngineCoreOutput has no events" in caplog.text
    await engine.shutdown()


async def test_an_engine_whose_trial_gets_no_tokens_is_read_the_public_way(
    vllm: RecordedVllm, model_path: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_path, "TRIAL_TIMEOUT_S", 0.01)
    vllm.prepare = lambda processor: setattr(processor, "script", lambda internal, params: None)
    engine = await started(model_path)
    assert not engine.submit(REQUEST, Reader())
    assert "did not end in 0.01 s" in caplog.text
    assert engine.load().unfinished == 0
    assert vllm.processor.states == {}
    await engine.shutdown()


async def test_the_setting_switches_it_off_without_a_warning(
    vllm: RecordedVllm, model_path: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = await started(model_path, SETTINGS.model_copy(update={"step_path": False}))
    assert not engine.submit(REQUEST, Reader())
    assert engine.load().submissions == {"off": 1}
    assert "twice the CPU" not in caplog.text
    await engine.shutdown()
