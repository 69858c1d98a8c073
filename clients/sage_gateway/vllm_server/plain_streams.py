"""Makes vLLM's server hand over the streams that are plain, once it has read, checked and rendered their requests."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

from starlette.middleware.base import BaseHTTPMiddleware
from vllm.entrypoints.serve.utils.api_utils import should_include_usage

from sage_client import SageError
from sage_gateway.error_answers import http_error
from sage_gateway.error_events import error_event
from sage_gateway.http_call import HttpCall, current_call
from sage_gateway.plain_streams import qualification
from sage_gateway.plain_streams.chunks import DONE, ChatChunks, Chunks, CompletionChunks, StreamFacts
from sage_gateway.plain_streams.event_text import EventText
from sage_gateway.plain_streams.waiting_output import Output, WaitingOutput
from sage_gateway.vllm_server.plain_stream_engine import EngineRequest, PlainStreamEngine
from sage_gateway.vllm_server.vllm_versions import USAGE_HAS_COMPLETION_DETAILS, keep_alive_interval

Stream = AsyncGenerator[str, None]


def write_plain_streams(application: Any, engine: PlainStreamEngine) -> None:
    """Replace what writes the streams of vLLM's server for requests that are plain."""
    state = application.state
    allowed = qualification.allows_plain_streams(state.args.middleware, keep_alive_interval(state.args))
    if _relays(application) or not allowed:
        return
    chat, completion = state.openai_serving_chat, state.openai_serving_completion
    chat.chat_completion_stream_generator = partial(_chat, chat, chat.chat_completion_stream_generator, engine)
    completion.completion_stream_generator = partial(
        _completion, completion, completion.completion_stream_generator, engine
    )


def _relays(application: Any) -> bool:
    """Return whether a middleware hands answers on in a task of its own: what is written past it would overtake them.

    Such are those that vLLM adds by VLLM_DEBUG_LOG_API_SERVER_RESPONSE and VLLM_ENABLE_COHERE_API.
    """
    kinds = [each.cls for each in application.user_middleware]
    return any(isinstance(kind, type) and issubclass(kind, BaseHTTPMiddleware) for kind in kinds)


def _chat(
    serving: Any,
    vllms: Callable[..., Stream],
    engine: PlainStreamEngine,
    request: Any,
    outputs: Any,
    answer_id: str,
    model: str,
    *arguments: Any,
    **options: Any,
) -> Stream:
    """Stand in for ``OpenAIServingChat.chat_completion_stream_generator``; ``vllms`` is the method itself."""
    call = current_call()
    if len(call.asked) != 1 or not qualification.is_plain_chat(request, serving, call.options):
        return vllms(request, outputs, answer_id, model, *arguments, **options)

    def chunks(facts: StreamFacts) -> Chunks:
        return ChatChunks(facts, serving.get_chat_request_role(request))

    return _Writer(serving, engine, call, chunks).stream(request, answer_id, model, int(time.time()))


def _completion(
    serving: Any,
    vllms: Callable[..., Stream],
    engine: PlainStreamEngine,
    request: Any,
    prompts: Any,
    outputs: Any,
    answer_id: str,
    created: int,
    model: str,
    **options: Any,
) -> Stream:
    """Stand in for ``OpenAIServingCompletion.completion_stream_generator``; ``vllms`` is the method itself."""
    call = current_call()
    if len(call.asked) != 1 or not qualification.is_plain_completion(request, serving, call.options, len(prompts)):
        return vllms(request, prompts, outputs, answer_id, created, model, **options)
    return _Writer(serving, engine, call, CompletionChunks).stream(request, answer_id, model, created)


class _Writer:
    """Writes one stream."""

    def __init__(
        self, serving: Any, engine: PlainStreamEngine, call: HttpCall, chunks: Callable[[StreamFacts], Chunks]
    ) -> None:
        self._serving = serving
        self._engine = engine
        self._call = call
        self._chunks = chunks

    async def stream(self, request: Any, answer_id: str, model: str, created: int) -> Stream:
        """Yield the events of the stream, but for those that are written past the server once it has begun."""
        [asked] = self._call.asked
        try:
            text = self._text(request, asked, answer_id, model, created)
            with self._engine.started(self._call, asked) as waiting:
                output = await self._next(waiting)
                yield text.of(output)
                while output.finished is None:
                    output = await self._next(waiting)
                    await self._call.write(text.of(output).encode())
        except SageError as error:
            self._call.error = self._call.error or error
            yield error_event("", http_error(error)).decode()
            yield DONE

    async def _next(self, waiting: WaitingOutput) -> Output:
        output = await waiting.next()
        if output.finished is not None:
            self._call.note_end(output.finished)
        return output

    def _text(self, request: Any, asked: EngineRequest, answer_id: str, model: str, created: int) -> EventText:
        usage, continuous = should_include_usage(request.stream_options, self._serving.enable_force_include_usage)
        facts = StreamFacts(
            answer_id=answer_id,
            created=created,
            model=model,
            prompt_tokens=self._engine.prompt_tokens(asked),
            fingerprint=self._serving.system_fingerprint,
            usage=usage,
            continuous_usage=continuous,
            cached_tokens=self._serving.enable_prompt_tokens_details,
            completion_details=USAGE_HAS_COMPLETION_DETAILS,
        )
        return EventText(self._chunks(facts), usage=usage, eos=self._engine.eos(asked))
