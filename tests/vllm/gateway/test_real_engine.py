"""A model of a real vLLM engine is served with its own files, and its tools are called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.tiny_model import make_tiny_model
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import GatewayProcess

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300)]

TINY = "tiny"
UP_WITHIN_S = 120.0
ENGINE = (
    *("--engine.model.served-name", TINY, "--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager"),
    *("--engine.vllm.max-running", "8", "--engine.vllm.max-model-len", "1024"),
    *("--engine.vllm.kv-cache-bytes", str(64 << 20), "--engine.vllm.cpu-cores", "0"),
    # A model that says noise would fill JSON with blanks for ever.
    "--engine.vllm.engine-args",
    '{"structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": true}}',
)
PARSER = ("--vllm-arg=--enable-auto-tool-choice", "--vllm-arg=--tool-call-parser=hermes")
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


async def test_a_real_engine_behind_http(tmp_path: Path) -> None:
    path = tmp_path / "model"
    make_tiny_model(path, "float32")
    async with FleetProcesses(tmp_path, ["--policy", "fifo"]) as fleet:
        fleet.launch("one", ["--model", str(path), *ENGINE])
        await fleet.ready("one", within_s=UP_WITHIN_S)
        served = GatewayProcess(fleet, tmp_path, PARSER).serving(TINY)
        async with served as gateway, gateway.openai() as openai, fleet.client() as client:
            wanted = await client.generate(messages=CHAT, temperature=0, max_tokens=20, ignore_eos=True).result()
            made = await openai.chat.completions.create(
                model=TINY, messages=CHAT, temperature=0, max_tokens=20, extra_body={"ignore_eos": True}
            )
            assert made.choices[0].message.content == wanted.text
            assert made.usage.prompt_tokens == wanted.usage.prompt_tokens
            await the_end_of_text_is_no_stop_reason(openai)
            await a_required_tool_is_called(openai)


async def the_end_of_text_is_no_stop_reason(openai: Any) -> None:
    """A choice ends with the model's end of text, which vLLM's own server does not name."""
    made = await openai.completions.create(
        model=TINY, prompt="x", max_tokens=9, extra_body={"structured_outputs": {"choice": ["red", "blue"]}}
    )
    [choice] = made.choices
    assert choice.text in ("red", "blue")
    assert (choice.finish_reason, choice.stop_reason) == ("stop", None)


async def a_required_tool_is_called(openai: Any) -> None:
    """vLLM's server asks for a structural tag, which the engine keeps to.

    The tool is not strict, so its arguments are any JSON: a model that says noise fills objects with blanks for ever.
    """
    made = await openai.chat.completions.create(
        model=TINY,
        messages=CHAT,
        temperature=0,
        max_tokens=300,
        tools=[PAINT],
        tool_choice="required",
        parallel_tool_calls=False,
    )
    [call] = made.choices[0].message.tool_calls
    assert call.function.name == "paint"
    json.loads(call.function.arguments)
