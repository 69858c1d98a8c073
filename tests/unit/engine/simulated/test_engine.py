"""The simulated engine's time, batching, KV cache and faults, in virtual time."""

from __future__ import annotations

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.settings import FaultSettings, SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineDeadError, EngineError, EngineState, FinishReason, Sampling
from sage_common.virtual_clock import VirtualClock
from tests.unit.engine.simulated.simulation import PROMPT, simulation, tokens

SLOPE = {"step_base_s": 0.010, "step_per_sequence_s": 0.001, "prefill_tokens_per_s": 1000.0}


# --- time -----------------------------------------------------------------------------------------------------


async def test_a_prompt_takes_its_prefill_time_and_a_token_its_step() -> None:
    async with simulation(**SLOPE) as sim:
        stream = sim.start(tokens(3), prompt=[300] * 50)
        await sim.finish(stream)
        assert stream.times == pytest.approx([0.060, 0.071, 0.082])  # 10 + 50, then 10 + 1 each


async def test_a_step_takes_longer_the_more_sequences_are_in_it() -> None:
    async with simulation(**SLOPE) as sim:
        streams = [sim.start(tokens(10), prompt=[300 + n]) for n in range(8)]
        await sim.finish(*streams)
        gaps = [later - earlier for earlier, later in zip(streams[0].times, streams[0].times[1:], strict=False)]
        assert gaps == pytest.approx([0.018] * 9)


async def test_a_long_prompt_is_prefilled_in_chunks_beside_decoding() -> None:
    async with simulation(**SLOPE, max_batched_tokens=101, max_running=4) as sim:
        talker = sim.start(tokens(30))
        await sim.clock.advance(0.1)
        sim.engine.take_iterations()
        reader = sim.start(tokens(1), prompt=[400] * 250)
        await sim.finish(reader)
        chunks = [(step.prefill_tokens, step.decode_tokens) for step in sim.engine.take_iterations()]
        assert [chunk for chunk in chunks if chunk[0]] == [(100, 1), (100, 1), (50, 1)]
        await sim.finish(talker)


async def test_iterations_report_the_modelled_time() -> None:
    async with simulation(**SLOPE) as sim:
        await sim.finish(sim.start(tokens(3), prompt=[300] * 50))
        assert [step.elapsed_s for step in sim.engine.take_iterations()] == pytest.approx([0.060, 0.011, 0.011])


async def test_starting_goes_through_the_states_in_the_time_it_was_given() -> None:
    clock = VirtualClock()
    seen: list[tuple[EngineState, float | None]] = []
    factory = SimulatedEngineFactory(ModelSettings(model="sim"), SimulatedSettings(load_s=30.0), clock)
    engine = await clock.run(factory.start(lambda state, fraction, message: seen.append((state, fraction))))
    states = list(dict.fromkeys(state for state, _ in seen))
    assert states == [EngineState.DOWNLOADING, EngineState.LOADING, EngineState.WARMING, EngineState.READY]
    assert clock.now() == pytest.approx(30.0)
    assert [fraction for state, fraction in seen if state is EngineState.LOADING][:3] == [0.0, 0.1, 0.2]
    await engine.shutdown()


# --- batching and KV ------------------------------------------------------------------------------------------


async def test_no_more_than_max_running_run() -> None:
    async with simulation(max_running=2) as sim:
        streams = [sim.start(tokens(5)) for _ in range(5)]
        await sim.clock.settle()
        most = 0
        while not all(stream.finished for stream in streams):
            assert await sim.clock.step()
            most = max(most, sim.engine.load().running)
        assert most == 2


async def test_a_full_kv_cache_lets_others_wait() -> None:
    async with simulation(kv_capacity_tokens=64, kv_block_size=16, max_model_len=64) as sim:
        streams = [sim.start(tokens(10), prompt=[300 + n] * 20) for n in range(3)]  # two blocks each, of four
        await sim.clock.step()
        assert (sim.engine.load().running, sim.engine.load().waiting) == (2, 1)
        assert sim.engine.load().kv_used_tokens == 64
        await sim.finish(*streams)
        assert all(len(stream.token_ids) == 10 for stream in streams)
        assert sim.engine.load().kv_used_tokens == 0


async def test_growing_out_of_the_kv_cache_preempts_the_last_and_changes_no_token() -> None:
    async with simulation() as roomy:
        alone = [roomy.start(tokens(40), prompt=[300 + n] * 20) for n in range(2)]
        await roomy.finish(*alone)
        assert roomy.engine.preemptions == 0
    async with simulation(kv_capacity_tokens=64, kv_block_size=16, max_model_len=64) as sim:
        first, second = (sim.start(tokens(40), prompt=[300 + n] * 20) for n in range(2))
        await sim.finish(first, second)
        assert sim.engine.preemptions > 0
        assert [first.token_ids, second.token_ids] == [stream.token_ids for stream in alone]
        assert first.times[-1] < second.times[-1]


async def test_preemption_takes_the_least_urgent() -> None:
    async with simulation(kv_capacity_tokens=64, kv_block_size=16, max_model_len=64) as sim:
        background = sim.start(tokens(40), prompt=[300] * 20, priority=9)
        await sim.clock.step()
        urgent = sim.start(tokens(40), prompt=[301] * 20, priority=0)
        await sim.finish(background, urgent)
        assert sim.engine.preemptions > 0
        assert urgent.times[-1] < background.times[-1]


