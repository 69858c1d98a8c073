"""Split requests as clients and operators see them: one stream, both instances, why, and where the time went."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.side_channel import Message, TcpSideChannel
from executor_svc.runtime.engine_port import Sampling
from sage_client import Completion, InvalidRequestError, PairState, Phase, Scheduled, SplitMode
from sage_local.fleet.ports import free_address
from sagectl.cli import sagectl
from tests.integration.pd.pd_fleet import KV, LENGTH, PdFleet, prompt
from tests.integration.system.local_fleet import LocalExecutor
from tests.integration.telemetry.scraped_page import scrape
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

Pair = tuple[LocalExecutor, LocalExecutor]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What engines asked one another, by kind of message."""
    counts: Counter[str] = Counter()
    ask = TcpSideChannel.ask

    async def counted(self: TcpSideChannel, host: str, port: int, message: Message) -> Message:
        counts[str(message["op"])] += 1
        return await ask(self, host, port, message)

    monkeypatch.setattr(TcpSideChannel, "ask", counted)
    return counts


def phase(done: Completion) -> Phase:
    return done.decisions[0].phase


# --- one request ----------------------------------------------------------------------------------


async def test_a_split_request_is_one_stream_that_says_where_and_why(fleet: PdFleet, pair: Pair) -> None:
    stream = fleet.ask(prompt(1))
    (told,) = [event.decision async for event in stream if isinstance(event, Scheduled)]
    done = await fleet.complete(stream, prompt(1))
    assert (told.phase, told.prefill_instance_id, told.instance_id) == (Phase.DECODING, "p", "d")
    assert told.phase_reason == "every request is split"
    assert any("prefill on p" in reason for reason in told.reasons)
    (explained,) = (await fleet.client.explain(done.request_id)).decisions
    assert (explained.phase_reason, explained.prefill_instance_id) == (told.phase_reason, "p")
    times = done.timings
    parts = [times.queue_s, times.prefill_s, times.transfer_s, times.decode_s]
    assert all(part is not None and part >= 0 for part in parts), times
    assert all(part for part in parts[1:]), times
    assert sum(part or 0.0 for part in parts) == pytest.approx(times.total_s, abs=0.1)
    assert await fleet.fallbacks(done.request_id) == []
    await fleet.free("p", "d")


async def test_each_choice_of_a_request_is_handed_over_by_itself(fleet: PdFleet, pair: Pair) -> None:
    done = await fleet.client.generate(prompt(1), n=3, seed=7, temperature=1.0, max_tokens=LENGTH).result()
    assert [each.phase for each in done.decisions] == [Phase.DECODING] * 3
    for each in done.choices:
        wanted = await answer(prompt(1), Sampling(temperature=1.0, seed=7 + each.index, max_tokens=LENGTH))
        assert_tokens(each.token_ids, wanted.token_ids, f"choice {each.index}")
    await fleet.assert_fallbacks()
    await fleet.free("p", "d")


async def test_both_engines_count_what_was_handed_over(fleet: PdFleet, pair: Pair) -> None:
    await asyncio.gather(*(fleet.answered(number) for number in range(8)))
    await fleet.free("p", "d")
    there = {each.instance_id: each for each in (await fleet.client.list_instances()).instances}
    assert [there[name].kv_pulls for name in "pd"] == [0, 9], "eight, and the warm-up"
    assert [there[name].kv_pulls_failed for name in "pd"] == [0, 0]
    assert [there[name].kv_leases_expired for name in "pd"] == [0, 0]
    page = await fleet.page()
    assert page.total("sage_pd_splits_total") == 8
    await fleet.assert_fallbacks()


async def test_an_executors_own_metrics_count_its_pulls(fleet: PdFleet) -> None:
    listen = free_address()
    await fleet.add_leg("p", "prefilling")
    settings = {"role": "decoding", "telemetry": {"metrics_listen": listen}}
    decode = await fleet.add("d", settings=settings, kv_transfer=KV)
    await fleet.proved()
    decode.engine.inject(Fault(kind=FaultKind.KV_CONNECT))
    await fleet.answered(1)
    page = await scrape(int(listen.rpartition(":")[2]))
    assert page.total("sage_engine_kv_pulls_total", result="fetched") == 1, "the warm-up"
    assert page.total("sage_engine_kv_pulls_total", result="failed") == 1
    assert page.total("sage_engine_kv_leases_expired_total") == 0


