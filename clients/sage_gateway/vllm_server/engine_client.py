"""vLLM's interface between its API server and an engine, with the fleet as the engine."""

from __future__ import annotations

import abc
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import ExitStack, aclosing
from typing import Any, cast

from vllm.engine.protocol import EngineClient
from vllm.outputs import RequestOutput
from vllm.renderers import renderer_from_config
from vllm.renderers.inputs.preprocess import extract_prompt_components
from vllm.tokenizers.detokenizer_utils import convert_ids_list_to_tokens
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.engine.input_processor import InputProcessor
from vllm.v1.engine.logprobs import LogprobsProcessor

from sage_client import FieldViolation, GenerateOptions, InvalidRequestError, PromptRead, SageError, SamplingOptions
from sage_gateway.caller_clients import CallerClients
from sage_gateway.http_call import HttpCall, current_call
from sage_gateway.output_collector import OutputCollector, Piece, buffer_bytes
from sage_gateway.sampling_fields import UnsupportedField, sampling_options
from sage_gateway.trace_context import trace_of
from sage_gateway.vllm_server.fleet_prompt import FleetPrompt, with_media
from sage_gateway.vllm_server.request_outputs import RequestOutputs
from sage_gateway.vllm_server.vllm_versions import GenerationError
from sage_media.kinds import MediaKind

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""Stands in the text of a token for bytes that are no whole character."""

_NOT_SUPPORTED = "is not supported by this server"


class FleetEngineClient(EngineClient):
    """Implements vLLM's EngineClient for one model: what it generates, the fleet generates.

    vLLM's server tokenizes, renders and parses; the scheduler gets token ids and complete sampling.  Methods that an
    engine in the same process has, such as sleeping or resetting caches, raise NotImplementedError.
    """

    def __init__(
        self,
        vllm_config: Any,
        model: str,
        clients: CallerClients,
        trouble: Callable[[], str],
        placeholders: Mapping[MediaKind, int] | None = None,
    ) -> None:
        """``trouble``: returns why the fleet serves nothing now; empty if it does.

        ``placeholders``: the model's token for each kind of media that it takes; None: it takes text only.
        """
        self._placeholders = placeholders or {}
        self.vllm_config = vllm_config
        self.model_config = vllm_config.model_config
        self.renderer = renderer_from_config(vllm_config)
        self.input_processor = InputProcessor(vllm_config, self.renderer)
        self._model = model
        self._clients = clients
        self._trouble = trouble

    async def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        *,
        prompt_text: str | None = None,
        lora_request: Any = None,
        tokenization_kwargs: dict[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        data_parallel_rank: int | None = None,
        session_id: str | None = None,
        kv_hints: Any = None,
        reasoning_ended: bool | None = None,
        reasoning_parser_kwargs: dict[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Generate at the fleet, all choices with one request.

        Raises:
            GenerationError: the request cannot be sent, the scheduler refused it, or it failed.  The HTTP call has the
                error itself.
        """
        call = current_call()
        try:
            refuse_engine_options(priority, data_parallel_rank, kv_hints)
            asked = self._prompt(call, prompt, prompt_text)
            sampling = sampling_of(sampling_params, beside(prompt, reasoning_ended, reasoning_parser_kwargs))
            options = self._options(call, lora_request, session_id, sampling)
            made = RequestOutputs(
                request_id,
                asked.text,
                asked.token_ids,
                kind=sampling_params.output_kind,
                choices=sampling_params.n,
                lora=lora_request,
                logprobs=sampling_params.logprobs is not None,
                eos=None if sampling_params.ignore_eos else self.renderer.get_tokenizer().eos_token_id,
                token_texts=self._token_texts,
            )
            async with aclosing(self._pieces(call, request_id, asked, sampling_params.n, options)) as arriving:
                async for pieces, over, prompt in arriving:
                    output = made.of(pieces, over=over, prompt=prompt)
                    if output is not None:
                        yield output
        except SageError as error:
            call.error = call.error or error
            raise GenerationError(error.message) from error

    async def _pieces(
        self,
        call: HttpCall,
        request_id: str,
        asked: FleetPrompt,
        choices: int,
        options: GenerateOptions,
    ) -> AsyncGenerator[tuple[list[Piece], bool, PromptRead | None], None]:
        """Yield what the choices put out, whether all have ended, and what is known of the prompt.

        Raises SageError.
        """
        collector = OutputCollector(choices, buffer_bytes(len(call.request_ids) + 1))
        with ExitStack() as held:
            held.callback(collector.leave)
            client = held.enter_context(self._clients.of(call.token))
            with trace_of(call):
                own = {**asked.for_sdk(), "request_id": call.next_request_id(request_id)}
                collector.call = client.start(sink=collector, **cast(GenerateOptions, {**options, **own}))
            while pieces := await collector.next():
                call.accepted = call.accepted or collector.acceptance
                call.scheduled = collector.placement
                for ended in (piece.finished for piece in pieces if piece.finished is not None):
                    call.note_end(ended)
                yield pieces, collector.over, collector.prompt

    def _prompt(self, call: HttpCall, prompt: Any, prompt_text: str | None) -> FleetPrompt:
        """Return a prompt of token ids, with its images and audio.  Raises InvalidRequestError for other prompts."""
        if isinstance(prompt, dict) and prompt.get("type") == "multimodal":
            return with_media(prompt_text or prompt.get("prompt"), prompt, call.media, self._placeholders)
        if not isinstance(prompt, dict) or prompt.get("type", "token") != "token":
            raise _invalid("messages", "only text can be sent to this model")
        text, token_ids, embeds = extract_prompt_components(self.model_config, prompt)
        if token_ids is None or embeds is not None:
            raise _invalid("prompt_embeds", _NOT_SUPPORTED)
        return FleetPrompt(text=prompt_text or text, token_ids=list(token_ids), sent=list(token_ids))

    def _token_texts(self, token_ids: list[int], before: list[int]) -> list[str]:
        """Return the text of each of the tokens at one position; a part of a character comes with its last token."""
        tokenizer = self.renderer.get_tokenizer()
        texts: list[str] = convert_ids_list_to_tokens(tokenizer, token_ids)
        if not any(text.endswith(INCOMPLETE) for text in texts):
            return texts
        completed: list[str] = LogprobsProcessor(tokenizer, None, None, None, None, None)._verify_tokens(
            decoded_tokens_list=texts, tokens=token_ids, context_token_ids=before
        )
        return completed

    def _options(
        self, call: HttpCall, lora_request: Any, session_id: str | None, sampling: SamplingOptions
    ) -> GenerateOptions:
        options = cast(GenerateOptions, {**call.options.for_sdk(), **sampling})
        options["model"] = self._model
        if lora_request is not None:
            options["adapter"] = lora_request.lora_name
        if session_id and "session" not in options:
            options["session"] = session_id
        return options

    def encode(self, *arguments: Any, **options: Any) -> AsyncGenerator[Any, None]:
        """Refuse: the model generates."""
        raise NotImplementedError(f"{self._model} computes no embeddings")

    async def get_supported_tasks(self) -> tuple[str, ...]:
        """Return what vLLM's server builds routes for."""
        return ("generate",)

    async def check_health(self) -> None:
        """Raise EngineDeadError if the fleet serves nothing now."""
        if trouble := self._trouble():
            raise EngineDeadError(trouble)

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """Do nothing: a request is let go when its generator is closed."""

    async def is_tracing_enabled(self) -> bool:
        """Return False: vLLM's own spans would be an engine's."""
        return False

    async def do_log_stats(self) -> None:
        """Do nothing: the scheduler and the executors have the statistics."""

    async def is_sleeping(self) -> bool:
        """Return False."""
        return False

    async def is_paused(self) -> bool:
        """Return False."""
        return False

    async def reset_mm_cache(self) -> None:
        """Do nothing: no images and audio are kept."""

    async def add_lora(self, lora_request: Any) -> bool:
        """Refuse: operators add adapters to the fleet, through the scheduler."""
        return False

    def shutdown(self, timeout: float | None = None) -> None:
        """End the renderer's threads."""
        self.renderer.shutdown()

    @property
    def is_running(self) -> bool:
        """Return True: each request learns the fleet's state by itself."""
        return True

    @property
    def is_stopped(self) -> bool:
        """Return False."""
        return False

    @property
    def errored(self) -> bool:
        """Return False: a fleet that serves nothing now may do so soon."""
        return False

    @property
    def dead_error(self) -> BaseException:
        """Return the error of an engine that is gone, which this one never is."""
        gone: BaseException = EngineDeadError()
        return gone


