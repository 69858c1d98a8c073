"""What a fleet is made of."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, Self

Engine = Literal["vllm", "simulated"]

TINY_MODEL = ".cache/tiny-model"
DEFAULT_ADDRESS = "127.0.0.1:50051"
ROLES = ("general", "prefilling", "decoding", "hybrid", "embedding")
LEGS = frozenset({"prefilling", "decoding", "hybrid"})  # roles that take part in a split request


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetSpec:
    """One scheduler and its executors."""

    executors: int = 2
    engine: Engine = "vllm"
    model: str = ""  # hub id or path; empty: the tiny model made here for vllm, any name for simulated
    served_name: str = ""  # that clients ask for; empty: a path's last part, or the hub id
    address: str = DEFAULT_ADDRESS  # host:port the scheduler listens on
    policy: str = "adaptive"
    max_running: int | None = None  # sequences at once per executor; None: the engine's own
    roles: tuple[str, ...] = ()  # of executor 1, 2, ...; general for those beyond
    prices: tuple[float, ...] = ()  # per hour, of executor 1, 2, ...; 0 for those beyond
    start_timeout_s: float = 900.0  # seconds until every instance must be READY
    drain_timeout_s: float = 20.0  # seconds running requests get at a stop
    scheduler_arguments: tuple[str, ...] = ()  # further flags of ``python -m scheduler_svc``
    executor_arguments: tuple[str, ...] = ()  # further flags of ``python -m executor_svc``

    @property
    def splits(self) -> bool:
        """Whether prefill and decode are separated: some executor has a role for it."""
        return not LEGS.isdisjoint(self.roles)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        said = json.loads(text)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in said.items()}
        return cls(**values)
