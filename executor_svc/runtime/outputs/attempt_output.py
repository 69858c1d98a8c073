"""The output of one attempt: all its token ids, and the pieces that are not sent yet."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

from executor_svc.runtime.engine_port import TokenLogprob
from executor_svc.runtime.log_context import About
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.outputs import Ended, Piece
from executor_svc.runtime.messages.registration import HeldAttempt
from executor_svc.runtime.text.detokenizer import Detokenizer

PIECE_TOKENS = 1024  # a piece that waits grows to about this many tokens; then the next one begins


class AttemptOutput:
    """The whole output of one attempt, kept until its end is acknowledged.

    A scheduler that reconnects can ask for the output from any position that it has not acknowledged.  A token takes 4
    bytes, and max_tokens bounds their number.  Text is made again from the tokens; log probabilities are kept until
    they are acknowledged.
    """

    __slots__ = (
        "_detokenizer",
        "_logprobs",
        "_logprobs_from",
        "_seam",
        "_seam_text_length",
        "about",
        "acknowledged",
        "attempt",
        "awaits_resume",
        "ended",
        "kv_recomputed",
        "pieces",
        "queued",
        "token_ids",
        "undecoded",
    )

    def __init__(
        self,
        attempt: AttemptId,
        *,
        detokenizer: Callable[[], Detokenizer],
        emitted: Sequence[int] = (),
        emitted_text_length: int = 0,
        logprobs: bool = False,
        about: Mapping[str, About],
    ) -> None:
        self.attempt = attempt
        self.about = about  # for log lines
        self.token_ids = array("I", emitted)  # every output position, those of earlier attempts included
        self.pieces: list[Piece] = []  # not sent yet, in order
        self.ended: Ended | None = None
        self.awaits_resume = False  # the session broke: nothing is sent before the scheduler resumes the attempt
        self.acknowledged = len(emitted)  # output positions below this are never asked for again
        self.queued = False  # the outbox will send the pieces
        self.kv_recomputed = False  # known before the first token of a decode leg
        self.undecoded = 0  # tokens at the end that give no text: 1 for a stop token, else 0
        self._detokenizer = detokenizer
        self._seam = len(emitted)  # output position of this attempt's first own token
        self._seam_text_length = emitted_text_length
        self._logprobs: list[list[TokenLogprob]] | None = [] if logprobs else None
        self._logprobs_from = self._seam  # output position of the first log probabilities kept

    @property
    def held(self) -> HeldAttempt:
        """The attempt as a registration lists it."""
        return HeldAttempt(attempt=self.attempt, tokens=len(self.token_ids), ended=self.ended is not None)

    def append(self, token_ids: Sequence[int], text: str, logprobs: list[list[TokenLogprob]] | None) -> None:
        """Add the new tokens of one engine step, their text and their log probabilities."""
        first_index = len(self.token_ids)
        self.token_ids.extend(token_ids)
        if self._logprobs is not None and logprobs is not None:
            self._logprobs.extend(logprobs)
        if self.awaits_resume:
            return  # ``rewind`` makes the pieces again
        pieces = self.pieces
        if pieces and len(pieces[-1].token_ids) < PIECE_TOKENS:
            _grow(pieces[-1], token_ids, text, logprobs)
        else:
            pieces.append(Piece(self.attempt.number, first_index, token_ids, text, logprobs, self.kv_recomputed))

    def suspend(self) -> None:
        """Send nothing until ``rewind``: the session broke, and pieces that were sent may not have arrived."""
        self.pieces.clear()
        self.awaits_resume = True

    def rewind(self, from_index: int) -> None:
        """Send everything from ``from_index`` again.  Raises ValueError if that position is not in the kept output."""
        if not self.acknowledged <= from_index <= len(self.token_ids):
            raise ValueError(
                f"the scheduler resumes from token {from_index}; "
                f"{self.acknowledged} tokens are acknowledged and {len(self.token_ids)} exist"
            )
        self.awaits_resume = False
        self.pieces = self._pieces_from(from_index)

    def _pieces_from(self, from_index: int) -> list[Piece]:
        if from_index == len(self.token_ids):
            return []
        text = self._detokenizer()
        text.prime(self.token_ids[:from_index], self._seam_text_length if from_index == self._seam else None)
        decodable = len(self.token_ids) - self.undecoded
        pieces = []
        for start in range(from_index, len(self.token_ids), PIECE_TOKENS):
            token_ids = self.token_ids[start : start + PIECE_TOKENS].tolist()
            text.feed(token_ids[: max(0, decodable - start)])
            logprobs = self._logprobs_at(start, start + len(token_ids))
            pieces.append(Piece(self.attempt.number, start, token_ids, text.take(), logprobs, self.kv_recomputed))
        return pieces

    def _logprobs_at(self, start: int, end: int) -> list[list[TokenLogprob]] | None:
        if self._logprobs is None:
            return None
        return self._logprobs[start - self._logprobs_from : end - self._logprobs_from]

    def acknowledge(self, tokens: int) -> None:
        """Note that the scheduler has all output positions below ``tokens``."""
        self.acknowledged = min(max(self.acknowledged, tokens), len(self.token_ids))
        if self._logprobs:
            done = self.acknowledged - self._logprobs_from
            del self._logprobs[:done]
            self._logprobs_from += done


def _grow(piece: Piece, token_ids: Sequence[int], text: str, logprobs: list[list[TokenLogprob]] | None) -> None:
    """Add output to a piece that the link has not taken yet.

    The piece's tokens are copied once, then extended in place.
    """
    if isinstance(piece.token_ids, array):
        piece.token_ids.extend(token_ids)
        if piece.logprobs is not None and logprobs is not None:
            piece.logprobs.extend(logprobs)
    else:
        piece.token_ids = array("I", [*piece.token_ids, *token_ids])
        if piece.logprobs is not None and logprobs is not None:
            piece.logprobs = [*piece.logprobs, *logprobs]
    piece.text += text
