"""The two legs of a split request, each on an executor of its own, and a request that is not split."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings
from executor_svc.engine.simulated.side_channel import MemorySideChannel
from executor_svc.runtime.attempts import streamed_run
from executor_svc.runtime.engine_port import EngineOutput, EngineRequest, FinishReason, Sampling
from executor_svc.runtime.messages.commands import Continuation, ContinuationMode, Phase, TextOptions
from executor_svc.runtime.messages.outputs import (
    Accepted,
    EndCause,
    Ended,
    Piece,
    Rejected,
    RejectReason,
    StepFrame,
)
from executor_svc.transport.output_messages import output_requests
from sage.controlplane.v1 import executor_pb2
from sage_common.clock import AsyncioClock
from tests.support.eventually import eventually
from tests.unit.executor.workbench import LONG, Workbench, workbench

LEASE_S = 20.0
PROMPT = [300 + n for n in range(100)]
ELABORATE = Sampling(temperature=0.7, seed=3, max_tokens=40, min_tokens=5, logprobs=2, stop_token_ids=(5,))


@dataclass
class Split:
    prefill: Workbench
    decode: Workbench

    async def prefilled(self, sampling: Sampling = LONG) -> Ended:
        number = self.prefill.assign(sampling, prompt_token_ids=PROMPT, phase=Phase.PREFILLING)
        return await self.prefill.ended(number)

    def decoding(self, prefilled: Ended, sampling: Sampling = LONG, *, kv_lease_s: float = LEASE_S) -> int:
        """The decode leg's number.  The parameters travel as JSON."""
        return self.decode.assign(
            sampling,
            prompt_token_ids=PROMPT,
            phase=Phase.DECODING,
            kv_transfer_params=json.loads(json.dumps(prefilled.kv_transfer_params)),
            kv_lease_s=kv_lease_s,
        )

    @property
    def kv_used(self) -> tuple[int, int]:
        return self.prefill.engine.load().kv_used_tokens, self.decode.engine.load().kv_used_tokens


@pytest.fixture
async def split() -> AsyncIterator[Split]:
    channel = MemorySideChannel()
    transfer = SimulatedKvTransferSettings(
        connector="NixlConnector", handshake_s=0.0, pull_base_s=0.0, lease_s=LEASE_S, bandwidth_bytes_per_s=1e12
    )
    async with AsyncExitStack() as stack:
        ends = [
            await stack.enter_async_context(workbench(kv_transfer=transfer, clock=AsyncioClock(), channel=channel))
            for _ in range(2)
        ]
        yield Split(prefill=ends[0], decode=ends[1])


async def test_a_prefill_leg_sends_nothing_but_its_end(split: Split) -> None:
    ended = await split.prefilled()
    assert [type(message) for message in split.prefill.messages] == [Accepted, Ended]
    assert (ended.cause, ended.finish_reason) == (EndCause.FINISHED, FinishReason.LENGTH)
    assert (ended.total_tokens, ended.trailing_text) == (0, "")
    assert ended.kv_transfer_params
    assert split.prefill.engine.load().generation_tokens_total == 1


async def test_a_prefill_leg_asks_the_engine_for_nothing_but_the_prompt(split: Split) -> None:
    sampling = Sampling(temperature=1.0, seed=3, max_tokens=40, min_tokens=9, logprobs=2, allowed_token_ids=(5,))
    ended = await split.prefilled(sampling)
    assert ended.cause is EndCause.FINISHED
    assert not any(isinstance(message, Piece) for message in split.prefill.messages)


def on_the_wire(ended: Ended) -> executor_pb2.AssignmentEnded:
    frame = StepFrame(epoch=ended.attempt.epoch, ended=[ended])
    (message,) = output_requests(frame, step_frames=True)
    return message.step.ended[0]


async def test_the_lease_on_the_wire_is_what_is_left_of_it(split: Split) -> None:
    ended = await split.prefilled()
    first = on_the_wire(ended).kv_lease.ToTimedelta().total_seconds()
    await asyncio.sleep(0.05)
    later = on_the_wire(ended).kv_lease.ToTimedelta().total_seconds()
    assert LEASE_S - 1.0 < first <= LEASE_S
    assert later <= first - 0.05


