"""A model of a real vLLM engine is served with its own files, and its tools are called."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.vllm.gateway.pair import NAME, Pair
from tests.vllm.gateway.thinking_model import NO_MORE

pytestmark = [pytest.mark.vllm]

CHAT: Any = [{"role": "user", "content": "Tell me a story."}]
PAINT: Any = {
    "type": "function",
    "function": {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "blue"]}},
            "required": ["colour"],
            "additionalProperties": False,
        },
    },
}


async def test_a_real_engine_behind_http(pair: Pair) -> None:
    thought = {str(pair.end_of_reasoning): 100.0}  # where nothing forbids it, the model ends its reasoning at once
    async with pair.ours.openai() as openai, pair.fleet.client() as client:
        wanted = await client.generate(messages=CHAT, temperature=0, max_tokens=20, ignore_eos=True).result()
        made = await openai.chat.completions.create(
            model=NAME, messages=CHAT, temperature=0, max_tokens=20, extra_body={"ignore_eos": True}
        )
        assert made.choices[0].message.reasoning == wanted.text, "it does not end its reasoning by itself"
        assert made.usage.prompt_tokens == wanted.usage.prompt_tokens
        await the_end_of_text_is_no_stop_reason(openai, thought)
        await a_required_tool_is_called(openai, thought)


async def the_end_of_text_is_no_stop_reason(openai: Any, thought: dict[str, float]) -> None:
    """A choice ends with the model's end of text, which vLLM's own server does not name."""
    made = await openai.completions.create(
        model=NAME,
        prompt="x",
        max_tokens=9,
        logit_bias=thought,
        extra_body={"structured_outputs": {"choice": ["red", "blue"]}},
    )
    [choice] = made.choices
    assert choice.text.removeprefix(NO_MORE) in ("red", "blue")
    assert (choice.finish_reason, choice.stop_reason) == ("stop", None)


async def a_required_tool_is_called(openai: Any, thought: dict[str, float]) -> None:
    """vLLM's server asks for a structural tag, which the engine keeps to.

    The tool is not strict, so its arguments are any JSON: a model that says noise fills objects with blanks for ever.
    """
    made = await openai.chat.completions.create(
        model=NAME,
        messages=CHAT,
        temperature=0,
        max_tokens=300,
        logit_bias=thought,
        tools=[PAINT],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    [call] = made.choices[0].message.tool_calls
    assert call.function.name == "paint"
    json.loads(call.function.arguments)
