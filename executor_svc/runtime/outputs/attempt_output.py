"""The output of one attempt: all its token ids, and how far they are sent."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence

from executor_svc.runtime.engine_port import TokenLogprob
from executor_svc.runtime.log_context import About
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign
from executor_svc.runtime.messages.outputs import Ended, Piece, PromptFacts, StepFrame
from executor_svc.runtime.messages.registration import HeldAttempt
from executor_svc.runtime.messages.reports import HeldAssign
from executor_svc.runtime.text.detokenizer import Detokenizer

TEXT_OF_ONE_WEIGHT = 8  # code points of text that count as much as a token; most tokens have fewer
NO_EPOCH = -1
PIECE_TOKENS = 1024  # output that waits is cut into entries of about this many tokens


class AttemptOutput:
    """The whole output of one attempt, kept until its end is acknowledged.

    A scheduler that reconnects can ask for the output from any position that it has not acknowledged.  A token takes 4
    bytes, and max_tokens bounds their number.  Text is kept until it is sent, and made again from the tokens if it is
    asked for again; log probabilities are kept until they are acknowledged.
    """

    __slots__ = (
        "_assign",
        "_detokenizer",
        "_logprobs",
        "_logprobs_from",
        "_prompt",
        "_prompt_due",
        "_received_at",
        "_seam",
        "_seam_text_length",
        "_sent",
        "_text",
        "_text_from",
        "_texts",
        "about",
        "acknowledged",
        "attempt",
        "awaits_resume",
        "ended",
        "first_token_at",
        "in_columns",
        "kv_recomputed",
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
        assign: Assign | None = None,
        received_at: float = 0.0,
    ) -> None:
        """``assign``: what began the attempt; None if that makes no sense.  ``received_at``: on the loop's clock."""
        self.attempt = attempt
        self._assign = assign
        self._received_at = received_at
        self.about = about  # for log lines
        self.token_ids = array("I", emitted)  # every output position, those of earlier attempts included
        self.ended: Ended | None = None
        self.first_token_at: float | None = None  # on the loop's clock, of this attempt's own tokens
        self.awaits_resume = False  # the session broke: nothing is sent before the scheduler resumes the attempt
        self.acknowledged = len(emitted)  # output positions below this are never asked for again
        self.queued = False  # the outbox will send the output
        self.in_columns = NO_EPOCH if logprobs else attempt.epoch  # its tokens may go into columns of a frame of it
        self.kv_recomputed = False  # known before the first token of a decode leg
        self.undecoded = 0  # tokens at the end that give no text: 1 for a stop token, else 0
        self._detokenizer = detokenizer
        self._seam = len(emitted)  # output position of this attempt's first own token
        self._seam_text_length = emitted_text_length
        self._logprobs: list[list[TokenLogprob]] | None = [] if logprobs else None
        self._logprobs_from = self._seam  # output position of the first log probabilities kept
        self._sent = len(emitted)  # output positions below this are sent
        self._texts: list[tuple[int, str]] = []  # text of output that waits: the end of its tokens, and the text
        self._text_from = len(emitted)  # the text from this output position on is not in ``_texts`` yet
        self._text = ""
        self._prompt: PromptFacts | None = None
        self._prompt_due = False  # it is to be sent with the tokens that wait

    @property
    def held(self) -> HeldAttempt:
        """The attempt as a registration lists it."""
        tokens, ended, assign = len(self.token_ids), self.ended is not None, self._assign
        if assign is None:
            return HeldAttempt(attempt=self.attempt, tokens=tokens, ended=ended)
        return HeldAttempt(
            attempt=self.attempt,
            tokens=tokens,
            ended=ended,
            adoption_proof=assign.adoption_proof,
        )

    @property
    def adoptable(self) -> bool:
        """Whether another scheduler than the one that began the attempt may go on with it."""
        return self._assign is not None and bool(self._assign.adoption_proof)

    def held_assign(self, now: float) -> HeldAssign:
        """Return the answer to FetchAssign.  ``now``: on the loop's clock."""
        return HeldAssign(
            attempt=self.attempt,
            assign=self._assign,
            held_for_s=now - self._received_at,
            tokens=len(self.token_ids),
            ended=self.ended is not None,
            first_token_for_s=None if self.first_token_at is None else now - self.first_token_at,
        )

    @property
    def unsent(self) -> int:
        """Output that waits to be sent, in tokens."""
        return 0 if self.awaits_resume else len(self.token_ids) - self._sent

    def append(self, token_ids: Sequence[int], text: str, logprobs: list[list[TokenLogprob]] | None) -> None:
        """Add the new tokens of one engine step, their text and their log probabilities."""
        self.token_ids.extend(token_ids)
        if self._logprobs is not None and logprobs is not None:
            self._logprobs.extend(logprobs)
        if self.awaits_resume:
            return  # ``rewind`` makes the text again
        self._text = self._text + text if self._text else text
        if len(self.token_ids) - self._text_from >= PIECE_TOKENS:
            self._texts.append((len(self.token_ids), self._text))
            self._text_from, self._text = len(self.token_ids), ""

    def append_sent(self, frame: StepFrame, token_ids: Sequence[int], text: str) -> None:
        """Add the new tokens of one engine step and write them into the columns of a frame.

        Only while nothing of this output waits and ``in_columns`` is the frame's epoch.
        """
        kept, count = self.token_ids, len(token_ids)
        start = len(kept)
        frame.numbers.append(self.attempt.number)
        frame.first_indexes.append(start)
        frame.counts.append(count)
        if count == 1:
            token_id = token_ids[0]
            kept.append(token_id)
            frame.token_ids.append(token_id)
        else:
            kept.extend(token_ids)
            frame.token_ids.extend(token_ids)
        frame.texts.append(text)
        self._sent = self._text_from = start + count

    def tell_of_prompt(self, facts: PromptFacts) -> None:
        """Send what is known of the prompt with the tokens that come next, the first ones."""
        self._prompt, self._prompt_due, self.in_columns = facts, True, NO_EPOCH

    def use_pieces(self) -> None:
        """Send this output in pieces: its prompt's KV was computed here instead of fetched."""
        self.kv_recomputed, self.in_columns = True, NO_EPOCH

    def suspend(self) -> None:
        """Send nothing until ``rewind``: the session broke, and output that was sent may not have arrived."""
        self.awaits_resume, self.in_columns = True, NO_EPOCH
        self._texts.clear()
        self._text = ""

    def rewind(self, from_index: int) -> None:
        """Send everything from ``from_index`` again, also what was acknowledged: another scheduler may ask for it.

        Log probabilities that were acknowledged are gone.  Raises ValueError for a position behind the output.
        """
        if not 0 <= from_index <= len(self.token_ids):
            raise ValueError(f"the scheduler resumes from token {from_index}; {len(self.token_ids)} exist")
        self.awaits_resume = False
        self._prompt_due = self._prompt is not None and from_index <= self._seam
        self._set_columns()
        self._texts = self._texts_from(from_index)
        self._sent, self._text_from, self._text = from_index, len(self.token_ids), ""

    def _set_columns(self) -> None:
        pieces = self._logprobs is not None or self.kv_recomputed or self._prompt_due or self.awaits_resume
        self.in_columns = NO_EPOCH if pieces else self.attempt.epoch

    def _texts_from(self, from_index: int) -> list[tuple[int, str]]:
        if from_index == len(self.token_ids):
            return []
        text = self._detokenizer()
        text.prime(self.token_ids[:from_index], self._seam_text_length if from_index == self._seam else None)
        decodable = len(self.token_ids) - self.undecoded
        texts = []
        for start in range(from_index, len(self.token_ids), PIECE_TOKENS):
            token_ids = self.token_ids[start : start + PIECE_TOKENS].tolist()
            text.feed(token_ids[: max(0, decodable - start)])
            texts.append((start + len(token_ids), text.take()))
        return texts

    def write(self, frame: StepFrame, limit: int) -> int:
        """Move output that waits into a frame, about ``limit`` of weight.  Return the weight that it took.

        A token and a log probability weigh 1 each, and so do TEXT_OF_ONE_WEIGHT code points of text.
        Either all of an attempt's output goes into columns or none of it: a frame's pieces count after its columns.
        """
        write = self._write_column if self._fits_columns(frame) else self._write_piece
        weight = self._write_prompt(frame) if self._prompt_due else 0
        while self._texts and weight < limit:
            weight += write(frame, *self._texts.pop(0))
        if not self._texts and weight < limit and self._sent < len(self.token_ids):
            text, self._text, self._text_from = self._text, "", len(self.token_ids)
            weight += write(frame, self._text_from, text)
        return weight

    def _fits_columns(self, frame: StepFrame) -> bool:
        return self._logprobs is None and not self.kv_recomputed and self.attempt.epoch == frame.epoch

    def _write_prompt(self, frame: StepFrame) -> int:
        facts = self._prompt
        frame.pieces.append(Piece(self.attempt, 0, (), "", prompt=facts))
        self._prompt_due = False
        self._set_columns()
        return 0 if facts is None or facts.logprobs is None else sum(len(row or ()) for row in facts.logprobs)

    def _write_column(self, frame: StepFrame, end: int, text: str) -> int:
        start, token_ids = self._sent, self.token_ids
        count = end - start
        frame.numbers.append(self.attempt.number)
        frame.first_indexes.append(start)
        frame.counts.append(count)
        if count == 1:
            frame.token_ids.append(token_ids[start])
        else:
            frame.token_ids.extend(token_ids[start:end])
        frame.texts.append(text)
        self._sent = end
        return count + len(text) // TEXT_OF_ONE_WEIGHT

    def _write_piece(self, frame: StepFrame, end: int, text: str) -> int:
        start = self._sent
        logprobs = self._logprobs_at(start, end)
        piece = Piece(self.attempt, start, self.token_ids[start:end], text, logprobs, self.kv_recomputed)
        frame.pieces.append(piece)
        self._sent = end
        weight = end - start + len(text) // TEXT_OF_ONE_WEIGHT
        return weight + (0 if logprobs is None else sum(map(len, logprobs)))

    def _logprobs_at(self, start: int, end: int) -> list[list[TokenLogprob]] | None:
        """Return the log probabilities of these tokens; empty lists for those that are gone."""
        if self._logprobs is None:
            return None
        gone = min(end, self._logprobs_from) - start
        kept = self._logprobs[max(0, start - self._logprobs_from) : max(0, end - self._logprobs_from)]
        return [[] for _ in range(gone)] + kept

    def acknowledge(self, tokens: int) -> None:
        """Note that the scheduler has all output positions below ``tokens``."""
        self.acknowledged = min(max(self.acknowledged, tokens), self._sent)
        if self._logprobs:
            done = self.acknowledged - self._logprobs_from
            del self._logprobs[:done]
            self._logprobs_from += done
