"""Output histories without vLLM: stand-ins for what they rely on, and engines that pass or fail the self-test."""

from __future__ import annotations

import dataclasses
import random
import sys
import types
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from typing import Any

import pytest

from executor_svc.engine.vllm.output_history import EXTRA_ARG, history_of, request_states, self_test
from executor_svc.engine.vllm.output_history.scheduler import scheduler_with_history
from executor_svc.engine.vllm.output_history.self_test import HistorySelfTest
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineOutput,
    EngineRequest,
    FinishReason,
)
from tests.unit.engine.vllm.release import Release

# --- what is relied on ------------------------------------------------------------------------------------------


def test_the_oldest_release_has_what_histories_rely_on() -> None:
    release = Release()
    wanted = {"append_output_token_ids", "take_prefill_stats", "prefill_stats"}
    assert wanted <= release.names("vllm.v1.request:Request")
    grammar = "vllm.v1.structured_output.request:StructuredOutputRequest"
    assert {"grammar", "_grammar", "is_grammar_ready"} <= release.names(grammar)
    assert {"add_request", "requests"} <= release.names("vllm.v1.core.sched.scheduler:Scheduler")
    state = "vllm.v1.worker.gpu_input_batch:CachedRequestState"
    assert not request_states.NEEDED_FIELDS - set(release.fields(state))
    assert "__post_init__" in release.classes[state]["methods"]
    assert "scheduler_cls" in release.fields("vllm.config.scheduler:SchedulerConfig")


# --- the engine core's half ---------------------------------------------------------------------------------------


class Request:
    """As vLLM's."""

    def __init__(self, request_id: str, history: list[int] | None = None, grammar: Any = None) -> None:
        self.request_id = request_id
        self.sampling_params = types.SimpleNamespace(extra_args=history and {EXTRA_ARG: history})
        self.output: list[int] = []
        self.prefill_stats: object | None = object()
        self.structured_output_request = grammar and StructuredOutputRequest(grammar)

    def append_output_token_ids(self, token_ids: list[int]) -> None:
        self.output += token_ids

    def take_prefill_stats(self) -> None: ...


class StructuredOutputRequest:
    """As vLLM's."""

    is_grammar_ready = True
    reasoning_ended: bool | None = None

    def __init__(self, grammar: Any) -> None:
        self._grammar = grammar

    @property
    def grammar(self) -> Any:
        return self._grammar

    @grammar.setter
    def grammar(self, grammar: Any) -> None:
        self._grammar = grammar


class Scheduler:
    """As vLLM's."""

    def __init__(self, *, vllm_config: Any, log_stats: bool) -> None:
        self.requests: dict[str, Request] = {}

    def add_request(self, request: Request) -> None:
        self.requests[request.request_id] = request


class Grammar:
    def __init__(self, accepts: bool) -> None:
        self.accepts = accepts
        self.taken: list[int] = []

    def accept_tokens(self, request_id: str, tokens: list[int]) -> bool:
        self.taken += tokens
        return self.accepts


class SchedulerConfig:
    scheduler_cls: Any = "ours"

    def get_scheduler_cls(self) -> Any:
        assert self.scheduler_cls is None, "vLLM chooses where none is named"
        return Scheduler


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """vLLM's modules that hold the stand-ins."""
    parents = ("vllm", "vllm.v1", "vllm.v1.structured_output", "vllm.v1.worker")
    names = (
        *parents,
        *(f"vllm.v1.{name}" for name in ("request", "structured_output.request", "worker.gpu_input_batch")),
    )
    modules = {name: types.ModuleType(name) for name in names}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    modules["vllm.v1.request"].__dict__["Request"] = Request
    modules["vllm.v1.structured_output.request"].__dict__["StructuredOutputRequest"] = StructuredOutputRequest
    return modules


def scheduler() -> Any:
    config = types.SimpleNamespace(scheduler_config=SchedulerConfig())
    made = scheduler_with_history(config, log_stats=True)
    assert config.scheduler_config.scheduler_cls == "ours"
    return made


def test_a_request_begins_after_its_history(vllm: Any) -> None:
    made = scheduler()
    assert isinstance(made, Scheduler)
    plain, continued = Request("plain"), Request("continued", [5, 6])
    made.add_request(plain)
    made.add_request(continued)
    assert set(made.requests) == {"plain", "continued"}
    assert (plain.output, plain.prefill_stats is None) == ([], False)
    assert (continued.output, continued.prefill_stats) == ([5, 6], None)


def test_a_grammar_takes_the_history_when_it_is_compiled(vllm: Any) -> None:
    compiling: Future[Grammar] = Future()
    request = Request("r", [5, 6], grammar=compiling)
    scheduler().add_request(request)
    advanced = request.structured_output_request.grammar
    assert not advanced.done()
    grammar = Grammar(accepts=True)
    compiling.set_result(grammar)
    assert advanced.result() is grammar
    assert grammar.taken == [5, 6]


