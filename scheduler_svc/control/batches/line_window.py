"""How many lines of all batches wait or run at the same time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

OWN_PLACES = 4
"""Lines of each batch that wait or run whatever the window's state is."""

PARKED = 32
"""Lines of a batch that wait before they are tried again, from which on it begins no further one."""


Asked = asyncio.Future[bool]
"""A place that somebody waits for: True once it is one of the batch's own, False once it is one of the window."""


class LineWindow:
    """Gives places to lines.  Tenants that wait get one in turn, whatever number of batches each of them has."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[str, deque[Asked]] = {}  # the tenant that is served next comes first
        self.taken = 0

    def ask(self, tenant: str) -> Asked:
        """Return what is set to False once a place is there, unless something else is set before."""
        place: Asked = asyncio.get_running_loop().create_future()
        if self._free and not self._waiting:
            self._give(place)
        else:
            self._waiting.setdefault(tenant, deque()).append(place)
        return place

    def give_back(self) -> None:
        """Give a place back: the next one that waits has it."""
        self._free += 1
        self.taken -= 1
        while self._free and self._waiting:
            tenant = next(iter(self._waiting))
            places = self._waiting.pop(tenant)
            place = places.popleft()
            if places:
                self._waiting[tenant] = places  # it is the last now
            if not place.done():
                self._give(place)

    def _give(self, place: Asked) -> None:
        self._free -= 1
        self.taken += 1
        place.set_result(False)


class BatchPlaces:
    """The places of one batch's lines: a few of its own, and those that it has of the window.

    Its own ones let a batch go on whose neighbours' lines all wait for something, such as a model that is away.
    """

    def __init__(self, window: LineWindow, tenant: str) -> None:
        self._window = window
        self._tenant = tenant
        self._own = OWN_PLACES
        self._asked: deque[Asked] = deque()  # by lines that wait, whose number is bounded by PARKED
        self.parked = 0  # lines that wait before they are tried again, and have no place
        self._fewer = asyncio.Event()

    async def take(self) -> Place:
        """Wait for a place for a line that begins: also until not too many others of the batch are parked."""
        while self.parked >= PARKED:
            self._fewer.clear()
            await self._fewer.wait()
        return await self.take_again()

    async def take_again(self) -> Place:
        """Wait for a place for a line that was parked."""
        if self._own:
            self._own -= 1
            return Place(self, own=True)
        place = self._window.ask(self._tenant)
        self._asked.append(place)
        try:
            return Place(self, own=await place)
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # it was given at the same moment
                self.give_back(own=place.result())
            raise
        finally:
            self._asked.remove(place)

    def give_back(self, *, own: bool) -> None:
        """Take a place back: one of its own goes to a line that waits for the window."""
        if not own:
            self._window.give_back()
            return
        waits = next((each for each in self._asked if not each.done()), None)
        if waits is not None:
            waits.set_result(True)
        else:
            self._own += 1

    def park(self, lines: int) -> None:
        """Count lines that wait, or with a negative number that wait no more."""
        self.parked += lines
        self._fewer.set()


class Place:
    """A line's place, which is given back once."""

    def __init__(self, of: BatchPlaces, *, own: bool) -> None:
        self._of = of
        self._own = own
        self._held = True

    def give_back(self) -> None:
        """Let another line have it.  Idempotent."""
        if self._held:
            self._held = False
            self._of.give_back(own=self._own)

    def given_back_by(self, task: asyncio.Task[None]) -> None:
        """Let another line have it: that of ``task`` has ended."""
        self.give_back()

    async def park(self, until: Callable[[], Awaitable[None]]) -> None:
        """Give the place back, wait for ``until()``, and take one again."""
        self.give_back()
        self._of.park(1)
        try:
            await until()
        finally:
            self._of.park(-1)
        other = await self._of.take_again()
        self._own, self._held, other._held = other._own, True, False
