"""A request that one engine prefills and another decodes: one tree through both, and its figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from scheduler_svc.domain.pd.pairs import PairState
from tests.integration.system.local_fleet import LocalFleet
from tests.integration.telemetry.caller import Caller
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.integration.telemetry.scraped_page import Page, scrape
from tests.support.eventually import eventually

LONG = "Once upon a time there was a prompt. " * 8
HANDOVER = {"connector": "NixlConnector", "handshake_s": 0.001, "pull_base_s": 0.005}
SPLITTING = {"enabled": True, "routing_policy": "always"}


@pytest.fixture
async def pair(telemetry: dict[str, Any]) -> AsyncIterator[LocalFleet]:
    """A prefill and a decode instance that have handed over once, and a scheduler that splits every request."""
    async with LocalFleet(telemetry=telemetry, pd_separation=SPLITTING) as fleet:
        for name, role in (("p", "prefilling"), ("d", "decoding")):
            await fleet.add(name, settings={"telemetry": telemetry, "role": role}, kv_transfer=HANDOVER)
        pairs = fleet.scheduler.control.scheduler.pairs()
        await eventually(lambda: any(pair.state is PairState.USABLE for pair in pairs), what="a usable pair")
        yield fleet


async def test_both_legs_are_in_one_tree(pair: LocalFleet, receiver: OtlpReceiver) -> None:
    caller = Caller(fleet=pair)
    await caller.answer(LONG, max_tokens=6)
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.execute", "sage.execute")
    assert tree.drawn(caller.span_id) == [
        "sage.request",
        [
            "sage.admission",
            "sage.queue",
            "sage.decision",
            "sage.attempt",
            ["sage.execute", ["sage.prefill"]],
            "sage.attempt",
            ["sage.execute", ["sage.kv_transfer", "sage.decode"]],
        ],
    ]
    prefill, decode = tree.all("sage.attempt")
    assert [each.attributes["sage.instance.id"] for each in (prefill, decode)] == ["p", "d"]
    assert [each.attributes["sage.phase"] for each in (prefill, decode)] == ["prefilling", "decoding"]
    assert (prefill.links, decode.links) == ([], [])
    told = tree.one("sage.decision").attributes
    assert (told["sage.phase"], told["sage.prefill.instance.id"], told["sage.instance.id"]) == ("decoding", "p", "d")
    assert not any(span.failed or "sage.kv.recomputed" in span.attributes for span in tree.spans)


async def test_a_prefill_leg_that_failed_is_linked_to_what_makes_up_for_it(
    pair: LocalFleet, receiver: OtlpReceiver
) -> None:
    pair.executors["p"].engine.inject(Fault(kind=FaultKind.ERROR))
    caller = Caller(fleet=pair)
    await caller.answer(LONG, max_tokens=6)
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.execute", "sage.execute")
    failed, whole = tree.all("sage.attempt")
    assert (failed.attributes["sage.phase"], whole.attributes["sage.phase"]) == ("prefilling", "hybrid")
    assert (failed.failed, whole.failed, tree.one("sage.request").failed) == (True, False, False)
    assert whole.links == [failed.span_id]
    page = await scheduler_page(pair)
    assert page.total("sage_pd_fallbacks_total", reason="prefill_failed") == page.total("sage_pd_fallbacks_total") == 1


async def test_nothing_of_a_split_prompt_leaks(pair: LocalFleet, receiver: OtlpReceiver) -> None:
    caller = Caller(fleet=pair)
    output = await caller.answer(LONG, max_tokens=12)
    await receiver.until(caller.trace_id, "sage.request", "sage.execute", "sage.execute")
    assert not any(word.encode() in raw for raw in receiver.raw for word in ("a prompt", output))


async def test_a_handoff_is_in_every_figure_it_concerns(pair: LocalFleet) -> None:
    await Caller(fleet=pair).answer(LONG, max_tokens=6)
    page = await scheduler_page(pair)
    assert page.total("sage_pd_enabled") == 1
    assert page.total("sage_pd_conditions") == 0
    assert page.total("sage_pd_splits_total") == 1
    assert page.total("sage_pd_fallbacks_total") == 0
    assert page.total("sage_pd_pairs", state="usable") == 1
    assert page.total("sage_pd_handoff_duration_seconds_count", model="sim") == 1
    assert page.total("sage_pd_handoff_duration_seconds_sum", model="sim") >= 0.005
    assert page.total("sage_decisions_total", phase="decoding") == 1
    assert page.total("sage_requests_total", outcome="finished") == 1, "a warm-up is nobody's request"


async def test_blocks_that_cannot_be_fetched_are_counted_with_their_reason_and_seen_in_the_tree(
    pair: LocalFleet, receiver: OtlpReceiver
) -> None:
    pair.executors["d"].engine.inject(Fault(kind=FaultKind.KV_CONNECT))
    caller = Caller(fleet=pair)
    await caller.answer(LONG, max_tokens=6)
    tree = await receiver.until(caller.trace_id, "sage.request", "sage.execute", "sage.execute", "sage.kv_transfer")
    prefill, decode = tree.all("sage.execute")
    assert "sage.kv.recomputed" not in prefill.attributes
    assert decode.attributes["sage.kv.recomputed"] is True
    assert tree.one("sage.kv_transfer").attributes == {"sage.kv.recomputed": True}
    page = await scheduler_page(pair)
    assert page.total("sage_pd_fallbacks_total", reason="recomputed") == page.total("sage_pd_fallbacks_total") == 1


async def test_a_decode_instance_without_a_partner_is_told_loudly(telemetry: dict[str, Any]) -> None:
    async with LocalFleet(telemetry=telemetry, pd_separation=SPLITTING) as fleet:
        await fleet.add("d", settings={"role": "decoding"}, kv_transfer=HANDOVER)
        await Caller(fleet=fleet).answer(LONG, max_tokens=6)
        page = await scheduler_page(fleet)
    assert (page.total("sage_pd_enabled"), page.total("sage_pd_conditions")) == (1, 1)
    assert page.total("sage_pd_fallbacks_total", reason="no_pair") == page.total("sage_pd_fallbacks_total") == 1


async def scheduler_page(fleet: LocalFleet) -> Page:
    return await scrape(fleet.scheduler.telemetry.exports.metrics_port)
