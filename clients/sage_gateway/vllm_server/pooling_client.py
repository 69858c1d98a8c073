"""vLLM's interface between its API server and an engine that pools, with the fleet as the engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import torch
from vllm.outputs import PoolingOutput, PoolingRequestOutput

from sage_client import EmbedOptions, FieldViolation, InvalidRequestError, SageError
from sage_gateway.caller_clients import CallerClients
from sage_gateway.embedding_fields import EmbeddingFieldError, options_of
from sage_gateway.http_call import HttpCall, current_call
from sage_gateway.input_batches import InputBatches
from sage_gateway.vllm_server.engine_client import FleetEngineClient
from sage_gateway.vllm_server.vllm_versions import GenerationError

EMBED, CLASSIFY = "embed", "classify"


class FleetPoolingClient(FleetEngineClient):
    """Implements vLLM's EngineClient for one model that embeds or classifies: the fleet computes its vectors."""

    def __init__(
        self,
        vllm_config: Any,
        model: str,
        clients: CallerClients,
        trouble: Callable[[], str],
        *,
        classifies: bool,
    ) -> None:
        """``trouble``: as for FleetEngineClient.  ``classifies``: its vectors have one number per class."""
        super().__init__(vllm_config, model, clients, trouble)
        self._task = CLASSIFY if classifies else EMBED
        self._batches = InputBatches(clients)

    async def get_supported_tasks(self) -> tuple[str, ...]:
        """Return what vLLM's server builds routes for."""
        return (self._task,)

    async def encode(
        self,
        prompt: Any,
        pooling_params: Any,
        request_id: str,
        lora_request: Any = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        tokenization_kwargs: dict[str, Any] | None = None,
        reasoning_ended: bool | None = None,
    ) -> AsyncGenerator[PoolingRequestOutput, None]:
        """Have the fleet compute a prompt's vector.

        Raises:
            GenerationError: the prompt cannot be sent, the scheduler refused it, or it failed.  The HTTP call has the
                error itself.
        """
        call = current_call()
        try:
            self._refuse_options(prompt, pooling_params, priority)
            token_ids = self._prompt(call, prompt, None).token_ids
            options = self._embed_options(call, pooling_params, lora_request)
            vector = await self._batches.vector(call, token_ids, options)
        except SageError as error:
            call.error = call.error or error
            raise GenerationError(error.message) from error
        yield PoolingRequestOutput(
            request_id=request_id,
            outputs=PoolingOutput(data=torch.tensor(vector, dtype=torch.float32)),
            prompt_token_ids=token_ids,
            num_cached_tokens=0,
            finished=True,
        )

    def _refuse_options(self, prompt: Any, params: Any, priority: int) -> None:
        """Refuse what the fleet cannot do.  Raises InvalidRequestError."""
        if params.task not in (None, self._task):
            raise _invalid("task", f"{params.task} is not supported by this server; the model is there to {self._task}")
        if priority:
            raise _invalid("priority", "use the field sage.priority, or the header x-sage-priority")
        if (params.extra_kwargs or {}).get("compressed_token_type_ids") is not None:
            raise _invalid("model", "tells pairs of texts apart by token types, which this server does not send")
        if isinstance(prompt, dict) and prompt.get("cache_salt"):
            raise _invalid("cache_salt", "is not an option of embeddings")

    def _embed_options(self, call: HttpCall, params: Any, lora_request: Any) -> EmbedOptions:
        try:
            options = options_of(call.options)
        except EmbeddingFieldError as error:
            raise _invalid(error.param, "is not an option of embeddings") from None
        options["model"] = self._model
        if lora_request is not None:
            options["adapter"] = lora_request.lora_name
        if params.dimensions is not None:
            options["dimensions"] = params.dimensions
        if params.use_activation is False:
            options["raw"] = True
        return options


def _invalid(field: str, what: str) -> InvalidRequestError:
    return InvalidRequestError.of([FieldViolation(field=field, description=what)])
