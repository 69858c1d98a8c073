"""Starts a simulated engine: goes through the start states, in modelled time."""

from __future__ import annotations

import asyncio

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.engine import SimulatedEngine
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.side_channel import SideChannel
from executor_svc.runtime.engine_port import EngineState, ProgressListener
from sage_common.clock import AsyncioClock, Clock

_LOAD_TICKS = 10  # progress reports per start state


class SimulatedEngineFactory:
    """Starts a simulated engine, which takes ``load_s`` seconds.  Implements ``runtime.engine_port.EngineFactory``.

    ``channel``: how the engine reaches others, by default over TCP, which also reaches engines of other processes.
    ``embeds``: it embeds instead of generating.  ``measure_speed_s``: most seconds in which its speed is measured.
    """

    def __init__(
        self,
        model: ModelSettings,
        settings: SimulatedSettings,
        clock: Clock | None = None,
        channel: SideChannel | None = None,
        *,
        embeds: bool = False,
        measure_speed_s: float = 0.0,
    ) -> None:
        self._embeds = embeds
        self._measure_speed_s = measure_speed_s
        self._model = model
        self._settings = settings
        self._clock = clock or AsyncioClock()
        self._channel = channel

    async def start(self, progress: ProgressListener) -> SimulatedEngine:
        """Report the start states one after the other, then serve.  Raises EngineError if the port is in use."""
        for state in (EngineState.DOWNLOADING, EngineState.LOADING, EngineState.WARMING):
            for tick in range(_LOAD_TICKS):
                progress(state, tick / _LOAD_TICKS, f"{state.value} {self._model.name}")
                await self._clock.sleep(self._settings.load_s / 3 / _LOAD_TICKS)
            progress(state, 1.0, f"{state.value} {self._model.name}")
        engine = SimulatedEngine(self._model, self._settings, self._clock, self._channel, embeds=self._embeds)
        try:
            await engine.start(measure_speed_s=self._measure_speed_s)
        except BaseException:
            await asyncio.shield(engine.shutdown())
            raise
        progress(EngineState.READY, 1.0, f"{self._model.name} is ready")
        return engine
