"""Chooses the engine: makes the factory of the one that the settings name."""

from __future__ import annotations

from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineFactory
from sage_common.clock import Clock


def engine_factory(settings: EngineSettings, clock: Clock | None = None, *, embeds: bool = False) -> EngineFactory:
    """Return the factory for ``settings.kind``.

    ``clock``: the simulated engine's time; vLLM does not use it.  ``embeds``: it makes vectors and no tokens.  vLLM
    itself is imported only when its factory starts.
    """
    if settings.kind == "simulated":
        return SimulatedEngineFactory(
            settings.model, settings.simulated, clock, embeds=embeds, measure_speed_s=settings.measure_speed_s
        )
    from executor_svc.engine.vllm.starting import VllmEmbeddingFactory, VllmEngineFactory

    factory = VllmEmbeddingFactory if embeds else VllmEngineFactory
    return factory(settings.model, settings.vllm, measure_speed_s=settings.measure_speed_s)
