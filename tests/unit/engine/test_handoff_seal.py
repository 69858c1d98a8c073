"""The seal around transfer parameters."""

from __future__ import annotations

import json

import pytest

from executor_svc.engine.handoff_seal import SEAL, opened, sealed
from executor_svc.runtime.engine_port import EngineError, JsonValue

PARAMS: dict[str, JsonValue] = {"engine": "e", "blocks": [[1, 2], [3]], "port": 7, "none": None, "share": 0.1}
PROMPT = [5, 6, 7]


def test_what_was_sealed_opens_to_what_it_was() -> None:
    assert opened(sealed(PARAMS, PROMPT, None), PROMPT) == PARAMS
    assert opened(sealed(PARAMS, PROMPT, "french"), PROMPT, "french") == PARAMS


def test_it_opens_after_a_journey_as_json_in_another_order() -> None:
    travelled = json.loads(json.dumps(sealed(PARAMS, PROMPT, None), sort_keys=True))
    assert opened(travelled, tuple(PROMPT)) == PARAMS


def test_without_a_prompt_only_the_parameters_are_checked() -> None:
    assert opened(sealed(PARAMS, PROMPT, "french"), None) == PARAMS


@pytest.mark.parametrize("change", [{"port": 8}, {"blocks": [[1, 2], [4]]}, {"more": 1}, {SEAL: None}, {SEAL: "a:b"}])
@pytest.mark.parametrize("prompt", [PROMPT, None])
def test_a_change_on_the_way_is_noticed(change: dict[str, JsonValue], prompt: list[int] | None) -> None:
    with pytest.raises(EngineError, match="handoff was changed"):
        opened({**sealed(PARAMS, PROMPT, None), **change}, prompt)


def test_parameters_that_were_never_sealed_are_none_of_ours() -> None:
    with pytest.raises(EngineError, match="has no seal"):
        opened(PARAMS, PROMPT)


@pytest.mark.parametrize(
    ("prompt", "adapter"), [([5, 6], None), ([5, 6, 8], None), ([5, 6, 7, 7], None), (PROMPT, "f")]
)
def test_another_prompt_or_adapter_is_noticed(prompt: list[int], adapter: str | None) -> None:
    with pytest.raises(EngineError, match="another prompt"):
        opened(sealed(PARAMS, PROMPT, None), prompt, adapter)


def test_the_seals_of_two_handoffs_cannot_be_swapped() -> None:
    one, other = sealed(PARAMS, PROMPT, None), sealed({**PARAMS, "port": 8}, PROMPT, None)
    with pytest.raises(EngineError):
        opened({**one, SEAL: other[SEAL]}, PROMPT)