def beside(prompt: Any, reasoning_ended: bool | None, reasoning_arguments: dict[str, Any] | None) -> SamplingOptions:
    """Return the options that vLLM has beside its sampling parameters."""
    options = SamplingOptions()
    if prompt.get("cache_salt"):
        options["cache_salt"] = prompt["cache_salt"]
    if reasoning_ended is not None:
        options["reasoning_ended"] = reasoning_ended
    if reasoning_arguments:
        options["reasoning_arguments"] = reasoning_arguments
    return options


def sampling_of(params: Any, more: SamplingOptions) -> SamplingOptions:
    """Return the options of sampling.  Raises InvalidRequestError for a field that is not supported."""
    try:
        if params.structured_outputs is None:  # what concerns reasoning belongs to a constraint
            more.pop("reasoning_ended", None)
            more.pop("reasoning_arguments", None)
        return {**sampling_options(params), **more}
    except UnsupportedField as error:
        raise _invalid(error.field, error.what) from None


def refuse_engine_options(priority: int | None, data_parallel_rank: int | None, kv_hints: Any) -> None:
    """Refuse what only an engine of one's own can do.  Raises InvalidRequestError."""
    if priority:
        raise _invalid("priority", "use the field sage.priority, or the header x-sage-priority")
    for name, value in (("data_parallel_rank", data_parallel_rank), ("kv_hints", kv_hints)):
        if value is not None:
            raise _invalid(name, _NOT_SUPPORTED)


def _invalid(field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError.of([FieldViolation(field=field, description=what)])


def _unsupported(name: str) -> Callable[..., Any]:
    async def refuse(self: object, *arguments: object, **options: object) -> Any:
        raise NotImplementedError(f"{name} is for engines in the same process")

    refuse.__name__ = name
    return refuse


for _name in FleetEngineClient.__abstractmethods__:
    setattr(FleetEngineClient, _name, _unsupported(_name))
abc.update_abstractmethods(FleetEngineClient)
