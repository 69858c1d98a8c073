"""A frame that is being filled: what is new of one handle after the other, as columns."""

from __future__ import annotations

from collections.abc import Callable

from google.rpc import status_pb2

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.control.requests.outcome import Finished, Outcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import events
from scheduler_svc.transport.client_sessions.handle import Handle
from scheduler_svc.transport.client_sessions.limits import ENTRY_TOKENS, FRAME_BYTES, PIECE_TOKENS
from scheduler_svc.transport.errors import to_status

ENTRY_BYTES = 16  # most of an entry without its tokens and text
TOKEN_BYTES = 4  # of ids below 2 ** 28
CHARACTER_BYTES = 4  # most of one that is not ASCII


class FrameDraft:
    """Collects a frame's entries; nothing in it is made per token."""

    __slots__ = (
        "_accepted",
        "_choices",
        "_counts",
        "_epoch",
        "_failed",
        "_finished",
        "_handles",
        "_on_failure",
        "_pieces",
        "_scheduled",
        "_scheduler",
        "_size",
        "_text_lengths",
        "_texts",
        "_token_ids",
        "over",
        "piece_tokens",
    )

    def __init__(
        self, scheduler: Scheduler, epoch: int, on_failure: Callable[[status_pb2.Status], None] = lambda status: None
    ) -> None:
        """``on_failure`` is told of each handle that ends with a status."""
        self._on_failure = on_failure
        self._scheduler = scheduler
        self._epoch = epoch
        self._size = 0  # bytes, at least what it takes on the wire
        self._accepted: list[inference_pb2.HandleAccepted] = []
        self._scheduled: list[inference_pb2.HandleScheduled] = []
        self._handles: list[int] = []
        self._choices: list[int] = []
        self._counts: list[int] = []
        self._token_ids: list[int] = []
        self._text_lengths: list[int] = []
        self._texts: list[str] = []
        self._pieces: list[inference_pb2.HandleTokens] = []
        self.piece_tokens = 0  # tokens in pieces
        self._finished: list[inference_pb2.HandleFinished] = []
        self._failed: list[inference_pb2.HandleFailed] = []
        self.over: list[Handle] = []  # handles whose end is in it

    @property
    def full(self) -> bool:
        """Whether it takes no further entry."""
        return self._size >= FRAME_BYTES

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return not self._size

    @property
    def tokens(self) -> int:
        """The output tokens in it."""
        return len(self._token_ids) + self.piece_tokens

    def take(self, handle: Handle) -> bool:
        """Take what is new of a handle; return whether some of it has to wait for the next frame.

        The hot path: nearly always there are a few tokens and nothing else.
        """
        if not handle.flows:
            return self._take_all(handle)
        live = handle.live
        output = live.published
        if (
            live.outcome is None
            and handle.placements_seen == len(live.placements)
            and 0 < (count := len(token_ids := output.token_ids) - (position := handle.position)) <= ENTRY_TOKENS
        ):
            end = handle.position = position + count
            text = output.text_of(position, end)
            self._handles.append(handle.number)
            self._choices.append(handle.choice)
            self._counts.append(count)
            if count == 1:
                self._token_ids.append(token_ids[position])
            else:
                self._token_ids.extend(token_ids[position:end])
            self._add_text(text, count)
            return False
        return self._take_all(handle)

    def _take_all(self, handle: Handle) -> bool:
        if (failure := handle.lead.failure) is not None:
            if handle is handle.lead:
                self._fail(handle, failure)
            return False
        if handle.acceptance is not None:
            self._accept(handle, handle.acceptance)
        if handle.paused:
            return False
        live = handle.live
        output, has_output = live.published, False
        # Output that tells of the prompt comes in pieces, and the other output of this frame with it.
        in_pieces = handle.with_logprobs or (live.prompt is not None and not handle.position)
        while True:
            if handle.next_placement() is not None:
                if has_output:
                    return True  # the reader takes all placements of a frame before its tokens
                self._place(handle)
            elif handle.position < len(output):
                if self._size >= FRAME_BYTES:
                    return True
                self._take_tokens(handle, in_pieces=in_pieces)
                has_output = True
            else:
                break
        if live.published_outcome is not None:
            self._end(handle, in_pieces=in_pieces)
        return False

    def write(self, frame: inference_pb2.SessionFrame) -> None:
        """Fill a message; columns that say nothing stay empty."""
        frame.accepted.extend(self._accepted)
        frame.scheduled.extend(self._scheduled)
        if self._handles:
            frame.handles.extend(self._handles)
            frame.token_ids.extend(self._token_ids)
            if any(self._choices):
                frame.choices.extend(self._choices)
            if self._counts.count(1) != len(self._counts):
                frame.counts.extend(self._counts)
            text = "".join(self._texts)
            if text:
                frame.text_lengths.extend(self._text_lengths)
                frame.text = text
        frame.pieces.extend(self._pieces)
        frame.finished.extend(self._finished)
        frame.failed.extend(self._failed)

    # --- inside -----------------------------------------------------------------------------------

    def _accept(self, handle: Handle, acceptance: inference_pb2.HandleAccepted) -> None:
        handle.acceptance = None
        self._accepted.append(acceptance)
        self._size += ENTRY_BYTES + acceptance.ByteSize()

    def _place(self, handle: Handle) -> None:
        placement = handle.next_placement()
        assert placement is not None
        instance = self._scheduler.find_instance(placement.decision.instance_id)
        message = inference_pb2.HandleScheduled(handle=handle.number)
        events.fill_scheduled(message.scheduled, placement, instance, handle.live, self._epoch)
        self._scheduled.append(message)
        self._size += ENTRY_BYTES + message.ByteSize()
        handle.pass_placement()

    def _take_tokens(self, handle: Handle, *, in_pieces: bool) -> None:
        handle.delivered = True
        handle.flows = not handle.with_logprobs
        if in_pieces:
            self._add_piece(handle, handle.take_tokens(PIECE_TOKENS))
        else:
            self._add_entry(handle, handle.take_tokens(ENTRY_TOKENS))

    def _add_entry(self, handle: Handle, tokens: TokenSlice) -> None:
        _, _, token_ids, _, text, _ = tokens
        self._handles.append(handle.number)
        self._choices.append(handle.choice)
        self._counts.append(len(token_ids))
        self._token_ids.extend(token_ids)
        self._add_text(text, len(token_ids))

    def _add_text(self, text: str, count: int) -> None:
        length = len(text)
        self._text_lengths.append(length)
        self._texts.append(text)
        self._size += ENTRY_BYTES + TOKEN_BYTES * count + (length if text.isascii() else CHARACTER_BYTES * length)

    def _add_piece(self, handle: Handle, tokens: TokenSlice) -> None:
        wire = events.tokens(tokens, handle.live, self._epoch).tokens
        self._pieces.append(inference_pb2.HandleTokens(handle=handle.number, tokens=wire))
        self.piece_tokens += len(tokens.token_ids)
        self._size += ENTRY_BYTES + wire.ByteSize()

    def _end(self, handle: Handle, *, in_pieces: bool) -> None:
        tail = handle.take_tail()
        if tail is not None:
            if in_pieces:
                self._add_piece(handle, tail)
            else:
                self._add_entry(handle, tail)
        outcome = handle.live.outcome if handle.live.choices is None else self._end_choice(handle)
        handle = handle.lead
        if outcome is None:
            return
        if isinstance(outcome, Finished):
            message = inference_pb2.HandleFinished(handle=handle.number)
            events.fill_finished(message.finished, outcome)
            self._finished.append(message)
            self._size += ENTRY_BYTES + message.ByteSize()
            self.over.append(handle)
        else:
            self._fail(handle, to_status(outcome))

    def _end_choice(self, handle: Handle) -> Outcome | None:
        """Take the end of one choice of several; return that of the request with the last of them."""
        outcome = handle.live.outcome
        if handle.done:
            return None
        if isinstance(outcome, Finished):
            message = inference_pb2.HandleTokens(handle=handle.number)
            events.fill_choice_finished(message.choice_finished, outcome, handle.live)
            self._pieces.append(message)
            self._size += ENTRY_BYTES + message.ByteSize()
        handle.done = True
        return handle.live.whole_outcome if all(each.done for each in handle.family) else None

    def _fail(self, handle: Handle, status: status_pb2.Status) -> None:
        self._on_failure(status)
        self._failed.append(inference_pb2.HandleFailed(handle=handle.number, status=status))
        self._size += ENTRY_BYTES + status.ByteSize()
        self.over.append(handle)
