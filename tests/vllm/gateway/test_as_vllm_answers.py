"""Every route of a model that generates answers as vLLM's own server does on the same engine, streamed or not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vllm.gateway.http_answers import difference, plain, streamed
from tests.vllm.gateway.pair import NAME, Pair

pytestmark = [pytest.mark.vllm]

USER: Any = {"role": "user", "content": "Paint the wall."}
PAINT: Any = {
    "name": "paint",
    "description": "Paint something.",
    "parameters": {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    },
}
TOOL: Any = {"type": "function", "function": PAINT}
STRICT: Any = {"type": "function", "function": {**PAINT, "strict": True}}
CALLED: Any = [
    USER,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "paint", "arguments": '{"colour": "red"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "The wall is red."},
    {"role": "user", "content": "Thanks."},
]
SAYS_A_CALL: Any = {"choice": ['<tool_call>\n{"name": "paint", "arguments": {"colour": "red"}}\n</tool_call>']}
SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": PAINT["parameters"]}}


def cases(end: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name, path and body of each request.  ``end``: the token that ends reasoning."""
    chat, text, responses, messages = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
    thought = {str(end): 100.0}  # where nothing forbids it, the model ends its reasoning at once
    yield "plain", chat, {"messages": [USER], "ignore_eos": True}
    yield "no reasoning", chat, {"messages": [USER], "include_reasoning": False, "ignore_eos": True}
    yield "reasoning", chat, {"messages": [USER], "ignore_eos": True, "logit_bias": thought, "max_tokens": 3}
    yield (
        "reasoning, then a choice",
        chat,
        {"messages": [USER], "logit_bias": thought, "structured_outputs": {"choice": ["red", "blue"]}},
    )
    yield (
        "reasoning, then JSON",
        chat,
        {"messages": [USER], "logit_bias": thought, "response_format": SCHEMA, "max_tokens": 60},
    )
    yield "three choices", chat, {"messages": [USER], "n": 3, "seed": 5, "temperature": 1.0, "ignore_eos": True}
    yield "log probabilities", chat, {"messages": [USER], "logprobs": True, "top_logprobs": 3, "ignore_eos": True}
    yield "usage", chat, {"messages": [USER], "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    yield "history of tools", chat, {"messages": CALLED, "tools": [TOOL], "ignore_eos": True}
    yield "tools, none called", chat, {"messages": [USER], "tools": [TOOL], "tool_choice": "none"}
    yield "tools, auto", chat, {"messages": [USER], "tools": [TOOL], "tool_choice": "auto"}
    said = {"messages": [USER], "tools": [TOOL], "logit_bias": thought, "structured_outputs": SAYS_A_CALL}
    yield "tools, auto, called", chat, {**said, "max_tokens": 80}
    for kind, tool in (("", TOOL), (" strict", STRICT)):
        asked = {"messages": [USER], "tools": [tool], "logit_bias": thought, "max_tokens": 80}
        yield f"tools,{kind} required", chat, {**asked, "tool_choice": "required", "parallel_tool_calls": False}
        yield f"tools,{kind} named", chat, {**asked, "tool_choice": {"type": "function", "function": {"name": "paint"}}}
        yield f"tools,{kind} ended by length", chat, {**asked, "tool_choice": "required", "max_tokens": 9}
    yield (
        "continue the last message",
        chat,
        {
            "messages": [USER, {"role": "assistant", "content": "The"}],
            "continue_final_message": True,
            "add_generation_prompt": False,
        },
    )
    yield "template arguments", chat, {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}}
    yield "token ids", chat, {"messages": [USER], "return_token_ids": True}
    yield "text", text, {"prompt": "Once upon", "ignore_eos": True}
    yield "texts", text, {"prompt": ["Once upon", "A time"], "ignore_eos": True}
    yield "token ids of a prompt", text, {"prompt": [300, 301, 302], "return_token_ids": True}
    yield "tokens' log probabilities", text, {"prompt": "Once", "logprobs": 2, "ignore_eos": True}
    yield "suffix of stop", text, {"prompt": "Once", "stop": ["e"], "include_stop_str_in_output": True}
    yield (
        "vLLM's own fields",
        text,
        {
            "prompt": "Once",
            "min_p": 0.05,
            "top_k": 9,
            "min_tokens": 2,
            "repetition_penalty": 1.1,
            "seed": 7,
            "stop_token_ids": [17],
            "logit_bias": {"300": 5.0},
            "cache_salt": "mine",
            "temperature": 0.8,
            "skip_special_tokens": False,
            "bad_words": ["the"],
            "allowed_token_ids": list(range(200, 900)),
        },
    )
    yield "an engine's option", text, {"prompt": "Once", "vllm_xargs": {"mine": 1}}
    yield "beams", text, {"prompt": "Once", "use_beam_search": True, "n": 2, "ignore_eos": True, "max_tokens": 4}
    yield "a regular expression", text, {"prompt": "Once", "structured_outputs": {"regex": "[a-c]{6}"}}
    yield "echo", text, {"prompt": "Once upon", "echo": True}
    yield "responses", responses, {"input": "Paint.", "max_output_tokens": 12}
    yield (
        "responses with instructions",
        responses,
        {"input": [{"role": "user", "content": "Paint."}], "instructions": "Be brief.", "max_output_tokens": 12},
    )
    yield (
        "responses with a schema",
        responses,
        {
            "input": "Paint.",
            "max_output_tokens": 60,
            "logit_bias": thought,
            "text": {"format": {"type": "json_schema", "name": "x", "schema": PAINT["parameters"]}},
        },
    )
    yield (
        "responses with a tool",
        responses,
        {
            "input": "Paint.",
            "tools": [{"type": "function", **PAINT}],
            "tool_choice": "required",
            "max_output_tokens": 80,
            "logit_bias": thought,
        },
    )
    yield "messages", messages, {"messages": [USER], "max_tokens": 12}
    yield (
        "messages with a tool",
        messages,
        {
            "messages": [USER],
            "max_tokens": 80,
            "tools": [{"name": "paint", "description": "Paint.", "input_schema": PAINT["parameters"]}],
            "tool_choice": {"type": "any"},
        },
    )
    yield "counted", "/v1/messages/count_tokens", {"messages": [USER]}
    yield "tokenized", "/tokenize", {"prompt": "Once upon", "return_token_strs": True}
    yield "a rendered conversation", "/tokenize", {"messages": CALLED, "tools": [TOOL]}
    yield "detokenized", "/detokenize", {"tokens": [300, 301]}
    yield "no messages", chat, {"messages": []}
    yield "no prompt", text, {}
    yield "a field out of range", chat, {"messages": [USER], "temperature": -1}
    yield "no such field of a schema", chat, {"messages": [USER], "response_format": {"type": "json_schema"}}


