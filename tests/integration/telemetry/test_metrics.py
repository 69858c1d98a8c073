"""What Prometheus scrapes, and what an OTLP receiver is pushed: the same instruments, with the same values."""

from __future__ import annotations

import asyncio
import urllib.error
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from sage_telemetry.catalogue import BOTH, EXECUTOR, SCHEDULER
from sage_telemetry.instrument import Instrument, Kind
from scheduler_svc.domain.instance_state import InstanceState
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.telemetry.caller import Caller
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.integration.telemetry.scraped_page import Page, fetch, scrape
from tests.support.eventually import eventually
from tests.support.otlp_values import values


@pytest.fixture
def caller(fleet: LocalFleet) -> Caller:
    return Caller(fleet=fleet)


async def scheduler_page(fleet: LocalFleet) -> Page:
    return await scrape(fleet.scheduler.telemetry.exports.metrics_port)


async def test_both_pages_hold_every_instrument_of_the_catalogue(
    fleet: LocalFleet, one: LocalExecutor, executor_port: int
) -> None:
    assert missing(await scheduler_page(fleet), (*BOTH, *SCHEDULER)) == []
    assert missing(await scrape(executor_port), (*BOTH, *EXECUTOR)) == []


async def test_the_first_failover_refusal_and_miss_of_a_model_are_a_rise_from_zero(
    fleet: LocalFleet, one: LocalExecutor
) -> None:
    page = await scheduler_page(fleet)
    for name in ("sage_failovers_total", "sage_requests_total", "sage_slo_requests_total"):
        assert {labels["model"] for labels in page.label_sets(name)} == {"sim", "(unknown)"}
        assert page.total(name) == 0


async def test_a_finished_request_is_in_every_figure_it_concerns(
    fleet: LocalFleet, one: LocalExecutor, caller: Caller
) -> None:
    await caller.answer("Once upon a time", max_tokens=6)
    page = await scheduler_page(fleet)
    own = {"model": "sim", "priority": "normal"}
    assert page.total("sage_requests_total", **own, outcome="finished", reason="length") == 1
    assert page.total("sage_request_duration_seconds_count", **own, outcome="finished") == 1
    assert page.total("sage_request_time_to_first_token_seconds_count", **own, policy="fifo") == 1
    assert page.total("sage_request_queue_time_seconds_count", **own, policy="fifo") == 1
    assert page.total("sage_request_time_per_output_token_seconds_count", **own) == 1
    assert page.total("sage_tokens_total", model="sim", kind="output") == 6
    assert page.total("sage_tokens_total", model="sim", kind="prompt") > 0
    assert page.total("sage_slo_requests_total", **own, target="any", result="met") == 1
    assert page.total("sage_decisions_total", policy="fifo", phase="hybrid", reason="earliest_finish") == 1
    assert page.total("sage_decision_duration_seconds_count") == 1
    assert page.total("sage_prediction_error_ratio_count", quantity="first_token") == 1
    assert page.total("sage_prediction_error_ratio_count", quantity="finish") == 1


async def test_engine_time_costs_what_its_instance_does(
    fleet: LocalFleet, telemetry: dict[str, Any], caller: Caller
) -> None:
    await fleet.add("one", settings={"telemetry": telemetry, "price_per_hour": 3_600.0})
    await caller.answer("Once upon a time", max_tokens=6)

    async def told() -> Page | None:
        page = await scheduler_page(fleet)
        return page if page.total("sage_request_cost_total") else None

    page = await eventually(told, what="the cost")
    assert page.total("sage_instance_price_per_hour", instance_id="one") == 3_600
    cost = page.total("sage_request_cost_total", model="sim", priority="normal")
    assert 0.006 < cost < page.total("sage_request_duration_seconds_sum") + 0.05, "one unit a second, six steps of a ms"


async def test_both_services_tell_how_late_their_event_loop_is(
    fleet: LocalFleet, one: LocalExecutor, executor_port: int
) -> None:
    async def both() -> bool:
        pages = [await scheduler_page(fleet), await scrape(executor_port)]
        return all(page.total("sage_event_loop_lag_seconds_count") for page in pages)

    await eventually(both, what="lag")


async def test_output_that_a_client_does_not_take_is_a_backlog(fleet: LocalFleet, caller: Caller) -> None:
    await fleet.add("one", max_model_len=100_000, kv_capacity_tokens=200_000)
    call = caller.call("Once upon a time", max_tokens=90_000)
    await call.read()

    async def waits() -> bool:
        return (await scheduler_page(fleet)).total("sage_relay_backlog_tokens") > 0

    await eventually(waits, within_s=30, what="a backlog")
    call.cancel()


