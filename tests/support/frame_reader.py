"""What a client makes of a session's frames: the events of each handle, and every rule of frames checked."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.rpc import status_pb2

from sage.controlplane.v1 import inference_pb2


@dataclass
class HandleEvents:
    """The events of one handle, in the order in which they count."""

    accepted: inference_pb2.Accepted | None = None
    position: int = 0
    text_at: int = 0
    first_text_at: int = 0
    placements: list[inference_pb2.Scheduled] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)  # of each token
    text: str = ""
    logprobs: int = 0
    finished: inference_pb2.Finished | None = None
    failed: status_pb2.Status | None = None

    @property
    def over(self) -> bool:
        return self.finished is not None or self.failed is not None


class FrameReader:
    """Takes the frames of one stream."""

    def __init__(self) -> None:
        self.handles: dict[int, HandleEvents] = {}
        self.frames = 0
        self.tokens_per_frame: list[int] = []

    def of(self, handle: int) -> HandleEvents:
        return self.handles.setdefault(handle, HandleEvents())

    def take(self, frame: inference_pb2.SessionFrame) -> None:
        self.frames += 1
        assert frame.number == self.frames
        for accepted in frame.accepted:
            self._accept(accepted)
        for scheduled in frame.scheduled:
            self._open(scheduled.handle).placements.append(scheduled.scheduled)
        self._columns(frame)
        for piece in frame.pieces:
            self._piece(piece)
        for finished in frame.finished:
            self._open(finished.handle).finished = finished.finished
        for failed in frame.failed:
            events = self.of(failed.handle)
            assert not events.over
            events.failed = failed.status

    def _accept(self, wire: inference_pb2.HandleAccepted) -> None:
        events = self.of(wire.handle)
        assert events.accepted is None
        assert not events.over
        events.accepted = wire.accepted
        for position in wire.positions:
            assert position.choice == 0
            events.position = position.after_token
            events.text_at = events.first_text_at = position.text_offset

    def _open(self, handle: int) -> HandleEvents:
        events = self.handles[handle]
        assert events.accepted is not None, f"{handle} is not accepted yet"
        assert not events.over, f"something follows the end of {handle}"
        return events

    def _columns(self, frame: inference_pb2.SessionFrame) -> None:
        entries = len(frame.handles)
        counts = list(frame.counts) or [1] * entries
        lengths = list(frame.text_lengths) or [0] * entries
        assert len(counts) == len(lengths) == entries
        assert not frame.choices
        assert sum(counts) == len(frame.token_ids)
        assert sum(lengths) == len(frame.text)
        at = text_at = 0
        for handle, count, length in zip(frame.handles, counts, lengths, strict=True):
            self._output(handle, list(frame.token_ids[at : at + count]), frame.text[text_at : text_at + length])
            at, text_at = at + count, text_at + length
        self.tokens_per_frame.append(at)

    def _output(self, handle: int, token_ids: list[int], text: str) -> None:
        events = self._open(handle)
        if token_ids:
            # Output that the scheduler has from its journal has no placement.
            attempt = events.placements[-1].decision.attempt.number if events.placements else 0
            events.attempts += [attempt] * len(token_ids)
        events.token_ids += token_ids
        events.text += text
        events.text_at += len(text)

    def _piece(self, wire: inference_pb2.HandleTokens) -> None:
        events, tokens = self._open(wire.handle), wire.tokens
        assert tokens.first_index == events.position + len(events.token_ids)
        assert tokens.text_offset == events.text_at
        if tokens.token_ids:
            assert tokens.attempt == events.placements[-1].decision.attempt
        self._output(wire.handle, list(tokens.token_ids), tokens.text)
        events.logprobs += len(tokens.logprobs)
