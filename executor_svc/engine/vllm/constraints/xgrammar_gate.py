"""Makes the gate for an engine whose constraints xgrammar compiles."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

from executor_svc.engine.vllm.constraints.compile_call import compile_call
from executor_svc.engine.vllm.constraints.gate import ConstraintGate
from executor_svc.engine.vllm.constraints.trial_process import NoTrials, TrialProcess
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import StructuredOutput

COMMAND = (sys.executable, "-m", "executor_svc.engine.vllm.constraints.compile_process")


def trial_process(made: Callable[[], Any]) -> TrialProcess:
    """Return the process that compiles for the AsyncLLM that ``made`` returns when the first trial comes."""

    def tokenizer() -> str:
        from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend

        llm = made()
        config = llm.vllm_config
        vocab_size = config.model_config.get_vocab_size()
        backend = XgrammarBackend(config, tokenizer=llm.get_tokenizer(), vocab_size=vocab_size)
        return str(backend.compiler.compile_regex("a").tokenizer_info.serialize_json())

    async def setup() -> str:
        return await asyncio.to_thread(tokenizer)

    return TrialProcess(COMMAND, setup)


def tries_at_start(settings: VllmSettings) -> bool:
    """Whether an engine's start compiles a constraint on trial: the self-test of output histories does."""
    configured = settings.engine_args.get("structured_outputs_config")
    backend = configured.get("backend", "xgrammar") if isinstance(configured, dict) else "xgrammar"
    return settings.output_history and settings.constraint_compile_limit_s > 0 and backend == "xgrammar"


def gate_for(llm: Any, trials: TrialProcess, limit_s: float) -> ConstraintGate | None:
    """Return the gate; None if another backend than xgrammar compiles, or ``limit_s`` is 0."""
    outputs = llm.vllm_config.structured_outputs_config
    if limit_s == 0 or outputs.backend != "xgrammar":
        return None
    any_whitespace = not outputs.disable_any_whitespace

    def task_of(constraint: StructuredOutput) -> Any:
        try:
            return compile_call(constraint, any_whitespace=any_whitespace)
        except (ImportError, AttributeError) as error:  # another version of vLLM
            raise NoTrials(str(error)) from error

    return ConstraintGate(trials.attempt, task_of, limit_s)
