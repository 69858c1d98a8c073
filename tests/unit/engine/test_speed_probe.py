"""What is measured of an engine before its first request."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import astuple, replace
from functools import cache
from itertools import product

import pytest

from executor_svc.engine import speed_probe
from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import FaultSettings, SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.engine.speed_probe import by_kind, loads, measured_speed
from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineOutput,
    EngineRequest,
    Iteration,
)
from sage_common.virtual_clock import VirtualClock
from sage_media.kinds import MediaInput, MediaKind
from sage_simulator import speed_probe as modelled
from sage_simulator.fleet_spec import InstanceModel
from scheduler_svc.domain.prediction.pace import prior_pace
from scheduler_svc.domain.prediction.predictor import Predictor

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


@pytest.mark.parametrize(
    ("changes", "prompts", "together"),
    [
        ({}, (2_048,), 32),
        ({"max_running": 4}, (2_048,), 4),
        ({"max_model_len": 1_000}, (984, 984, 80), 32),
        ({"max_model_len": 1_000, "max_running": 1}, (984,), 1),
        ({"max_model_len": 1_000, "kv_capacity_tokens": 4_096}, (984, 984), 32),
        ({"max_model_len": 500, "kv_capacity_tokens": 512}, (240,), 8),
        ({"max_model_len": 4_096, "kv_capacity_tokens": 32}, (8,), 1),
        ({"max_model_len": 17}, (9,) * 227 + (5,), 32),
        ({"max_model_len": 2, "kv_capacity_tokens": 16, "max_batched_tokens": 2, "max_running": 1}, (1,), 1),
    ],
)
def test_what_is_run_fits_the_engine(changes: dict[str, int], prompts: tuple[int, ...], together: int) -> None:
    facts = limited(changes)
    filling, short = loads(facts)
    assert (filling.prompts, len(short.prompts)) == (prompts[: facts.max_running], together)
    for load in (filling, short):
        assert min(*load.prompts, load.output_tokens) >= 1
        assert max(load.prompts) + load.output_tokens <= facts.max_model_len
        assert sum(load.prompts) + len(load.prompts) * load.output_tokens <= facts.kv_capacity_tokens // 2


@cache
def facts_of_an_engine() -> EngineFacts:
    return SimulatedEngine(ModelSettings(model="sim"), SETTINGS).facts


def limited(changes: Mapping[str, int]) -> EngineFacts:
    return replace(facts_of_an_engine(), **changes)  # type: ignore[arg-type]


def test_of_iterations_of_one_kind_the_median_time_is_told() -> None:
    def iteration(elapsed_s: float, running: int = 1, kv: int = 10) -> Iteration:
        return Iteration(
            index=7, prefill_tokens=0, decode_tokens=running, running=running, kv_used_tokens=kv, elapsed_s=elapsed_s
        )

    one, other = by_kind([iteration(1.0), iteration(5.0, 2), iteration(2.0, kv=20), iteration(90.0, kv=30)])
    assert (one.running, one.elapsed_s, one.kv_used_tokens, one.steps) == (1, 2.0, 20, 3)
    assert (other.running, other.elapsed_s) == (2, 5.0)


def test_a_modelled_executor_measures_as_a_real_one_does() -> None:
    names = ("ROUNDS", "ALONE_TOKENS", "TOGETHER", "SHORT_PROMPT_TOKENS", "TOGETHER_TOKENS", "MOST_KINDS")
    assert [getattr(modelled, each) for each in names] == [getattr(speed_probe, each) for each in names]


def test_a_modelled_executor_gives_the_loads_that_a_real_one_does() -> None:
    names = ("max_model_len", "kv_capacity_tokens", "max_batched_tokens", "max_running")
    for limits in product((2, 17, 500, 32_768), (16, 512, 4_096, 1_000_000), (2, 2_048, 8_192), (1, 4, 256)):
        changes = dict(zip(names, limits, strict=True))
        given = modelled.loads(replace(InstanceModel().facts(), **changes))  # type: ignore[arg-type]
        wanted = loads(limited(changes))
        assert [astuple(load) for load in given] == [astuple(load) for load in wanted], changes


@pytest.mark.parametrize("speed", [0.4, 1.0, 2.0])
def test_from_what_a_modelled_executor_measures_its_pace_is_known(speed: float) -> None:
    instance = InstanceModel(speed=speed)
    facts, pace = instance.facts(), instance.pace_here

    found = Predictor(prior_pace(facts), forgetting=0.995, measured=modelled.measured(facts, pace)).pace

    for step in ((0, 1, 2_000), (2_048, 1, 2_048), (1_024, 40, 50_000), (0, 64, 64_000)):
        assert found.iteration_s(*step) == pytest.approx(pace.iteration_s(*step), rel=0.06)


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
