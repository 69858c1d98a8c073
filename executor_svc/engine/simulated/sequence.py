"""One request inside the simulated engine: its tokens, its blocks, and its output.

The output of a submitted request goes to the step; that of any other waits until ``generate`` reads it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from executor_svc.engine.simulated.kv import KvLease
from executor_svc.engine.simulated.pull import Fetch
from executor_svc.engine.simulated.tokenizer import EOS_ID
from executor_svc.engine.simulated.tokens import TokenSource
from executor_svc.runtime.engine_port import (
    EngineError,
    EngineOutput,
    EngineRequest,
    FinishReason,
    JsonValue,
    StepOutput,
    TokenLogprob,
)


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """The state of a request in the engine.  Compared by identity."""

    request: EngineRequest
    order: int  # arrival number: earlier goes first among equal priorities
    tokens: list[int]  # prompt, history, then what was generated
    source: TokenSource
    block_keys: list[int]  # one per full prompt block
    forced: list[int] | None = None  # the whole output, if the request has a constraint
    embedding: bytes | None = None  # the only output, if the request asks for a vector
    lease: KvLease = field(default_factory=KvLease)
    computed: int = 0  # tokens whose KV is computed
    cached: int | None = None  # prompt tokens found in the prefix cache; None until first scheduled
    waiting: bool = True
    ended: bool = False  # finished, failed or aborted: no step computes it any more
    fails_after: int | None = None  # tokens after which an injected error fails the request
    fetch: Fetch | None = None  # the fetch of the prompt's KV from another engine, until it ends
    fetch_failed: bool = False
    begun: bool = False  # it has put out a token
    to_step: Callable[[StepOutput], None] | None = None  # takes the outputs of a submitted request
    _pending: EngineOutput | None = None  # not read yet; later steps are merged into it
    _error: EngineError | None = None
    _reader: asyncio.Future[None] | None = None

    @property
    def prompt_tokens(self) -> int:
        """Number of prompt tokens."""
        return len(self.request.prompt_token_ids)

    @property
    def emitted(self) -> int:
        """Number of output tokens so far, those of its history included."""
        return len(self.tokens) - len(self.request.prompt_token_ids)

    @property
    def rank(self) -> tuple[int, int]:
        """Order in the queue: the lowest rank starts first, the highest is preempted first."""
        return (self.request.priority, self.order)

    def draw(self) -> int:
        """Return the next token, which is not yet part of ``tokens``."""
        if self.forced is not None:
            emitted = self.emitted
            return self.forced[emitted] if emitted < len(self.forced) else EOS_ID
        return self.source.next(self.tokens, self.emitted)

    def finish_reason(self, token: int, max_model_len: int) -> FinishReason | None:
        """Return why ``token``, which was just added, is the last one; None if it is not the last one."""
        sampling = self.request.sampling
        if self.emitted >= sampling.min_tokens:
            if token == EOS_ID and not sampling.ignore_eos:
                return FinishReason.STOP
            if token in sampling.stop_token_ids:
                return FinishReason.STOP
        if self.emitted >= sampling.max_tokens or len(self.tokens) >= max_model_len:
            return FinishReason.LENGTH
        return None

    def put(
        self,
        token: int,
        logprobs: list[TokenLogprob] | None,
        reason: FinishReason | None,
        kv_transfer_params: Mapping[str, JsonValue] | None = None,
    ) -> None:
        """Put out one step's token."""
        if self.to_step is not None and self.begun and reason is None:
            self.to_step([token])
            return
        output = EngineOutput(token_ids=[token], finish_reason=reason, kv_transfer_params=kv_transfer_params)
        if logprobs is not None:
            output.logprobs = [logprobs]
        if reason is FinishReason.STOP:
            output.stop_token_id = token
        if not self.begun:
            self.begun = True
            output.cached_prompt_tokens = self.cached
            output.prompt_logprobs = self._prompt_logprobs()
            output.kv_pull_failed = self.fetch_failed
        self._put_out(output)

    def put_embedding(self) -> None:
        """Put out the vector, which ends the request."""
        output = EngineOutput(token_ids=[], finish_reason=FinishReason.STOP, embedding=self.embedding)
        output.cached_prompt_tokens = self.cached
        self._put_out(output)

    def _put_out(self, output: EngineOutput) -> None:
        if self.to_step is not None:
            self.to_step(output)
        elif self._pending is None:
            self._pending = output
            self._wake()
        else:
            _merge(self._pending, output)

    def abort(self) -> None:
        """End the output as ABORTED.  Tokens that were generated before can still be read."""
        self._put_out(EngineOutput(token_ids=[], finish_reason=FinishReason.ABORTED))

    def _prompt_logprobs(self) -> list[list[TokenLogprob] | None] | None:
        top = self.request.sampling.prompt_logprobs
        if top is None:
            return None
        prompt = self.tokens[: self.prompt_tokens]
        return [None, *(self.source.logprobs(prompt[:i], prompt[i], top) for i in range(1, len(prompt)))]

    def fail(self, error: EngineError) -> None:
        """Raise ``error`` in the reader after the outputs that are queued already.  The first error counts."""
        if self.to_step is not None:
            self.to_step(error)
            return
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def read(self) -> EngineOutput:
        """Wait for output.  Return everything generated since the last read, or raise the error passed to ``fail``."""
        while self._pending is None:
            if self._error is not None:
                raise self._error
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        output, self._pending = self._pending, None
        return output


def _merge(waiting: EngineOutput, output: EngineOutput) -> None:
    """Add an output to one that waits.  At most one waits, so max_tokens bounds the memory if the reader is slow."""
    waiting.token_ids.extend(output.token_ids)  # type: ignore[attr-defined]  # always our own list
    if output.logprobs is not None:
        waiting.logprobs = [*(waiting.logprobs or ()), *output.logprobs]
    waiting.finish_reason = output.finish_reason
    waiting.stop_token_id = output.stop_token_id
    waiting.kv_transfer_params = output.kv_transfer_params
