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
    Frame,
    OutputUp,
)
from executor_svc.runtime.outputs import outbox as outbox_module
from executor_svc.runtime.outputs.attempt_output import PIECE_TOKENS, AttemptOutput
from executor_svc.runtime.outputs.outbox import Outbox
from executor_svc.runtime.text.detokenizer import Detokenizer

NEVER_S = 3600.0


def output(number: int = 1, *, logprobs: bool = False) -> AttemptOutput:
    def detokenizer() -> Detokenizer:
        return Detokenizer(tokenizer_for(2048), frozenset(), TextOptions())

    return AttemptOutput(AttemptId(1, number), detokenizer=detokenizer, logprobs=logprobs, about={})


def opened(**settings: float) -> Outbox:
    outbox = Outbox(settle_s=NEVER_S, **settings)  # type: ignore[arg-type]
    outbox.open()
    return outbox


def give(outbox: Outbox, target: AttemptOutput, token_ids: Sequence[int], text: str = "") -> None:
    target.append(token_ids, text, None)
    outbox.tokens(target)


def end(outbox: Outbox, target: AttemptOutput) -> Ended:
    target.ended = Ended(
        attempt_number=target.attempt.number, cause=EndCause.FINISHED, total_tokens=len(target.token_ids)
    )
    outbox.ended(target)
    return target.ended


async def waiting(outbox: Outbox) -> list[OutputUp]:
    """All that can go out now."""
    messages: list[OutputUp] = []
    while True:
        try:
            async with asyncio.timeout(0):
                messages.append(await outbox.next())
        except TimeoutError:
            return messages


async def next_frame(outbox: Outbox) -> Frame:
    message = await outbox.next()
    assert isinstance(message, Frame)
    return message


async def test_one_step_of_many_attempts_is_one_frame() -> None:
    outbox = opened()
    for number in range(5):
        give(outbox, output(number), [number])
    outbox.flush()
    frame = await next_frame(outbox)
    assert [piece.attempt_number for piece in frame.pieces] == [0, 1, 2, 3, 4]
    assert outbox.empty


async def test_tokens_wait_for_the_end_of_their_step() -> None:
    outbox = opened()
    give(outbox, output(), [1])
    assert await waiting(outbox) == []
    outbox.flush()
    assert len(await waiting(outbox)) == 1


async def test_tokens_go_out_soon_where_no_step_ends() -> None:
    outbox = Outbox(settle_s=0.001)
    outbox.open()
    give(outbox, output(), [1])
    async with asyncio.timeout(5):
        await next_frame(outbox)


async def test_accepted_goes_before_tokens_and_the_end_after_them() -> None:
    outbox, one = opened(), output()
    give(outbox, one, [1])
    ended = end(outbox, one)
    outbox.notice(Accepted(attempt_number=1))
    outbox.flush()
    assert [type(message) for message in await waiting(outbox)] == [Accepted, Frame, Ended]
    assert ended.total_tokens == 1


async def test_an_end_without_tokens_does_not_wait_for_a_step() -> None:
    outbox, one = opened(), output()
    ended = end(outbox, one)
    assert await waiting(outbox) == [ended]


async def test_ends_are_not_held_up_by_the_tokens_of_others() -> None:
    outbox, one, other = opened(), output(1), output(2)
    ended = end(outbox, one)
    give(outbox, other, [1])
    outbox.flush()
    assert (await waiting(outbox))[0] is ended


async def test_a_link_that_is_behind_gets_one_larger_piece_per_attempt() -> None:
    outbox, one = opened(), output()
    for step in range(10):
        give(outbox, one, [step], f"{step} ")
        outbox.flush()
    frame = await next_frame(outbox)
    assert len(frame.pieces) == 1
    assert list(frame.pieces[0].token_ids) == list(range(10))
    assert frame.pieces[0].text == "0 1 2 3 4 5 6 7 8 9 "


async def test_a_piece_that_grows_leaves_the_engines_own_list_alone() -> None:
    outbox, one = opened(), output()
    engines_list = [1]
    give(outbox, one, engines_list)
    give(outbox, one, [2])
    assert engines_list == [1]


async def test_log_probabilities_stay_with_their_tokens_while_a_piece_grows() -> None:
    outbox, one = opened(), output(logprobs=True)
    rows = [[TokenLogprob(token_id=token, logprob=-1.0, rank=1)] for token in (1, 2, 3)]
    for token, row in zip((1, 2, 3), rows, strict=True):
        one.append([token], "", [row])
        outbox.tokens(one)
    outbox.flush()
    assert (await next_frame(outbox)).pieces[0].logprobs == rows


async def test_a_frame_has_a_bound_and_the_rest_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "FRAME_WEIGHT", 3 * PIECE_TOKENS)
    outbox, one, other = opened(), output(1), output(2)
    step = list(range(PIECE_TOKENS))
    for _ in range(4):
        give(outbox, one, step)
    give(outbox, other, step)
    outbox.flush()
    end(outbox, one)
    first, second, *rest = await waiting(outbox)
    assert isinstance(first, Frame)
    assert isinstance(second, Frame)
    assert [piece.first_index for piece in first.pieces] == [0, PIECE_TOKENS, 2 * PIECE_TOKENS]
    assert [piece.attempt_number for piece in second.pieces] == [1, 2]
    assert [type(message) for message in rest] == [Ended]


async def test_at_the_bound_of_notices_the_link_counts_as_broken() -> None:
    outbox = opened(notice_limit=3)
    for number in range(4):
        outbox.notice(Accepted(attempt_number=number))
    with pytest.raises(LinkBroken, match="3 notices unread"):
        await outbox.next()


async def test_nothing_waits_for_a_link_that_is_gone() -> None:
    outbox, one = opened(), output()
    give(outbox, one, [1])
    outbox.notice(Accepted(attempt_number=1))
    outbox.close()
    one.suspend()
    give(outbox, one, [2])
    end(outbox, one)
    outbox.open()
    outbox.flush()
    assert await waiting(outbox) == []


async def test_an_end_on_its_way_follows_the_pieces_again_after_a_rewind() -> None:
    outbox, one = opened(), output()
    give(outbox, one, [1])
    outbox.flush()
    await next_frame(outbox)
    end(outbox, one)
    one.rewind(0)
    outbox.tokens(one)
    outbox.flush()
    assert [type(message) for message in await waiting(outbox)] == [Frame, Ended]
