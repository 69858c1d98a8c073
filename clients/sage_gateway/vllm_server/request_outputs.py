"""What the fleet puts out, in the form of vLLM's engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from vllm.logprobs import Logprob
from vllm.outputs import CompletionOutput, RequestOutput
from vllm.sampling_params import RequestOutputKind

from sage_client import Finished, PromptRead, TokenLogprob
from sage_gateway.finish_reasons import finish_reason, stop_reason
from sage_gateway.output_collector import Piece

CONTEXT_TOKENS = 4
"""Tokens that one character may take."""


class RequestOutputs:
    """Makes vLLM's outputs of one request from its collected pieces."""

    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int],
        *,
        kind: Any,
        choices: int,
        lora: Any = None,
        logprobs: bool = False,
        eos: int | None = None,
        token_texts: Callable[[list[int], list[int]], list[str]] = lambda ids, before: [""] * len(ids),
    ) -> None:
        """``logprobs``: whether they were asked for: then each output has a list of them, be it empty.

        ``eos``: the token that ends a text by itself, which is no reason to name; None: it is ignored.
        ``token_texts``: returns the text of each token, for log probabilities, from them and the tokens before.
        """
        self._request_id = request_id
        self._prompt = prompt
        self._prompt_token_ids = prompt_token_ids
        self._lora = lora
        self._logprobs = logprobs
        self._eos = eos
        self._token_texts = token_texts
        self._cumulative = kind is not RequestOutputKind.DELTA
        self._whole = kind is RequestOutputKind.FINAL_ONLY
        self._outputs = [CompletionOutput(index, "", [], None, None, lora_request=lora) for index in range(choices)]
        self._before: list[list[int]] = [[] for _ in range(choices)]  # each choice's latest tokens
        self._cached: int | None = None
        self._prompt_logprobs: list[dict[int, Logprob] | None] | None = None  # None: nothing is known yet

    def of(self, pieces: Sequence[Piece], *, over: bool, prompt: PromptRead | None = None) -> RequestOutput | None:
        """Return the output with what is new; None if nothing is to be told before the end.

        ``over``: whether all choices have ended.  ``prompt``: what is known of the prompt.
        """
        if prompt is not None and self._prompt_logprobs is None:
            self._cached = prompt.cached_tokens
            self._prompt_logprobs = self._positions(prompt.logprobs, [])
        made, prompt_logprobs = [self._take(piece) for piece in pieces], self._prompt_logprobs
        if self._whole:
            if not over:
                return None
            made = self._outputs
        if not self._cumulative:
            self._prompt_logprobs = self._prompt_logprobs and []  # once
        return RequestOutput(
            request_id=self._request_id,
            prompt=self._prompt,
            prompt_token_ids=self._prompt_token_ids,
            prompt_logprobs=prompt_logprobs or None,
            outputs=made,
            finished=over,
            lora_request=self._lora,
            num_cached_tokens=self._cached,
        )

    def _take(self, piece: Piece) -> CompletionOutput:
        logprobs = self._positions(piece.logprobs, self._before[piece.choice]) if self._logprobs else None
        if self._cumulative:
            return self._add(piece, logprobs)
        output = CompletionOutput(piece.choice, piece.text, piece.token_ids, None, logprobs, lora_request=self._lora)
        self._end(output, piece.finished)
        return output

    def _add(self, piece: Piece, logprobs: list[dict[int, Logprob] | None] | None) -> CompletionOutput:
        output = self._outputs[piece.choice]
        output.text += piece.text
        output.token_ids += piece.token_ids  # a list, as made in the constructor
        if logprobs is not None:
            output.logprobs = output.logprobs or []
            output.logprobs += logprobs
            chosen = sum(each[0].logprob for each in piece.logprobs)
            output.cumulative_logprob = (output.cumulative_logprob or 0.0) + chosen
        self._end(output, piece.finished)
        return output

    def _end(self, output: CompletionOutput, finished: Finished | None) -> None:
        if finished is None:
            return
        output.finish_reason = finish_reason(finished)
        output.stop_reason = stop_reason(finished, self._eos)
        if self._cached is None or not output.index:
            self._cached = finished.usage.cached_prompt_tokens

    def _positions(self, rows: Sequence[Sequence[TokenLogprob]], before: list[int]) -> list[dict[int, Logprob] | None]:
        """Return the log probabilities of some positions, None for one without.

        ``before``: the latest tokens before them, a few of which say how bytes of a character go on; it follows them.
        """
        found: list[dict[int, Logprob] | None] = []
        for row in rows:
            found.append(self._position(row, before) if row else None)
            before += [each.token_id for each in row[:1]]
            del before[:-CONTEXT_TOKENS]
        return found

    def _position(self, candidates: Sequence[TokenLogprob], before: list[int]) -> dict[int, Logprob]:
        """Return one position's log probabilities, the chosen token first."""
        found: dict[int, Logprob] = {}
        texts = self._token_texts([each.token_id for each in candidates], before)
        for each, text in zip(candidates, texts, strict=True):
            found.setdefault(each.token_id, Logprob(each.logprob, each.rank, text))
        return found