async def test_the_first_user_pays_no_handshake(fleet: PdFleet, asked: Counter[str]) -> None:
    await fleet.add_pair(kv={"handshake_s": 0.2})
    assert asked["hello"] == 1
    asked.clear()
    await fleet.answered(1)
    assert asked == {"read": 1, "done": 1}


# --- pairs ----------------------------------------------------------------------------------------


async def test_a_pair_that_is_not_compatible_is_reported_and_not_used(
    fleet: PdFleet, caplog: pytest.LogCaptureFixture
) -> None:
    await fleet.add_leg("p", "prefilling", kv_block_size=32)
    await fleet.add_leg("d", "decoding")
    done = await fleet.answered(1)
    assert phase(done) is Phase.HYBRID
    (pair,) = await fleet.pairs()
    assert (pair.state, pair.reason.partition(":")[0]) == (PairState.FAILED, "not compatible")
    assert pair.reason in " ".join(done.decisions[0].reasons)
    await eventually(lambda: pair.reason in caplog.text, what="the log to say it")
    (condition,) = (await fleet.client.get_prefill_decode()).conditions
    assert pair.reason in condition
    await fleet.health_says(serving=False)
    await fleet.assert_fallbacks(no_pair=1)


async def test_an_incompatible_pair_does_not_keep_a_compatible_one_from_work(fleet: PdFleet) -> None:
    await fleet.add_leg("q", "prefilling", kv_block_size=32)
    await fleet.add_pair()
    assert (await fleet.answered(1)).decisions[0].prefill_instance_id == "p"
    states = {each.prefill_instance_id: each.state for each in await fleet.pairs()}
    assert states == {"p": PairState.USABLE, "q": PairState.FAILED}
    assert (await fleet.client.get_prefill_decode()).conditions == ()


async def test_without_a_connector_nothing_is_split_and_that_is_loud(fleet: PdFleet) -> None:
    await fleet.add("p", settings={"role": "prefilling"})
    await fleet.add("d", settings={"role": "decoding"})
    done = await fleet.answered(1)
    assert phase(done) is Phase.HYBRID
    assert (await fleet.client.get_prefill_decode()).conditions == (
        "no instance of 'sim' that takes prefill legs is ready (without a KV connector: p)",
        "no instance of 'sim' that takes decode legs is ready (without a KV connector: d)",
    )
    await fleet.health_says(serving=False)
    await fleet.assert_fallbacks(no_pair=1)


# --- when ------------------------------------------------------------------------------------------


@pytest.fixture
async def off() -> AsyncIterator[PdFleet]:
    """A pair that could hand over, and a scheduler that does not split."""
    async with PdFleet(mode="never") as made:
        await made.add_leg("p", "prefilling")
        await made.add_leg("d", "decoding")
        yield made


async def told(fleet: PdFleet, *arguments: str) -> Result:
    """``sagectl`` with these arguments."""

    def work() -> Result:
        return CliRunner().invoke(sagectl, [*arguments, "--address", fleet.address])

    return await asyncio.to_thread(work)


async def test_sagectl_pd_switches_splitting_on_and_off(off: PdFleet) -> None:
    assert phase(await off.answered(1)) is Phase.HYBRID
    result = await told(off, "pd", "set", "always")
    assert (result.exit_code, result.output.partition(" (")[0]) == (0, "split: always")
    await off.proved()
    assert phase(await off.answered(2)) is Phase.DECODING
    shown = (await told(off, "pd", "get")).output
    assert "1 split, 0 fallbacks" in shown
    assert "usable" in shown
    assert (await told(off, "pd", "set", "never")).exit_code == 0
    assert phase(await off.answered(3)) is Phase.HYBRID
    assert (await off.client.get_prefill_decode()).config.mode is SplitMode.NEVER


