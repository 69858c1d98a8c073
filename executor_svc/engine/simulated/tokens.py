"""The simulated model: chooses the next token.

In greedy sampling the token is a pure function of the last eight tokens, the model and the adapter, independent of the
position; a request resumed from prompt + emitted tokens therefore goes on exactly as the uninterrupted run.  In seeded
sampling it also depends on how many output tokens there are, as in a real engine: such a run can be replayed, or
continued from its history, but not resumed.  In unseeded sampling each run has a seed of its own, which nobody knows.

top_p, top_k and min_p have no effect, except that top_k = 1 is greedy.  Positive penalties avoid tokens that occurred.
A logit bias of -100 or less bans a token; if any token has a bias of 100 or more, only such tokens are drawn.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.tokenizer import (
    CONTINUATION_FIRST_ID,
    EOS_ID,
    FIRST_WORD_ID,
    LEAD_BYTE_ID,
    tokenizer_for,
)
from executor_svc.runtime.engine_port import Sampling, TokenLogprob

CONTEXT_TOKENS = 8
_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15
_TRIES = 32  # draws before penalties are ignored
_LEAD_EVERY = 32  # on average, one token in 32 begins a two-byte letter


def _mix(value: int) -> int:
    """Spread a value over 64 bits (the finaliser of SplitMix64)."""
    value = (value + _ODD) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def weights_name(model: ModelSettings) -> str:
    """Name what tokens follow from: the served name, and the revision where one is set, as of other weights."""
    return model.name if model.revision is None else f"{model.name}@{model.revision}"


def model_salt(model: str, adapter: str | None) -> int:
    """Return 32 bits that differ between models, and between a model with and without an adapter."""
    return zlib.crc32(f"{model}\0{adapter or ''}".encode())


def is_greedy(sampling: Sampling) -> bool:
    """Return whether each token follows from those before it."""
    return sampling.temperature == 0 or sampling.top_k == 1


class TokenSource:
    """Draws one request's tokens."""

    def __init__(
        self, *, vocab_size: int, mean_output_tokens: int, salt: int, sampling: Sampling, own_seed: int
    ) -> None:
        """Make the source of one run.  ``own_seed``: random, for a run that samples without a seed."""
        self._words = vocab_size - FIRST_WORD_ID
        self._vocab_size = vocab_size
        self._eos_every = mean_output_tokens
        self._salt = salt
        self._sampling = sampling
        self._seed = self._effective_seed(sampling, own_seed)
        self._allowed = self._allowed_ids(sampling)
        self._banned = frozenset(token for token, bias in sampling.logit_bias.items() if bias <= -100)
        self._ends = frozenset((EOS_ID, *sampling.stop_token_ids))
        self._bad = self._bad_sequences(sampling, vocab_size)
        self._steered = max(sampling.presence_penalty, sampling.frequency_penalty) > 0
        self._steered_by_prompt = sampling.repetition_penalty > 1
        self._plain = not (self._allowed or self._banned or self._bad or self._steered or self._steered_by_prompt)

    @staticmethod
    def _effective_seed(sampling: Sampling, own_seed: int) -> int | None:
        if is_greedy(sampling):
            return None
        return _mix((own_seed if sampling.seed is None else sampling.seed) & _MASK)

    @staticmethod
    def _allowed_ids(sampling: Sampling) -> tuple[int, ...]:
        forced = tuple(sorted(token for token, bias in sampling.logit_bias.items() if bias >= 100))
        return forced or tuple(sorted(set(sampling.allowed_token_ids)))

    @staticmethod
    def _bad_sequences(sampling: Sampling, vocab_size: int) -> tuple[tuple[int, ...], ...]:
        tokenizer = tokenizer_for(vocab_size) if sampling.bad_words else None
        if tokenizer is None:
            return ()
        spellings = (prefix + word.lstrip() for word in sampling.bad_words for prefix in ("", " "))
        return tuple({tuple(tokenizer.encode(spelling, add_special_tokens=False).ids) for spelling in spellings})

    def next(self, tokens: Sequence[int], emitted: int) -> int:
        """Return the token after ``tokens``, of which the last ``emitted`` are output."""
        value = _mix(zlib.crc32(array("I", tokens[-CONTEXT_TOKENS:]).tobytes(), self._salt))
        if self._seed is not None:
            value = _mix(value ^ self._seed ^ emitted)
        token = self._pick(value, tokens[-1])
        if self._plain and (emitted >= self._sampling.min_tokens or token not in self._ends):
            return token
        return self._constrained(value, token, tokens, emitted)

    def _pick(self, value: int, last: int) -> int:
        if last == LEAD_BYTE_ID:
            return CONTINUATION_FIRST_ID + (value >> 16) % 64
        if not (value >> 40) % self._eos_every:
            return EOS_ID
        if not (value >> 34) % _LEAD_EVERY:
            return LEAD_BYTE_ID
        return FIRST_WORD_ID + (value & 0xFFFFFFFF) % self._words

    def _constrained(self, value: int, token: int, tokens: Sequence[int], emitted: int) -> int:
        """Draw again until the token is permitted.  Penalties are ignored after _TRIES draws."""
        for attempt in range(2 * _TRIES):
            if self._allowed:
                token = self._allowed[value % len(self._allowed)]
            soft = attempt < _TRIES and self._is_repetition(token, tokens, emitted)
            if not soft and not self._is_forbidden(token, tokens, emitted):
                return token
            value = _mix(value)
            token = self._pick(value, tokens[-1])
        return self._first_permitted(tokens, emitted)

    def _first_permitted(self, tokens: Sequence[int], emitted: int) -> int:
        candidates = self._allowed or range(FIRST_WORD_ID, self._vocab_size)
        for token in candidates:
            if not self._is_forbidden(token, tokens, emitted):
                return token
        return candidates[0]  # every token is forbidden: some token has to be drawn

    def _is_forbidden(self, token: int, tokens: Sequence[int], emitted: int) -> bool:
        if token in self._banned or (emitted < self._sampling.min_tokens and token in self._ends):
            return True
        return any(
            token == bad[-1] and tuple(tokens[len(tokens) - len(bad) + 1 :]) == bad[:-1]
            if len(bad) > 1
            else token == bad[0]
            for bad in self._bad
        )

    def _is_repetition(self, token: int, tokens: Sequence[int], emitted: int) -> bool:
        if self._steered_by_prompt and token in tokens:
            return True
        return self._steered and emitted > 0 and token in tokens[len(tokens) - emitted :]

    def logprobs(self, tokens: Sequence[int], token: int, top: int) -> list[TokenLogprob]:
        """Return made-up log probabilities: ``token`` as the most likely one, then ``top - 1`` others."""
        value = _mix(zlib.crc32(array("I", tokens[-CONTEXT_TOKENS:]).tobytes(), self._salt ^ token))
        logprob = -0.01 - (value % 2_000) / 1_000
        rows = [TokenLogprob(token_id=token, logprob=logprob, rank=1)]
        seen = {token}
        while len(rows) < min(top, self._vocab_size):
            value = _mix(value)
            other = value % self._vocab_size
            if other in seen:
                continue
            seen.add(other)
            logprob -= 0.01 + (value >> 32) % 1_000 / 2_000
            rows.append(TokenLogprob(token_id=other, logprob=logprob, rank=len(rows) + 1))
        return rows
