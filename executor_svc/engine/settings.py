"""The configuration section ``engine``: which engine, which model, and each engine's own settings."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from executor_svc.engine.common_settings import ModelSettings, SettingsSection
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.vllm.settings import VllmSettings


class EngineSettings(SettingsSection):
    """The engine of one executor."""

    kind: Literal["vllm", "simulated"] = Field(default="vllm", description="Engine to run.")
    model: ModelSettings = Field(description="The model to serve.")
    vllm: VllmSettings = Field(
        default_factory=VllmSettings, description="Settings of the vLLM engine, used when engine.kind is vllm."
    )
    measure_speed_s: float = Field(
        default=3.0,
        ge=0.0,
        le=60.0,
        description="Most seconds that the start may take longer to measure how fast the engine is, so that the "
        "scheduler knows it before the first request.  0: the scheduler learns it from requests.",
    )
    simulated: SimulatedSettings = Field(
        default_factory=SimulatedSettings,
        description="Settings of the simulated engine, used when engine.kind is simulated.",
    )
