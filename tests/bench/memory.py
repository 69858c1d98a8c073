"""Peak memory of scheduler and executor at each bound in bytes, with requests beyond it and with three times as many.

What is bounded is flat: the second figure is about the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from sage.controlplane.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from sage_wire.protocol import MAX_MESSAGE_BYTES
from scheduler_svc.transport.request_limits import ALLOWED_IDS_LIMIT
from scheduler_svc.transport.take_limit import TAKE_LIMIT_S
from tests.bench.control_plane import ControlPlane, control_plane
from tests.bench.engines import Engine
from tests.bench.peak_memory import PeakMemory
from tests.bench.report import Row

TIMES = 3  # as many requests in the second round
CONCURRENT = 16
LONG_PROMPT = 100_000  # tokens, 400 KB in the scheduler
VOCABULARY = 2_048
MODEL_LEN = 131_072
SETTLE_S = 1.0
TIMEOUT_S = 300.0
NOT_READING = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0)]

Stub = Any
Send = Callable[[Stub, int], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One bound, and the requests that go beyond it."""

    name: str
    bound: str  # in words
    requests: int  # in the first round
    send: Send
    of: tuple[str, ...]  # the processes that keep what is bounded
    flags: tuple[str, ...] = ()  # of the scheduler
    running: int = CONCURRENT  # sequences of the engine
    step_s: float = 0.001
    channel: Sequence[tuple[str, Any]] = ()  # options of the clients' channel


async def measure(*, scale: float = 1.0) -> list[Row]:
    """Measure every case with ``scale`` times its requests."""
    rows = []
    for case in CASES:
        rows += await _measure(case, max(1, round(case.requests * scale)))
    return rows


async def _measure(case: Case, count: int) -> list[Row]:
    engine = _engine(case)
    async with control_plane(engine, scheduler_flags=case.flags) as plane:
        children = {"scheduler": plane.scheduler, "executor": plane.executor}
        memories = {name: PeakMemory(children[name]) for name in case.of}
        found: dict[str, list[float]] = {name: [] for name in memories}
        async with _channel(plane, case) as channel:
            stub = inference_pb2_grpc.InferenceServiceStub(channel)
            for requests in (count, TIMES * count):
                for memory in memories.values():
                    memory.begin()
                await case.send(stub, requests)
                await asyncio.sleep(SETTLE_S)
                for name, memory in memories.items():
                    found[name].append(memory.over_start())
    return [_row(case, name, count, *peaks) for name, peaks in found.items()]


def _row(case: Case, process: str, count: int, first: float, second: float) -> Row:
    return Row(
        benchmark="memory",
        case=f"{case.name}, {process}",
        value=second,
        unit="MiB",
        lowest=min(first, second),
        highest=max(first, second),
        target=f"about {first:.0f}",
        note=f"peak over start with {TIMES * count} requests; {first:.1f} with {count}; bound: {case.bound}",
    )


def _engine(case: Case) -> Engine:
    settings = SimulatedSettings(
        step_base_s=case.step_s,
        step_per_sequence_s=0.0,
        prefill_tokens_per_s=1e9,
        max_model_len=MODEL_LEN,
        max_batched_tokens=MODEL_LEN,
        vocab_size=VOCABULARY,
        kv_capacity_tokens=case.running * MODEL_LEN,
        max_running=case.running,
        mean_output_tokens=1_000_000,
    )
    engine = EngineSettings(kind="simulated", model=ModelSettings(model="simulated"), simulated=settings)
    return Engine(settings=engine, start_timeout_s=30.0)


def _channel(plane: ControlPlane, case: Case) -> grpc.aio.Channel:
    options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES), *case.channel]
    return grpc.aio.insecure_channel(plane.address, options=options)


# --- requests -----------------------------------------------------------------------------------------------------


def _request(prompt: int, max_tokens: int, *, logprobs: int | None = None) -> inference_pb2.GenerateRequest:
    sampling = common_pb2.SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True, logprobs=logprobs)
    tokens = inference_pb2.TokenIds(ids=[7] * prompt)
    return inference_pb2.GenerateRequest(spec=inference_pb2.GenerationSpec(tokens=tokens, sampling=sampling))


async def _whole(stub: Stub, request: inference_pb2.GenerateRequest, count: int) -> None:
    """Read ``count`` requests to their ends, CONCURRENT at a time."""
    left = iter(range(count))

    async def work() -> None:
        for _ in left:
            async for _ in stub.Generate(request, timeout=TIMEOUT_S):
                pass

    await asyncio.gather(*(work() for _ in range(CONCURRENT)))


async def _wait(stub: Stub, count: int) -> None:
    """Have requests wait, as many as there is room for; the others are refused."""
    request, waiting = _request(LONG_PROMPT, 20_000), []
    try:
        for _ in range(count):
            call = stub.Generate(request, timeout=TIMEOUT_S)
            with suppress(grpc.aio.AioRpcError):
                await call.read()  # Accepted
                waiting.append(call)
    finally:
        for call in waiting:
            call.cancel()


async def _end(stub: Stub, count: int) -> None:
    await _whole(stub, _request(10, 100, logprobs=20), count)


async def _long_log_probabilities(stub: Stub, count: int) -> None:
    """Here the length of the outputs counts, not the number of requests."""
    await _whole(stub, _request(10, count, logprobs=20), CONCURRENT)


async def _large_assigns(stub: Stub, count: int) -> None:
    request = _request(LONG_PROMPT, 4)
    request.spec.sampling.allowed_token_ids.extend([7, 9] * (ALLOWED_IDS_LIMIT // 2))
    await _whole(stub, request, count)


async def _unread(stub: Stub, count: int) -> None:
    """Clients that take one message and no other, in waves: each wave is let go before the next one comes."""
    calls = []
    for _ in range(max(1, count // UNREAD_AT_ONCE)):
        wave = [stub.Generate(_request(10, 2_000, logprobs=20), timeout=TIMEOUT_S) for _ in range(UNREAD_AT_ONCE)]
        for call in wave:
            await call.read()
        calls += wave
        await asyncio.sleep(1.25 * TAKE_LIMIT_S + 2.0)
    for call in calls:
        call.cancel()


UNREAD_AT_ONCE = 32

CASES = (
    Case(
        name="waiting prompts",
        bound="queue.prompt_memory_bytes, 32 MiB",
        requests=160,
        send=_wait,
        of=("scheduler",),
        flags=("--queue.prompt-memory-bytes=33554432", "--queue.tenant-prompt-memory-bytes=33554432"),
        running=1,
        step_s=0.05,
    ),
    Case(
        name="record of ended requests",
        bound="record.memory_bytes, 8 MiB",
        requests=400,
        send=_end,
        of=("scheduler",),
        flags=("--record.memory-bytes=8388608", "--record.requests=100000"),
    ),
    Case(
        name="log probabilities that an executor keeps",
        bound="64 tokens of each stream",
        requests=600,  # output tokens of each stream
        send=_long_log_probabilities,
        of=("executor",),
        flags=("--record.requests=1",),
    ),
    Case(
        name="largest Assigns",
        bound="those of the sequences that run",
        requests=60,
        send=_large_assigns,
        of=("scheduler", "executor"),
        flags=("--record.requests=1",),
    ),
    Case(
        name="clients that do not read",
        bound=f"let go after {TAKE_LIMIT_S:g} s",
        requests=UNREAD_AT_ONCE,
        send=_unread,
        of=("scheduler", "executor"),
        flags=("--record.requests=1",),
        running=UNREAD_AT_ONCE,
        channel=NOT_READING,
    ),
)