async def test_histograms_are_cumulative_and_end_with_infinity(
    fleet: LocalFleet, one: LocalExecutor, caller: Caller
) -> None:
    await caller.answer("Once upon a time", max_tokens=6)
    page = await scheduler_page(fleet)
    samples = page.families["sage_request_duration_seconds"].samples
    counts = [s.value for s in samples if s.name.endswith("_bucket")]
    assert counts == sorted(counts)
    assert [s.labels["le"] for s in samples if s.name.endswith("_bucket")][-1] == "+Inf"
    assert counts[-1] == page.total("sage_request_duration_seconds_count") == 1


async def test_a_refused_model_does_not_become_a_label(fleet: LocalFleet, one: LocalExecutor, caller: Caller) -> None:
    for name in ("nonsense-1", "nonsense-2"):
        await caller.refused("Once upon a time", model=name)
    page = await scheduler_page(fleet)
    refused = {"model": "(unknown)", "outcome": "refused", "reason": "unknown_model"}
    assert page.total("sage_requests_total", **refused) == 2
    assert page.total("sage_slo_requests_total", model="(unknown)") == 0, "a typo is the caller's own"
    assert "nonsense" not in str(page.families)


async def test_the_callers_own_mistake_does_not_spoil_attainment(
    fleet: LocalFleet, one: LocalExecutor, caller: Caller
) -> None:
    await caller.refused("Once upon a time", temperature=-1.0, model="sim")
    page = await scheduler_page(fleet)
    assert page.total("sage_requests_total", model="sim", outcome="refused", reason="invalid_request") == 1
    assert page.total("sage_slo_requests_total") == 0


async def test_a_failover_counts_with_its_cause_and_the_pause_it_made(
    fleet: LocalFleet, telemetry: dict[str, Any], caller: Caller
) -> None:
    for name in ("a", "b"):
        await fleet.add(name, settings={"telemetry": telemetry})
    fleet.executors["a"].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=3))
    await caller.answer("Once upon a time", max_tokens=8, preferred_instance="a")
    page = await scheduler_page(fleet)
    assert page.total("sage_failovers_total", model="sim", cause="failed") == 1
    assert page.total("sage_failover_gap_seconds_count", model="sim") == 1
    assert page.total("sage_request_queue_time_seconds_count") == 1, "once per request"
    assert page.total("sage_requests_total") == 1


async def test_the_fleet_is_told_as_it_is(fleet: LocalFleet, one: LocalExecutor, caller: Caller) -> None:
    call = caller.call("Once upon a time", max_tokens=4_000)
    async for event in call:
        if event.HasField("tokens"):
            break
    page = await scheduler_page(fleet)
    assert page.total("sage_instances", model="sim", state="ready") == 1
    assert page.total("sage_instances", model="sim", state="stalled") == 0
    assert len(page.label_sets("sage_instances")) == len(InstanceState)
    assert page.label_sets("sage_instance_state") == [
        {"instance_id": "one", "model": "sim", "role": "general", "state": "ready"}
    ]
    assert page.total("sage_requests_running", model="sim") == 1
    assert page.total("sage_relay_clients") == 1
    assert page.total("sage_instance_kv_reserved_tokens", instance_id="one") > 0
    assert page.total("sage_instance_requests", instance_id="one", state="reserved") == 1
    assert page.total("sage_policy_active", policy="fifo") == 1
    call.cancel()


async def test_the_shadow_policys_choices_are_counted_while_there_is_one(
    fleet: LocalFleet, one: LocalExecutor, caller: Caller
) -> None:
    await fleet.client.set_shadow_policy("priority")
    await fleet.client.generate("Once upon a time", max_tokens=2).result()
    page = await scheduler_page(fleet)
    assert page.total("sage_shadow_decisions_total", shadow="priority", result="same") == 1
    assert len(page.label_sets("sage_shadow_decisions_total")) == 4
    chosen = page.total("sage_shadow_predicted_total", shadow="priority", choice="in_force", figure="finish")
    assert page.total("sage_shadow_predicted_total", shadow="priority", choice="shadow", figure="finish") == chosen > 0
    await fleet.client.set_shadow_policy("")
    assert (await scheduler_page(fleet)).label_sets("sage_shadow_decisions_total") == []


async def test_lines_of_the_recording_are_counted(telemetry: dict[str, Any], tmp_path: Path) -> None:
    async with LocalFleet(telemetry=telemetry, recording={"file": tmp_path / "log.jsonl"}) as fleet:
        page = await scheduler_page(fleet)
        assert {labels["result"] for labels in page.label_sets("sage_recording_lines_total")} == {
            "written",
            "dropped_queue_full",
            "dropped_not_written",
        }


