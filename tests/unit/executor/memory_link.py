"""A link without a network: the test is the scheduler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from executor_svc.runtime.link import LinkBroken
from executor_svc.runtime.messages.commands import Command
from executor_svc.runtime.messages.outputs import Ack, StepFrame
from executor_svc.runtime.messages.registration import Register, Welcome
from executor_svc.runtime.messages.reports import ControlUp
from tests.unit.executor.events import Event, events

WELCOME = Welcome(session_id="s", epoch=3, lease_s=60.0, heartbeat_interval_s=60.0)


class MemoryLink:
    """Implements ``runtime.link.Link``."""

    def __init__(self, welcome: Welcome = WELCOME) -> None:
        self.registered: Register | None = None
        self.control: list[ControlUp] = []
        self.outputs: list[Event] = []
        self.closed = False
        self.left = False
        self._welcome = welcome
        self._commands: asyncio.Queue[Command | None] = asyncio.Queue()
        self._acks: asyncio.Queue[Sequence[Ack] | None] = asyncio.Queue()
        self._heard = asyncio.Condition()

    # --- the scheduler's side ---------------------------------------------------------------------------------------

    def say(self, command: Command) -> None:
        self._commands.put_nowait(command)

    def acknowledge(self, *acks: Ack) -> None:
        self._acks.put_nowait(acks)

    def cut(self) -> None:
        self._commands.put_nowait(None)

    async def heard(self, kind: type[Any]) -> Any:
        """The first control message of a kind."""

        def found() -> list[Any]:
            return [message for message in self.control if isinstance(message, kind)]

        async with asyncio.timeout(5), self._heard:
            await self._heard.wait_for(found)
        return found()[0]

    # --- the executor's side ----------------------------------------------------------------------------------------

    async def register(self, register: Register) -> Welcome:
        self.registered = register
        return self._welcome

    async def open_outputs(self, session_id: str) -> None:
        assert session_id == self._welcome.session_id

    async def send_control(self, message: ControlUp) -> None:
        async with self._heard:
            self.control.append(message)
            self._heard.notify_all()

    async def send_output(self, frame: StepFrame) -> None:
        self.outputs.extend(events(frame))

    async def commands(self) -> AsyncIterator[Command]:
        while (command := await self._commands.get()) is not None:
            yield command
        raise LinkBroken("cut")

    async def acks(self) -> AsyncIterator[Sequence[Ack]]:
        while (acks := await self._acks.get()) is not None:
            yield acks

    async def leave(self) -> None:
        self.left = True

    async def close(self) -> None:
        self.closed = True


class MemoryDialer:
    """Implements ``runtime.link.Dialer``: gives the links it was made with, then none."""

    def __init__(self, *links: MemoryLink) -> None:
        self._links = list(links)
        self.dialled: list[str] = []

    def dial(self, address: str) -> MemoryLink:
        self.dialled.append(address)
        return self._links.pop(0) if self._links else UnreachableLink()


class UnreachableLink(MemoryLink):
    async def register(self, register: Register) -> Welcome:
        raise LinkBroken("nobody is there")
