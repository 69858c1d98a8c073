"""Columns of a frame reach the calls that they are about, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_client import Attempt, ChoiceFinished, ProtocolError, SageError
from sage_client._call import Call
from sage_client._session_frame import deliver_output
from tests.unit.clients.test_session_outbox import cancel


class Pieces:
    """A sink that keeps the output."""

    def __init__(self) -> None:
        self.pieces: list[tuple[Any, ...]] = []
        self.error: SageError | None = None
        self.ended: list[ChoiceFinished] = []

    def accepted(self, event: object, /) -> None: ...

    def scheduled(self, event: object, /) -> None: ...

    def tokens(self, *piece: Any) -> None:
        self.pieces.append(piece)

    def prompt_read(self, event: object, /) -> None: ...

    def choice_finished(self, event: ChoiceFinished, /) -> None:
        self.ended.append(event)

    def finished(self, event: object, /) -> None: ...

    def failed(self, error: SageError, /) -> None:
        self.error = error


def call(sink: Pieces, **fields: Any) -> Call:
    return Call(inference_pb2.GenerateRequest(request_id="r", **fields), sink, cancel=cancel, timeout_s=60.0)


async def test_short_columns_are_one_token_each_of_choice_0() -> None:
    first, second = Pieces(), Pieces()
    calls = {1: call(first), 7: call(second)}
    frame = inference_pb2.SessionFrame(handles=[1, 7, 1], token_ids=[10, 20, 11], text_lengths=[1, 2, 0], text="aéé")

    deliver_output(frame, calls)

    assert first.pieces == [(0, 0, [10], 0, "a", ()), (0, 1, [11], 1, "", ())]
    assert second.pieces == [(0, 0, [20], 0, "éé", ())]


async def test_full_columns_have_choices_and_several_tokens() -> None:
    sink = Pieces()
    frame = inference_pb2.SessionFrame(
        handles=[1, 1, 1],
        choices=[0, 1, 0],
        counts=[2, 3, 0],
        token_ids=[1, 2, 3, 4, 5],
        text_lengths=[0, 2, 4],
        text="xylate",
    )

    deliver_output(frame, {1: call(sink)})

    assert sink.pieces == [(0, 0, [1, 2], 0, "", ()), (1, 0, [3, 4, 5], 0, "xy", ()), (0, 2, [], 0, "late", ())]


async def test_output_without_text_needs_no_lengths() -> None:
    sink = Pieces()
    deliver_output(inference_pb2.SessionFrame(handles=[1, 1], token_ids=[1, 2]), {1: call(sink)})

    assert sink.pieces == [(0, 0, [1], 0, "", ()), (0, 1, [2], 0, "", ())]


async def test_what_was_left_is_dropped_and_its_neighbours_are_not() -> None:
    sink = Pieces()
    frame = inference_pb2.SessionFrame(handles=[9, 1], token_ids=[5, 6], text_lengths=[3, 1], text="abcd")

    deliver_output(frame, {1: call(sink)})

    assert sink.pieces == [(0, 0, [6], 0, "d", ())]


async def test_a_sink_may_leave_others_while_a_frame_is_delivered() -> None:
    class Leaver(Pieces):
        def tokens(self, *piece: Any) -> None:
            super().tokens(*piece)
            other.leave()

    second = Pieces()
    other = call(second)
    frame = inference_pb2.SessionFrame(handles=[1, 2], token_ids=[1, 2])

    deliver_output(frame, {1: call(Leaver()), 2: other})

    assert second.pieces == []


async def test_the_end_of_a_choice_comes_once_and_after_its_tokens() -> None:
    sink = Pieces()
    made = call(sink)
    wire = inference_pb2.ChoiceFinished(choice=1)
    ended = inference_pb2.HandleTokens(handle=1, choice_finished=wire)
    deliver_output(inference_pb2.SessionFrame(handles=[1], choices=[1], token_ids=[5], pieces=[ended]), {1: made})
    made.take_choice_finished(wire)
    assert [piece[0] for piece in sink.pieces] == [1]
    assert [event.choice for event in sink.ended] == [1]


async def test_positions_are_those_of_each_choice_with_its_attempt() -> None:
    made = call(Pieces(), after_token=2)
    for choice, number in ((0, 8), (2, 9)):
        placed = inference_pb2.Scheduled(choice=choice)
        placed.decision.attempt.epoch, placed.decision.attempt.number = 1, number
        made.take_scheduled(placed)
    made.take_output(2, [5, 6], "")
    assert [(each.choice, each.after_token, each.after_attempt.number) for each in made.positions()] == [
        (0, 2, 0),
        (2, 2, 9),
    ]


async def test_a_sink_of_plain_requests_is_told_nothing_of_choices() -> None:
    class Plain(Pieces):
        choice_finished = prompt_read = None  # type: ignore[assignment]

    made = call(Plain())
    made.take_choice_finished(inference_pb2.ChoiceFinished(choice=1))
    made.take_tokens(inference_pb2.Tokens(token_ids=[1], cached_prompt_tokens=16))
    assert not made.over


@pytest.mark.parametrize(
    ("field", "columns"),
    [
        ("choices", {"handles": [1, 2], "choices": [0], "token_ids": [1, 2]}),
        ("counts", {"handles": [1, 2], "counts": [1], "token_ids": [1]}),
        ("text_lengths", {"handles": [1, 2], "token_ids": [1, 2], "text_lengths": [1], "text": "a"}),
        ("token_ids", {"handles": [1, 2], "token_ids": [1]}),
        ("token_ids", {"handles": [1], "counts": [1], "token_ids": [1, 2]}),
        ("text", {"handles": [1], "token_ids": [1], "text_lengths": [3], "text": "ab"}),
        ("text", {"handles": [1], "token_ids": [1], "text": "ab"}),
    ],
)
async def test_columns_that_do_not_fit_together_are_refused(field: str, columns: dict[str, Any]) -> None:
    sink = Pieces()
    with pytest.raises(ProtocolError, match=rf"frame\.{field} has"):
        deliver_output(inference_pb2.SessionFrame(**columns), {1: call(sink)})

    assert sink.pieces == []


# --- where a handle begins ------------------------------------------------------------------------------------------


def position(after_token: int, text_offset: int, choice: int = 0) -> inference_pb2.ChoicePosition:
    return inference_pb2.ChoicePosition(choice=choice, after_token=after_token, text_offset=text_offset)


async def test_output_that_a_new_handle_repeats_is_cut_off() -> None:
    sink = Pieces()
    running = call(sink)
    running.take_output(0, [1, 2, 3], "abc")
    running.take_output(1, [7], "x")
    running.take_positions([position(1, 1)])
    del sink.pieces[:]

    running.take_output(0, [2], "b")
    running.take_output(0, [3, 4], "cd")
    running.take_output(1, [7, 8], "xy")
    running.take_output(0, [5], "e")

    assert sink.pieces == [(0, 3, [4], 3, "d", ()), (1, 1, [8], 1, "y", ()), (0, 4, [5], 4, "e", ())]


async def test_text_may_be_ahead_of_the_position_that_tokens_are_attached_at() -> None:
    sink = Pieces()
    running = call(sink)
    running.take_output(0, [1], "")
    running.take_output(0, [], "late")
    running.take_positions([position(1, 0)])
    del sink.pieces[:]

    running.take_output(0, [], "late")
    running.take_output(0, [2], "r")

    assert sink.pieces == [(0, 1, [2], 4, "r", ())]


async def test_a_handle_that_begins_too_late_ends_the_call() -> None:
    sink = Pieces()
    running = call(sink)
    running.take_output(0, [1], "a")
    running.take_positions([position(3, 3)])

    assert isinstance(sink.error, ProtocolError)
    assert "tokens 1 to 2 are missing" in str(sink.error)
    assert running.over


async def test_a_stream_joined_later_begins_where_it_was_told() -> None:
    sink = Pieces()
    running = call(sink, after_token=5)
    running.take_positions([position(5, 11)])
    running.take_output(0, [1], "a")

    assert sink.pieces == [(0, 5, [1], 11, "a", ())]


async def test_pieces_with_positions_and_columns_are_one_output() -> None:
    sink = Pieces()
    running = call(sink)
    running.take_output(0, [1], "a")
    candidates = [common_pb2.TokenLogprob(token_id=2, logprob=-0.5, rank=1)]
    piece = inference_pb2.Tokens(
        attempt=common_pb2.Attempt(epoch=3, number=4),
        first_index=0,
        token_ids=[1, 2],
        text="ab",
        logprobs=[common_pb2.TokenLogprobs(), common_pb2.TokenLogprobs(candidates=candidates)],
    )
    frame = inference_pb2.SessionFrame(pieces=[inference_pb2.HandleTokens(handle=1, tokens=piece)])

    deliver_output(frame, {1: running})
    running.take_output(0, [3], "c")

    assert [each[:5] for each in sink.pieces] == [(0, 0, [1], 0, "a"), (0, 1, [2], 1, "b"), (0, 2, [3], 2, "c")]
    ((found,),) = sink.pieces[1][5]
    assert (found.token_id, found.logprob, found.rank) == (2, -0.5, 1)
    assert running.attempt == Attempt(epoch=3, number=4)
