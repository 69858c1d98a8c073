"""A peer that vanished without a word is noticed within the keepalive's time, on quiet and on busy connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from sage_wire.keepalive import keepalive
from tests.support.network_proxy import NetworkProxy

METHOD = "/keepalive.Test/Stream"
PINGS = 3  # that pass before the peer vanishes: gRPC gives up on its own account after two


class Streaming(grpc.GenericRpcHandler):
    """Answers with a message, and then with one every ``pause_s`` seconds."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_stream_rpc_method_handler(self._messages)

    async def _messages(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        while True:
            yield b"message"
            await asyncio.sleep(self._pause_s)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pause_s", [0.02, 3_600.0], ids=["busy", "quiet"])
async def test_a_peer_that_vanished_is_noticed(pause_s: float) -> None:
    server = grpc.aio.server(options=[("grpc.http2.min_ping_interval_without_data_ms", 100)])
    server.add_generic_rpc_handlers([Streaming(pause_s)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        NetworkProxy(port) as proxy,
        grpc.aio.insecure_channel(proxy.address, options=keepalive(0.5, 1.0)) as channel,
    ):
        method: Any = channel.unary_stream(METHOD)
        reading = asyncio.ensure_future(_read_all(method(b"")))
        await asyncio.wait([reading], timeout=PINGS * 0.6)
        proxy.blackhole()
        with pytest.raises(grpc.aio.AioRpcError) as broken:
            async with asyncio.timeout(30):  # gRPC's own time is 60 s
                await reading
        assert broken.value.code() is grpc.StatusCode.UNAVAILABLE
    await server.stop(0)


async def _read_all(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> None:
    async for _ in call:
        pass
