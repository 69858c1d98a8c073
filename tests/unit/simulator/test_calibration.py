"""The engine model fitted to a recording."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_simulator.calibration.calibration import DEFAULT_DELAY_S, CalibrationError, calibrate
from sage_simulator.calibration.described_fleet import described_fleet
from sage_simulator.calibration.nonnegative import solve_nonnegative
from sage_simulator.calibration.pace_fit import fit_pace
from sage_simulator.calibration.replay import replay
from sage_simulator.heartbeats import HeartbeatTimes
from sage_simulator.simulation_settings import SimulationError
from sage_simulator.traces.recording.recorded_lines import (
    RecordedInstance,
    RecordedLoad,
    RecordedLog,
    RecordedRequest,
)
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.request import Priority
from tests.unit.simulator.trace_files import json_lines, written

PACE = Pace(base_s=5e-3, prefill_token_s=4e-5, running_s=1e-4, kv_token_s=2e-8)


def iterations(count: int = 400, *, pace: Pace = PACE, noise: float = 0.0, seed: int = 1) -> list[IterationSample]:
    """Iterations of an engine of this pace, of all mixtures of prefill and decode."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        running, prefill = rng.randint(1, 64), rng.choice((0, 0, 0, rng.randint(1, 2_000)))
        kv = running * rng.randint(50, 2_000)
        factor = math.exp(rng.gauss(-(noise**2) / 2, noise))
        found.append(
            IterationSample(
                prefill_tokens=prefill,
                decode_tokens=running,
                running=running,
                kv_used_tokens=kv,
                elapsed_s=pace.iteration_s(prefill, running, kv) * factor,
            )
        )
    return found


def instance(name: str = "e1", **changes: Any) -> RecordedInstance:
    given: dict[str, Any] = {
        "at_s": 0.0,
        "instance": name,
        "model": "m",
        "state": "ready",
        "role": "general",
        "price_per_hour": 2.5,
        "engine_start": "1",
        "max_model_len": 4_096,
        "kv_capacity_tokens": 100_000,
        "kv_block_size": 16,
        "max_running": 64,
        "max_batched_tokens": 2_048,
        "gpu_count": 1,
        "gpu_name": "",
    }
    return RecordedInstance(**given | changes)


def load(samples: list[IterationSample], name: str = "e1", **changes: Any) -> RecordedLoad:
    given: dict[str, Any] = {
        "at_s": 1.0,
        "instance": name,
        "heartbeats": 2,
        "shortest_gap_s": 0.05,
        "longest_gap_s": 0.4,
        "prefix_queries_tokens": 0,
        "prefix_hits_tokens": 0,
        "samples": tuple(samples),
    }
    return RecordedLoad(**given | changes)


def request(arrival_s: float, first_token_s: float, ended_s: float, **changes: Any) -> RecordedRequest:
    given: dict[str, Any] = {
        "arrival_s": arrival_s,
        "model": "m",
        "prompt_tokens": 100,
        "output_tokens": 11,
        "max_tokens": 11,
        "priority": Priority.NORMAL,
        "ttft_target_s": None,
        "tpot_target_s": None,
        "deadline_s": None,
        "tenant": "",
        "session": "",
        "block_hashes": (),
        "block_tokens": 1,
        "end": "finished",
        "policy": "fifo",
        "instance": "e1",
        "prefill_instance": "",
        "attempts": 1,
        "decided_s": arrival_s,
        "first_token_s": first_token_s,
        "last_token_s": ended_s,
        "ended_s": ended_s,
    }
    return RecordedRequest(**given | changes)


def log(*parts: RecordedRequest | RecordedInstance | RecordedLoad) -> RecordedLog:
    return RecordedLog(
        requests=tuple(each for each in parts if isinstance(each, RecordedRequest)),
        instances=tuple(each for each in parts if isinstance(each, RecordedInstance)),
        loads=tuple(each for each in parts if isinstance(each, RecordedLoad)),
    )


# --- least squares ----------------------------------------------------------------------------------


def test_what_fits_exactly_is_found() -> None:
    rows = [((1.0, float(x)), 3.0 + 2.0 * x, 1.0) for x in range(5)]
    assert solve_nonnegative(rows, 2) == pytest.approx([3.0, 2.0])


def test_what_would_be_negative_is_zero_and_the_rest_makes_up_for_it() -> None:
    rows = [((1.0, float(x)), 10.0 - x, 1.0) for x in range(5)]
    assert solve_nonnegative(rows, 2) == pytest.approx([8.0, 0.0])


