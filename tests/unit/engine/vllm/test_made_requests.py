"""Requests for vLLM that are made from an earlier one with the same options."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from executor_svc.engine.vllm.sampling import SEED_FOR_NO_SEED
from executor_svc.engine.vllm.step_path import made_requests
from executor_svc.engine.vllm.step_path.made_requests import CHECKED_EACH_TIME, PER_REQUEST, MadeRequests
from executor_svc.runtime.engine_port import EngineRequest, Sampling, StructuredKind, StructuredOutput

REQUEST = EngineRequest(
    engine_request_id="r/1", prompt_token_ids=(300, 301), sampling=Sampling(max_tokens=4, top_p=0.5), priority=3
)

CHECKED_VALUES: dict[str, Any] = {
    "logit_bias": {1: 2.0},
    "bad_words": ("word",),
    "allowed_token_ids": (3,),
    "structured_output": StructuredOutput(kind=StructuredKind.REGEX, value="a"),
    "logprobs": 0,
    "prompt_logprobs": 0,
    "cache_salt": "x",
    "engine_options": {"a": "1"},
}
OTHER_VALUES: dict[str, Any] = {
    "temperature": 0.25,
    "top_p": 0.75,
    "top_k": 9,
    "min_p": 0.125,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "min_tokens": 2,
    "ignore_eos": True,
    "stop_token_ids": (8,),
}


@dataclass
class Params:
    """Stands for vLLM's SamplingParams, with something that vLLM derived."""

    max_tokens: int = 4
    seed: int | None = None
    derived: str = "end ids"


@dataclass
class CoreRequest:
    """Stands for vLLM's EngineCoreRequest."""

    request_id: str = "r/1-0a0b0c0d"
    external_req_id: str = "r/1"
    prompt_token_ids: list[int] = field(default_factory=lambda: [300, 301])
    sampling_params: Any = field(default_factory=Params)
    arrival_time: float = 1.0
    lora_request: Any = None
    trace_headers: Any = None
    priority: int = 3


def made(requests: MadeRequests, request: EngineRequest) -> Any | None:
    return requests.make(request, lora_request="adapter", trace_headers={"traceparent": "00"})


def knowing(request: EngineRequest = REQUEST) -> MadeRequests:
    requests = MadeRequests()
    requests.learn(request, CoreRequest())
    return requests


def with_option(name: str, value: Any) -> EngineRequest:
    return replace(REQUEST, sampling=replace(REQUEST.sampling, **{name: value}))


def test_what_is_the_requests_own_is_its_own_and_the_rest_as_vllm_made_it() -> None:
    requests = knowing()
    own = replace(REQUEST, engine_request_id="r/2", prompt_token_ids=(5, 6, 7), priority=1)
    first, second = made(requests, own), made(requests, own)
    assert first is not None
    assert second is not None
    assert first.request_id.startswith("r/2-")
    assert first.request_id != second.request_id
    assert first.arrival_time > 1.0
    plain = replace(first, request_id="", arrival_time=0.0)
    assert plain == CoreRequest("", "r/2", [5, 6, 7], Params(), 0.0, "adapter", {"traceparent": "00"}, 1)


def test_seed_and_length_are_each_requests_own() -> None:
    requests = knowing(with_option("seed", 7))
    for seed, given in ((9, 9), (-1, SEED_FOR_NO_SEED)):
        own = replace(REQUEST, sampling=replace(REQUEST.sampling, seed=seed, max_tokens=11))
        found = made(requests, own)
        assert found is not None
        assert found.sampling_params == Params(11, given)
    assert made(requests, REQUEST) is None  # without a seed vLLM samples in another way


def test_a_request_that_was_made_does_not_change_what_is_known() -> None:
    requests = knowing()
    first = made(requests, with_option("max_tokens", 11))
    assert first is not None
    first.prompt_token_ids.append(9)
    second = made(requests, REQUEST)
    assert second is not None
    assert (second.prompt_token_ids, second.sampling_params.max_tokens) == ([300, 301], 4)


def test_every_option_is_one_of_the_three_kinds() -> None:
    """A new option must be added to OTHER_VALUES or to one of the lists."""
    assert {each.name for each in fields(Sampling)} == {*PER_REQUEST, *CHECKED_EACH_TIME, *OTHER_VALUES}
    assert set(CHECKED_EACH_TIME) == set(CHECKED_VALUES)


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_another_option_is_another_request(name: str) -> None:
    other = with_option(name, OTHER_VALUES[name])
    requests = knowing()
    assert made(requests, other) is None
    requests.learn(other, CoreRequest())
    assert made(requests, other) is not None


def test_another_adapter_is_another_request() -> None:
    assert made(knowing(), replace(REQUEST, adapter="sql")) is None


@pytest.mark.parametrize("name", sorted(CHECKED_VALUES))
def test_vllm_checks_some_options_each_time(name: str) -> None:
    checked = with_option(name, CHECKED_VALUES[name])
    assert made(knowing(checked), checked) is None


@pytest.mark.parametrize(
    "odd",
    [
        replace(REQUEST, output_history=(5,)),
        with_option("max_tokens", 0),
        with_option("min_tokens", 5),
    ],
)
def test_vllm_is_asked_about_what_it_may_refuse(odd: EngineRequest) -> None:
    assert made(knowing(odd), odd) is None


def test_the_oldest_combination_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_requests, "MOST_KEPT", 2)
    requests = MadeRequests()
    each = [with_option("top_k", number) for number in (1, 2, 3)]
    for request in each:
        requests.learn(request, CoreRequest())
    assert [made(requests, request) is not None for request in each] == [False, True, True]
