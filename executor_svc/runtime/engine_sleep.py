"""Has the engine sleep or be awake as the scheduler wants, and reports which it does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from executor_svc.runtime.device_place import DevicePlace
from executor_svc.runtime.engine_port import Engine, EngineDeadError, EngineError
from executor_svc.runtime.messages.reports import SleepReport, SleepState
from executor_svc.runtime.stuck_watch import LONGEST_STEP_S

log = logging.getLogger(__name__)

CHANGE_LIMIT_S = 300.0
"""Most seconds that falling asleep or waking up may take; then the engine counts as dead."""

START_POLL_S = 1.0
"""Seconds between two tries to get a place on the device for a start."""

WAKE_POLL_S = 0.1
"""Seconds between two tries for a wake; fewer, because requests wait for it, and a wake is over sooner than a start."""

REFUSED_POLL_S = 1.0
"""Seconds until an engine that refused to sleep is asked again: no event says that its reason is over."""


class EngineSleep:
    """Whether the engine sleeps.  It falls asleep only when nothing keeps it awake; a failure counts as its death.

    In a device group it has a place on the device from its start or the begin of its wake until it sleeps.
    """

    def __init__(
        self,
        *,
        kept_awake: Callable[[], str],
        on_change: Callable[[], None],
        on_dead: Callable[[EngineDeadError], None],
        place: DevicePlace | None = None,
        refusal_limit_s: float | None = None,
    ) -> None:
        """Wait for the engine.  ``kept_awake`` says in words what it still does; empty: it may fall asleep.

        ``on_change`` is called when there is something new to report, ``on_dead`` when the engine does not change.
        ``place``: on the device; None: the engine has its device for itself.  ``refusal_limit_s``: most seconds for
        which the engine may refuse to sleep, then it counts as dead; None: however long.
        """
        self._kept_awake = kept_awake
        self._on_change = on_change
        self._on_dead = on_dead
        self._place = place
        self._refusal_limit_s = refusal_limit_s
        self._refused_s = 0.0  # how long it has refused the order to sleep
        self._refused_at: float | None = None  # the latest time, on the event loop's clock; None: it did not
        self._wanted_asleep = False
        self._number = 0  # of the latest order of the session
        self._state = SleepState.NOT_STARTED if place is not None else SleepState.AWAKE
        self._reason = ""
        self._sleep_s: float | None = None
        self._wake_s: float | None = None
        self._can_sleep = False  # known once the engine is up
        self._told: SleepReport | None = None
        self._look = asyncio.Event()

    @property
    def awake(self) -> bool:
        """Whether the engine takes attempts."""
        return self._state is SleepState.AWAKE

    def begin_session(self) -> None:
        """Note that a new session began, which has ordered nothing yet.  The order of an earlier one still holds."""
        self._number = 0
        self._told = None  # the new session was told nothing, and may count its orders as the earlier one did

    def order(self, number: int, *, asleep: bool) -> None:
        """Begin to have the engine sleep or be awake.  ``number`` counts these orders in the session."""
        self._number = number
        if self._wanted_asleep is not asleep:
            self._refused_at = None
        self._wanted_asleep = asleep
        self._changed()
        self._look.set()

    def check(self) -> None:
        """Go on if what kept the engine awake may be over."""
        if self._wanted_asleep and self.awake:
            self._look.set()

    def report(self) -> SleepReport | None:
        """Return whether the engine sleeps; None if it cannot, and outside device groups while it is not up."""
        if not self._can_sleep and self._place is None:
            return None
        return SleepReport(
            state=self._state,
            number=self._number,
            reason=self._reason,
            sleep_s=self._sleep_s,
            wake_s=self._wake_s,
        )

    async def may_start(self) -> None:
        """Wait for a place on the device, however long that takes; return at once outside device groups."""
        if self._place is None:
            return
        while why := self._place.take():
            if why != self._reason:
                log.info("the engine does not start yet: %s", why)
            self._wait_for(why)
            await asyncio.sleep(START_POLL_S)
        self._state, self._reason = SleepState.STARTING, ""
        self._changed()

    async def run(self, engine: Engine) -> None:
        """Follow orders with ``engine``, which is up and can sleep, until cancelled or until the engine is dead."""
        self._can_sleep = True
        self._state = SleepState.AWAKE
        self._changed()
        try:
            while True:
                await self._next_look(await self._follow(engine))
        except EngineDeadError as error:
            self._on_dead(error)

    async def _next_look(self, most_s: float | None) -> None:
        """Wait until there is something to look at, for at most so many seconds; None: however long."""
        try:
            async with asyncio.timeout(most_s):
                await self._look.wait()
        except TimeoutError:
            return
        self._look.clear()

    async def _follow(self, engine: Engine) -> float | None:
        """Do as ordered; return after how many seconds to try again, None if an event says when."""
        while self._wanted_asleep is self.awake:
            if not self._wanted_asleep:
                if self._place is not None and (why := self._place.take()):
                    self._wait_for(why)
                    return WAKE_POLL_S
                self._wake_s = await self._become(SleepState.AWAKE, SleepState.WAKING, engine.wake_up)
            elif why := self._kept_awake():
                self._refused_at = None
                self._wait_for(why)
                return None
            elif why := await self._fall_asleep(engine):
                self._wait_for(why)
                return REFUSED_POLL_S
            self._changed()
        return None

    def _wait_for(self, why: str) -> None:
        """Stay in the state, and report why."""
        self._reason = why
        self._changed()

    async def _fall_asleep(self, engine: Engine) -> str:
        """Have the engine sleep; return in words why it stays awake, empty if it sleeps.  Raises EngineDeadError."""
        try:
            self._sleep_s = await self._become(SleepState.ASLEEP, SleepState.FALLING_ASLEEP, engine.sleep)
        except EngineDeadError:
            raise
        except EngineError as error:
            self._state = SleepState.AWAKE
            why = str(error) or "the engine refuses to sleep"
            self._check_refusal(why)
            return why
        self._refused_at = None
        if self._place is not None:
            self._place.give_back()
        return ""

    def _check_refusal(self, why: str) -> None:
        """Raise EngineDeadError for an engine that has refused for too long: another one waits for its place."""
        now = asyncio.get_running_loop().time()
        if self._refused_at is None:
            self._refused_s = 0.0
        else:
            self._refused_s += min(now - self._refused_at, LONGEST_STEP_S)
        self._refused_at = now
        if self._refusal_limit_s is not None and self._refused_s >= self._refusal_limit_s:
            raise EngineDeadError(f"it has refused to sleep for {self._refused_s:.0f} s: {why}")

    async def _become(self, after: SleepState, meanwhile: SleepState, change: Callable[[], Awaitable[None]]) -> float:
        """Change the engine, and return how many seconds that took.  Raises EngineError, EngineDeadError."""
        self._state, self._reason = meanwhile, ""
        self._changed()
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            async with asyncio.timeout(CHANGE_LIMIT_S):
                await change()
        except TimeoutError:
            raise EngineDeadError(f"it was {meanwhile.value} for more than {CHANGE_LIMIT_S:g} s") from None
        took_s = loop.time() - began
        self._state = after
        log.info("the engine is %s after %.2f s", after.value, took_s)
        return took_s

    def _changed(self) -> None:
        """Have the report sent, if it differs from the one sent last."""
        if self._wanted_asleep is not self.awake:
            self._reason = ""
        if (report := self.report()) != self._told:
            self._told = report
            self._on_change()
