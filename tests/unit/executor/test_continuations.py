"""Resumed and replayed attempts: what comes after the seam is what an uninterrupted run would have said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.tokenizer import EOS_ID
from executor_svc.runtime.engine_port import FinishReason, Sampling, StructuredKind, StructuredOutput
from executor_svc.runtime.messages.commands import Continuation, ContinuationMode, TextOptions
from executor_svc.runtime.messages.outputs import EndCause, Ended
from tests.unit.executor.workbench import LONG, Workbench, workbench

pytestmark = pytest.mark.usefixtures("way")
HISTORY, RESUME, REPLAY = ContinuationMode.HISTORY, ContinuationMode.RESUME, ContinuationMode.REPLAY
SEEDED = Sampling(temperature=0.8, seed=11, max_tokens=24, ignore_eos=True)


async def broken_off(bench: Workbench, tokens: int, sampling: Sampling, text: TextOptions) -> tuple[list[int], str]:
    """What an attempt delivers whose engine fails after so many tokens."""
    if not tokens:
        return [], ""
    bench.engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=tokens, times=1))
    number = bench.assign(sampling, text=text)
    ended = await bench.ended(number)
    assert ended.cause is EndCause.FAILED
    return bench.token_ids(number), bench.text(number)


async def continued(
    bench: Workbench, delivered: tuple[Sequence[int], str], sampling: Sampling, text: TextOptions, **how: Any
) -> tuple[list[int], str, Ended]:
    """All tokens and text, those delivered before included."""
    token_ids, before = delivered
    continuation = Continuation(emitted_token_ids=token_ids, emitted_text_length=len(before), **how)
    number = bench.assign(sampling, text=text, continuation=continuation)
    rest, after, ended = await bench.result(number)
    for piece in bench.pieces(number)[:1]:
        assert piece.first_index == len(token_ids)
    return [*token_ids, *rest], before + after, ended


def outcome(ended: Ended) -> tuple[Any, ...]:
    return ended.cause, ended.finish_reason, ended.stop_string, ended.stop_token_id, ended.total_tokens


async def test_resumed_at_any_token_it_goes_on_as_if_nothing_had_happened() -> None:
    async with workbench() as bench:
        tokens, text, ended = await bench.run(LONG)
        assert any(ord(char) > 127 for char in text), "no character is split over tokens: the test would see nothing"
        for cut in range(len(tokens)):
            delivered = await broken_off(bench, cut, LONG, TextOptions())
            assert delivered[0] == tokens[:cut]
            again = await continued(bench, delivered, LONG, TextOptions(), mode=RESUME)
            assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


@pytest.mark.parametrize("include", [False, True])
async def test_a_stop_string_across_the_seam_is_found(include: bool) -> None:
    async with workbench() as bench:
        _, whole, _ = await bench.run(LONG)
        stop = whole[30:48]  # several tokens long
        options = TextOptions(stop=(stop, "never there"), include_stop_in_output=include)
        tokens, text, ended = await bench.run(LONG, text=options)
        assert ended.stop_string == stop
        for cut in range(len(tokens)):
            delivered = await broken_off(bench, cut, LONG, options)
            again = await continued(bench, delivered, LONG, options, mode=RESUME)
            assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_max_and_min_tokens_count_over_all_attempts() -> None:
    async with workbench(mean_output_tokens=3) as bench:
        sampling = Sampling(temperature=0, max_tokens=60, min_tokens=30)
        tokens, text, ended = await bench.run(sampling)
        assert len(tokens) > 30
        for cut in (1, 10, 29, 30, len(tokens) - 1):
            delivered = await broken_off(bench, cut, sampling, TextOptions(min_tokens=30))
            again = await continued(bench, delivered, sampling, TextOptions(min_tokens=30), mode=RESUME)
            assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_replayed_at_any_token_it_goes_on_as_if_nothing_had_happened() -> None:
    async with workbench() as bench:
        tokens, text, ended = await bench.run(SEEDED)
        for cut in range(1, len(tokens)):
            delivered = await broken_off(bench, cut, SEEDED, TextOptions())
            again = await continued(bench, delivered, SEEDED, TextOptions(), mode=REPLAY)
            assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


PENALISED = Sampling(temperature=0, presence_penalty=1.0, allowed_token_ids=tuple(range(300, 340)), max_tokens=30)
OBJECT = Sampling(
    temperature=0.9,
    seed=4,
    max_tokens=60,
    structured_output=StructuredOutput(kind=StructuredKind.JSON_OBJECT, value=""),
)


@pytest.mark.parametrize("sampling", [LONG, SEEDED, PENALISED, OBJECT], ids=("greedy", "seed", "penalty", "object"))
async def test_continued_from_its_history_at_any_token_it_goes_on_as_if_nothing_had_happened(
    sampling: Sampling,
) -> None:
    async with workbench() as bench:
        tokens, text, ended = await bench.run(sampling)
        for cut in range(1, len(tokens)):
            delivered = await broken_off(bench, cut, sampling, TextOptions())
            before = bench.engine.load().generation_tokens_total
            again = await continued(bench, delivered, sampling, TextOptions(), mode=HISTORY)
            assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))
            made = bench.engine.load().generation_tokens_total - before
            assert made == len(tokens) - cut, "what was delivered is not generated again"


async def test_a_history_and_a_stop_string_across_the_seam() -> None:
    async with workbench() as bench:
        _, whole, _ = await bench.run(SEEDED)
        options = TextOptions(stop=(whole[30:48],))
        tokens, text, ended = await bench.run(SEEDED, text=options)
        for cut in range(1, len(tokens)):
            delivered = await broken_off(bench, cut, SEEDED, options)
            again = await continued(bench, delivered, SEEDED, options, mode=HISTORY)
            assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_unseeded_a_history_goes_on_though_the_rest_is_random() -> None:
    async with workbench() as bench:
        hot = Sampling(temperature=1.0, presence_penalty=0.5, max_tokens=24, ignore_eos=True)
        first, second = [(await bench.run(hot))[0] for _ in range(2)]
        assert first != second
        delivered = await broken_off(bench, 9, hot, TextOptions())
        again, _, ended = await continued(bench, delivered, hot, TextOptions(), mode=HISTORY)
        assert (len(again), again[:9], ended.cause) == (24, delivered[0], EndCause.FINISHED)


async def test_unseeded_a_replay_differs() -> None:
    """So a request that could only be replayed gets a seed when it is accepted."""
    async with workbench() as bench:
        hot = Sampling(temperature=1.0, presence_penalty=0.5, max_tokens=24, ignore_eos=True)
        delivered = await broken_off(bench, 9, hot, TextOptions())
        _, _, ended = await continued(bench, delivered, hot, TextOptions(), mode=REPLAY)
        assert ended.cause is EndCause.REPLAY_DIVERGED


async def test_an_engine_that_keeps_no_history_replays_instead() -> None:
    async with workbench(output_history=False) as bench:
        tokens, text, ended = await bench.run(SEEDED)
        delivered = await broken_off(bench, 9, SEEDED, TextOptions())
        before = bench.engine.load().generation_tokens_total
        again = await continued(bench, delivered, SEEDED, TextOptions(), mode=HISTORY)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))
        assert bench.engine.load().generation_tokens_total - before == len(tokens)


async def test_a_seeded_run_that_is_resumed_would_differ() -> None:
    """Else the replays above would prove nothing."""
    async with workbench() as bench:
        tokens, _, _ = await bench.run(SEEDED)
        delivered = await broken_off(bench, 8, SEEDED, TextOptions())
        again, _, _ = await continued(bench, delivered, SEEDED, TextOptions(), mode=RESUME)
        assert again != tokens


async def test_a_replay_with_a_stop_string_and_log_probabilities() -> None:
    async with workbench() as bench:
        sampling = replace(SEEDED, logprobs=1)
        _, whole, _ = await bench.run(sampling)
        options = TextOptions(stop=(whole[40:50],))
        tokens, text, ended = await bench.run(sampling, text=options)
        delivered = await broken_off(bench, 5, sampling, options)
        again = await continued(bench, delivered, sampling, options, mode=REPLAY)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))
        pieces = bench.pieces(ended.attempt.number + 2)
        assert all(len(piece.logprobs or ()) == len(piece.token_ids) for piece in pieces)


async def test_a_replay_that_differs_fails_and_says_where() -> None:
    async with workbench() as bench:
        tokens, _, _ = await bench.run(SEEDED)
        wrong = [*tokens[:3], tokens[3] ^ 1, *tokens[4:6]]
        _, text, ended = await continued(bench, (wrong, ""), SEEDED, TextOptions(), mode=REPLAY)
        assert ended.cause is EndCause.REPLAY_DIVERGED
        assert "token 3" in ended.message
        assert text == ""
        assert ended.total_tokens == len(wrong)
        assert bench.engine.load().unfinished == 0


async def test_a_replay_that_ends_before_what_was_delivered_differs() -> None:
    async with workbench() as bench:
        structured = replace(
            SEEDED, structured_output=StructuredOutput(kind=StructuredKind.CHOICE, value='["ja"]'), ignore_eos=False
        )
        tokens, _, _ = await bench.run(structured)
        _, _, ended = await continued(bench, ([*tokens, 300], ""), structured, TextOptions(), mode=REPLAY)
        assert ended.cause is EndCause.REPLAY_DIVERGED
        assert f"after {len(tokens)} of {len(tokens) + 1}" in ended.message


async def test_where_best_effort_is_good_enough_it_goes_on_from_what_was_delivered() -> None:
    async with workbench() as bench:
        tokens, _, _ = await bench.run(SEEDED)
        wrong = [*tokens[:3], tokens[3] ^ 1]
        how = {"mode": REPLAY, "best_effort": True}
        again, _, ended = await continued(bench, (wrong, ""), SEEDED, TextOptions(), **how)
        assert ended.cause is EndCause.FINISHED
        assert again[:4] == wrong
        assert len(again) == SEEDED.max_tokens


# --- everything was delivered, only the end was lost ----------------------------------------------------------------


@pytest.mark.parametrize("mode", list(ContinuationMode))
async def test_all_tokens_were_delivered(mode: ContinuationMode) -> None:
    async with workbench() as bench:
        tokens, text, ended = await bench.run(LONG)
        asked = bench.engine.load().prompt_tokens_total
        again = await continued(bench, (tokens, text), LONG, TextOptions(), mode=mode)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))
        assert bench.engine.load().prompt_tokens_total == asked, "the engine was asked"


async def test_the_end_of_sequence_token_was_delivered() -> None:
    async with workbench(mean_output_tokens=4) as bench:
        sampling = Sampling(temperature=0, max_tokens=200)
        tokens, text, ended = await bench.run(sampling)
        assert tokens[-1] == EOS_ID
        again = await continued(bench, (tokens, text), sampling, TextOptions(), mode=RESUME)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_a_stop_token_was_delivered() -> None:
    async with workbench() as bench:
        whole, _, _ = await bench.run(LONG)
        sampling = replace(LONG, stop_token_ids=(whole[9],))
        tokens, text, ended = await bench.run(sampling)
        again = await continued(bench, (tokens, text), sampling, TextOptions(), mode=RESUME)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_the_stop_string_was_delivered_with_its_last_token() -> None:
    async with workbench() as bench:
        _, whole, _ = await bench.run(LONG)
        options = TextOptions(stop=(whole[30:40],))
        tokens, text, ended = await bench.run(LONG, text=options)
        again = await continued(bench, (tokens, text), LONG, options, mode=RESUME)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_the_models_length_was_reached() -> None:
    async with workbench(max_model_len=64) as bench:
        sampling = replace(LONG, max_tokens=1000)
        tokens, text, ended = await bench.run(sampling)
        again = await continued(bench, (tokens, text), sampling, TextOptions(), mode=RESUME)
        assert (again[0], again[1], outcome(again[2])) == (tokens, text, outcome(ended))


async def test_text_held_back_for_a_stop_string_comes_with_the_end() -> None:
    async with workbench() as bench:
        _, whole, _ = await bench.run(LONG)
        options = TextOptions(stop=(whole[-6:] + "!",))
        tokens, text, ended = await bench.run(LONG, text=options)
        assert (text, ended.trailing_text) == (whole, whole[-6:])
        before = whole[:-6]
        again = await continued(bench, (tokens, before), LONG, options, mode=RESUME)
        assert (again[1], again[2].trailing_text) == (whole, whole[-6:])
        assert again[2].finish_reason is FinishReason.LENGTH
