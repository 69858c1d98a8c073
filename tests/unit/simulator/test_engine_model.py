"""The engine model, against cases computed by hand."""

from __future__ import annotations

import random

import pytest

from tests.unit.simulator.engines import Played, make_engine


def test_a_request_alone_prefills_in_one_step_and_then_emits_a_token_a_step() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=50, output_tokens=3)
    played = Played(engine).to_the_end()
    first = 1 + 0.5 + 0.1 + 0.050  # base, 50 prefill tokens, one sequence, 50 tokens of context
    second = 1 + 0.1 + 0.051
    third = 1 + 0.1 + 0.052
    assert played.first == {1: pytest.approx(first)}
    assert played.ended == {1: pytest.approx(first + second + third)}
    assert (engine.steps, engine.prompt_tokens, engine.generated_tokens) == (3, 50, 3)
    assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)


def test_one_output_token_ends_with_the_prefill() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=50, output_tokens=1)
    played = Played(engine).to_the_end()
    assert played.first == played.ended
    assert engine.steps == 1


def test_two_requests_share_a_step() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=30, output_tokens=2)
    engine.add(2, prompt_tokens=20, output_tokens=2)
    played = Played(engine).to_the_end()
    prefill = 1 + 0.5 + 0.2 + 0.050
    decode = 1 + 0.2 + 0.052
    assert played.first == {1: pytest.approx(prefill), 2: pytest.approx(prefill)}
    assert played.ended == {1: pytest.approx(prefill + decode), 2: pytest.approx(prefill + decode)}


def test_a_long_prompt_is_prefilled_in_chunks() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=250, output_tokens=1)
    played = Played(engine).to_the_end()
    assert [s.prefill_tokens for s in engine.take_samples()] == [100, 100, 50]
    assert played.first[1] == pytest.approx((2.1 + 0.1) + (2.1 + 0.2) + (1.6 + 0.25))


def test_decoding_goes_first_and_a_chunk_takes_what_is_left_of_the_step() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=10, output_tokens=4)
    played = Played(engine)
    assert played.step()
    engine.add(2, prompt_tokens=150, output_tokens=1)
    played.to_the_end()
    second, third = engine.take_samples()[1:3]
    assert (second.prefill_tokens, second.decode_tokens, second.running, second.kv_used_tokens) == (99, 1, 2, 120)
    assert (third.prefill_tokens, third.decode_tokens, third.running) == (51, 1, 2)
    assert second.elapsed_s == pytest.approx(1 + 0.99 + 0.2 + 0.110)
    assert third.elapsed_s == pytest.approx(1 + 0.51 + 0.2 + 0.162)


def test_what_is_left_of_a_step_begins_the_next_prompt() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=60, output_tokens=1)
    engine.add(2, prompt_tokens=60, output_tokens=1)
    played = Played(engine).to_the_end()
    assert [s.prefill_tokens for s in engine.take_samples()] == [100, 20]
    assert played.first[1] < played.first[2]


def test_no_more_sequences_run_than_there_are_slots() -> None:
    engine = make_engine(max_running=2)
    for number in (1, 2, 3):
        engine.add(number, prompt_tokens=10, output_tokens=2)
    played = Played(engine)
    played.step()
    assert (engine.running, engine.waiting) == (2, 1)
    played.to_the_end()
    assert played.ended[1] == played.ended[2] < played.first[3]


def test_a_more_urgent_class_is_begun_first() -> None:
    engine = make_engine(max_running=1)
    engine.add(1, prompt_tokens=10, output_tokens=1, priority=3)
    engine.add(2, prompt_tokens=10, output_tokens=1, priority=1)
    assert list(Played(engine).to_the_end().first) == [2, 1]


def test_an_engine_without_priorities_serves_in_order_of_arrival() -> None:
    engine = make_engine(max_running=1, supports_priority=False)
    engine.add(1, prompt_tokens=10, output_tokens=1, priority=3)
    engine.add(2, prompt_tokens=10, output_tokens=1, priority=1)
    assert list(Played(engine).to_the_end().first) == [1, 2]


def test_a_sequence_takes_a_block_when_its_context_outgrows_the_last_one() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=18, output_tokens=5)
    Played(engine).to_the_end()
    # 18 prompt tokens, then the keys of 4 of the 5 tokens that it emits: 19, 20, 21, and at its end nothing is held
    assert [s.kv_used_tokens for s in engine.take_samples()] == [20, 20, 20, 30, 0]