async def test_an_executor_that_reads_late_of_a_prefill_knows_that_the_lease_runs_already(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = split.prefill.engine
    generate = engine.generate

    async def read_late(request: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
        async for output in generate(request):
            output.kv_kept_s = 15.0
            yield output

    monkeypatch.setattr(engine, "generate", read_late)
    left = on_the_wire(await split.prefilled()).kv_lease.ToTimedelta().total_seconds()
    assert left <= LEASE_S - 15.0


@pytest.mark.parametrize("sampling", [LONG, ELABORATE])
async def test_the_decode_leg_says_what_an_unsplit_request_would(split: Split, sampling: Sampling) -> None:
    whole, text, _ = await split.prefill.run(sampling, prompt_token_ids=PROMPT)
    token_ids, decoded, ended = await split.decode.result(split.decoding(await split.prefilled(sampling), sampling))
    assert (token_ids, decoded) == (whole, text)
    assert (ended.cause, ended.kv_unclaimed) == (EndCause.FINISHED, False)
    assert ended.message == ""
    assert ended.kv_transfer_params is None
    assert split.decode.engine.load().kv_pulls == 1
    await eventually(lambda: split.kv_used == (0, 0))


async def test_stop_strings_work_on_the_decode_leg(split: Split) -> None:
    _, text, _ = await split.prefill.run(prompt_token_ids=PROMPT)
    stop = text[20:24]
    number = split.decode.assign(
        text=TextOptions(stop=(stop,)),
        prompt_token_ids=PROMPT,
        phase=Phase.DECODING,
        kv_transfer_params=(await split.prefilled()).kv_transfer_params,
        kv_lease_s=LEASE_S,
    )
    _, said, ended = await split.decode.result(number)
    assert (said, ended.stop_string) == (text[: text.index(stop)], stop)


async def test_kv_that_cannot_be_fetched_is_computed_and_the_end_says_so(
    split: Split, caplog: pytest.LogCaptureFixture
) -> None:
    whole, _, _ = await split.prefill.run(prompt_token_ids=PROMPT)
    prefilled = await split.prefilled()
    split.decode.engine.inject(Fault(kind=FaultKind.KV_CONNECT))
    token_ids, _, ended = await split.decode.result(split.decoding(prefilled))
    assert token_ids == whole
    assert ended.cause is EndCause.FINISHED
    assert "could not be fetched" in ended.message
    assert "could not be fetched" in caplog.text


async def test_corrupt_kv_is_seen_in_the_tokens(split: Split) -> None:
    whole, _, _ = await split.prefill.run(prompt_token_ids=PROMPT)
    prefilled = await split.prefilled()
    split.decode.engine.inject(Fault(kind=FaultKind.KV_CORRUPT))
    token_ids, _, _ = await split.decode.result(split.decoding(prefilled))
    assert token_ids != whole


async def test_a_decode_leg_with_too_little_left_of_its_lease_is_rejected(split: Split) -> None:
    number = split.decoding(await split.prefilled(), kv_lease_s=0.9)
    rejected: Rejected = await split.decode.until(Rejected, number)
    assert rejected.reason is RejectReason.KV_LEASE_EXPIRED


@pytest.mark.parametrize("params", [{}, {"sage_seal": "x:y", "host": "h"}])
async def test_a_handoff_that_was_changed_fails_and_is_not_the_callers_fault(
    split: Split, params: dict[str, str]
) -> None:
    number = split.decode.assign(phase=Phase.DECODING, kv_transfer_params=params, kv_lease_s=LEASE_S)
    ended = await split.decode.ended(number)
    assert (ended.cause, ended.kv_unclaimed) == (EndCause.FAILED, True)
    assert "handoff" in ended.message


async def test_a_handoff_of_another_prompt_fails(split: Split) -> None:
    params = (await split.prefilled()).kv_transfer_params
    number = split.decode.assign(
        prompt_token_ids=PROMPT[1:], phase=Phase.DECODING, kv_transfer_params=params, kv_lease_s=LEASE_S
    )
    ended = await split.decode.ended(number)
    assert (ended.cause, ended.message) == (EndCause.FAILED, "the handoff belongs to another prompt")


async def test_a_cancelled_prefill_leg_leaves_nothing_behind(split: Split) -> None:
    split.prefill.engine.inject(Fault(kind=FaultKind.HANG))
    number = split.prefill.assign(prompt_token_ids=PROMPT, phase=Phase.PREFILLING)
    split.prefill.cancel(number)
    ended = await split.prefill.ended(number)
    assert (ended.cause, ended.kv_transfer_params) == (EndCause.CANCELLED, None)
    split.prefill.engine.clear_faults()
    assert split.kv_used == (0, 0)


async def test_a_prefill_leg_cancelled_when_it_is_just_over_says_what_it_left_behind(split: Split) -> None:
    """The engine has ended it, and its reader has not read that yet."""
    number = split.prefill.assign(prompt_token_ids=PROMPT, phase=Phase.PREFILLING)
    await cancelled_with_its_last_step(split.prefill, number)
    ended = await split.prefill.ended(number)
    assert ended.cause is EndCause.FINISHED
    assert ended.kv_transfer_params is not None
    assert split.kv_used[0] > 0
    assert await split.decode.engine.release_kv(ended.kv_transfer_params)
    await eventually(lambda: split.kv_used == (0, 0))


async def cancelled_with_its_last_step(bench: Workbench, number: int) -> None:
    """Its output is queued, and its reader runs only after the cancel."""
    engine = bench.engine
    generated = engine.load().generation_tokens_total
    while engine.load().generation_tokens_total == generated:
        await asyncio.sleep(0)
    bench.cancel(number)


async def test_a_prefill_leg_past_its_deadline_leaves_nothing_behind(split: Split) -> None:
    split.prefill.engine.inject(Fault(kind=FaultKind.SLOW, factor=1e9))
    number = split.prefill.assign(prompt_token_ids=PROMPT, phase=Phase.PREFILLING, remaining_s=0.05)
    assert (await split.prefill.ended(number)).cause is EndCause.DEADLINE
    assert split.kv_used == (0, 0)


async def test_an_engine_that_cannot_stop_a_prefill_leg_has_it_aborted(
    split: Split, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def stuck(engine_request_id: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(split.prefill.engine, "stop", stuck)
    monkeypatch.setattr(streamed_run, "STOP_TIMEOUT_S", 0.01)
    split.prefill.engine.inject(Fault(kind=FaultKind.SLOW, factor=1e9))
    number = split.prefill.assign(prompt_token_ids=PROMPT, phase=Phase.PREFILLING)
    await asyncio.sleep(0)
    split.prefill.cancel(number)
    assert (await split.prefill.ended(number)).cause is EndCause.CANCELLED
    assert "did not stop a prefill" in caplog.text
    assert split.kv_used == (0, 0)


async def test_a_decode_leg_cancelled_before_its_first_token_frees_both_ends(split: Split) -> None:
    split.decode.engine.inject(Fault(kind=FaultKind.KV_SLOW, factor=1e9))
    number = split.decoding(await split.prefilled())
    await eventually(lambda: split.kv_used[1] > 0)
    split.decode.cancel(number)
    ended = await split.decode.ended(number)
    assert (ended.cause, ended.kv_unclaimed) == (EndCause.CANCELLED, False)
    await eventually(lambda: split.kv_used == (0, 0))


async def test_a_decode_leg_cancelled_before_the_engine_had_it_says_that_nobody_lets_the_other_end_know(
    split: Split,
) -> None:
    prefilled = await split.prefilled()
    number = split.decoding(prefilled)
    split.decode.cancel(number)
    ended = await split.decode.ended(number)
    assert (ended.cause, ended.kv_unclaimed) == (EndCause.CANCELLED, True)
    assert on_the_wire(ended).kv_unclaimed
    assert split.kv_used[0] > 0
    assert prefilled.kv_transfer_params is not None
    assert await split.decode.engine.release_kv(prefilled.kv_transfer_params)
    await eventually(lambda: split.kv_used == (0, 0))


async def test_a_request_that_goes_on_from_delivered_tokens_has_no_handoff(split: Split) -> None:
    ended = await split.prefilled()
    number = split.decode.assign(
        prompt_token_ids=PROMPT,
        phase=Phase.DECODING,
        kv_transfer_params=ended.kv_transfer_params,
        kv_lease_s=LEASE_S,
        continuation=Continuation(emitted_token_ids=[300], emitted_text_length=0, mode=ContinuationMode.RESUME),
    )
    assert (await split.decode.ended(number)).field_name == "kv_transfer_params"


@pytest.mark.parametrize("more", [{"phase": Phase.PREFILLING}, {"kv_transfer_params": {"any": "thing"}}])
async def test_an_engine_without_a_connector_takes_no_leg(more: dict[str, Any]) -> None:
    async with workbench() as bench:
        number = bench.assign(**more)
        rejected: Rejected = await bench.until(Rejected, number)
        assert rejected.reason is RejectReason.NOT_READY
        assert "KV connector" in rejected.message


async def test_an_embedding_instance_generates_for_nobody() -> None:
    async with workbench(generates=False) as bench:
        rejected: Rejected = await bench.until(Rejected, bench.assign())
        assert "role embedding" in rejected.message