REFUSED = frozenset({"no messages", "no prompt", "a field out of range", "no such field of a schema"})
NOT_STREAMED = frozenset({"/tokenize", "/detokenize", "/v1/messages/count_tokens"})
DEFAULTS: Any = {"/v1/chat/completions": {"max_tokens": 12}, "/v1/completions": {"max_tokens": 12}}


async def test_the_gateway_answers_as_vllms_own_server_does(pair: Pair) -> None:
    async with pair.ours.http() as ours, pair.theirs.http() as theirs:
        wrong = [each async for each in differences(ours, theirs, pair.end_of_reasoning)]
    assert not wrong, "\n".join(wrong)


async def differences(ours: Any, theirs: Any, end: int) -> Any:
    """Yield each case that is answered in another way, with both answers."""
    for name, path, fields in cases(end):
        for stream in (False,) if path in NOT_STREAMED else (False, True):
            body = {"model": NAME, "temperature": 0, **DEFAULTS.get(path, {}), **fields}
            if path in NOT_STREAMED:
                del body["temperature"]
            if stream:
                body["stream"] = True
            else:
                body.pop("stream_options", None)
            found, wanted = await asyncio.gather(*(asked(each, path, body) for each in (ours, theirs)))
            if different := difference(found, wanted):
                yield f"{name}{' streamed' if stream else ''}: {different}"
            if found["status"] != (400 if name in REFUSED or (stream and name == "beams") else 200):
                yield f"{name}{' streamed' if stream else ''}: {found}"


async def asked(http: Any, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await http.post(path, json=body)
    if answer.headers["content-type"].startswith("text/event-stream"):
        return {"status": answer.status_code, **vars(streamed(answer.text))}
    found = answer.json()
    return {"status": answer.status_code, "body": plain(found) if answer.status_code < 400 else sorted(found)}