async def test_the_threshold_is_in_tokens_and_set_at_run_time() -> None:
    async with PdFleet(mode="threshold", pd={"prefilling_threshold_ratio": 1000.0}) as fleet:
        await fleet.add_pair()
        below = await fleet.answered(1)
        assert (phase(below), below.decisions[0].phase_reason.partition(",")[0]) == (
            Phase.HYBRID,
            f"{below.usage.prompt_tokens} prompt tokens",
        )
        await told(fleet, "pd", "set", "--threshold-input-tokens", str(below.usage.prompt_tokens))
        at = await fleet.answered(2)
        assert phase(at) is Phase.DECODING
        assert at.decisions[0].phase_reason == (
            f"{at.usage.prompt_tokens} prompt tokens, threshold {below.usage.prompt_tokens}"
        )
        await fleet.assert_fallbacks()


async def test_adaptive_splits_to_relieve_streams_that_run() -> None:
    async with PdFleet(mode="adaptive") as fleet:
        await fleet.add_pair(prefill_tokens_per_s=500.0)
        alone = await fleet.answered(1)
        assert phase(alone) is Phase.HYBRID
        assert "0.000 s less delay for running streams" in alone.decisions[0].phase_reason
        running = [fleet.ask(f"short {number}", max_tokens=2000) for number in range(8)]
        for stream in running:
            async for _ in stream:
                if stream.next_token:
                    break
        relieving = await fleet.answered(2)
        assert phase(relieving) is Phase.DECODING
        await asyncio.gather(*(stream.cancel() for stream in running))
        await fleet.free("p", "d")


@pytest.mark.parametrize(("options", "why"), [({"max_tokens": 1}, "one output token"), ({"prompt_logprobs": 1}, "log")])
async def test_what_a_handoff_cannot_carry_runs_whole(
    fleet: PdFleet, pair: Pair, options: dict[str, Any], why: str
) -> None:
    done = await fleet.answered(1, **options)
    assert phase(done) is Phase.HYBRID
    assert done.decisions[0].phase_reason.startswith(f"never split: {why}")
    await fleet.assert_fallbacks()


# --- roles ----------------------------------------------------------------------------------------


async def test_sagectl_role_changes_what_an_instance_is_given(off: PdFleet) -> None:
    assert (await off.answered(1)).instance_id == "d"
    result = await told(off, "role", "p", "general")
    assert (result.exit_code, result.output) == (0, "p: general\n")
    assert (await off.answered(2)).instance_id == "p"
    await told(off, "role", "d", "prefilling")
    await told(off, "role", "p", "hybrid")
    await told(off, "pd", "set", "always")
    await off.proved()
    done = await off.answered(3)
    assert (done.decisions[0].prefill_instance_id, done.instance_id) == ("d", "p"), "the other way round"


async def test_hybrid_instances_take_either_leg(fleet: PdFleet) -> None:
    await fleet.add_leg("h", "hybrid")
    await fleet.add_leg("i", "hybrid")
    await fleet.proved(2)
    done = await fleet.answered(1)
    assert {done.decisions[0].prefill_instance_id, done.instance_id} == {"h", "i"}


async def test_an_embedding_instance_is_refused_generation(fleet: PdFleet) -> None:
    embedder = await fleet.add_leg("e", "embedding")
    with pytest.raises(InvalidRequestError, match="'sim' embeds; it does not generate"):
        await fleet.answered(1)
    assert embedder.engine.load().prompt_tokens_total == 0


@pytest.mark.parametrize(("started", "wanted"), [("embedding", "general"), ("general", "embedding")])
async def test_whether_an_executor_embeds_is_not_set_while_it_runs(fleet: PdFleet, started: str, wanted: str) -> None:
    await fleet.add_leg("e", started)
    result = await told(fleet, "role", "e", wanted)
    assert result.exit_code == 2
    assert f"role: the executor of 'e' was started as {started} and cannot become {wanted}" in result.output
    assert (await fleet.instance("e")).role.value == started
