"""Detached work per second: from the client's Submit until it is on the disk and the client is told.

Scheduler, client and executors are processes of their own; the executors cost next to nothing and end each request
after a few tokens, so the journal has checkpoints and ends to write beside what arrives.  By ``Submit``, a call each,
and over one session, many in a message.  How many rows share a transaction is said.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from itertools import count

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, inference_pb2, inference_pb2_grpc
from sage_wire.protocol import PROTOCOL_VERSION
from tests.bench.journal import TARGETS, databases
from tests.bench.light_plane import light_plane
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.workload import VOCABULARY

IN_FLIGHT = 256
TOKENS = 4
PROMPT_TOKENS = 32
STEP_S = 0.004
CALL_TIMEOUT_S = 60.0
ACKNOWLEDGE_EVERY = 8  # frames

ROOM = [
    *("--queue.limit-per-model", "100000"),
    *("--detached.tenant-requests", "1000000", "--detached.requests", "1000000"),
]

READY = {"SQLite": "", "PostgreSQL": "leading, epoch"}
"""What a scheduler says that has to get the lease first."""

Submits = Callable[[grpc.aio.Channel, int, int], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Turn:
    rate: float  # accepts/s
    cpu_ms: float  # of the scheduler for each, until all were accepted
    batch: float  # writes of a transaction


async def measure(*, rounds: int, requests: int) -> list[Row]:
    rows = []
    for name, database in databases().items():
        with database() as url:
            flags = ["--journal.url", url, "--policy", "fifo", *ROOM]
            async with (
                light_plane(executors=2, step_s=STEP_S, scheduler_flags=flags, ready=READY[name]) as plane,
                grpc.aio.insecure_channel(plane.address) as channel,
            ):
                for how, submits in (("Submit", by_submit), ("one session", over_session)):
                    turns = [
                        await _turn(plane.scheduler.cpu_s, channel, submits, requests, number)
                        for number in range(rounds + 1)
                    ][1:]
                    rows.append(_row(name, how, turns))
    return rows


def _row(database: str, how: str, turns: list[Turn]) -> Row:
    cpu, batch = (statistics.median(getattr(turn, each) for turn in turns) for each in ("cpu_ms", "batch"))
    return Row(
        benchmark=f"detached accepts, {database}",
        case=f"{how}, {IN_FLIGHT} in flight, {TOKENS} tokens each",
        unit="accepts/s",
        target=TARGETS[database],
        note=f"{batch:.0f} writes a transaction; {cpu:.2f} CPU ms of the scheduler each",
        **spread([turn.rate for turn in turns]),
    )


async def _turn(
    cpu_s: Callable[[], float], channel: grpc.aio.Channel, submits: Submits, requests: int, number: int
) -> Turn:
    before, used = await _journal(channel), cpu_s()
    took_s = await submits(channel, requests, number)
    used, after = cpu_s() - used, await _journal(channel)
    batch = (after.writes - before.writes) / max(1, after.commits - before.commits)
    await _until_idle(channel)
    return Turn(rate=requests / took_s, cpu_ms=used / requests * 1e3, batch=batch)


async def by_submit(channel: grpc.aio.Channel, requests: int, seed: int) -> float:
    """Submit this many requests, IN_FLIGHT calls at a time.  Wall seconds."""
    submit = inference_pb2_grpc.InferenceServiceStub(channel).Submit
    waiting = _specs(requests, seed)

    async def caller() -> None:
        for spec in waiting:
            await submit(inference_pb2.SubmitRequest(spec=spec), timeout=CALL_TIMEOUT_S)

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return time.perf_counter() - started


async def over_session(channel: grpc.aio.Channel, requests: int, seed: int) -> float:
    """Submit this many requests over one session, IN_FLIGHT at a time, and let each go when it is accepted."""
    waiting, handles = _specs(requests, seed), count(1)
    started = time.perf_counter()
    call = inference_pb2_grpc.InferenceServiceStub(channel).Session(timeout=2 * CALL_TIMEOUT_S)
    await call.write(inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=PROTOCOL_VERSION)))
    room, left, accepted = IN_FLIGHT, requests, list[int]()
    while left:
        message = inference_pb2.SessionRequest(leave=accepted)
        for spec, handle in zip((next(waiting, None) for _ in range(room)), handles, strict=False):
            if spec is not None:
                request = inference_pb2.GenerateRequest(spec=spec, detached=True)
                message.submit.add(handle=handle, request=request)
        accepted = await _accepted(call, message)
        room = len(accepted)
        left -= room
    wall_s = time.perf_counter() - started
    await call.write(inference_pb2.SessionRequest(bye=True))
    await call.read()
    return wall_s


async def _accepted(call: grpc.aio.StreamStreamCall[inference_pb2.SessionRequest, inference_pb2.SessionResponse],
                    message: inference_pb2.SessionRequest) -> list[int]:  # fmt: skip
    """Write a message, and return the handles that the next frames accept, as soon as there are some."""
    if message.submit or message.leave:
        await call.write(message)
    while True:
        answer = await call.read()
        assert isinstance(answer, inference_pb2.SessionResponse), "the session ended"
        frame = answer.frame
        if frame.failed:
            raise RuntimeError(f"{frame.failed[0].status}")
        if frame.number and frame.number % ACKNOWLEDGE_EVERY == 0:
            await call.write(inference_pb2.SessionRequest(acknowledged=frame.number))
        if frame.accepted:
            return [each.handle for each in frame.accepted]


def _specs(requests: int, seed: int) -> Iterator[inference_pb2.GenerationSpec]:
    draw = random.Random(seed)
    for _ in range(requests):
        spec = inference_pb2.GenerationSpec()
        spec.tokens.ids.extend(draw.choices(VOCABULARY, k=PROMPT_TOKENS))
        spec.sampling.max_tokens = TOKENS
        spec.sampling.ignore_eos = True
        spec.sampling.temperature = 0.0
        yield spec


async def _journal(channel: grpc.aio.Channel) -> admin_pb2.GetJournalResponse:
    return await admin_pb2_grpc.AdminServiceStub(channel).GetJournal(admin_pb2.GetJournalRequest())


async def _until_idle(channel: grpc.aio.Channel) -> None:
    """Wait until nothing is written any more: the ends of what was accepted are."""
    written = -1
    while (found := (await _journal(channel)).writes) != written:
        written = found
        await asyncio.sleep(1.0)
