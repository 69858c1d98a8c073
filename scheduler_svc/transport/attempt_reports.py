"""Passes on what an executor reports about its attempts, in a StepFrame or in the older messages."""

from __future__ import annotations

from functools import partial

from sage.controlplane.v1 import executor_pb2
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.transport import attempt_ends, step_frames
from scheduler_svc.transport.clipping import reported
from scheduler_svc.transport.executor_link import StreamLink

ACKNOWLEDGE_EVERY = 64  # output tokens with log probabilities
LOGPROBS_KEPT = 256  # latest tokens whose log probabilities executors keep for readers that are behind at a restart
LAST_POSITION = 2**32 - 1  # that the contract has a number for


class AttemptReports:
    """Takes the messages of one output stream.  This is the hot path: nothing in it waits for a client.

    An attempt's epoch of 0 means the session's.  What is said of another epoch's attempts is dropped and counted unless
    they were adopted; their ends are acknowledged, so that the executor forgets them.  The end of a request is
    acknowledged once its readers have it.
    """

    def __init__(self, attempts: AttemptTable, link: StreamLink, sender: str, ends: KeptEnds, *, epoch: int) -> None:
        self._attempts = attempts
        self._link = link
        self._sender = sender
        self._ends = ends
        self._epoch = epoch

    def take(self, message: executor_pb2.OutputsRequest) -> bool:
        """Pass on a message; return whether it has output.  Raises WireError for a StepFrame that makes no sense."""
        kind = message.WhichOneof("message")
        if kind == "step":
            self._step(message.step)
            return True
        if kind == "frame":
            for piece in message.frame.tokens:
                self._tokens(piece, self._epoch)
            return True
        if kind == "ended":
            self._ended(message.ended, self._epoch)
        elif kind == "accepted":
            self._accepted(message.accepted, self._epoch)
        elif kind == "rejected":
            self._rejected(message.rejected, self._epoch)
        return False

    def _step(self, step: executor_pb2.StepFrame) -> None:
        step_frames.check_sizes(step)
        columns = step_frames.columns(step)
        epoch = step.epoch or self._epoch
        for accepted in step.accepted:
            self._accepted(accepted, epoch)
        for rejected in step.rejected:
            self._rejected(rejected, epoch)
        if epoch != self._epoch:
            columns = self._adopted(columns, epoch)
        self._attempts.columns(self._sender, columns)
        for piece in step.pieces:
            self._tokens(piece, epoch)
        for ended in step.ended:
            self._ended(ended, epoch)

    def _adopted(self, columns: OutputColumns, epoch: int) -> OutputColumns:
        """Return the columns of another epoch with the numbers that attempts have here; 0 for those not adopted."""
        names = self._attempts.names
        numbers = [names.number(epoch, each) or 0 for each in columns.numbers]
        if 0 in numbers:
            self._attempts.of_other_epoch(self._sender, epoch, columns.numbers[numbers.index(0)])
        return columns._replace(numbers=numbers)

    # --- messages about one attempt; ``implied`` is the epoch that an epoch of 0 means -------------------------------

    def _number(self, epoch: int, number: int) -> int | None:
        """Return the number that an attempt has here; None if it is neither of this epoch nor adopted."""
        if epoch == self._epoch:
            return number
        here = self._attempts.names.number(epoch, number)
        if here is None:
            self._attempts.of_other_epoch(self._sender, epoch, number)
        return here

    def _accepted(self, accepted: executor_pb2.AssignmentAccepted, implied: int) -> None:
        number = self._number(accepted.epoch or implied, accepted.attempt_number)
        if number is not None:
            self._attempts.accepted(self._sender, number)

    def _rejected(self, rejected: executor_pb2.AssignmentRejected, implied: int) -> None:
        number = self._number(rejected.epoch or implied, rejected.attempt_number)
        if number is not None:
            reason = attempt_ends.rejection(rejected.reason)
            self._attempts.rejected(self._sender, number, reason, reported(rejected.message))

    def _tokens(self, piece: executor_pb2.AssignmentTokens, implied: int) -> None:
        number = self._number(piece.epoch or implied, piece.attempt_number)
        if number is None:
            return
        if piece.HasField("cached_prompt_tokens"):
            logprobs = [found.SerializeToString() for found in piece.prompt_logprobs]
            facts = PromptFacts(cached_tokens=piece.cached_prompt_tokens, logprobs=logprobs)
            self._attempts.prompt(self._sender, number, facts)
            return
        # Kept as bytes: a reference to a part of a message would keep the whole message in memory.
        logprobs = [found.SerializeToString() for found in piece.logprobs]
        self._attempts.tokens(
            self._sender,
            number,
            piece.first_index,
            piece.token_ids,
            piece.text,
            logprobs,
            piece.kv_recomputed,
        )
        if logprobs:
            self._acknowledge_progress(number, piece)

    def _acknowledge_progress(self, number: int, piece: executor_pb2.AssignmentTokens) -> None:
        """Confirm output with log probabilities now and then: until then its executor keeps them, about 2 KB a token.

        Of detached work only what is written down is confirmed: the next scheduler asks for the rest.

        Token ids are confirmed with the end only: they take four bytes.
        """
        end = piece.first_index + len(piece.token_ids)
        if end > LAST_POSITION:
            return  # no output is that long: control has found the gap
        due = end // ACKNOWLEDGE_EVERY > piece.first_index // ACKNOWLEDGE_EVERY
        if not due or end <= LOGPROBS_KEPT:
            return
        published = self._attempts.published(self._sender, number)
        until = end if published is None else min(end, published)
        if until > LOGPROBS_KEPT:
            self._link.acknowledge(number, until - LOGPROBS_KEPT, ended=False)

    def _ended(self, ended: executor_pb2.AssignmentEnded, implied: int) -> None:
        epoch = ended.epoch or implied
        name, tokens = (epoch, ended.attempt_number), ended.total_tokens
        acknowledge = partial(self._link.acknowledge, ended.attempt_number, tokens, ended=True, epoch=epoch)
        if self._ends.came_again(self._sender, name, acknowledge):
            return
        number, live = self._number(epoch, ended.attempt_number), None
        if number is not None:
            live = self._attempts.ended(self._sender, attempt_ends.attempt_end(ended, number))
        if live is None:
            acknowledge()
        else:
            self._ends.keep(live, self._sender, acknowledge, name)
