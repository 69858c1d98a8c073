"""A plain stream's text, made of what its request puts out."""

from __future__ import annotations

from sage_gateway.finish_reasons import finish_reason, stop_reason
from sage_gateway.plain_streams.chunks import DONE, Chunks
from sage_gateway.plain_streams.waiting_output import Output


class EventText:
    """Turns outputs into the events of one stream, in vLLM's order: head, pieces, end, usage, DONE."""

    def __init__(self, chunks: Chunks, *, usage: bool, eos: int | None) -> None:
        """``usage``: the stream ends with the usage.  ``eos``: as in ``finish_reasons.stop_reason``."""
        self._chunks = chunks
        self._usage = usage
        self._eos = eos
        self._tokens = 0  # of the output so far
        self._cached: int | None = None  # prompt tokens, of the first output
        self._begun = False

    def of(self, output: Output) -> str:
        """Return the events that tell of an output; the last one's are followed by DONE."""
        events = ""
        if not self._begun:
            self._begun = True
            self._cached = output.cached_prompt_tokens  # vLLM looks at the first output alone
            events = self._chunks.head()
        before, self._tokens = self._tokens, self._tokens + output.tokens
        nothing = not (output.text or output.tokens or before)
        if output.finished is None:
            return events if nothing else events + self._chunks.piece(output.text, self._tokens)
        if not nothing:
            why = finish_reason(output.finished), stop_reason(output.finished, self._eos)
            events += self._chunks.end(output.text, self._tokens, *why)
        if self._usage:
            events += self._chunks.usage(self._tokens, self._cached)
        return events + DONE
