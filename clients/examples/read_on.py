"""Streams one request's text with the generated stub alone, and reads on over restarts of the scheduler.

    python clients/examples/read_on.py "Once upon a time" [--max-tokens N] [--address HOST:PORT]

``read_on`` is the recipe of docs/clients.md; the SDK does all of it by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import uuid
from collections.abc import AsyncIterator

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc

PAUSE_S = 0.2  # before another call, where the scheduler does not say how long
GIVE_UP_S = 60.0  # that no call was answered for
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # gRPC drops calls as a server stops


async def read_on(
    channel: grpc.aio.Channel, request: inference_pb2.GenerateRequest
) -> AsyncIterator[inference_pb2.GenerateResponse]:
    """Yield the events of a request, each token and each piece of text once, over as many calls as it takes.

    Raises grpc.aio.AioRpcError: how the request ended, or that no scheduler came back in time.
    """
    stub, loop = inference_pb2_grpc.InferenceServiceStub(channel), asyncio.get_running_loop()
    if not request.request_id:
        request.request_id, request.fresh = uuid.uuid4().hex, True
    characters, unanswered_since = 0, 0.0
    while True:
        try:
            async for event in stub.Generate(request):
                unanswered_since = 0.0
                if event.HasField("accepted"):
                    request.receipt = event.accepted.receipt
                if event.HasField("tokens"):
                    tokens = event.tokens
                    request.after_token = tokens.first_index + len(tokens.token_ids)
                    request.after_attempt.CopyFrom(tokens.attempt)
                    known = characters - tokens.text_offset  # text may come again
                    tokens.text, tokens.text_offset = tokens.text[known:], characters
                    characters += len(tokens.text)
                yield event
            return
        except grpc.aio.AioRpcError as error:
            reason, pause_s = details_of(error)
            passes = reason == "RECOVERING" or (error.code() in BROKEN and not reason)
            unanswered_since = unanswered_since or loop.time()
            if not passes or loop.time() - unanswered_since > GIVE_UP_S:
                raise
            await asyncio.sleep(pause_s)
        request.fresh = False  # a scheduler may know it now


def details_of(error: grpc.aio.AioRpcError) -> tuple[str, float]:
    """Return the reason that a scheduler gave, empty if the connection broke, and the seconds to wait."""
    reason, pause_s = "", PAUSE_S
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # it reads only what both kinds of call have
    for detail in status.details if status is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        if detail.Unpack(retry):
            pause_s = retry.retry_delay.ToTimedelta().total_seconds()
    return reason, pause_s


async def main() -> int:
    """Print the text of one request; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("prompt")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--address", default="127.0.0.1:50051")
    options = parser.parse_args()
    request = inference_pb2.GenerateRequest()
    request.spec.text = options.prompt
    request.spec.sampling.max_tokens = options.max_tokens
    request.spec.sampling.temperature = 0
    request.spec.no_instance = inference_pb2.NO_INSTANCE_WAIT
    async with grpc.aio.insecure_channel(options.address) as channel:
        try:
            async for event in read_on(channel, request):
                print(event.tokens.text, end="", flush=True)
        except grpc.aio.AioRpcError as error:
            print(f"error: {error.details()} ({error.code().name})", file=sys.stderr)
            return 1
    print()
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