async def test_a_waiting_request_that_leaves_is_forgotten() -> None:
    async with simulation(max_running=1) as sim:
        running, waiting = sim.start(tokens(20)), sim.start(tokens(20))
        await sim.clock.step()
        assert waiting.task is not None
        waiting.task.cancel()
        await sim.clock.settle()
        assert sim.engine.load().waiting == 0
        await sim.finish(running)
        assert waiting.outputs == []


async def test_requests_beyond_max_waiting_are_refused() -> None:
    async with simulation(max_running=1, max_waiting=2) as sim:
        streams = [sim.start(tokens(5)) for _ in range(3)]
        await sim.finish(*streams)
        errors = [stream.error for stream in streams]
        assert errors[:2] == [None, None]
        assert isinstance(errors[2], EngineError)


async def test_a_slow_reader_gets_what_it_missed_in_one_output() -> None:
    async with simulation() as sim:
        request = sim.start(tokens(1))
        await sim.finish(request)
        from executor_svc.runtime.engine_port import EngineRequest

        sampling = Sampling(temperature=0.0, max_tokens=30, ignore_eos=True, logprobs=0)
        stream = sim.engine.generate(
            EngineRequest(engine_request_id="slow", prompt_token_ids=PROMPT, sampling=sampling)
        )
        first = await sim.clock.run(anext(stream))
        while sim.engine.load().unfinished:
            await sim.clock.step()
        rest = await anext(stream)
        assert (len(first.token_ids), len(rest.token_ids)) == (1, 29)
        assert rest.logprobs is not None
        assert [row[0].token_id for row in rest.logprobs] == rest.token_ids
        assert rest.finish_reason is FinishReason.LENGTH


# --- faults ---------------------------------------------------------------------------------------------------


async def test_a_dead_engine_fails_everyone_for_good() -> None:
    async with simulation() as sim:
        stream = sim.start(tokens(50))
        await sim.clock.advance(0.1)
        sim.engine.inject(Fault(kind=FaultKind.DIE))
        await sim.finish(stream)
        late = sim.start(tokens(5))
        await sim.finish(late)
        assert stream.token_ids
        assert isinstance(stream.error, EngineDeadError)
        assert isinstance(late.error, EngineDeadError)
        with pytest.raises(EngineDeadError):
            await sim.engine.check_health()
        sim.engine.load()


async def test_death_can_wait_for_a_number_of_tokens() -> None:
    async with simulation(fault=FaultSettings(kind="die", after_tokens=7)) as sim:
        stream = sim.start(tokens(50))
        await sim.finish(stream)
        assert len(stream.token_ids) == 7
        assert isinstance(stream.error, EngineDeadError)


async def test_a_hung_engine_reports_load_but_gives_nothing() -> None:
    async with simulation() as sim:
        stream = sim.start(tokens(50))
        await sim.clock.advance(0.1)
        sim.engine.inject(Fault(kind=FaultKind.HANG))
        before = (list(stream.token_ids), sim.engine.load())
        await sim.clock.advance(1000.0)
        assert (stream.token_ids, sim.engine.load()) == before
        assert before[1].running == 1
        await sim.engine.check_health()  # the lie
        sim.engine.clear_faults()
        await sim.finish(stream)
        assert len(stream.token_ids) == 50


async def test_a_hung_engine_does_not_notice_that_a_reader_left() -> None:
    async with simulation() as sim:
        stream = sim.start(tokens(50))
        await sim.clock.advance(0.1)
        sim.engine.inject(Fault(kind=FaultKind.HANG))
        assert stream.task is not None
        stream.task.cancel()
        await sim.clock.settle()
        assert sim.engine.load().kv_used_tokens > 0
        sim.engine.clear_faults()
        assert sim.engine.load().kv_used_tokens == 0


async def test_a_slow_engine_takes_so_many_times_as_long() -> None:
    async with simulation(**SLOPE) as sim:
        sim.engine.inject(Fault(kind=FaultKind.SLOW, factor=3.0))
        stream = sim.start(tokens(2), prompt=[300] * 50)
        await sim.finish(stream)
        assert stream.times == pytest.approx([0.180, 0.213])


async def test_an_injected_error_hits_so_many_requests_in_the_middle_of_their_stream() -> None:
    async with simulation() as sim:
        sim.engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=3, times=2))
        streams = [sim.start(tokens(10)) for _ in range(3)]
        await sim.finish(*streams)
        assert [len(stream.token_ids) for stream in streams] == [3, 3, 10]
        assert [type(stream.error) for stream in streams] == [EngineError, EngineError, type(None)]
        assert sim.engine.load().unfinished == 0
        assert sim.engine.load().kv_used_tokens == 0


async def test_a_stopped_engine_is_dead_and_stops_twice() -> None:
    async with simulation() as sim:
        stream = sim.start(tokens(50))
        await sim.clock.advance(0.1)
        await sim.engine.shutdown()
        await sim.engine.shutdown()
        await sim.finish(stream)
        assert isinstance(stream.error, EngineDeadError)
        with pytest.raises(EngineDeadError):
            await sim.engine.check_health()
