"""Makes text from token ids, one token at a time, and finds stop strings in the whole output.

Text and stop depend on the token sequence alone, not on engine steps or on where an earlier attempt broke off.  A
resumed request, primed with the delivered tokens, therefore has the same text and the same stop as an uninterrupted
one.

Many tokenizers drop the space before the first word of what they decode.  So tokens are decoded after others: the first
ones after the end of the prompt, as engines do.  A token whose text does not depend on others is looked up
(``WholeTokens``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.text.stop_strings import StopStrings
from executor_svc.runtime.text.text_before import TextBefore
from executor_svc.runtime.text.whole_tokens import WholeTokens

PENDING_LIMIT = 16  # tokens without text; a character takes at most four, so more are not an unfinished character


@dataclass(frozen=True, kw_only=True, slots=True)
class StopMatch:
    """A stop string that was found."""

    stop: str
    consumed: int  # tokens fed, up to and including the one that completed the string


def special_token_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Return the ids of the tokenizer's special tokens."""
    return frozenset(token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special)


class Detokenizer:
    """Makes the text of one request.

    A character that is split over several tokens appears with the last of them, also one that the prompt begins.  Bytes
    that cannot be part of any character become U+FFFD, as in the tokenizer's own decode.  An unfinished character at
    the end of the output is left out, as engines do.
    """

    __slots__ = (
        "_begun",
        "_context",
        "_count",
        "_last",
        "_min_tokens",
        "_pending",
        "_plain",
        "_ready",
        "_skip_special",
        "_special",
        "_stops",
        "_stream",
        "_surplus",
        "_tokenizer",
        "_whole",
    )

    def __init__(
        self,
        tokenizer: Tokenizer,
        special: frozenset[int],
        options: TextOptions,
        prompt: Sequence[int] = (),
        whole: WholeTokens | None = None,
    ) -> None:
        """Make the text that follows ``prompt``.

        ``whole``: the texts of tokens that need no context, without the special ones if ``options`` skips those; None
        to decode every token in context.
        """
        self._tokenizer = tokenizer
        self._skip_special = options.skip_special_tokens
        self._special = special if options.skip_special_tokens else frozenset()
        self._whole = whole
        before = self._text_before(prompt)
        self._context: Sequence[int] = before.context  # tokens that the stream decodes the next ones after
        self._begun = before.begun  # text of the prompt's bytes that may begin a character, until the first text
        self._stream: DecodeStream | None = None  # made when a token needs it
        self._pending: list[int] = list(before.unfinished)  # tokens that gave no text yet
        if self._pending:
            stream = self._stream = self._stream_after(self._context)
            for token_id in self._pending:
                stream.step(tokenizer, token_id)
        self._stops = (
            StopStrings(options.stop, include_in_output=options.include_stop_in_output) if options.stop else None
        )
        self._min_tokens = options.min_tokens
        self._count = 0  # tokens fed; counted only if there are stop strings
        self._ready: list[str] = []  # certain text that ``take`` has not returned yet
        self._surplus = 0  # code points still to be dropped, because an earlier attempt delivered them
        self._last: Sequence[int] | None = None  # the token that ``push`` looked up last, if it is newer than _context
        self._plain = self._is_plain()  # ``push`` may look a token up

    def _text_before(self, prompt: Sequence[int]) -> TextBefore:
        if self._whole is not None and prompt and self._whole[prompt[-1]]:
            return TextBefore(context=[prompt[-1]])
        return TextBefore.of(prompt, self._tokenizer, skip_special_tokens=self._skip_special)

    def _is_plain(self) -> bool:
        return self._whole is not None and not (self._pending or self._ready or self._surplus or self._stops)

    def push(self, token_ids: Sequence[int]) -> str:
        """Add the tokens of one engine step to an output without stop strings.  Return the text that became certain."""
        if self._plain and len(token_ids) == 1:
            text: str = self._whole[token_ids[0]]  # type: ignore[index]  # plain only with it
            if text:
                self._last = token_ids
                return text
        self.feed(token_ids)
        text = self.take()
        self._plain = self._is_plain()
        return text

    def feed(self, token_ids: Iterable[int]) -> StopMatch | None:
        """Add tokens, up to the one that completes a stop string.  Return that match, if any."""
        self._plain = False  # until ``push`` or ``prime`` has seen what is left over
        if self._last is not None:
            self._context, self._last, self._stream = self._last, None, None
        consumed = 0
        for token_id in token_ids:
            consumed += 1
            text = self._step(token_id)
            if not text:
                continue
            stop: str | None = None
            if self._stops is not None:
                text, stop = self._stops.push(text, armed=self._count + consumed > self._min_tokens)
            self._ready.append(text)
            if stop is not None:
                break
        else:
            stop = None
        self._count += consumed
        return None if stop is None else StopMatch(stop=stop, consumed=consumed)

    def _step(self, token_id: int) -> str | None:
        pending = self._pending
        if self._whole is not None and not pending and (found := self._whole[token_id]):
            self._context, self._stream = [token_id], None
            return found
        if token_id in self._special:
            return None
        pending.append(token_id)
        if self._stream is None:
            self._stream = self._stream_after(self._context)
        try:
            text: str | None = self._stream.step(self._tokenizer, token_id)
        except Exception:  # the library's one error: earlier text changed in hindsight
            return self._start_over()
        if text is not None:
            self._context, self._pending = pending, []
            return self._without_begun(text) if self._begun else text
        return self._start_over() if len(pending) >= PENDING_LIMIT else None

    def _start_over(self) -> str:
        """Decode the pending tokens as they are, and later tokens without them."""
        before: str = self._tokenizer.decode(list(self._context), skip_special_tokens=self._skip_special)
        whole: str = self._tokenizer.decode([*self._context, *self._pending], skip_special_tokens=self._skip_special)
        if whole.startswith(before):
            text = whole[len(before) :]
        else:
            text = self._tokenizer.decode(self._pending, skip_special_tokens=self._skip_special)
        self._pending.clear()
        self._stream = None
        return self._without_begun(text) if self._begun else text

    def _stream_after(self, context: Sequence[int]) -> DecodeStream:
        return DecodeStream(ids=list(context), skip_special_tokens=self._skip_special)

    def _without_begun(self, text: str) -> str:
        """Drop what the prompt's last bytes gave by themselves: they were part of the prompt, not of the output."""
        begun, self._begun = self._begun, ""
        same = takewhile(lambda pair: pair[0] == pair[1], zip(begun, text, strict=False))
        return text[sum(1 for _ in same) :]

    def take(self) -> str:
        """Return the text that became certain since the last call."""
        ready = self._ready
        if not ready:
            return ""
        text = ready[0] if len(ready) == 1 else "".join(ready)
        ready.clear()
        return self._without_surplus(text) if self._surplus else text

    def _without_surplus(self, text: str) -> str:
        dropped = min(self._surplus, len(text))
        self._surplus -= dropped
        return text[dropped:]

    def prime(self, token_ids: Sequence[int], text_length: int | None = None) -> StopMatch | None:
        """Feed tokens whose text was delivered before.

        ``text_length``: how many code points were delivered; None for all text that is certain.  ``take`` does not
        return them again.  Return the stop string found, if any: then the output was complete already.
        """
        match = self.feed(token_ids)
        text = self.take()
        if text_length is not None:
            if text_length < len(text):
                self._ready.append(text[text_length:])
            self._surplus = max(0, text_length - len(text))
        self._plain = self._is_plain()
        return match

    def finish(self) -> str:
        """Return the text that was held back because it could begin a stop string.  Call ``take`` first."""
        return self._without_surplus("" if self._stops is None else self._stops.release())
