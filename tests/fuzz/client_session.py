"""A client's session that is opened properly and then sends mutated messages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc

from sage.controlplane.v1 import inference_pb2
from tests.fuzz.call import call
from tests.fuzz.fuzzer import STREAM_BYTES_SHARE, TIMEOUTS_S, Case, Fuzzer

SESSION = "/sage.controlplane.v1.InferenceService/Session"
REPLIES = (5, 100, 400)


async def client_session(case: Case, channel: grpc.aio.Channel, fuzzer: Fuzzer) -> None:
    """Run one session, a script for the fuzzer."""

    async def messages() -> AsyncGenerator[bytes, None]:
        opening = inference_pb2.SessionRequest(open=inference_pb2.Open(protocol_version=1))
        yield fuzzer.noted(case, case.rpc, opening.SerializeToString())
        for _ in range(case.dice.choice((1, 4, 12))):
            yield fuzzer.message(case, case.rpc, bytes_share=STREAM_BYTES_SHARE, without="open")

    async with aclosing(messages()) as made:
        outcome = await call(
            channel,
            case.rpc,
            made,
            metadata=case.identity.metadata,
            timeout_s=case.dice.choice(TIMEOUTS_S),
            replies=case.dice.choice(REPLIES),
            dice=case.dice,
        )
    fuzzer.judge(case, outcome)
