"""Has the engine hold the LoRA adapters that the scheduler wants, and reports what it holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from executor_svc.runtime.engine_port import (
    AdapterSource,
    Engine,
    EngineDeadError,
    EngineError,
    LoadedAdapter,
    ModelError,
)
from executor_svc.runtime.messages.reports import AdapterReport, AdapterState, AdapterStates
from executor_svc.runtime.observer import NULL_OBSERVER, Observer

log = logging.getLogger(__name__)

LOAD_LIMIT_S = 600.0
"""Most seconds that one adapter may take to be fetched and loaded; then it counts as failed."""

UNLOAD_LIMIT_S = 60.0
"""Most seconds that unloading one may take."""

REASON_LENGTH = 2_048
"""Most characters of a reason."""


class RunTimeAdapters:
    """Loads and unloads one adapter at a time, until the engine holds what is wanted.

    An adapter is unloaded only when no attempt uses it; its slot is taken until then.  Bounded by what is wanted and
    the engine's slots.
    """

    def __init__(
        self,
        *,
        uses: Callable[[str], bool],
        on_change: Callable[[], None],
        may_work: Callable[[], bool] = lambda: True,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """Hold nothing.  ``uses``: whether an attempt runs with an adapter; ``on_change`` is called at each change.

        ``may_work``: whether the engine can load and unload now; ``resume`` is to be called when that changes.
        """
        self.working = False  # whether the engine loads or unloads one
        self.on_idle: Callable[[], None] = lambda: None  # called when nothing is left to load and unload now
        self._may_work = may_work
        self._observer = observer
        self._uses = uses
        self._on_change = on_change
        self._wanted: dict[str, AdapterSource] | None = None  # by name, the first is loaded first; None: never asked
        self._held: dict[str, tuple[AdapterSource, LoadedAdapter]] = {}
        self._leaving: set[str] = set()  # of those that are held: they are unloaded, also if they are wanted again
        self._failed: dict[str, tuple[AdapterSource, str]] = {}  # of those that are wanted: why
        self._number = 0  # of the latest order of the session
        self._loading: AdapterSource | None = None
        self._told: AdapterStates | None = None
        self._wake = asyncio.Event()

    def begin_session(self) -> None:
        """Note that a new session began, which has not said yet what it wants."""
        self._number = 0

    def want(self, number: int, sources: Sequence[AdapterSource]) -> None:
        """Begin to have the engine hold these adapters.  One that failed is tried again once it was not wanted.

        One that no attempt uses is loaded anew once it was not wanted: its files may have changed.  ``number`` counts
        these orders in the session.
        """
        self._number = number
        self._wanted = {each.name: each for each in sources}
        self._leaving |= {name for name in self._held if not self._is_wanted(name) and not self._uses(name)}
        self._failed = {n: failed for n, failed in self._failed.items() if self._wanted.get(n) == failed[0]}
        self._changed()
        self._wake.set()

    def holds(self, name: str) -> bool:
        """Return whether the engine serves an adapter that was added."""
        return name in self._held

    def check(self) -> None:
        """Go on with an adapter that waits for attempts to end."""
        if any(not self._is_wanted(name) for name in self._held):
            self._wake.set()

    def resume(self) -> None:
        """Go on with what was put off while the engine could not load and unload."""
        self._wake.set()

    def states(self) -> AdapterStates | None:
        """Return the state of every adapter that is wanted or held, sorted by name; None if none ever was wanted."""
        if self._wanted is None:
            return None
        found = {name: self._wanted_report(each) for name, each in self._wanted.items()}
        for name, (source, loaded) in self._held.items():
            if not self._is_wanted(name):
                reason = "attempts use it" if self._uses(name) else ""
                found[name] = AdapterReport(
                    source=source,
                    state=AdapterState.UNLOADING,
                    reason=reason,
                    weights=loaded.weights,
                    rank=loaded.rank,
                )
        return AdapterStates(number=self._number, adapters=[found[name] for name in sorted(found)])

    def _wanted_report(self, source: AdapterSource) -> AdapterReport:
        held, failed = self._held.get(source.name), self._failed.get(source.name)
        if held is not None and held[0] == source:
            loaded = held[1]
            return AdapterReport(source=source, state=AdapterState.LOADED, weights=loaded.weights, rank=loaded.rank)
        if failed is not None:
            return AdapterReport(source=source, state=AdapterState.FAILED, reason=failed[1])
        state = AdapterState.LOADING if self._loading == source else AdapterState.WAITING
        return AdapterReport(source=source, state=state)

    def _is_wanted(self, name: str) -> bool:
        return name not in self._leaving and (self._wanted or {}).get(name) == self._held[name][0]

    def _changed(self) -> None:
        """Report the states, if they differ from those reported last."""
        if (states := self.states()) != self._told:
            self._told = states
            self._on_change()

    # --- the work ---------------------------------------------------------------------------------------

    async def run(self, engine: Engine) -> None:
        """Load and unload with ``engine``, which is up, until cancelled."""
        while True:
            if not (self._may_work() and await self._work(engine)):
                self.on_idle()
                await self._wake.wait()
            self._wake.clear()

    async def _work(self, engine: Engine) -> bool:
        self.working = True
        try:
            return await self._step(engine)
        finally:
            self.working = False

    async def _step(self, engine: Engine) -> bool:
        """Unload or load one adapter; return False if there is nothing to do now."""
        for name in self._held:
            if not self._is_wanted(name) and not self._uses(name):
                await self._unload(engine, name)
                return True
        source = self._next()
        if source is None or len(self._held) >= engine.facts.adapter_slots:
            return False
        await self._load(engine, source)
        return True

    def _next(self) -> AdapterSource | None:
        """Return the first adapter that is wanted and neither held nor failed."""
        wanted = (self._wanted or {}).values()
        return next((each for each in wanted if each.name not in self._held and each.name not in self._failed), None)

    async def _unload(self, engine: Engine, name: str) -> None:
        self._leaving.discard(name)
        del self._held[name]  # first: one that is wanted again meanwhile has to be loaded anew
        result = "unloaded"
        try:
            async with asyncio.timeout(UNLOAD_LIMIT_S):
                await engine.remove_adapter(name)
        except EngineDeadError:
            result = "engine_failed"  # the health check ends the process
        except TimeoutError:
            result = "timed_out"
            log.error("adapter %s was not unloaded within %g s", name, UNLOAD_LIMIT_S)
        except EngineError as error:
            result = "engine_failed"
            log.error("adapter %s could not be unloaded: %s", name, error)
        else:
            log.info("adapter %s is unloaded", name)
        self._observer.adapter_unloaded(result)
        self._changed()

    async def _load(self, engine: Engine, source: AdapterSource) -> None:
        self._loading = source
        self._changed()
        clock = asyncio.get_running_loop().time
        began_at, result = clock(), "loaded"
        try:
            async with asyncio.timeout(LOAD_LIMIT_S):
                loaded = await engine.add_adapter(source)
        except TimeoutError:
            result = "timed_out"
            self._note_failure(source, f"it was not loaded within {LOAD_LIMIT_S:g} s")
        except (ModelError, EngineError) as error:
            result = "unusable" if isinstance(error, ModelError) else "engine_failed"
            self._note_failure(source, str(error))
        except Exception as error:
            result = "executor_failed"
            log.exception("adapter %s failed in the executor", source.name)
            self._note_failure(source, f"the executor failed: {error!r}")
        else:
            log.info("adapter %s is loaded from %s", source.name, source.source)
            self._held[source.name] = source, loaded
        finally:
            self._loading = None
        self._observer.adapter_loaded(result, clock() - began_at)
        self._changed()

    def _note_failure(self, source: AdapterSource, why: str) -> None:
        """Remember why an adapter failed, while it is still wanted."""
        log.warning("adapter %s does not load: %s", source.name, why)
        if (self._wanted or {}).get(source.name) == source:
            self._failed[source.name] = source, why[:REASON_LENGTH]