def test_variables_that_cannot_be_told_apart_do_not_break_it() -> None:
    rows = [((float(x), 2.0 * x), 4.0 * x, 1.0) for x in range(1, 5)]
    found = solve_nonnegative(rows, 2)
    assert found[0] + 2 * found[1] == pytest.approx(4.0)
    assert solve_nonnegative([((0.0, 1.0), 2.0, 1.0)], 2) == pytest.approx([0.0, 2.0])
    assert solve_nonnegative([], 3) == [0.0, 0.0, 0.0]


coefficients = st.lists(st.floats(0, 10), min_size=3, max_size=3)


@given(coefficients, st.lists(st.tuples(*[st.floats(0, 5)] * 3, st.floats(0, 100)), min_size=1, max_size=12))
def test_no_other_nonnegative_coefficients_are_better(
    other: list[float], rows: list[tuple[float, float, float, float]]
) -> None:
    weighed = [((x, y, z), measured, 1.0) for x, y, z, measured in rows]
    found = solve_nonnegative(weighed, 3)
    assert min(found) >= 0

    def error(by: list[float]) -> float:
        return sum((sum(v * c for v, c in zip(values, by, strict=True)) - m) ** 2 for values, m, _ in weighed)

    assert error(found) <= error(other) * (1 + 1e-6) + 1e-6


# --- an engine's pace -------------------------------------------------------------------------------


def test_the_pace_of_an_engine_without_noise_is_found() -> None:
    fit = fit_pace(iterations())
    assert fit.pace.base_s == pytest.approx(PACE.base_s, rel=1e-6)
    assert fit.pace.prefill_token_s == pytest.approx(PACE.prefill_token_s, rel=1e-6)
    assert fit.pace.running_s == pytest.approx(PACE.running_s, rel=1e-6)
    assert fit.pace.kv_token_s == pytest.approx(PACE.kv_token_s, rel=1e-6)
    assert fit.noise == pytest.approx(0, abs=1e-6)
    assert fit.untold == ()


def test_noise_is_told_from_pace() -> None:
    fit = fit_pace(iterations(4_000, noise=0.2))
    assert fit.noise == pytest.approx(0.2, rel=0.1)
    for sample in ((0, 1, 500), (0, 64, 60_000), (2_000, 32, 30_000)):
        assert fit.pace.iteration_s(*sample) == pytest.approx(PACE.iteration_s(*sample), rel=0.05)


def test_slow_iterations_count_with_their_time() -> None:
    """One in ten takes twice as long: the mean is 10 % more, whatever the usual iteration takes."""
    samples = [replace(s, elapsed_s=s.elapsed_s * (1 + (n % 10 == 0))) for n, s in enumerate(iterations(2_000))]
    fit = fit_pace(samples)
    ratio = sum(s.elapsed_s for s in samples) / sum(
        fit.pace.iteration_s(s.prefill_tokens, s.running, s.kv_used_tokens) for s in samples
    )
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_an_iteration_that_stood_still_does_not_spoil_the_fit() -> None:
    samples = iterations(1_000)
    samples[7] = replace(samples[7], elapsed_s=60.0)
    assert fit_pace(samples).pace.iteration_s(0, 32, 30_000) == pytest.approx(PACE.iteration_s(0, 32, 30_000), rel=0.1)


def test_of_many_iterations_some_are_used_from_all_of_the_time() -> None:
    slower = [replace(each, elapsed_s=2 * each.elapsed_s) for each in iterations(30_000)]
    fit = fit_pace([*iterations(30_000), *slower])
    assert fit.samples == 20_000
    assert fit.pace.iteration_s(0, 32, 30_000) == pytest.approx(1.5 * PACE.iteration_s(0, 32, 30_000), rel=0.05)


def test_what_the_iterations_do_not_tell_is_said() -> None:
    alike = [replace(each, prefill_tokens=0) for each in iterations(pace=replace(PACE, prefill_token_s=0.0))]
    assert fit_pace(alike).untold == ("prefill token",)


def test_nothing_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="no iterations"):
        fit_pace([])


# --- a fleet ----------------------------------------------------------------------------------------


def test_the_instances_are_those_of_the_recording() -> None:
    found = calibrate(log(instance("b", price_per_hour=1.0, max_running=8), instance("a"), load(iterations(), "a"),
                          load(iterations(pace=replace(PACE, base_s=9e-3)), "b")))  # fmt: skip
    a, b = found.instances
    assert (a.instance, a.model.price_per_hour, a.model.max_running, a.model.kv_block_size) == ("a", 2.5, 64, 16)
    assert (b.instance, b.model.price_per_hour, b.model.max_running) == ("b", 1.0, 8)
    assert a.model.pace.base_s == pytest.approx(5e-3)
    assert b.model.pace.base_s == pytest.approx(9e-3)
    assert found.fleet.instances == (a.model, b.model)


