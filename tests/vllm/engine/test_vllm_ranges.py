"""What the contract allows, vLLM accepts; what vLLM refuses, the contract refuses first."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from executor_svc.engine.vllm.errors import VllmErrors
from executor_svc.engine.vllm.sampling import sampling_arguments
from executor_svc.runtime.engine_port import Sampling
from scheduler_svc.domain import admission
from scheduler_svc.domain.request import Sampling as Asked

pytestmark = [pytest.mark.vllm]

TRIED: dict[str, list[Any]] = {
    "temperature": [0.0, 1e-9, 0.009, 1.0, 2.0, 2.001, 5.0, -0.1, float("inf"), float("nan")],
    "top_p": [0.0, 1e-9, 0.5, 1.0, 1.001],
    "top_k": [0, 1, 2**31 - 1],
    "min_p": [0.0, 1.0, -0.1, 1.1],
    "presence_penalty": [-2.0, 2.0, -2.1, 2.1],
    "frequency_penalty": [-2.0, 2.0, -2.1, 2.1],
    "repetition_penalty": [1e-9, 1.0, 2.0, 0.0, -1.0],
    "seed": [-(2**63), -1, 0, 2**63 - 1],
    "min_tokens": [0, 16, 17],
    "logprobs": [0, 20],
    "prompt_logprobs": [0, 20],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in TRIED.items() for value in values])
def test_what_the_contract_allows_vllm_accepts(name: str, value: Any) -> None:
    from vllm import SamplingParams

    asked = Asked(**{name: value})
    allowed = not admission.check_sampling(asked, vocab_size=1000)
    shared = {field.name for field in fields(Sampling)} & {field.name for field in fields(Asked)}
    sampling = Sampling(**{each: getattr(asked, each) for each in shared if each != "structured_output"})
    try:
        SamplingParams(**sampling_arguments(sampling, None))
    except VllmErrors().invalid_params:
        accepted = False
    else:
        accepted = True
    assert accepted or not allowed, "the contract allows what vLLM refuses"
    assert allowed or not accepted, "the contract refuses what vLLM accepts"


def test_a_seed_that_vllm_takes_for_none_stays_a_seed() -> None:
    from vllm import SamplingParams

    assert SamplingParams(seed=-1).seed is None
    assert SamplingParams(**sampling_arguments(Sampling(seed=-1), None)).seed is not None
