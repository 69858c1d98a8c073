"""A constraint that begins after the reasoning holds in a continuation from delivered tokens, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.engine.vllm.starting import VllmEngineFactory
from executor_svc.runtime.engine_port import Sampling, StructuredKind, StructuredOutput
from tests.contract.engine.contract import answer
from tests.vllm.gateway.thinking_model import make_thinking_model

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

THOUGHT = 6
"""Tokens of reasoning before its end is the likeliest one."""


async def test_what_was_delivered_is_reasoning_or_constrained(tmp_path: Path) -> None:
    end = make_thinking_model(tmp_path / "model")
    settings = VllmSettings(
        dtype="float32",
        enforce_eager=True,
        max_running=4,
        max_model_len=512,
        kv_cache_bytes=32 << 20,
        cpu_cores="0",
        engine_args={"reasoning_parser": "qwen3"},
    )
    factory = VllmEngineFactory(ModelSettings(model=str(tmp_path / "model"), served_name="thinks"), settings)
    engine = await factory.start(lambda state, fraction, message: None)
    try:
        assert engine.facts.keeps_output_history
        digits = StructuredOutput(kind=StructuredKind.REGEX, value="[0-9]{8}", reasoning_ended=False)
        plain = Sampling(temperature=0.0, max_tokens=40, ignore_eos=True)
        prompt = [300, 301, 302]
        thought = (await answer(engine, prompt, plain)).token_ids[:THOUGHT]
        # The reasoning ends where it is told to: what comes before is repeated as a history.
        sampling = Sampling(temperature=0.0, max_tokens=40, structured_output=digits, logit_bias={end: 100.0})
        rest = (await answer(engine, prompt, sampling, output_history=tuple(thought))).token_ids
        assert rest[0] == end
        text = engine._llm.get_tokenizer().decode(rest[1:], skip_special_tokens=True)
        assert text.isdigit()
        assert len(text) == 8
        whole = [*thought, *rest]
        for delivered in range(THOUGHT, len(whole)):
            made = await answer(engine, prompt, sampling, output_history=tuple(whole[:delivered]))
            assert made.token_ids == whole[delivered:], f"after {delivered} tokens"
        begun = StructuredOutput(kind=StructuredKind.REGEX, value="[0-9]{8}", reasoning_ended=True)
        at_once = await answer(engine, prompt, Sampling(temperature=0.0, max_tokens=40, structured_output=begun))
        assert engine._llm.get_tokenizer().decode(at_once.token_ids, skip_special_tokens=True).isdigit()
    finally:
        await engine.shutdown()
