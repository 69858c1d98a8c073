"""How long one message holds the scheduler's event loop, and with it every other stream.

The largest legal message of each kind, and those that are refused.  Scheduler, executor and a ticker share one loop in
this process; the longest time between two ticks is the figure.  A child process sends, so that making the message does
not count.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import grpc

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire.protocol import MAX_MESSAGE_BYTES, PROMPT_LIMIT_BYTES
from scheduler_svc.transport import request_limits as limits
from tests.bench.report import Row
from tests.integration.system.local_fleet import LocalFleet

TICK_S = 0.001
TARGET_S = 0.02

Spec = inference_pb2.GenerationSpec
Sampling = common_pb2.SamplingParams


def _chat(messages: int, parts: int, text: str) -> Spec:
    content = [inference_pb2.ContentPart(text=text)] * parts
    turns = [inference_pb2.ChatMessage(role="user", content=content)] * messages
    return Spec(chat=inference_pb2.Chat(messages=turns))


def _sampled(**fields: object) -> Spec:
    return Spec(text="x", sampling=Sampling(max_tokens=1, **fields))  # type: ignore[arg-type]


def _constrained(**fields: object) -> Spec:
    return _sampled(structured_output=common_pb2.StructuredOutput(**fields))  # type: ignore[arg-type]


def _choices(count: int) -> common_pb2.StructuredOutput.Choices:
    return common_pb2.StructuredOutput.Choices(choices=["a"] * count)


CASES: dict[str, Callable[[], Spec]] = {
    "legal: messages": lambda: _chat(limits.MESSAGES_LIMIT - 1, 1, "word " * 20),
    "legal: parts": lambda: _chat(1, limits.PARTS_LIMIT - 1, "word "),
    "legal: token ids": lambda: Spec(tokens=inference_pb2.TokenIds(ids=[300] * limits.PROMPT_LIMIT_TOKENS)),
    "legal: text": lambda: Spec(text="word " * (PROMPT_LIMIT_BYTES // 5)),
    "legal: allowed ids": lambda: _sampled(allowed_token_ids=[300] * limits.ALLOWED_IDS_LIMIT),
    "legal: biases": lambda: _sampled(logit_bias=dict.fromkeys(range(limits.BIASES_LIMIT), 1.0)),
    "legal: schema": lambda: _constrained(json_schema='{"enum":[' + "0," * 30_000 + "0]}"),
    "refused: messages": lambda: _chat(1_000_000, 1, "a"),
    "refused: parts": lambda: _chat(1, 2_000_000, "a"),
    "refused: empty parts": lambda: _chat(1, 4_000_000, ""),
    "refused: biases": lambda: _sampled(logit_bias=dict.fromkeys(range(1_000_000), 1.0)),
    "refused: choices": lambda: _constrained(choice=_choices(4_000_000)),
    "refused: stop": lambda: _sampled(stop=["x" * (MAX_MESSAGE_BYTES - 100)]),
}


async def measure(*, rounds: int) -> list[Row]:
    """``rounds`` of each message; a row's value is the median of the longest hold."""
    rows = []
    async with LocalFleet() as fleet:
        await fleet.add("a", step_base_s=TICK_S)
        for case in CASES:
            holds = []
            for _ in range(rounds):
                holds.append(await _longest_hold(fleet.address, case))
            rows.append(
                Row(
                    benchmark="hold",
                    case=case,
                    value=median(holds) * 1_000,
                    unit="ms",
                    lowest=min(holds) * 1_000,
                    highest=max(holds) * 1_000,
                    target=f"<= {TARGET_S * 1_000:g}",
                )
            )
    return rows


async def _longest_hold(address: str, case: str) -> float:
    """Seconds between two ticks beyond the tick itself, while a child sends one message and waits for its end."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_send, args=(address, case, there))
    child.start()
    loop = asyncio.get_running_loop()
    try:
        await loop.run_in_executor(None, here.recv)  # the message is made and the channel is up
        ended = asyncio.ensure_future(asyncio.to_thread(_go, here))
        longest, last = 0.0, loop.time()
        while not ended.done():
            await asyncio.sleep(TICK_S)
            now = loop.time()
            longest, last = max(longest, now - last - TICK_S), now
        return longest
    finally:
        await asyncio.to_thread(child.join, 10)


def _go(connection: Connection) -> None:
    connection.send("go")
    connection.recv()


def _send(address: str, case: str, connection: Connection) -> None:
    data = inference_pb2.GenerateRequest(spec=CASES[case]()).SerializeToString()
    options = [("grpc.max_send_message_length", MAX_MESSAGE_BYTES)]
    with grpc.insecure_channel(address, options=options) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        connection.send("ready")
        connection.recv()
        call: Any = channel.unary_stream(
            "/sage.controlplane.v1.InferenceService/Generate", request_serializer=lambda raw: raw
        )
        try:
            for _ in call(data, timeout=60):
                pass
        except grpc.RpcError:
            pass
        connection.send("ended")