def test_an_instance_with_too_few_iterations_has_the_pace_of_its_model() -> None:
    found = calibrate(log(instance("a"), instance("b"), load(iterations(), "a"), load(iterations(5), "b")))
    assert [each.pooled for each in found.instances] == [False, True]
    assert found.instances[1].model.pace.base_s == pytest.approx(5e-3)


def test_models_are_named_where_there_are_several() -> None:
    both = log(instance("a"), instance("b", model="n"), load(iterations(), "a"), load(iterations(), "b"))
    assert [each.model.model for each in calibrate(both).instances] == ["m", "n"]
    assert [each.model.model for each in calibrate(both, "n").instances] == [""]


@pytest.mark.parametrize(
    ("recorded", "model", "said"),
    [
        (log(), None, "no instance was ready; the recording has: no model"),
        (log(instance(max_running=0)), None, "no instance was ready; the recording has: m"),
        (log(instance()), "other", "no instance of model 'other' was ready; the recording has: m"),
        (log(instance(), load(iterations(31))), None, "model 'm': 31 iterations were recorded, 32 are needed"),
    ],
)
def test_what_is_missing_is_said(recorded: RecordedLog, model: str | None, said: str) -> None:
    with pytest.raises(CalibrationError, match=said):
        calibrate(recorded, model)


def test_the_delay_is_what_a_request_that_has_its_instance_alone_waits_beyond_its_step() -> None:
    step_s = PACE.iteration_s(100, 1, 100)
    alone = [request(n, n + 0.006 + step_s, n + 0.5) for n in range(6)]
    beside_others = [request(n + 0.1, n + 0.4, n + 0.5) for n in range(6)]
    found = calibrate(log(instance(), load(iterations()), *alone, *beside_others))
    assert (found.idle_starts, found.delay_fitted) == (6, True)
    assert found.delay_s == pytest.approx(0.003)


def test_without_requests_that_were_alone_the_delay_is_a_default() -> None:
    found = calibrate(log(instance(), load(iterations()), request(1.0, 1.1, 1.5)))
    assert (found.delay_s, found.delay_fitted) == (DEFAULT_DELAY_S, False)


def test_heartbeats_are_as_late_as_they_were() -> None:
    found = calibrate(log(instance(), load(iterations()), load([], shortest_gap_s=1e-6, longest_gap_s=0.4)))
    assert found.heartbeats == HeartbeatTimes(interval_s=0.4, gap_s=0.01)
    assert calibrate(log(instance(), load(iterations(), shortest_gap_s=None))).heartbeats == HeartbeatTimes()


# --- replayed ---------------------------------------------------------------------------------------


def test_requests_that_ran_as_the_model_says_are_replayed_as_they_ran() -> None:
    first_s, step_s = 0.002 + PACE.iteration_s(100, 1, 100), PACE.iteration_s(0, 1, 106)
    alone = [request(n, n + first_s, n + first_s + 10 * step_s) for n in range(20)]
    found = calibrate(log(instance(), load(iterations()), *alone))
    again = replay(alone, replace(found.fleet, noise=0.0), PolicyCatalogue)
    assert (again.requests, again.policy) == (20, "fifo")
    assert all(error == pytest.approx(0, abs=0.01) for error in again.errors().values())


def test_requests_of_a_policy_that_is_not_installed_cannot_be_replayed() -> None:
    fleet = calibrate(log(instance(), load(iterations()))).fleet
    with pytest.raises(
        SimulationError, match="the policy that was recorded: unknown policy 'fifoo'; did you mean fifo"
    ):
        replay([request(1.0, 1.1, 1.5, policy="fifoo")], fleet, PolicyCatalogue)


def test_requests_that_were_never_placed_cannot_be_replayed() -> None:
    fleet = calibrate(log(instance(), load(iterations()))).fleet
    with pytest.raises(ValueError, match="no recorded request was placed"):
        replay([request(1.0, 1.1, 1.5, policy="")], fleet, PolicyCatalogue)


# --- files ------------------------------------------------------------------------------------------


def test_a_recording_is_a_fleet(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        json_lines(
            {"format": "sage_log", "version": 1, "began": "x", "part": 1},
            {"kind": "instance", "at_s": 0, "instance": "a", "model": "m", "state": "ready", "role": "general",
             "price_per_hour": 1.0, "max_model_len": 10, "kv_capacity_tokens": 64, "kv_block_size": 16,
             "max_running": 2, "max_batched_tokens": 8},
            {"kind": "load", "at_s": 1, "instance": "a", "heartbeats": 1, "samples": [[0, 1, 1, 5, 0.01]] * 32},
        ),
    )  # fmt: skip
    [found] = described_fleet(path).instances
    assert found.max_running == 2
    assert found.pace.iteration_s(0, 1, 5) == pytest.approx(0.01)