@pytest.mark.parametrize(
    ("begins", "taken", "ended"),
    [(2, [7], True), (3, [], True), (4, [], None)],  # 4: the reasoning goes on after the history
)
def test_a_grammar_takes_the_history_after_the_reasoning(
    vllm: Any, begins: int, taken: list[int], ended: bool | None
) -> None:
    constraints = types.SimpleNamespace(
        reasoner_cls=object(),
        _get_constraint_bounds=lambda request, tokens, spec_tokens_committed: types.SimpleNamespace(
            grammar_start=begins
        ),
    )
    grammar = Grammar(accepts=True)
    request = Request("r", [5, 6, 7], grammar=grammar)
    made = scheduler()
    made.structured_output_manager = constraints
    made.add_request(request)
    assert request.structured_output_request.grammar.result() is grammar
    assert grammar.taken == taken
    assert request.structured_output_request.reasoning_ended is ended


def test_a_history_that_its_grammar_refuses_fails_like_a_broken_grammar(vllm: Any) -> None:
    request = Request("r", [5, 6], grammar=Grammar(accepts=False))
    scheduler().add_request(request)
    with pytest.raises(ValueError, match="already delivered"):
        request.structured_output_request.grammar.result()


def test_another_vllm_gets_its_own_scheduler_and_a_warning(
    vllm: dict[str, types.ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    vllm["vllm.v1.request"].__dict__["Request"] = type("Request", (), {})
    assert type(scheduler()) is Scheduler
    assert "no Request.append_output_token_ids, Request.take_prefill_stats" in caplog.text


# --- the workers' half --------------------------------------------------------------------------------------------


def test_a_worker_of_another_vllm_is_left_alone_with_a_warning(
    vllm: dict[str, types.ModuleType], caplog: pytest.LogCaptureFixture
) -> None:
    @dataclasses.dataclass
    class CachedRequestState:
        req_id: str
        generator: Any

        def __post_init__(self) -> None: ...

    before = CachedRequestState.__post_init__
    vllm["vllm.v1.worker.gpu_input_batch"].__dict__["CachedRequestState"] = CachedRequestState
    request_states.install()
    assert CachedRequestState.__post_init__ is before
    assert "no output_token_ids, sampling_params" in caplog.text


def test_a_vllm_without_request_states_is_left_alone_with_a_warning(
    vllm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    request_states.install()
    assert "CachedRequestState" in caplog.text


def test_most_requests_have_no_history() -> None:
    for params in (None, types.SimpleNamespace(extra_args=None), types.SimpleNamespace(extra_args={"other": 1})):
        assert history_of(params) == []


# --- the self-test ------------------------------------------------------------------------------------------------

WORDS = "0123456789"


class Model:
    """An engine that continues from a history, but for what ``forgets`` names."""

    def __init__(self, *forgets: str) -> None:
        self.forgets = forgets

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        sampling, known = request.sampling, list(request.output_history)
        for way in self.forgets:
            if way == "everything" or getattr(sampling, way):
                known = []
        whole = self._tokens(request, known)
        ended = sampling.structured_output is not None
        reason = FinishReason.STOP if ended else FinishReason.LENGTH
        yield EngineOutput(token_ids=whole, finish_reason=reason, stop_token_id=10 if ended else None)

    def _tokens(self, request: EngineRequest, known: list[int]) -> list[int]:
        sampling = request.sampling
        if sampling.frequency_penalty:
            often, other = sampling.allowed_token_ids
            first = other if known.count(often) * 2 > sampling.logit_bias[often] else often
            return [first] * (sampling.max_tokens - len(known))
        if sampling.structured_output is not None:
            return [n % 10 for n in range(12 - len(known))] + [10]
        draws = random.Random(sampling.seed)
        return [draws.randrange(1000) for _ in range(sampling.max_tokens)][len(known) :]


def trial_of(model: Any, *, max_model_len: int = 1024) -> HistorySelfTest:
    return HistorySelfTest(
        model.generate, lambda ids: "".join(WORDS[i] for i in ids), vocab_size=1000, max_model_len=max_model_len
    )


async def test_an_engine_that_continues_from_histories_passes() -> None:
    assert await trial_of(Model()).failure() is None


@pytest.mark.parametrize(
    ("forgets", "why"),
    [
        ("everything", "penalties and limits"),
        ("frequency_penalty", "penalties and limits"),
        ("seed", "random numbers"),
        ("structured_output", "grammar"),
    ],
)
async def test_an_engine_that_forgets_a_part_of_the_history_fails(forgets: str, why: str) -> None:
    assert why in str(await trial_of(Model(forgets)).failure())


async def test_a_model_that_is_too_short_for_the_trial_fails() -> None:
    assert "limit is 64" in str(await trial_of(Model(), max_model_len=64).failure())


class Failing:
    def __init__(self, error: Exception | None) -> None:
        self.error = error

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        if self.error is not None:
            raise self.error
        yield EngineOutput(token_ids=[])


async def test_a_trial_that_the_engine_fails_is_a_reason() -> None:
    assert await trial_of(Failing(EngineError("no such thing"))).failure() == "no such thing"


async def test_a_trial_that_ends_the_engine_names_the_setting() -> None:
    with pytest.raises(EngineDeadError, match=r"vllm\.output_history=false"):
        await trial_of(Failing(EngineDeadError("gone"))).failure()


def test_the_longest_trial_fits_what_is_asked_for() -> None:
    assert self_test.PROMPT_TOKENS + self_test.PENALISED.max_tokens < self_test.LONGEST
