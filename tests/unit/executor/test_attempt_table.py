"""An attempt from Assign to its acknowledged end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.tokenizer import EOS_ID
from executor_svc.runtime.attempts import attempt_table
from executor_svc.runtime.attempts import services as services_module
from executor_svc.runtime.engine_port import EngineOutput, EngineRequest, FinishReason, Sampling
from executor_svc.runtime.messages.attempt_id import AttemptId
from executor_svc.runtime.messages.commands import Assign, InvalidAssign, TextOptions
from executor_svc.runtime.messages.outputs import (
    Accepted,
    Ack,
    EndCause,
    Ended,
    Rejected,
    RejectReason,
)
from executor_svc.runtime.messages.registration import HeldAttempt
from executor_svc.runtime.text.detokenizer import Detokenizer, StopMatch
from tests.support.instant_clock import InstantClock
from tests.unit.executor.workbench import EPOCH, LONG, PROMPT, Workbench, workbench

pytestmark = pytest.mark.usefixtures("way")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def rejection(bench: Workbench, number: int) -> RejectReason:
    rejected: Rejected = await bench.until(Rejected, number)
    return rejected.reason


async def test_an_attempt_is_accepted_streams_its_tokens_and_ends() -> None:
    async with workbench() as bench:
        tokens, text, ended = await bench.run()
        assert isinstance(bench.messages[0], Accepted)
        assert len(tokens) == ended.total_tokens == LONG.max_tokens
        assert (ended.cause, ended.finish_reason) == (EndCause.FINISHED, FinishReason.LENGTH)
        assert len(set(tokens)) > 20
        assert text


async def test_positions_have_no_gap() -> None:
    async with workbench() as bench:
        number = bench.assign()
        await bench.ended(number)
        position = 0
        for piece in bench.pieces(number):
            assert piece.first_index == position
            position += len(piece.token_ids)


async def test_the_end_of_sequence_token_ends_it_and_is_no_text() -> None:
    async with workbench(mean_output_tokens=4) as bench:
        tokens, text, ended = await bench.run(Sampling(temperature=0, max_tokens=200))
        assert tokens[-1] == ended.stop_token_id == EOS_ID
        assert ended.finish_reason is FinishReason.STOP
        assert "<|im_end|>" not in text


async def test_the_stop_token_is_text_where_it_is_asked_for() -> None:
    async with workbench(mean_output_tokens=4) as bench:
        options = TextOptions(include_stop_in_output=True, skip_special_tokens=False)
        _, text, _ = await bench.run(Sampling(temperature=0, max_tokens=200), text=options)
        assert text.endswith("<|im_end|>")


async def test_a_stop_string_ends_it_and_frees_the_engine() -> None:
    async with workbench() as bench:
        _, text, _ = await bench.run()
        stop = text[20:24]
        expected = text[: text.index(stop)]
        tokens, stopped, ended = await bench.run(text=TextOptions(stop=(stop,)))
        assert stopped == expected
        assert (ended.finish_reason, ended.stop_string) == (FinishReason.STOP, stop)
        assert ended.total_tokens == len(tokens) < LONG.max_tokens
        assert bench.engine.load().unfinished == 0


async def test_a_stop_string_does_not_count_before_min_tokens() -> None:
    async with workbench() as bench:
        tokens, text, _ = await bench.run()
        options = TextOptions(stop=(text[:3],), min_tokens=len(tokens) - 1)
        _, same, ended = await bench.run(text=options)
        assert same == text
        assert ended.finish_reason is FinishReason.LENGTH


async def test_cancel_is_confirmed_once_the_engine_let_go() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=4000, ignore_eos=True))
        await bench.until_tokens(number, 5)
        assert bench.engine.load().kv_used_tokens > 0
        bench.cancel(number)
        ended = await bench.ended(number)
        assert ended.cause is EndCause.CANCELLED
        assert (bench.engine.load().unfinished, bench.engine.load().kv_used_tokens) == (0, 0)


async def test_an_attempt_cancelled_before_it_began_ends_all_the_same() -> None:
    async with workbench() as bench:
        number = bench.assign()
        bench.cancel(number)
        ended = await bench.ended(number)
        assert (ended.cause, ended.total_tokens) == (EndCause.CANCELLED, 0)
        assert bench.engine.load().unfinished == 0


async def test_the_first_cause_wins() -> None:
    async with workbench() as bench:
        number = bench.assign()
        bench.attempts.end_all(EndCause.FAILED, "first")
        bench.cancel(number)
        ended = await bench.ended(number)
        assert (ended.cause, ended.message) == (EndCause.FAILED, "first")


async def test_the_callers_deadline_ends_it() -> None:
    async with workbench() as bench:
        bench.engine.inject(Fault(kind=FaultKind.HANG))
        _, _, ended = await bench.run(remaining_s=0.01)
        assert ended.cause is EndCause.DEADLINE


async def test_what_the_engine_calls_invalid_names_the_field() -> None:
    async with workbench() as bench:
        _, _, ended = await bench.run(sampling=Sampling(stop_token_ids=(987_654_321,)))
        assert (ended.cause, ended.field_name) == (EndCause.INVALID, "sampling.stop_token_ids")


async def test_what_the_engine_calls_invalid_is_not_quoted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with workbench() as bench:
        _, _, ended = await bench.run(sampling=Sampling(stop_token_ids=(987_654_321,)))
        assert "987654321" in ended.message
        await bench.ended(bench.assign())
    assert "invalid after 0 tokens: sampling.stop_token_ids" in caplog.text
    assert "987654321" not in caplog.text


async def test_a_prompt_that_fills_the_model_is_invalid() -> None:
    async with workbench(max_model_len=64) as bench:
        _, _, ended = await bench.run(prompt_token_ids=[300] * 64)
        assert (ended.cause, ended.field_name) == (EndCause.INVALID, "prompt")
        assert "64" in ended.message


async def test_max_tokens_end_at_the_models_length() -> None:
    async with workbench(max_model_len=64) as bench:
        _, _, ended = await bench.run(Sampling(temperature=0, max_tokens=10_000, ignore_eos=True))
        assert ended.total_tokens == 64 - len(PROMPT)
        assert ended.finish_reason is FinishReason.LENGTH


async def test_an_error_of_the_engine_is_failed() -> None:
    async with workbench() as bench:
        bench.engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=3))
        tokens, _, ended = await bench.run()
        assert ended.cause is EndCause.FAILED
        assert len(tokens) == ended.total_tokens == 3
        assert not bench.deaths


async def test_the_death_of_the_engine_is_failed_and_told() -> None:
    async with workbench() as bench:
        bench.engine.inject(Fault(kind=FaultKind.DIE, after_tokens=3))
        _, _, ended = await bench.run()
        assert ended.cause is EndCause.FAILED
        assert bench.deaths


async def test_the_trace_reaches_the_engine() -> None:
    async with workbench() as bench:
        seen = []
        admit = bench.engine._admit
        bench.engine._admit = lambda request: (seen.append(request), admit(request))[1]  # type: ignore[method-assign, func-returns-value]
        await bench.run(trace_headers={"traceparent": "00-a-b-01"}, engine_priority=5)
        assert seen[0].trace_headers == {"traceparent": "00-a-b-01"}
        assert seen[0].priority == 5


async def test_an_engine_that_does_not_let_go_of_a_request_counts_as_dead(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(services_module, "RELEASE_TIMEOUT_S", 0.01)

    async def never_lets_go(request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        try:
            yield EngineOutput(token_ids=[300], finish_reason=FinishReason.LENGTH)
        finally:
            await asyncio.get_running_loop().create_future()

    async def never(engine_request_id: str) -> None:
        await asyncio.get_running_loop().create_future()

    async with workbench() as bench:
        bench.engine.generate = never_lets_go  # type: ignore[method-assign]
        bench.engine.abort = never  # type: ignore[method-assign]
        number = bench.assign(Sampling(temperature=0, max_tokens=4000, ignore_eos=True))
        if way == "steps":
            bench.cancel(number)
        await bench.ended(number)
        assert "did not release" in str(bench.deaths[0])


async def test_a_defect_in_one_attempt_ends_that_attempt_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with workbench() as bench:
        good = bench.engine._admit
        bench.engine._admit = None  # type: ignore[method-assign, assignment]
        _, _, ended = await bench.run()
        assert ended.cause is EndCause.FAILED
        assert "failed in the executor" in caplog.text
        bench.engine._admit = good  # type: ignore[method-assign]
        assert (await bench.run())[2].cause is EndCause.FINISHED


async def test_a_defect_while_text_is_made_ends_that_attempt_and_no_other(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = Detokenizer.feed

    def failing(self: Detokenizer, token_ids: Iterable[int]) -> StopMatch | None:
        if self._count == 5 and self._min_tokens == 3:
            raise RuntimeError("no text today")
        return feed(self, token_ids)

    monkeypatch.setattr(Detokenizer, "feed", failing)
    async with workbench() as bench:
        other = bench.assign(text=TextOptions(min_tokens=2))
        _, _, ended = await bench.run(text=TextOptions(min_tokens=3, stop=("never there",)))
        assert (ended.cause, ended.total_tokens) == (EndCause.FAILED, 5)
        assert "no text today" in caplog.text
        assert (await bench.ended(other)).cause is EndCause.FINISHED
        assert bench.engine.load().unfinished == 0


# --- what is refused ------------------------------------------------------------------------------------------------


async def test_before_the_engine_is_up_nothing_is_taken() -> None:
    async with workbench(serving=False) as bench:
        assert await rejection(bench, bench.assign()) is RejectReason.NOT_READY


async def test_commands_of_an_older_epoch_are_refused() -> None:
    async with workbench() as bench:
        assert await rejection(bench, bench.assign(epoch=EPOCH - 1)) is RejectReason.STALE_EPOCH


async def test_while_draining_nothing_is_taken() -> None:
    async with workbench() as bench:
        bench.attempts.draining = True
        assert await rejection(bench, bench.assign()) is RejectReason.DRAINING


async def test_near_the_end_of_a_kv_lease_prefill_has_to_run_again() -> None:
    async with workbench() as bench:
        assert await rejection(bench, bench.assign(kv_lease_s=0.5)) is RejectReason.KV_LEASE_EXPIRED


async def test_an_attempt_whose_adapter_made_room_is_rejected() -> None:
    async with workbench() as bench:
        assert await rejection(bench, bench.assign(adapter="legal")) is RejectReason.NOT_READY


async def test_at_the_bound_of_attempts_held_further_ones_are_rejected() -> None:
    async with workbench(max_held=2) as bench:
        first, second = bench.assign(), bench.assign()
        assert await rejection(bench, bench.assign()) is RejectReason.FULL
        await bench.ended(first)
        assert await rejection(bench, bench.assign()) is RejectReason.FULL  # ended, but not acknowledged
        bench.acknowledge(first, 40, ended=True)
        await bench.ended(second)
        assert (await bench.ended(bench.assign())).cause is EndCause.FINISHED


async def test_lines_from_outside_an_attempts_task_say_what_they_are_about(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    trace = {"traceparent": TRACEPARENT}
    async with workbench(max_held=1) as bench:
        held = bench.assign(trace_headers=trace)
        bench.assign(trace_headers=trace)
        bench.attempts.resume(AttemptId(EPOCH, held), 5_000)
        bench.attempts.refuse_invalid(
            InvalidAssign(
                number=4, attempt=AttemptId(EPOCH, 9), field_name="f", message="", request_id="odd", trace_headers=trace
            )
        )
        bench.attempts.fence_all("the test is over")
        bench.attempts.resume(AttemptId(EPOCH, 77), 0)
    about = {record.message.split(": ")[0]: vars(record).get("about_attempt") for record in caplog.records}
    assert about["attempt 3/2 rejected"] == ("3/2", "request-2", TRACEPARENT)
    assert about["attempt 3/1 cannot be resumed"] == ("3/1", "request-1", TRACEPARENT)
    assert about["attempt 3/9 rejected"] == ("3/9", "odd", TRACEPARENT)
    assert about["attempt 3/1 aborted and forgotten"] == ("3/1", "request-1", TRACEPARENT)
    assert about["attempt 3/77 cannot be resumed"] == ("3/77", "", "")


async def test_an_assign_that_makes_no_sense_ends_as_invalid() -> None:
    async with workbench() as bench:
        attempt = AttemptId(EPOCH, 9)
        bench.attempts.refuse_invalid(InvalidAssign(number=4, attempt=attempt, field_name="sampling.n", message="one"))
        ended = await bench.ended(9)
        assert (ended.cause, ended.field_name) == (EndCause.INVALID, "sampling.n")
        assert bench.attempts.last_assign == 4


# --- what is remembered ---------------------------------------------------------------------------------------------


async def test_the_load_includes_every_assign_it_says_it_includes() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=4000, ignore_eos=True))
        while bench.attempts.last_assign < number:
            await asyncio.sleep(0)
        assert bench.engine.load().unfinished == 1


async def test_an_attempt_is_held_until_its_end_is_acknowledged() -> None:
    async with workbench() as bench:
        number = bench.assign()
        await bench.ended(number)
        bench.acknowledge(number, 40)
        assert list(bench.attempts.held) == [HeldAttempt(attempt=AttemptId(EPOCH, number), tokens=40, ended=True)]
        bench.acknowledge(number, 40, ended=True)
        assert not bench.attempts.held


async def test_an_end_that_is_never_acknowledged_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_table, "ENDED_KEPT_S", 0.01)
    async with workbench() as bench:
        number = bench.assign()
        await bench.ended(number)
        await asyncio.wait_for(bench.attempts.none_held(), 10)


async def test_an_end_waits_for_a_scheduler_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_table, "ENDED_KEPT_S", 0.0)
    async with workbench() as bench:
        bench.assign()
        bench.attempts.end_session()
        await bench.attempts.none_running()
        for _ in range(3):
            await asyncio.sleep(0.001)
        assert bench.attempts.held


async def test_another_scheduler_is_told_when_the_first_token_came() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=400, ignore_eos=True))
        assert bench.attempts.held_assign(AttemptId(EPOCH, number)).first_token_for_s is None
        await bench.until_tokens(number, 5)
        told = bench.attempts.held_assign(AttemptId(EPOCH, number))
        assert told.first_token_for_s is not None
        assert 0.0 < told.first_token_for_s <= told.held_for_s


async def test_a_broken_session_leaves_attempts_running_and_sends_nothing_until_asked() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=400, ignore_eos=True))
        await bench.until_tokens(number, 5)
        bench.attempts.end_session()
        bench.messages.clear()
        await bench.attempts.none_running()
        bench.begin(keep=[AttemptId(EPOCH, number)])
        assert bench.messages == []
        assert bench.attempts.held[0] == HeldAttempt(attempt=AttemptId(EPOCH, number), tokens=400, ended=True)


async def sent_again(bench: Workbench, number: int, from_index: int) -> tuple[list[int], str, Ended]:
    bench.attempts.end_session()
    bench.messages.clear()
    bench.begin(keep=[AttemptId(EPOCH, number)])
    bench.attempts.resume(AttemptId(EPOCH, number), from_index)
    return await bench.result(number)


async def test_output_is_sent_again_from_any_position() -> None:
    """Also from inside a character, and from inside what may become a stop string."""
    async with workbench(clock=InstantClock(turns=5)) as bench:
        _, whole, _ = await bench.run()
        assert any(ord(char) > 127 for char in whole), "no character is split over tokens"
        number = bench.assign(text=TextOptions(stop=(whole[30:50] + "!",)))
        tokens, text, ended = await bench.result(number)
        by_position = {piece.first_index: piece.text for piece in bench.pieces(number)}
        assert len(by_position) == len(tokens), "tokens came in larger pieces: their text cannot be told apart"
        for from_index in range(len(tokens) + 1):
            delivered = "".join(by_position[index] for index in range(from_index))
            again, rest, ended_again = await sent_again(bench, number, from_index)
            assert again == tokens[from_index:]
            assert delivered + rest == text
            assert ended_again == ended


async def test_a_stop_token_has_no_text_when_it_is_sent_again_either() -> None:
    async with workbench(mean_output_tokens=4) as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=200), text=TextOptions(skip_special_tokens=False))
        tokens, text, ended = await bench.result(number)
        assert (tokens[-1], ended.stop_token_id) == (EOS_ID, EOS_ID)
        assert await sent_again(bench, number, 0) == (tokens, text, ended)


async def test_while_nobody_reads_only_token_ids_are_kept() -> None:
    async with workbench() as bench:
        number = bench.assign()
        await bench.until_tokens(number, 1)
        bench.attempts.end_session()
        await bench.attempts.none_running()
        output = bench.attempts._held[AttemptId(EPOCH, number)]
        assert (len(output.token_ids), output.unsent) == (LONG.max_tokens, 0)


async def test_log_probabilities_are_sent_again_as_far_as_they_are_not_acknowledged() -> None:
    async with workbench() as bench:
        sampling = Sampling(temperature=0, max_tokens=20, ignore_eos=True, logprobs=2)
        number = bench.assign(sampling)
        await bench.ended(number)
        rows = [row for piece in bench.pieces(number) for row in piece.logprobs or ()]
        assert len(rows) == 20
        bench.acknowledge(number, 5)
        bench.attempts.end_session()
        bench.messages.clear()
        bench.begin(keep=[AttemptId(EPOCH, number)])
        bench.attempts.resume(AttemptId(EPOCH, number), 8)
        await bench.ended(number)
        assert [row for piece in bench.pieces(number) for row in piece.logprobs or ()] == rows[8:]


async def test_a_position_behind_the_output_cannot_be_asked_for() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=4000, ignore_eos=True))
        await bench.until_tokens(number, 10)
        bench.attempts.resume(AttemptId(EPOCH, number), 5000)
        ended = await bench.ended(number)
        assert ended.cause is EndCause.FAILED
        assert "from token 5000" in ended.message


async def test_what_the_scheduler_does_not_keep_is_aborted_without_a_word() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=4000, ignore_eos=True))
        await bench.until_tokens(number, 3)
        bench.attempts.end_session()
        bench.messages.clear()
        bench.begin(keep=[])
        await bench.attempts.none_running()
        assert bench.attempts.held == ()
        assert bench.engine.load().unfinished == 0
        assert bench.messages == []


async def test_a_scheduler_that_adopts_nothing_has_attempts_of_another_epoch_aborted() -> None:
    async with workbench() as bench:
        number = bench.assign(Sampling(temperature=0, max_tokens=4000, ignore_eos=True))
        await bench.until_tokens(number, 3)
        bench.attempts.end_session()
        bench.attempts.begin_session(EPOCH + 1, [])
        await bench.attempts.none_running()
        assert bench.attempts.held == ()


async def test_attempts_kept_but_never_asked_for_are_let_go() -> None:
    async with workbench() as bench:
        kept, resumed = bench.assign(), bench.assign()
        await bench.ended(kept)
        await bench.ended(resumed)
        bench.attempts.end_session()
        bench.begin(keep=[AttemptId(EPOCH, kept), AttemptId(EPOCH, resumed)])
        bench.attempts.resume(AttemptId(EPOCH, resumed), 0)
        bench.attempts.fence_unresumed("too late")
        assert [held.attempt.number for held in bench.attempts.held] == [resumed]


async def test_assign_numbers_go_on_where_something_was_kept_and_start_anew_where_nothing_was() -> None:
    async with workbench() as bench:
        number = bench.assign()
        await bench.ended(number)
        bench.attempts.end_session()
        bench.begin(keep=[AttemptId(EPOCH, number)])
        assert bench.attempts.last_assign == 1
        bench.attempts.end_session()
        bench.begin(keep=[])
        assert bench.attempts.last_assign == 0


@pytest.mark.parametrize("command", ["cancel", "resume"])
async def test_who_asks_for_an_attempt_of_another_epoch_that_is_gone_is_told(command: str) -> None:
    async with workbench() as bench:
        bench.attempts.begin_session(EPOCH + 1, keep=[], adopts=True)
        if command == "cancel":
            bench.cancel(7)
        else:
            bench.attempts.resume(AttemptId(EPOCH, 7), 0)
        ended = await bench.ended(7)
        assert (ended.attempt, ended.cause) == (AttemptId(EPOCH, 7), EndCause.CANCELLED)


async def test_attempts_of_two_epochs_may_have_the_same_number() -> None:
    async with workbench() as bench:
        bench.assign()
        await bench.until_tokens(1, 1)
        bench.attempts.end_session()
        bench.attempts.begin_session(EPOCH + 1, keep=[])
        bench.messages.clear()
        later = AttemptId(EPOCH + 1, 1)
        bench.attempts.assign(Assign(number=1, attempt=later, request_id="r", prompt_token_ids=PROMPT, sampling=LONG))
        bench.acknowledge(1, LONG.max_tokens, ended=True)  # of the earlier one
        tokens, _, ended = await bench.result(1)
        assert (ended.attempt, ended.cause, len(tokens)) == (later, EndCause.FINISHED, LONG.max_tokens)
        assert {message.attempt for message in bench.messages} == {later}
        bench.attempts.acknowledge([Ack(attempt=later, tokens=LONG.max_tokens, ended=True)])
        assert bench.attempts.held == ()
