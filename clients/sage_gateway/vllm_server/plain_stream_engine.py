"""The fleet as vLLM's engine, which also starts the request of a plain stream without vLLM's outputs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from vllm.outputs import RequestOutput

from sage_client import GenerateOptions
from sage_gateway.http_call import HttpCall, current_call
from sage_gateway.plain_streams.waiting_output import WaitingOutput
from sage_gateway.trace_context import trace_of
from sage_gateway.vllm_server.engine_client import FleetEngineClient, beside, refuse_engine_options, sampling_of

ASKED_KEPT = 2
"""Requests that an HTTP call keeps: more than one tell that it is not plain.  A beam search makes thousands."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What vLLM's server asked the engine for: the arguments of ``EngineClient.generate``."""

    prompt: Any
    sampling_params: Any
    request_id: str
    options: Mapping[str, Any]


class PlainStreamEngine(FleetEngineClient):
    """Keeps what the engine is asked for with the HTTP call, until it is known who writes the answer."""

    def generate(
        self, prompt: Any, sampling_params: Any, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """Return the generator of vLLM's outputs.  It submits nothing until it is read."""
        asked = current_call().asked
        if len(asked) < ASKED_KEPT:
            asked.append(EngineRequest(prompt, sampling_params, request_id, options))
        return super().generate(prompt, sampling_params, request_id, **options)

    def prompt_tokens(self, asked: EngineRequest) -> int:
        """Return the number of tokens of a prompt.  Raises InvalidRequestError for one that cannot be sent."""
        return len(self._prompt(current_call(), asked.prompt, None).token_ids)

    def eos(self, asked: EngineRequest) -> int | None:
        """Return the token that ends a text by itself; None if it is ignored."""
        return None if asked.sampling_params.ignore_eos else self.renderer.get_tokenizer().eos_token_id

    @contextmanager
    def started(self, call: HttpCall, asked: EngineRequest) -> Iterator[WaitingOutput]:
        """Submit a request of one choice and give its output; let go of the request at the end of the block.

        Raises SageError for a request that cannot be sent.
        """
        refuse_engine_options(*(asked.options.get(name) for name in ("priority", "data_parallel_rank", "kv_hints")))
        prompt = self._prompt(call, asked.prompt, None)
        reasoning = (asked.options.get(name) for name in ("reasoning_ended", "reasoning_parser_kwargs"))
        sampling = sampling_of(asked.sampling_params, beside(asked.prompt, *reasoning))
        options = self._options(call, asked.options.get("lora_request"), asked.options.get("session_id"), sampling)
        output = WaitingOutput(call)
        with self._clients.of(call.token) as client:
            own = {**prompt.for_sdk(), "request_id": call.next_request_id(asked.request_id)}
            with trace_of(call):
                request = client.start(sink=output, **cast(GenerateOptions, {**options, **own}))
            output.request = request
            try:
                yield output
            finally:
                request.leave()
