"""Instances that fail, drain and join while a trace is played."""

from __future__ import annotations

import pytest

from sage_simulator.fleet_event import FleetChange, FleetEvent, parse_event
from sage_simulator.fleet_spec import FleetSpecError, InstanceModel
from sage_simulator.outcome import End
from sage_simulator.report import summarize
from sage_simulator.simulation import Simulation, SimulationResult
from sage_simulator.simulation_settings import SimulationError, SimulationSettings, splitting
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.instance_spec import InstanceRole


def played(trace: list[TracedRequest], fleet: list[InstanceModel], *events: str, pd: str = "never") -> SimulationResult:
    settings = SimulationSettings(scheduler=splitting(pd), events=tuple(map(parse_event, events)))
    result = Simulation(trace, fleet, settings).run()
    for executor in result.executors:
        if executor.up:
            assert (executor.engine.running, executor.engine.waiting, executor.engine.kv_used_tokens) == (0, 0, 0)
    return result


def long_requests(count: int) -> list[TracedRequest]:
    return [TracedRequest(arrival_s=0.01 * n, prompt_tokens=100, output_tokens=1_000) for n in range(count)]


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("120s fail i003", FleetEvent(at_s=120.0, change=FleetChange.FAIL, instance_id="i003")),
        ("120 fail instance-3", FleetEvent(at_s=120.0, change=FleetChange.FAIL, instance_id="i003")),
        (" 1.5s drain i012 ", FleetEvent(at_s=1.5, change=FleetChange.DRAIN, instance_id="i012")),
        (
            "200s add 2xspeed=2",
            FleetEvent(at_s=200.0, change=FleetChange.ADD, added=(InstanceModel(speed=2.0),) * 2),
        ),
        ("200s add 1xA", FleetEvent(at_s=200.0, change=FleetChange.ADD, added=(InstanceModel(speed=3.0),))),
    ],
)
def test_events_are_read(text: str, event: FleetEvent) -> None:
    assert parse_event(text, {"A": InstanceModel(speed=3.0)}) == event


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fail i001", "an event is a time"),
        ("5s explode i001", "an event is a time"),
        ("5s fail everything", "'everything' is no instance"),
        ("5s add 2xB", "no kind 'B'; there are: A"),
        ("5s add some", "number of instances"),
    ],
)
def test_what_is_wrong_with_an_event_is_said(text: str, said: str) -> None:
    with pytest.raises(FleetSpecError, match=said):
        parse_event(text, {"A": InstanceModel()})


def test_requests_on_an_instance_that_fails_go_on_elsewhere_from_their_tokens() -> None:
    result = played(long_requests(4), [InstanceModel(), InstanceModel()], "2s fail i000")
    assert [each.end for each in result.outcomes] == [End.FINISHED] * 4
    moved = [each for each in result.outcomes if each.attempts == 2]
    assert len(moved) == result.failovers == 2
    lost, other = result.executors
    assert (lost.up_until_s, other.up_until_s) == (2.0, None)
    for each in moved:
        assert each.instance_id == "i001"
        assert each.first_token_at is not None
        assert each.first_token_at < 2.0  # delivered tokens stay
    emitted = lost.engine.generated_tokens + other.engine.generated_tokens
    assert emitted == pytest.approx(4 * 1_000, abs=4)  # none is generated twice, but for the step that was cut off


def test_a_request_waits_the_grace_before_it_goes_on() -> None:
    request = TracedRequest(arrival_s=0.0, prompt_tokens=100, output_tokens=200)
    [alone] = played([request], [InstanceModel()] * 2).outcomes
    [moved] = played([request], [InstanceModel()] * 2, "1s fail i000").outcomes
    assert moved.attempts == 2
    assert 0.3 < moved.ended_at - alone.ended_at < 0.4


def test_a_request_fails_after_its_last_attempt() -> None:
    request = TracedRequest(arrival_s=0.0, prompt_tokens=100, output_tokens=2_000)
    events = [f"{1 + n}s fail i{n:03d}" for n in range(5)]
    [outcome] = played([request], [InstanceModel(speed=0.2)] * 6, *events).outcomes
    assert (outcome.end, outcome.attempts) == (End.FAILED, 5)
    assert "5 attempts" in outcome.why


