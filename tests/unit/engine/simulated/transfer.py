"""Two simulated engines in virtual time that hand KV over to each other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.settings import SimulatedKvTransferSettings, SimulatedSettings
from executor_svc.engine.simulated.side_channel import MemorySideChannel, SideChannel
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import JsonValue
from sage_common.virtual_clock import VirtualClock
from tests.unit.engine.simulated.simulation import Simulation, tokens

LONG_PROMPT = [300 + n for n in range(100)]  # seven blocks of 16
KEPT_TOKENS = 112


@dataclass
class Pair:
    prefill: Simulation
    decode: Simulation
    clock: VirtualClock

    async def prefilled(self, prompt: Sequence[int] = LONG_PROMPT, **more: object) -> Mapping[str, JsonValue]:
        """Run a prefill leg to its end: how to fetch what it left behind."""
        stream = self.prefill.start(tokens(1), prompt, prefill_only=True, **more)
        await self.prefill.finish(stream)
        params = stream.outputs[-1].kv_transfer_params
        assert params is not None
        return params

    @property
    def kv_used(self) -> tuple[int, int]:
        """Tokens, at the prefill and at the decode end."""
        return self.prefill.engine.load().kv_used_tokens, self.decode.engine.load().kv_used_tokens


@asynccontextmanager
async def pair(
    *,
    transfer: Mapping[str, Any] | None = None,
    decode_transfer: Mapping[str, Any] | None = None,
    prefill: Mapping[str, Any] | None = None,
    decode: Mapping[str, Any] | None = None,
    channel: SideChannel | None = None,
) -> AsyncIterator[Pair]:
    clock = VirtualClock()
    channel = channel or MemorySideChannel()
    sides = []
    for settings, own in ((prefill, None), (decode, decode_transfer)):
        kv_transfer = SimulatedKvTransferSettings(connector="NixlConnector", **{**(transfer or {}), **(own or {})})
        factory = SimulatedEngineFactory(
            ModelSettings(model="sim"), SimulatedSettings(kv_transfer=kv_transfer, **(settings or {})), clock, channel
        )
        engine = await clock.run(factory.start(lambda state, fraction, message: None))
        sides.append(Simulation(engine, clock))
    yield Pair(prefill=sides[0], decode=sides[1], clock=clock)
    for side in sides:
        await side.engine.shutdown()
