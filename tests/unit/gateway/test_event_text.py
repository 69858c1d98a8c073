"""The events of plain streams.  ``tests/vllm/gateway/test_plain_streams.py`` compares all of them with vLLM's own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sage_client import FinishReason
from sage_gateway.plain_streams.chunks import ChatChunks, Chunks, CompletionChunks, StreamFacts
from sage_gateway.plain_streams.event_text import EventText
from sage_gateway.plain_streams.waiting_output import Output
from tests.unit.gateway.scripted_end import end

FACTS = StreamFacts(
    answer_id="chatcmpl-1",
    created=2,
    model="m",
    prompt_tokens=3,
    fingerprint="f",
    usage=False,
    continuous_usage=False,
    cached_tokens=True,
    completion_details=True,
)


def events(text: str) -> list[object]:
    assert text.endswith("data: [DONE]\n\n")
    lines = text.removesuffix("data: [DONE]\n\n").split("\n\n")[:-1]
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def written(chunks: Chunks, *outputs: Output, usage: bool = False) -> str:
    text = EventText(chunks, usage=usage, eos=9)
    return "".join(map(text.of, outputs))


def test_a_chat_begins_with_its_role_and_ends_with_why() -> None:
    found = written(ChatChunks(FACTS, "assistant"), Output('a"\n', 1, None), Output("é", 1, end()))
    assert found == (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":2,"model":"m","choices":[{"index":0,'
        '"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],'
        '"prompt_token_ids":null,"prompt_text":null}\n\n'
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":2,"model":"m","choices":[{"index":0,'
        '"delta":{"content":"a\\"\\n"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":2,"model":"m","choices":[{"index":0,'
        '"delta":{"content":"é"},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null}],'
        '"system_fingerprint":"f"}\n\n'
        "data: [DONE]\n\n"
    )


@pytest.mark.parametrize("known", [True, False])
def test_a_chats_continuous_usage_has_the_fields_that_vllms_has(known: bool) -> None:
    facts = replace(FACTS, continuous_usage=True, completion_details=known)
    head, piece, *_ = events(written(ChatChunks(facts, "assistant"), Output("a", 1, None), Output("b", 1, end())))
    for event in (head, piece):
        assert ("completion_tokens_details" in event["usage"]) is known  # type: ignore[index]


def test_a_completion_has_only_texts() -> None:
    found = written(CompletionChunks(FACTS), Output("a", 1, end(FinishReason.STOP, stop_string="x")))
    assert found == (
        'data: {"id":"chatcmpl-1","object":"text_completion","created":2,"model":"m","choices":[{"index":0,'
        '"text":"a","logprobs":null,"finish_reason":"stop","stop_reason":"x","prompt_token_ids":null,'
        '"token_ids":null}],"system_fingerprint":"f"}\n\n'
        "data: [DONE]\n\n"
    )


@pytest.mark.parametrize(("stopped_by", "told"), [(9, None), (8, 8), (None, None)])
def test_the_token_that_ends_every_text_is_no_stop_reason(stopped_by: int | None, told: int | None) -> None:
    finished = end(FinishReason.STOP, stop_token_id=stopped_by)
    [only] = events(written(CompletionChunks(FACTS), Output("a", 1, finished)))
    assert only["choices"][0]["stop_reason"] == told  # type: ignore[index]


def test_the_usage_comes_last_and_then_has_the_fingerprint() -> None:
    facts = replace(FACTS, usage=True)
    end_event, usage = events(written(CompletionChunks(facts), Output("a", 4, end(), 2), usage=True))
    assert "system_fingerprint" not in end_event  # type: ignore[operator]
    assert usage["usage"] == {  # type: ignore[index]
        "prompt_tokens": 3,
        "total_tokens": 7,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    assert (usage["choices"], usage["system_fingerprint"]) == ([], "f")  # type: ignore[index]


def test_cached_tokens_that_are_known_too_late_are_not_told() -> None:
    facts = replace(FACTS, usage=True)
    *_, usage = events(written(CompletionChunks(facts), Output("a", 1, None), Output("b", 1, end(), 2), usage=True))
    assert "prompt_tokens_details" not in usage["usage"]  # type: ignore[index]


def test_every_event_has_the_usage_on_request() -> None:
    facts = replace(FACTS, usage=True, continuous_usage=True)
    found = events(written(ChatChunks(facts, "assistant"), Output("a", 1, None), Output("b", 2, end()), usage=True))
    assert [event["usage"]["completion_tokens"] for event in found] == [0, 1, 3, 3]  # type: ignore[index]


def test_an_answer_without_a_token_has_no_end_event() -> None:
    """As vLLM's: it takes such an output for a prompt that is not computed yet."""
    assert len(events(written(ChatChunks(FACTS, "assistant"), Output("", 0, end())))) == 1
    assert events(written(CompletionChunks(FACTS), Output("", 0, end()))) == []