def test_a_full_kv_cache_preempts_the_latest_which_recomputes_and_ends_later() -> None:
    engine = make_engine(kv_capacity_tokens=50)
    engine.add(1, prompt_tokens=20, output_tokens=11)  # 3 blocks at its end
    engine.add(2, prompt_tokens=20, output_tokens=11)
    played = Played(engine).to_the_end()
    # Both take two blocks; at the first decode step each needs a third and one is left.
    assert engine.preemptions == 1
    assert played.ended[1] == pytest.approx(1 + 0.4 + 0.2 + 0.04 + sum(1.1 + 0.001 * (20 + n) for n in range(1, 11)))
    # The other waits for blocks, recomputes its prompt and the token it had emitted, and emits ten more.
    assert played.ended[2] == pytest.approx(
        played.ended[1] + 1 + 0.21 + 0.1 + 0.021 + sum(1.1 + 0.001 * (21 + n) for n in range(1, 10))
    )
    assert played.first[2] == played.first[1]
    assert (engine.generated_tokens, engine.prompt_tokens) == (22, 61)
    assert engine.kv.used_blocks == 0


def test_of_two_classes_the_less_urgent_is_preempted() -> None:
    engine = make_engine(kv_capacity_tokens=50)
    engine.add(1, prompt_tokens=20, output_tokens=11, priority=3)
    engine.add(2, prompt_tokens=20, output_tokens=11, priority=1)
    played = Played(engine).to_the_end()
    assert played.ended[2] < played.ended[1]


def test_a_prompt_that_does_not_fit_waits_without_preempting_anybody() -> None:
    engine = make_engine(kv_capacity_tokens=50)
    engine.add(1, prompt_tokens=30, output_tokens=5)
    engine.add(2, prompt_tokens=30, output_tokens=5)
    played = Played(engine).to_the_end()
    assert engine.preemptions == 0
    assert played.ended[1] < played.first[2]


def test_a_cached_prefix_is_not_computed_again() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=60, output_tokens=1, prefixes=(7, 8, 9), prefix_tokens=20)
    played = Played(engine).to_the_end()
    begun = played.now
    engine.add(2, prompt_tokens=50, output_tokens=1, prefixes=(7, 8, 10), prefix_tokens=20)
    played.to_the_end()
    assert (engine.prefix_queries_tokens, engine.prefix_hits_tokens) == (110, 40)
    assert played.first[2] - begun == pytest.approx(1 + 0.1 + 0.1 + 0.050)


def test_one_token_of_a_wholly_cached_prompt_is_computed_and_with_it_its_block() -> None:
    engine = make_engine()
    for number in (1, 2):
        engine.add(number, prompt_tokens=60, output_tokens=1, prefixes=(7, 8, 9), prefix_tokens=20)
        Played(engine).to_the_end()
    assert engine.prefix_hits_tokens == 50


def test_sequences_that_share_a_prefix_hold_its_blocks_once() -> None:
    engine = make_engine()
    engine.add(1, prompt_tokens=40, output_tokens=5, prefixes=(7, 8), prefix_tokens=20)
    played = Played(engine)
    played.step()
    engine.add(2, prompt_tokens=45, output_tokens=5, prefixes=(7, 8, 9), prefix_tokens=20)
    played.step()
    assert engine.kv_used_tokens == 40 + 10 + 10


def test_without_prefix_caching_everything_is_computed() -> None:
    engine = make_engine(prefix_caching=False)
    for number in (1, 2):
        engine.add(number, prompt_tokens=60, output_tokens=1, prefixes=(7, 8, 9), prefix_tokens=20)
        Played(engine).to_the_end()
    assert (engine.prefix_hits_tokens, engine.prompt_tokens) == (0, 120)


def test_an_abort_frees_everything_wherever_the_sequence_is() -> None:
    engine = make_engine(max_running=2)
    engine.add(1, prompt_tokens=10, output_tokens=50)  # decodes
    engine.add(2, prompt_tokens=500, output_tokens=50)  # is being prefilled
    engine.add(3, prompt_tokens=10, output_tokens=50)  # waits
    played = Played(engine)
    played.step()
    played.step()
    assert [engine.abort(number) for number in (3, 2, 1, 1)] == [0, 0, 2, None]
    assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
    assert engine.start_step() is None


def test_a_step_must_have_room_for_every_running_sequence() -> None:
    with pytest.raises(ValueError, match="max_batched_tokens"):
        make_engine(max_batched_tokens=3)


@pytest.mark.parametrize("seed", range(20))
def test_every_request_of_a_crowded_engine_ends_once_and_nothing_is_left(seed: int) -> None:
    source = random.Random(seed)
    engine = make_engine(kv_capacity_tokens=300)
    played = Played(engine)
    asked = 0
    for number in range(60):
        prefixes = tuple(source.randrange(3) + 10 * i for i in range(4))
        output = source.randrange(1, 100)
        asked += output
        engine.add(
            number,
            prompt_tokens=source.randrange(1, 200),
            output_tokens=output,
            priority=source.randrange(3),
            prefixes=prefixes,
            prefix_tokens=25,
        )
        for _ in range(source.randrange(4)):
            played.step()
            assert engine.kv.used_blocks + engine.kv.idle_blocks <= engine.kv.capacity_blocks
    played.to_the_end()
    assert sorted(played.ended) == sorted(played.first) == list(range(60))
    assert engine.generated_tokens == asked
    assert (engine.running, engine.waiting, engine.kv_used_tokens) == (0, 0, 0)
