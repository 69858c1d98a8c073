"""What executors say of their attempts, in one frame or in older messages: passed on in order, by epoch and number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.control.attempts.attempt_names import AttemptNames
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.domain.attempt_end import AttemptEnd
from scheduler_svc.transport.attempt_reports import LOGPROBS_KEPT, AttemptReports

EPOCH = 7
OLDER = 6
ENDED = executor_pb2.AssignmentEnded(
    attempt_number=1, total_tokens=5, cause=executor_pb2.AssignmentEnded.CAUSE_FINISHED
)
ACCEPTED = executor_pb2.AssignmentAccepted(attempt_number=1)
REJECTED = executor_pb2.AssignmentRejected(attempt_number=2, reason=executor_pb2.AssignmentRejected.REASON_FULL)
PIECE = executor_pb2.AssignmentTokens(attempt_number=1, first_index=3, token_ids=[5], text="a")


class Table:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.names = AttemptNames()
        self.request: str | None = None  # ends with the attempt
        self.written = 2**32  # output tokens that readers may have

    def accepted(self, sender: str, number: int) -> None:
        self.told.append(("accepted", sender, number))

    def rejected(self, sender: str, number: int, reason: str, message: str) -> None:
        self.told.append(("rejected", sender, number, reason))

    def tokens(self, sender: str, number: int, first_index: int, *rest: Any) -> None:
        self.told.append(("tokens", sender, number, first_index))

    def published(self, sender: str, number: int) -> int:
        return self.written

    def columns(self, sender: str, output: OutputColumns) -> None:
        if any(output.numbers):
            self.told.append(("columns", sender, *output.numbers))

    def ended(self, sender: str, end: AttemptEnd) -> str | None:
        self.told.append(("ended", sender, end.attempt_number))
        return self.request

    def of_other_epoch(self, sender: str, epoch: int, number: int) -> None:
        self.told.append(("of another epoch", sender, epoch, number))


class Link:
    def __init__(self) -> None:
        self.acknowledged: list[tuple[int, int, int, bool]] = []  # epoch, number, tokens, ended

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool, epoch: int = EPOCH) -> None:
        self.acknowledged.append((epoch, attempt_number, tokens, ended))


class Ends:
    """Acknowledges nothing by itself."""

    def __init__(self) -> None:
        self.kept: list[tuple[Any, str, Callable[[], None]]] = []
        self.names: set[tuple[int, int]] = set()  # of attempts whose ends are kept since an earlier session

    def keep(
        self, live: Any, instance_id: str, acknowledge: Callable[[], None], attempt: tuple[int, int] | None = None
    ) -> None:
        self.kept.append((live, instance_id, acknowledge))

    def came_again(self, instance_id: str, attempt: tuple[int, int], acknowledge: Callable[[], None]) -> bool:
        return attempt in self.names


class Stream:
    def __init__(self) -> None:
        self.table, self.link = Table(), Link()
        self.ends = Ends()
        self._reports = AttemptReports(self.table, self.link, "one", self.ends, epoch=EPOCH)  # type: ignore[arg-type]

    def step(self, **fields: Any) -> None:
        message = executor_pb2.OutputsRequest(step=executor_pb2.StepFrame(**fields))
        # As it comes over the wire: a message that was made here may keep what the wire would lose.
        assert self._reports.take(executor_pb2.OutputsRequest.FromString(message.SerializeToString()))

    def older(self, **message: Any) -> bool:
        return self._reports.take(executor_pb2.OutputsRequest(**message))


def test_a_frame_counts_in_the_order_of_its_fields() -> None:
    stream = Stream()
    stream.step(
        epoch=EPOCH,
        ended=[ENDED],
        pieces=[PIECE],
        attempt_numbers=[1, 3],
        first_indexes=[0, 0],
        token_ids=[8, 9],
        rejected=[REJECTED],
        accepted=[ACCEPTED],
    )
    assert stream.table.told == [
        ("accepted", "one", 1),
        ("rejected", "one", 2, "full"),
        ("columns", "one", 1, 3),
        ("tokens", "one", 1, 3),
        ("ended", "one", 1),
    ]
    assert stream.link.acknowledged == [(EPOCH, 1, 5, True)]


def test_older_messages_are_told_alike() -> None:
    stream = Stream()
    has_output = [
        stream.older(accepted=ACCEPTED),
        stream.older(rejected=REJECTED),
        stream.older(frame=executor_pb2.Frame(tokens=[PIECE])),
        stream.older(ended=ENDED),
    ]
    assert has_output == [False, False, True, False]
    assert [told[0] for told in stream.table.told] == ["accepted", "rejected", "tokens", "ended"]
    assert stream.link.acknowledged == [(EPOCH, 1, 5, True)]


def test_an_epoch_of_0_is_the_sessions() -> None:
    stream = Stream()
    stream.step(attempt_numbers=[1], first_indexes=[0], token_ids=[8], accepted=[ACCEPTED])
    assert [told[0] for told in stream.table.told] == ["accepted", "columns"]


def test_a_frame_of_another_epoch_is_dropped_and_counted() -> None:
    stream = Stream()
    stream.step(
        epoch=OLDER,
        accepted=[ACCEPTED],
        rejected=[REJECTED],
        attempt_numbers=[3, 4],
        first_indexes=[0, 0],
        token_ids=[8, 9],
        pieces=[PIECE],
        ended=[ENDED],
    )
    assert stream.table.told == [("of another epoch", "one", OLDER, number) for number in (1, 2, 3, 1, 1)]


def test_an_end_of_another_epoch_is_acknowledged_so_that_its_executor_forgets_it() -> None:
    stream = Stream()
    stream.step(epoch=OLDER, ended=[ENDED])
    assert stream.link.acknowledged == [(OLDER, 1, 5, True)]


def other_epoch(message: Any) -> Any:
    changed = type(message)()
    changed.CopyFrom(message)
    changed.epoch = OLDER
    return changed


MESSAGES: dict[str, Callable[[Stream], object]] = {
    "accepted": lambda stream: stream.older(accepted=other_epoch(ACCEPTED)),
    "rejected": lambda stream: stream.older(rejected=other_epoch(REJECTED)),
    "tokens": lambda stream: stream.older(frame=executor_pb2.Frame(tokens=[other_epoch(PIECE)])),
    "ended": lambda stream: stream.older(ended=other_epoch(ENDED)),
    "accepted in a step": lambda stream: stream.step(epoch=EPOCH, accepted=[other_epoch(ACCEPTED)]),
    "rejected in a step": lambda stream: stream.step(epoch=EPOCH, rejected=[other_epoch(REJECTED)]),
    "piece in a step": lambda stream: stream.step(epoch=EPOCH, pieces=[other_epoch(PIECE)]),
    "ended in a step": lambda stream: stream.step(epoch=EPOCH, ended=[other_epoch(ENDED)]),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_another_epoch_is_dropped_and_counted(kind: str) -> None:
    stream = Stream()
    MESSAGES[kind](stream)
    ((what, sender, epoch, _),) = stream.table.told
    assert (what, sender, epoch) == ("of another epoch", "one", OLDER)


def test_log_probabilities_are_acknowledged_on_the_way() -> None:
    stream = Stream()
    row = common_pb2.TokenLogprobs(candidates=[common_pb2.TokenLogprob(token_id=5)])
    piece = executor_pb2.AssignmentTokens(attempt_number=1, first_index=63, token_ids=[5], logprobs=[row])
    stream.step(epoch=EPOCH, pieces=[piece])
    assert stream.link.acknowledged == [], "those of the latest tokens stay for the next scheduler"
    piece.first_index = LOGPROBS_KEPT + 63
    stream.step(epoch=EPOCH, pieces=[piece])
    assert stream.link.acknowledged == [(EPOCH, 1, 64, False)]


def test_log_probabilities_that_are_not_written_down_are_not_acknowledged() -> None:
    stream = Stream()
    stream.table.written = LOGPROBS_KEPT
    row = common_pb2.TokenLogprobs(candidates=[common_pb2.TokenLogprob(token_id=5)])
    piece = executor_pb2.AssignmentTokens(
        attempt_number=1, first_index=LOGPROBS_KEPT + 63, token_ids=[5], logprobs=[row]
    )
    stream.step(epoch=EPOCH, pieces=[piece])
    assert stream.link.acknowledged == [], "the next scheduler asks for them"
    stream.table.written += 10
    piece.first_index += 64
    stream.step(epoch=EPOCH, pieces=[piece])
    assert stream.link.acknowledged == [(EPOCH, 1, 10, False)]


def test_a_position_that_no_acknowledgement_can_name_is_not_acknowledged() -> None:
    stream = Stream()
    rows = [common_pb2.TokenLogprobs(), common_pb2.TokenLogprobs()]
    piece = executor_pb2.AssignmentTokens(attempt_number=1, first_index=2**32 - 1, token_ids=[5, 6], logprobs=rows)
    stream.step(epoch=EPOCH, pieces=[piece])
    assert stream.link.acknowledged == []


def test_the_end_of_a_request_is_acknowledged_once_its_readers_have_it() -> None:
    stream = Stream()
    stream.table.request = "its request"
    stream.step(epoch=EPOCH, ended=[ENDED])
    ((live, instance_id, acknowledge),) = stream.ends.kept
    assert (live, instance_id) == ("its request", "one")
    assert stream.link.acknowledged == []
    acknowledge()
    assert stream.link.acknowledged == [(EPOCH, 1, 5, True)]


@pytest.mark.parametrize("epoch", [EPOCH, OLDER])
def test_an_end_that_is_kept_since_an_earlier_session_is_not_taken_again(epoch: int) -> None:
    stream = Stream()
    stream.ends.names = {(epoch, 1)}
    stream.step(epoch=epoch, ended=[ENDED])
    assert not [each for each in stream.table.told if each[0] != "columns"]
    assert stream.link.acknowledged == []
