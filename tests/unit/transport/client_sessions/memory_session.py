"""A client's session without a network: its messages and frames in memory, on the control room's virtual clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.access.audit import Audit
from scheduler_svc.access.caller import set_caller
from scheduler_svc.access.identity import ANYONE, Identity
from scheduler_svc.control.requests.subscription import Subscription
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.transport.client_sessions.client_session import ClientSession
from scheduler_svc.transport.client_sessions.frame_draft import FrameDraft
from scheduler_svc.transport.client_sessions.observer import NULL_SESSION_OBSERVER, SessionObserver
from scheduler_svc.transport.held_message import HeldMessage
from scheduler_svc.transport.refusals import Refusals
from tests.support.frame_reader import FrameReader, HandleEvents
from tests.unit.control.world import EPOCH, MODEL, Reader, World

TENANT = "t"


class MemorySession:
    """One open session of a client that reads at once and acknowledges each frame, unless told otherwise."""

    def __init__(
        self,
        world: World,
        *,
        acknowledges: bool = True,
        observer: SessionObserver = NULL_SESSION_OBSERVER,
        judge: Callable[[], Identity] | None = None,
    ) -> None:
        self.world = world
        self._judge = judge
        self.frames = FrameReader()
        self.at: list[float] = []  # when each frame came
        self.pongs: list[int] = []
        self.acknowledges = acknowledges
        self.taking = asyncio.Event()  # cleared: the stream takes no message
        self.taking.set()
        plane = world.plane
        self.session = ClientSession(
            plane.intake,
            world.clock,
            lambda: FrameDraft(plane.scheduler, EPOCH),
            Refusals("Session", Audit(), "peer"),
            observer,
        )
        self._messages: asyncio.Queue[inference_pb2.SessionRequest | None] = asyncio.Queue()
        self._numbers = itertools.count(1)

    async def __aenter__(self) -> Self:
        set_caller(ANYONE, self._judge)
        self.first: inference_pb2.SessionRequest | None = inference_pb2.SessionRequest(open=inference_pb2.Open())
        self.task = asyncio.create_task(self.session.run(HeldMessage(self.first), self._read(), self._write))
        await self.world.clock.settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def say(self, **fields: Any) -> None:
        self._messages.put_nowait(inference_pb2.SessionRequest(**fields))
        await self.world.clock.settle()

    def put(self, message: inference_pb2.SessionRequest) -> None:
        """Send a message, without a turn for anybody to take it."""
        self._messages.put_nowait(message)

    async def submit(self, request_id: str, *, max_tokens: int = 20, **options: Any) -> int:
        handle = next(self._numbers)
        await self.say(submit=[submit(handle, request_id, max_tokens=max_tokens, **options)])
        return handle

    async def attach(self, request_id: str, after_token: int = 0) -> int:
        handle = next(self._numbers)
        after = [inference_pb2.ChoicePosition(after_token=after_token)]
        wire = inference_pb2.AttachHandle(handle=handle, request_id=request_id, tenant=TENANT, after=after)
        await self.say(attach=[wire])
        return handle

    async def break_off(self) -> None:
        """What a lost connection does."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def half_close(self) -> None:
        self._messages.put_nowait(None)
        await self.world.clock.settle()

    def of(self, handle: int) -> HandleEvents:
        return self.frames.of(handle)

    async def _read(self) -> AsyncIterator[inference_pb2.SessionRequest]:
        while (message := await self._messages.get()) is not None:
            yield message
            del message

    async def _write(self, message: inference_pb2.SessionResponse) -> None:
        await self.taking.wait()
        copy = inference_pb2.SessionResponse.FromString(message.SerializeToString())
        if copy.pong:
            self.pongs.append(copy.pong)
        if copy.HasField("frame"):
            self.at.append(self.world.clock.now())
            self.frames.take(copy.frame)
            if self.acknowledges:
                self._messages.put_nowait(inference_pb2.SessionRequest(acknowledged=copy.frame.number))


def submit(handle: int, request_id: str, *, max_tokens: int, **options: Any) -> inference_pb2.Submit:
    request = inference_pb2.GenerateRequest(request_id=request_id, tenant=TENANT, **options)
    request.spec.model = MODEL
    request.spec.tokens.ids.extend(range(10))
    request.spec.sampling.max_tokens = max_tokens
    return inference_pb2.Submit(handle=handle, request=request)


def generate_reader(world: World, request_id: str) -> Reader:
    """Read a request from its beginning, as a Generate stream does."""
    plane = world.plane
    subscription = Subscription(plane.loop_lag)
    plane.intake.readers.attach(RequestKey(tenant=TENANT, request_id=request_id), subscription, 0)
    return Reader(world, subscription)
