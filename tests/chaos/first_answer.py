"""How long a process takes from its start to its first answer."""

from __future__ import annotations

import asyncio

import grpc

from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc

ASK_EVERY_S = 0.01
WITHIN_S = 60.0


async def first_answer_s(address: str) -> float:
    """Return after how many seconds a scheduler that starts now answers a call.  Raises AssertionError after a minute.

    A connection is tried every 10 ms, and the call is made on the first one.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    host, _, port = address.rpartition(":")
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            assert loop.time() < began + WITHIN_S, f"nobody listens on {address}"
            await asyncio.sleep(ASK_EVERY_S)
            continue
        writer.close()
        break
    async with grpc.aio.insecure_channel(address) as channel:
        stub = admin_pb2_grpc.AdminServiceStub(channel)
        await stub.GetScheduler(admin_pb2.GetSchedulerRequest(), timeout=WITHIN_S, wait_for_ready=True)
    return loop.time() - began
