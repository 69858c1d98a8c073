"""One load through one server, and what it took."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.bench.engines import Engine
from tests.bench.gateway.load_client import Load
from tests.bench.gateway.load_clients import LoadClients
from tests.bench.workload import Workload


@dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A server to measure."""

    name: str
    port: int
    parts: Mapping[str, Callable[[], float]]  # its processes by what they are: CPU seconds used so far


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadKind:
    """Requests of one kind, so many at once."""

    path: str  # CHAT or COMPLETIONS
    streams: int
    prompt_tokens: int
    max_tokens: int

    @property
    def name(self) -> str:
        return f"{self.path.rpartition('v1/')[2]}, {self.streams} streams x {self.max_tokens} tokens"

    @property
    def tokens(self) -> int:
        """Output tokens of all."""
        return self.streams * self.max_tokens

    def load(self, port: int, model: str, seed: int) -> Load:
        workload = Workload(
            streams=self.streams, prompt_tokens=self.prompt_tokens, max_tokens=self.max_tokens, seed=seed
        )
        return Load(port=port, model=model, path=self.path, workload=workload)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one load took."""

    rate: float  # output tokens/s
    first_p50_ms: float
    first_p99_ms: float
    cpu: Mapping[str, float]  # of each part, CPU seconds per million tokens
    busiest_client: float  # share of a core

    def __str__(self) -> str:
        cpu = ", ".join(f"{name} {used:.1f}" for name, used in self.cpu.items())
        return (
            f"{self.rate:,.0f} tokens/s; first token {self.first_p50_ms:.0f} / {self.first_p99_ms:.0f} ms; "
            f"CPU s / 1M tokens: {cpu}; busiest client {self.busiest_client:.0%}"
        )


async def turn(arm: Arm, kind: LoadKind, clients: LoadClients, engine: Engine, seed: int) -> Turn:
    """Run a load to its end.  Raises ChildFailed."""
    before = {name: cpu_s() for name, cpu_s in arm.parts.items()}
    answered = await clients.run(kind.load(arm.port, engine.settings.model.name, seed))
    used = {name: cpu_s() - before[name] for name, cpu_s in arm.parts.items()}
    return Turn(
        rate=kind.tokens / answered.wall_s,
        first_p50_ms=statistics.median(answered.firsts) * 1e3,
        first_p99_ms=sorted(answered.firsts)[-1 - len(answered.firsts) // 100] * 1e3,
        cpu={name: seconds / kind.tokens * 1e6 for name, seconds in used.items()},
        busiest_client=answered.busiest,
    )
