"""What is measured of an engine before its first request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import FaultSettings, SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.engine.speed_probe import measured_speed
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineOutput,
    EngineRequest,
    Iteration,
)
from sage_common.speed_measurement import ROUNDS
from sage_common.virtual_clock import VirtualClock
from sage_media.kinds import MediaInput, MediaKind

SETTINGS = SimulatedSettings(step_base_s=0.01, step_per_sequence_s=0.001, prefill_tokens_per_s=10_000.0)
LIMIT_S = 60.0


async def started(settings: SimulatedSettings = SETTINGS, *, embeds: bool = False) -> SimulatedEngine:
    """Return an engine that was measured in virtual time."""
    clock = VirtualClock()
    model = ModelSettings(model="sim")
    factory = SimulatedEngineFactory(model, settings, clock, embeds=embeds, measure_speed_s=LIMIT_S)
    return await clock.run(factory.start(lambda *report: None))


def by_work(iterations: tuple[Iteration, ...]) -> dict[tuple[int, int], float]:
    return {(each.prefill_tokens, each.running): each.elapsed_s for each in iterations}


async def test_the_iterations_that_tell_of_an_engines_speed_are_measured() -> None:
    engine = await started()

    found = by_work(engine.facts.measured)
    assert found == {
        (2_048, 1): pytest.approx(0.01 + 2_048 / 10_000, rel=0.01),
        (0, 1): pytest.approx(0.011, rel=0.01),
        (32 * 16, 32): pytest.approx(0.01 + 512 / 10_000, rel=0.01),
        (0, 32): pytest.approx(0.01 + 0.032, rel=0.01),
    }
    first_of_a_round = [each for each in engine.facts.measured if each.prefill_tokens]
    assert [(each.index, each.steps) for each in first_of_a_round] == [(0, ROUNDS)] * 2
    await engine.shutdown()


async def test_nothing_of_it_counts_as_work() -> None:
    engine = await started()

    load = engine.load()
    counted = (load.prompt_tokens_total, load.generation_tokens_total, load.prefix_queries_tokens, load.iterations)
    assert counted == (0, 0, 0, 0)
    assert (load.unfinished, load.kv_used_tokens) == (0, 0)
    assert not engine.take_iterations()
    assert not engine.take_cache_events(), "no later prompt begins like these"
    await engine.shutdown()


async def test_an_engine_that_embeds_is_measured_too() -> None:
    engine = await started(embeds=True)

    assert by_work(engine.facts.measured).keys() == {(2_048, 1), (512, 32), (16, 1)}
    await engine.shutdown()


async def test_an_engine_that_is_slow_from_its_start_is_measured_as_slow() -> None:
    slow = FaultSettings(kind="slow", factor=10.0)
    engine = await started(SETTINGS.model_copy(update={"fault": slow}))

    assert by_work(engine.facts.measured)[0, 1] == pytest.approx(0.11, rel=0.01)
    await engine.shutdown()


async def test_faults_count_the_tokens_of_requests_only() -> None:
    later = FaultSettings(kind="die", after_tokens=100)
    engine = await started(SETTINGS.model_copy(update={"fault": later}))

    await engine.check_health()
    assert engine.facts.measured
    await engine.shutdown()


async def test_a_limit_of_zero_measures_nothing() -> None:
    assert await measured_speed(await unmeasured(), 0.0) == ()


async def unmeasured(settings: SimulatedSettings = SETTINGS) -> SimulatedEngine:
    """Return an engine that was not measured, in real time."""
    return await SimulatedEngineFactory(ModelSettings(model="sim"), settings).start(lambda *report: None)


async def test_an_engine_that_hangs_is_given_up_and_keeps_no_request() -> None:
    engine = await unmeasured(SETTINGS.model_copy(update={"fault": FaultSettings(kind="hang")}))

    assert await measured_speed(engine, 0.05) == ()
    engine.clear_faults()
    await asyncio.sleep(0.05)
    assert engine.load().unfinished == 0
    await engine.shutdown()


async def test_an_engine_that_fails_is_used_without_a_measured_speed(caplog: pytest.LogCaptureFixture) -> None:
    engine = await unmeasured(SETTINGS.model_copy(update={"fault": FaultSettings(kind="error", times=1)}))

    with caplog.at_level(logging.WARNING):
        assert await measured_speed(engine, LIMIT_S) == ()
    assert "could not be measured: injected error" in caplog.text
    await engine.shutdown()


async def test_an_engine_that_dies_while_it_is_measured_does_not_start() -> None:
    settings = SETTINGS.model_copy(update={"fault": FaultSettings(kind="die")})
    engine = await unmeasured(settings)

    with pytest.raises(EngineDeadError):
        await measured_speed(engine, LIMIT_S)
    await engine.shutdown()


async def test_of_an_engine_that_is_too_slow_for_two_rounds_the_first_is_told() -> None:
    engine = await unmeasured(SETTINGS.model_copy(update={"step_base_s": 0.1}))

    measured = await measured_speed(engine, 0.35)
    assert measured
    assert any(each.prefill_tokens for each in measured)
    await engine.shutdown()


async def test_prompts_are_new_and_of_ordinary_text(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await unmeasured(SETTINGS.model_copy(update={"prefill_tokens_per_s": 1e9, "step_base_s": 0.0}))
    image = MediaInput(kind=MediaKind.IMAGE, placeholder_token_id=700, most_tokens=19, most=4)
    engine._facts = replace(engine.facts, media=(image,))
    asked: list[EngineRequest] = []
    generate = engine.generate

    async def noted(request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        asked.append(request)
        async for output in generate(request):
            yield output

    monkeypatch.setattr(engine, "generate", noted)
    await measured_speed(engine, LIMIT_S)

    ids = {token for request in asked for token in request.prompt_token_ids}
    assert 700 not in ids
    assert len(ids) > 100
    assert min(ids) >= 2_048 // 4
    assert len({tuple(request.prompt_token_ids) for request in asked}) == len(asked)
    assert {(request.trace_headers or {})["traceparent"][-2:] for request in asked} == {"00"}, "not recorded"
    await engine.shutdown()


async def test_a_request_that_fails_ends_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await unmeasured()
    monkeypatch.setattr(engine, "generate", _refusing)
    assert await measured_speed(engine, LIMIT_S) == ()
    await engine.shutdown()


async def _refusing(request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
    outputs: list[EngineOutput] = []
    for each in outputs:
        yield each
    raise EngineError(f"{request.engine_request_id} is refused")