def test_requests_without_any_instance_fail_after_a_while() -> None:
    request = TracedRequest(arrival_s=0.0, prompt_tokens=100, output_tokens=2_000)
    [outcome] = played([request], [InstanceModel()], "1s fail i000").outcomes
    assert outcome.end is End.FAILED
    assert outcome.ended_at == pytest.approx(61.3, abs=0.3)
    assert "no instance has been ready for 60 s" in outcome.why


def test_an_instance_that_drains_finishes_what_it_has_and_takes_nothing_new() -> None:
    trace = [*long_requests(2), TracedRequest(arrival_s=9.0, prompt_tokens=100, output_tokens=10)]
    result = played(trace, [InstanceModel(), InstanceModel()], "1s drain i000")
    assert [each.end for each in result.outcomes] == [End.FINISHED] * 3
    assert result.outcomes[2].instance_id == "i001"
    assert result.failovers == 0
    last_there = max(each.ended_at for each in result.outcomes[:2] if each.instance_id == "i000")
    assert result.executors[0].up_until_s == pytest.approx(last_there, abs=0.2)


def test_an_instance_that_joins_takes_requests_and_is_paid_from_then_on() -> None:
    trace = [TracedRequest(arrival_s=0.1 * n, prompt_tokens=500, output_tokens=300) for n in range(200)]
    result = played(trace, [InstanceModel(max_running=8, price_per_hour=3_600.0)], "5s add 1xprice=3600")
    summary = summarize(result)
    assert [each.instance_id for each in summary.instances] == ["i000", "i001"]
    assert summary.instances[1].requests > 50
    assert summary.instances[1].present_s == pytest.approx(summary.span_s - 5.0)
    assert summary.fleet_cost == pytest.approx(2 * summary.span_s - 5.0)
    assert [each.instances for each in result.timeline][:1] == [1]
    assert result.timeline[-1].instances == 2


@pytest.mark.parametrize("text", ["1s fail i002", "1s drain i009"])
def test_an_event_of_an_instance_that_is_not_there_is_refused(text: str) -> None:
    with pytest.raises(SimulationError, match="there are i000 to i001"):
        played(long_requests(1), [InstanceModel()] * 2, text)


def test_an_event_may_name_an_instance_that_joined() -> None:
    result = played(long_requests(8), [InstanceModel()], "1s add 1x", "2s fail i001", "3s fail i001")
    assert all(each.end is End.FINISHED for each in result.outcomes)


PREFILL, DECODE = InstanceModel(role=InstanceRole.PREFILLING), InstanceModel(role=InstanceRole.DECODING)


@pytest.mark.parametrize("at_s", [0.0501, 0.06, 0.1, 0.2, 0.35, 0.6])
@pytest.mark.parametrize("lost", ["i000", "i002"])
def test_split_requests_survive_the_loss_of_either_side_at_any_time(lost: str, at_s: float) -> None:
    trace = [TracedRequest(arrival_s=0.01 * n, prompt_tokens=4_000, output_tokens=50) for n in range(40)]
    fleet = [PREFILL, PREFILL, DECODE, DECODE]
    result = played(trace, fleet, f"{at_s}s fail {lost}", pd="always")
    assert {each.end for each in result.outcomes} == {End.FINISHED}
    assert any(each.split for each in result.outcomes)
    if lost == "i002":
        assert result.failovers > 0


def test_split_requests_of_a_side_that_drains_finish_there() -> None:
    trace = [TracedRequest(arrival_s=0.01 * n, prompt_tokens=4_000, output_tokens=50) for n in range(20)]
    result = played(trace, [PREFILL, PREFILL, DECODE, DECODE], "0.1s drain i000", "0.1s drain i002", pd="always")
    assert {each.end for each in result.outcomes} == {End.FINISHED}
    assert result.failovers == 0