async def test_an_instance_that_is_forgotten_leaves_the_page(telemetry: dict[str, Any]) -> None:
    async with LocalFleet(telemetry=telemetry, instance={"forget_after_s": 0.1}) as fleet:
        executor = await fleet.add("one")
        executor.terminate()
        await executor.exit_status()

        async def gone() -> bool:
            return not (await scheduler_page(fleet)).label_sets("sage_instance_state")

        await eventually(gone, what="the instance to be forgotten")


async def test_the_executor_tells_of_its_attempts_and_its_engine(
    one: LocalExecutor, caller: Caller, executor_port: int
) -> None:
    await caller.answer("Once upon a time", max_tokens=6)

    async def told() -> Page | None:
        page = await scrape(executor_port)
        return page if page.total("sage_engine_inter_token_latency_seconds_count") else None

    page = await eventually(told, what="iterations")
    assert page.total("sage_attempts_total", cause="finished") == 1
    assert page.total("sage_attempt_time_to_first_token_seconds_count") == 1
    assert page.total("sage_engine_tokens_total", kind="generation") == 6
    assert page.total("sage_engine_state", state="ready") == 1
    assert page.total("sage_session_connected") == 1
    assert page.total("sage_sessions_total") == 1
    assert page.label_sets("sage_build_info")[0]["instance_id"] == "one"


async def test_adapters_are_on_both_pages(
    fleet: LocalFleet, telemetry: dict[str, Any], caller: Caller, executor_port: int
) -> None:
    pages = {**telemetry, "metrics_listen": f"127.0.0.1:{executor_port}"}
    await fleet.add("one", settings={"telemetry": pages}, adapter_slots=2)
    await fleet.client.add_adapter("legal", "org/legal")
    await fleet.client.add_adapter("broken", "/no/such/directory")
    await fleet.client.generate("Once upon a time", adapter="legal", max_tokens=6).result()

    async def told() -> Page | None:
        page = await scheduler_page(fleet)
        return page if page.total("sage_instance_adapters", state="failed") else None

    page = await eventually(told, what="the adapter that does not load")
    assert page.total("sage_instance_adapters", instance_id="one", model="sim", state="loaded") == 1
    assert page.total("sage_adapter_requests_total", model="sim", adapter="legal", outcome="finished") == 1
    own = await scrape(executor_port)
    assert own.total("sage_engine_adapter_loads_total", result="loaded") == 1
    assert own.total("sage_engine_adapter_loads_total", result="unusable") == 1
    assert own.total("sage_engine_adapter_load_duration_seconds_count") == 1


async def test_the_executors_page_holds_what_the_engines_library_registered(
    one: LocalExecutor, executor_port: int
) -> None:
    """vLLM registers its metrics with prometheus_client's own registry."""
    gauge = prometheus_client.Gauge("vllm:num_requests_running", "as vLLM has it", ["model_name"])
    try:
        gauge.labels("sim").set(3)
        page = await scrape(executor_port)
        assert page.total("vllm:num_requests_running", model_name="sim") == 3
        assert page.total("process_cpu_seconds_total") > 0
    finally:
        prometheus_client.REGISTRY.unregister(gauge)


async def test_what_is_pushed_is_what_is_scraped(
    fleet: LocalFleet, receiver: OtlpReceiver, one: LocalExecutor, caller: Caller
) -> None:
    await caller.answer("Once upon a time", max_tokens=6)
    scheduler = await eventually(lambda: pushed(receiver, "sage-scheduler", "sage.requests"), what="a push")
    assert scheduler["sage.requests"].sum.is_monotonic
    points = scheduler["sage.requests"].sum.data_points
    assert [(values(p.attributes), p.as_double) for p in points if p.as_double] == [
        ({"model": "sim", "priority": "normal", "outcome": "finished", "reason": "length"}, 1.0)
    ]
    duration = scheduler["sage.request.duration"].histogram.data_points[0]
    page = await scheduler_page(fleet)
    assert duration.count == page.total("sage_request_duration_seconds_count")
    assert duration.sum == page.total("sage_request_duration_seconds_sum")
    executor = await eventually(lambda: pushed(receiver, "sage-executor", "sage.engine.state"), what="a push")
    assert executor["sage.engine.kv.capacity_tokens"].gauge.data_points[0].as_double > 0


async def test_the_page_is_at_its_path_only(fleet: LocalFleet) -> None:
    port = fleet.scheduler.telemetry.exports.metrics_port
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(fetch, port, "/")


def pushed(receiver: OtlpReceiver, service: str, wanted: str) -> dict[str, Any] | None:
    metrics = receiver.metrics.get(service, {})
    return metrics if wanted in metrics else None


def missing(page: Page, instruments: tuple[Instrument, ...]) -> list[str]:
    names = {each.prometheus_name: each for each in instruments}
    return [name for name, each in names.items() if _family(name, each) not in page.families]


def _family(name: str, instrument: Instrument) -> str:
    return name.removesuffix("_total") if instrument.kind is Kind.COUNTER else name
