"""An OTLP/gRPC receiver that takes everything and keeps nothing: what telemetry is sent to while it is measured.

Run as a child.  Messages are left undecoded, as the receiver shares the machine with what is measured.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import grpc

SERVICES = (
    "opentelemetry.proto.collector.trace.v1.TraceService",
    "opentelemetry.proto.collector.metrics.v1.MetricsService",
)
READY = "telemetry sink: port "


async def _take(request: bytes, context: Any) -> bytes:
    return b""  # an empty answer: everything was taken


async def _serve() -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    for service in SERVICES:
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(_take)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"{READY}{port}")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.stop(grace=0)


if __name__ == "__main__":
    asyncio.run(_serve())
