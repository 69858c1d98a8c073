"""What goes up: in order, one frame per engine step, coalesced while the link is behind, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from executor_svc.engine.simulated.tokenizer import tokenizer_for
from executor_svc.runtime.engine_port import TokenLogprob
from executor_svc.runtime.link import LinkBroken
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import TextOptions
from executor_svc.runtime.messages.outputs import (
    Accepted,
    EndCause,
    Ended,
    PromptFacts,
    Rejected,
    RejectReason,
    StepFrame,
)
from executor_svc.runtime.outputs import outbox as outbox_module
from executor_svc.runtime.outputs.attempt_output import PIECE_TOKENS, AttemptOutput
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.text.detokenizer import Detokenizer
from executor_svc.transport.output_messages import output_requests
from sage_wire.protocol import MAX_MESSAGE_BYTES
from tests.unit.executor.events import entries, events

EPOCH = 1
NEVER_S = 3600.0


def attempt(number: int, epoch: int = EPOCH) -> AttemptId:
    return AttemptId(epoch, number)


def output(number: int = 1, *, epoch: int = EPOCH, logprobs: bool = False) -> AttemptOutput:
    def detokenizer() -> Detokenizer:
        return Detokenizer(tokenizer_for(2048), frozenset(), TextOptions())

    return AttemptOutput(attempt(number, epoch), detokenizer=detokenizer, logprobs=logprobs, about={})


def opened(**settings: float) -> Outbox:
    outbox = Outbox(settle_s=NEVER_S, **settings)  # type: ignore[arg-type]
    outbox.open(EPOCH)
    return outbox


def give(outbox: Outbox, target: AttemptOutput, token_ids: Sequence[int], text: str = "") -> None:
    target.append(token_ids, text, None)
    outbox.tokens(target)


def end(outbox: Outbox, target: AttemptOutput) -> Ended:
    target.ended = Ended(attempt=target.attempt, cause=EndCause.FINISHED, total_tokens=len(target.token_ids))
    outbox.ended(target)
    return target.ended


async def waiting(outbox: Outbox) -> list[StepFrame]:
    """All that can go out now."""
    frames: list[StepFrame] = []
    while True:
        try:
            async with asyncio.timeout(0):
                frames.append(await outbox.next())
        except TimeoutError:
            return frames


def facts(*tops: float) -> PromptFacts:
    return PromptFacts(cached_tokens=4, logprobs=[[TokenLogprob(token_id=1, logprob=top, rank=1)] for top in tops])


async def test_what_is_known_of_a_prompt_comes_with_the_first_tokens_and_once() -> None:
    outbox, target = opened(), output()
    target.tell_of_prompt(facts(-0.5))
    outbox.step(target, [7], "a")
    outbox.flush()
    first = await outbox.next()
    assert [(piece.prompt, list(piece.token_ids)) for piece in first.pieces] == [(facts(-0.5), [])]
    assert (first.numbers, list(first.token_ids)) == ([1], [7])
    outbox.step(target, [8], "b")
    outbox.flush()
    second = await outbox.next()
    assert (second.pieces, list(second.token_ids)) == ([], [8])


async def test_what_is_known_of_a_prompt_is_sent_again_from_the_start_only() -> None:
    target = output()
    target.tell_of_prompt(facts(-0.5))
    target.append([7, 8], "ab", None)
    target.write(StepFrame(epoch=EPOCH), 100)
    for from_index, again in ((1, []), (0, [facts(-0.5)])):
        frame = StepFrame(epoch=EPOCH)
        target.suspend()
        target.rewind(from_index)
        target.write(frame, 100)
        assert [piece.prompt for piece in frame.pieces] == again
        assert list(frame.token_ids) == [7, 8][from_index:]


async def test_one_step_of_many_attempts_is_one_frame() -> None:
    outbox = opened()
    for number in range(5):
        give(outbox, output(number), [number], f"{number}!")
    outbox.flush()
    frame = await outbox.next()
    assert (frame.epoch, frame.numbers, frame.first_indexes) == (EPOCH, [0, 1, 2, 3, 4], [0] * 5)
    assert (frame.counts, list(frame.token_ids)) == ([1] * 5, [0, 1, 2, 3, 4])
    assert frame.texts == ["0!", "1!", "2!", "3!", "4!"]
    assert frame.pieces == []
    assert outbox.empty


async def test_a_steps_tokens_are_in_the_next_frame() -> None:
    outbox, one, other = opened(), output(1), output(2)
    outbox.step(one, [1], "a")
    outbox.step(other, [2, 3], "bc")
    assert await waiting(outbox) == []
    assert (outbox.backlog_tokens, outbox.empty) == (3, False)
    outbox.flush()
    (frame,) = await waiting(outbox)
    assert (frame.numbers, frame.first_indexes, frame.counts) == ([1, 2], [0, 0], [1, 2])
    assert (list(frame.token_ids), frame.texts) == ([1, 2, 3], ["a", "bc"])
    outbox.step(one, [4], "d")
    outbox.flush()
    (frame,) = await waiting(outbox)
    assert (frame.numbers, frame.first_indexes, frame.texts) == ([1], [1], ["d"])
    assert (outbox.backlog_tokens, outbox.empty) == (0, True)


async def test_steps_that_the_link_is_behind_with_are_one_entry_of_the_frame_after() -> None:
    outbox, one = opened(), output()
    for step in range(10):
        outbox.step(one, [step], f"{step} ")
        outbox.flush()
    first, after = await waiting(outbox)
    assert (first.numbers, first.first_indexes, first.counts, first.texts) == ([1], [0], [1], ["0 "])
    assert (after.numbers, after.first_indexes, after.texts) == ([1], [1], ["1 2 3 4 5 6 7 8 9 "])
    assert outbox.empty


async def test_an_end_comes_after_the_tokens_that_wait_for_the_frame_after() -> None:
    outbox, one, other = opened(), output(1), output(2)
    outbox.step(one, [1], "a")
    outbox.flush()
    outbox.step(one, [2], "b")
    outbox.step(other, [3], "c")
    ended = end(outbox, one)
    first, after = await waiting(outbox)
    assert (first.numbers, list(first.token_ids), first.ended) == ([1, 2], [1, 3], [])
    assert (after.numbers, list(after.token_ids), after.ended) == ([1], [2], [ended])


async def test_steps_that_wait_when_the_link_breaks_are_sent_again_from_where_the_scheduler_is() -> None:
    outbox, one = opened(), output()
    outbox.step(one, [1], "a")
    outbox.close()
    one.suspend()
    outbox.step(one, [2], "b")
    outbox.open(EPOCH)
    outbox.step(one, [3], "c")
    outbox.flush()
    assert await waiting(outbox) == []
    one.rewind(1)
    outbox.tokens(one)
    outbox.step(one, [4], "d")
    outbox.flush()
    (frame,) = await waiting(outbox)
    assert (frame.first_indexes, list(frame.token_ids)) == ([1, 3], [2, 3, 4])
    outbox.step(one, [5], "e")
    outbox.flush()
    assert [entry.first_index for entry in entries((await waiting(outbox))[0])] == [4]


async def test_steps_without_a_column_are_pieces() -> None:
    outbox, recomputed, older = opened(), output(1), output(2, epoch=EPOCH + 1)
    recomputed.use_pieces()
    for one in (recomputed, older):
        outbox.step(one, [1], "a")
    outbox.flush()
    (frame,) = await waiting(outbox)
    assert (frame.numbers, [piece.attempt for piece in frame.pieces]) == ([], [attempt(1), attempt(2, EPOCH + 1)])


async def test_no_step_goes_before_its_attempts_acceptance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FRAME_NOTICES", 2)
    outbox, one = opened(), output(2)
    for number in range(3):
        outbox.notice(Accepted(attempt=attempt(number)))
    outbox.step(one, [1], "a")
    outbox.flush()
    first, second = await waiting(outbox)
    assert (len(first.accepted), first.numbers) == (2, [])
    assert (len(second.accepted), second.numbers) == (1, [2])


async def test_long_texts_of_one_step_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FRAME_WEIGHT", 1000)
    outbox = opened()
    for number in range(4):
        outbox.step(output(number), [1], "x" * 8 * 600)
    outbox.flush()
    assert [frame.numbers for frame in await waiting(outbox)] == [[0, 1], [2, 3]]


async def test_a_second_step_goes_on_where_the_first_ended() -> None:
    outbox, one = opened(), output()
    for step in ([1, 2], [3]):
        give(outbox, one, step)
        outbox.flush()
        frame = await outbox.next()
    assert (frame.first_indexes, frame.counts, list(frame.token_ids)) == ([2], [1], [3])


async def test_tokens_and_acceptances_wait_for_the_end_of_their_step() -> None:
    outbox = opened()
    outbox.notice(Accepted(attempt=attempt(1)))
    give(outbox, output(), [1])
    assert await waiting(outbox) == []
    outbox.flush()
    assert len(await waiting(outbox)) == 1


async def test_tokens_go_out_soon_where_no_step_ends() -> None:
    outbox = Outbox(settle_s=0.001)
    outbox.open(EPOCH)
    give(outbox, output(), [1])
    async with asyncio.timeout(5):
        await outbox.next()


async def test_an_acceptance_goes_out_soon_where_no_step_ends() -> None:
    outbox = Outbox(settle_s=0.001)
    outbox.open(EPOCH)
    outbox.notice(Accepted(attempt=attempt(1)))
    async with asyncio.timeout(5):
        assert (await outbox.next()).accepted == [Accepted(attempt=attempt(1))]


async def test_a_rejection_does_not_wait_for_a_step() -> None:
    outbox = opened()
    rejected = Rejected(attempt=attempt(1), reason=RejectReason.FULL, message="m")
    outbox.notice(rejected)
    assert [events(frame) for frame in await waiting(outbox)] == [[rejected]]


async def test_acceptance_tokens_and_end_of_one_step_are_one_frame() -> None:
    outbox, one = opened(), output()
    outbox.notice(Accepted(attempt=attempt(1)))
    give(outbox, one, [1])
    ended = end(outbox, one)
    outbox.flush()
    (frame,) = await waiting(outbox)
    assert (len(frame.accepted), frame.numbers, frame.ended) == (1, [1], [ended])
    assert ended.total_tokens == 1


async def test_no_token_goes_before_its_attempts_acceptance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FRAME_NOTICES", 2)
    outbox = opened()
    for number in range(3):
        outbox.notice(Accepted(attempt=attempt(number)))
    give(outbox, output(2), [1])
    outbox.flush()
    first, second = await waiting(outbox)
    assert (len(first.accepted), first.numbers) == (2, [])
    assert (len(second.accepted), second.numbers) == (1, [2])


async def test_the_ends_in_a_frame_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FRAME_NOTICES", 2)
    outbox = opened()
    for number in range(3):
        end(outbox, output(number))
    assert [len(frame.ended) for frame in await waiting(outbox)] == [2, 1]


async def test_an_end_without_tokens_does_not_wait_for_a_step() -> None:
    outbox, one = opened(), output()
    ended = end(outbox, one)
    assert [frame.ended for frame in await waiting(outbox)] == [[ended]]


async def test_a_link_that_is_behind_gets_one_larger_entry_per_attempt() -> None:
    outbox, one = opened(), output()
    for step in range(10):
        give(outbox, one, [step], f"{step} ")
        outbox.flush()
    frame = await outbox.next()
    assert (frame.first_indexes, frame.counts) == ([0], [10])
    assert list(frame.token_ids) == list(range(10))
    assert frame.texts == ["0 1 2 3 4 5 6 7 8 9 "]


async def test_output_that_waits_leaves_the_engines_own_list_alone() -> None:
    outbox, one = opened(), output()
    engines_list = [1]
    give(outbox, one, engines_list)
    give(outbox, one, [2])
    assert engines_list == [1]


async def test_output_with_log_probabilities_has_a_piece_of_its_own() -> None:
    outbox, one = opened(), output(logprobs=True)
    rows = [[TokenLogprob(token_id=token, logprob=-1.0, rank=1)] for token in (1, 2, 3)]
    for token, row in zip((1, 2, 3), rows, strict=True):
        one.append([token], f"{token} ", [row])
        outbox.tokens(one)
    outbox.flush()
    frame = await outbox.next()
    (piece,) = frame.pieces
    assert frame.numbers == []
    assert (piece.first_index, list(piece.token_ids), piece.text, piece.logprobs) == (0, [1, 2, 3], "1 2 3 ", rows)


async def test_log_probabilities_that_are_not_sent_are_kept_whatever_is_acknowledged() -> None:
    outbox, one = opened(), output(logprobs=True)
    row = [TokenLogprob(token_id=1, logprob=-1.0, rank=1)]
    one.append([1], "", [row])
    one.acknowledge(1)
    outbox.tokens(one)
    outbox.flush()
    assert (await outbox.next()).pieces[0].logprobs == [row]


async def test_output_whose_kv_was_recomputed_has_pieces_only() -> None:
    outbox, one = opened(), output()
    one.use_pieces()
    give(outbox, one, [1])
    outbox.flush()
    frame = await outbox.next()
    assert [piece.kv_recomputed for piece in frame.pieces] == [True]
    assert frame.numbers == []


async def test_output_of_another_epoch_names_its_own() -> None:
    outbox, one, other = opened(), output(7), output(7, epoch=2)
    give(outbox, one, [1])
    give(outbox, other, [2])
    outbox.flush()
    frame = await outbox.next()
    assert (frame.epoch, frame.numbers, list(frame.token_ids)) == (EPOCH, [7], [1])
    assert [(piece.attempt, list(piece.token_ids)) for piece in frame.pieces] == [(attempt(7, 2), [2])]


async def test_a_frame_has_a_bound_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FRAME_WEIGHT", 3 * PIECE_TOKENS)
    outbox, one, other = opened(), output(1), output(2)
    step = list(range(PIECE_TOKENS))
    for number in range(4):
        give(outbox, one, step, f"{number}")
    give(outbox, other, step)
    outbox.flush()
    ended = end(outbox, one)
    first, second = await waiting(outbox)
    assert [piece.first_index for piece in entries(first)] == [0, PIECE_TOKENS, 2 * PIECE_TOKENS]
    assert first.texts == ["0", "1", "2"]
    assert first.ended == []
    assert [(piece.attempt.number, piece.first_index) for piece in entries(second)] == [(1, 3 * PIECE_TOKENS), (2, 0)]
    assert second.ended == [ended]


@pytest.mark.parametrize("logprobs", [False, True])
async def test_a_frame_of_long_texts_fits_into_a_message(logprobs: bool) -> None:
    outbox, one = opened(), output(logprobs=logprobs)
    step, text = list(range(PIECE_TOKENS)), "\U0001f600" * 32 * PIECE_TOKENS
    for _ in range(200):
        give(outbox, one, step, text)
    outbox.flush()
    frames = await waiting(outbox)
    messages = [message for frame in frames for message in output_requests(frame, step_frames=True)]
    assert max(message.ByteSize() for message in messages) < MAX_MESSAGE_BYTES // 2
    sent = sum(len(piece.token_ids) for frame in frames for piece in [*entries(frame), *frame.pieces])
    assert sent == 200 * PIECE_TOKENS


async def test_a_step_of_very_many_attempts_fits_into_messages() -> None:
    outbox, attempts, text = opened(), 20_000, "\U0001f600" * 256
    for number in range(1, attempts + 1):
        outbox.step(output(number), [2**20], text)
    outbox.flush()
    messages = [message for frame in await waiting(outbox) for message in output_requests(frame, step_frames=True)]
    assert max(message.ByteSize() for message in messages) < MAX_MESSAGE_BYTES
    assert sum(len(message.step.token_ids) for message in messages) == attempts


async def test_at_the_bound_of_notices_the_link_counts_as_broken() -> None:
    outbox = opened(notice_limit=3)
    for number in range(4):
        outbox.notice(Accepted(attempt=attempt(number)))
    with pytest.raises(LinkBroken, match="3 notices unread"):
        await outbox.next()


async def test_nothing_waits_for_a_link_that_is_gone() -> None:
    outbox, one = opened(), output()
    give(outbox, one, [1])
    outbox.notice(Accepted(attempt=attempt(1)))
    outbox.close()
    one.suspend()
    give(outbox, one, [2])
    end(outbox, one)
    outbox.open(EPOCH)
    outbox.flush()
    assert await waiting(outbox) == []


async def test_an_end_on_its_way_follows_the_tokens_again_after_a_rewind() -> None:
    outbox, one = opened(), output()
    give(outbox, one, [1])
    outbox.flush()
    await outbox.next()
    ended = end(outbox, one)
    one.rewind(0)
    outbox.tokens(one)
    outbox.flush()
    (frame,) = await waiting(outbox)
    assert (list(frame.token_ids), frame.ended) == ([1], [ended])
