"""The blocking client, used from threads while the scheduler runs on the test's loop."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

import sage_client as sage
from sage.controlplane.v1 import admin_pb2, inference_pb2
from sage_client import Client, UnavailableError
from sage_client._loop_thread import LoopThread
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    always,
    instance,
    whole_text,
)

pytestmark = pytest.mark.usefixtures("transport")

Events = AsyncIterator[inference_pb2.GenerateResponse]
_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T]) -> _T:
    return await asyncio.wait_for(asyncio.to_thread(work), 20)


async def test_events_text_and_result(scheduler: FakeScheduler) -> None:
    def work() -> tuple[list[sage.Event], str, sage.Completion]:
        with Client(scheduler.address) as client:
            seen = list(client.generate("hi", max_tokens=2))
            text = "".join(client.generate("hi", max_tokens=5).text())
            return seen, text, client.generate("hi", max_tokens=3).result()

    seen, text, result = await in_thread(work)

    assert isinstance(seen[0], sage.Accepted)
    assert isinstance(seen[-1], sage.Finished)
    assert text == whole_text(5)
    assert result.text == whole_text(3)


async def test_threads_share_one_client(scheduler: FakeScheduler) -> None:
    def work() -> list[int]:
        with Client(scheduler.address) as client, ThreadPoolExecutor(16) as pool:
            results = pool.map(lambda n: client.generate("hi", max_tokens=n).result(), range(1, 65))
            return [len(result.token_ids) for result in results]

    assert await in_thread(work) == list(range(1, 65))


async def test_everything_an_operator_asks(scheduler: FakeScheduler) -> None:
    one = instance()
    scheduler.admin = {
        "ListInstances": always(admin_pb2.ListInstancesResponse(instances=[one])),
        "GetInstance": always(admin_pb2.GetInstanceResponse(instance=one)),
        "DrainInstance": always(admin_pb2.DrainInstanceResponse(instance=one)),
        "ResumeInstance": always(admin_pb2.ResumeInstanceResponse(instance=one)),
        "SleepInstance": always(admin_pb2.SleepInstanceResponse(instance=one)),
        "WakeInstance": always(admin_pb2.WakeInstanceResponse(instance=one)),
        "GetPolicy": always(admin_pb2.GetPolicyResponse(policy="fifo")),
        "SetPolicy": always(admin_pb2.SetPolicyResponse(policy="fifo")),
        "Explain": always(admin_pb2.ExplainResponse(request_id="r")),
    }

    def work() -> list[Any]:
        with Client(scheduler.address) as client:
            return [
                client.list_instances().instances[0].instance_id,
                client.get_instance("executor-1").instance_id,
                client.drain_instance("executor-1").instance_id,
                client.resume_instance("executor-1").instance_id,
                client.sleep_instance("executor-1").instance_id,
                client.wake_instance("executor-1").instance_id,
                client.get_policy().policy,
                client.set_policy("fifo").policy,
                client.explain("r").request_id,
                client.cancel("r").cancelled,
            ]

    assert await in_thread(work) == ["executor-1"] * 6 + ["fifo", "fifo", "r", True]


async def test_cancel_may_come_from_another_thread(scheduler: FakeScheduler) -> None:
    async def until_left(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await asyncio.Event().wait()

    def work() -> int:
        with Client(scheduler.address) as client:
            stream = client.generate("hi")
            assert isinstance(next(stream), sage.Accepted)
            other = threading.Thread(target=stream.close)
            other.start()
            rest = sum(1 for _ in stream)
            other.join(5)
            return rest

    scheduler.generate = until_left

    assert await in_thread(work) == 0
    await asyncio.wait_for(scheduler.left.wait(), 5)


async def test_a_wait_is_bounded(scheduler: FakeScheduler) -> None:
    async def be_silent(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        await asyncio.Event().wait()

    def work() -> None:
        with Client(scheduler.address) as client:
            client.generate("hi", timeout=0.2).result()

    scheduler.generate = be_silent
    with pytest.raises(sage.WaitTimeoutError):
        await in_thread(work)


AFTER_A_FORK = """
import os, sys
from sage_client import AsyncClient, Client, InvalidStateError

client = Client(sys.argv[1])
client.models()
child = os.fork()
if child == 0:
    said = []
    for attempt in (client.models, lambda: Client(sys.argv[1]), lambda: AsyncClient(sys.argv[1])):
        try:
            attempt()
        except InvalidStateError as error:
            said.append("does not survive a fork" in str(error))
    client.close()
    os._exit(0 if said == [True, True, True] else 1)
_, status = os.waitpid(child, 0)
client.models()
sys.exit(os.waitstatus_to_exitcode(status))
"""


async def test_after_a_fork_every_client_says_so_at_once_and_the_parent_goes_on(scheduler: FakeScheduler) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", AFTER_A_FORK, scheduler.address)
    try:
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_loop_whose_thread_is_gone_is_told_at_once() -> None:
    loop = LoopThread("test")
    loop._loop.call_soon_threadsafe(loop._loop.stop)
    loop._thread.join(10)

    async def nothing() -> None: ...

    assert loop.left_behind
    with pytest.raises(UnavailableError, match="thread is gone"):
        loop.run(nothing(), timeout_s=60)
    loop.stop()


def test_a_loop_that_is_stuck_does_not_hold_the_caller() -> None:
    loop = LoopThread("test")
    release = threading.Event()

    async def block() -> None:
        release.wait(10)

    with pytest.raises(sage.WaitTimeoutError):
        loop.run(block(), timeout_s=0.05)
    release.set()
    loop.stop()


def test_a_closed_client_says_so() -> None:
    client = Client("127.0.0.1:1")
    client.close()
    client.close()

    with pytest.raises(UnavailableError, match="closed"):
        client.get_policy()


def test_a_wrong_address_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    with pytest.raises(sage.ConfigurationError):
        Client("nowhere")

    assert threading.active_count() == before


def test_a_client_nobody_closed_gives_its_thread_back() -> None:
    before = threading.active_count()
    client = Client("127.0.0.1:1")
    assert threading.active_count() == before + 1
    del client

    assert threading.active_count() == before
