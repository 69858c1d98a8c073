"""The description of a fleet: how many executors, with which engine, model and roles."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal, Self

Engine = Literal["vllm", "simulated"]

TINY_MODEL = ".cache/tiny-model"
DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_HTTP = "127.0.0.1:8000"
PREFILL_DECODE_ROLES = ("prefilling", "decoding")
ROLES = ("general", "prefilling", "decoding", "hybrid", "embedding")
LEGS = frozenset({"prefilling", "decoding", "hybrid"})  # roles that take part in a split request


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetSpec:
    """A scheduler and its executors on one machine."""

    executors: int = 2
    engine: Engine = "vllm"
    model: str = ""  # hub id or path; empty: the tiny model made here for vllm, any name for simulated
    embedding_model: str = ""  # of executors with the role embedding; empty: `model`
    served_name: str = ""  # model name that requests ask for; empty: a path's last part, or the hub id
    address: str = DEFAULT_ADDRESS  # host:port the scheduler listens on
    standby: bool = False  # a second scheduler, on the next port, and a PostgreSQL that both share
    http: str = ""  # host:port of the HTTP gateway; empty: none
    policy: str = "adaptive"
    max_running: int | None = None  # sequences that an executor runs at the same time; None: the engine's default
    roles: tuple[str, ...] = ()  # roles of executor 1, 2, ...; the others are general
    prices: tuple[float, ...] = ()  # prices per hour of executor 1, 2, ...; empty: 0 for all
    start_timeout_s: float = 900.0  # seconds until every instance must be READY
    drain_timeout_s: float = 20.0  # seconds that running requests get to finish when the fleet stops
    scheduler_arguments: tuple[str, ...] = ()  # further flags of ``python -m scheduler_svc``
    executor_arguments: tuple[str, ...] = ()  # further flags of ``python -m executor_svc``

    @property
    def standby_address(self) -> str:
        """The address of the second scheduler: the next port."""
        host, _, port = self.address.rpartition(":")
        return f"{host}:{int(port) + 1}"

    @property
    def addresses(self) -> str:
        """The addresses of all schedulers, separated by commas."""
        return f"{self.address},{self.standby_address}" if self.standby else self.address

    @property
    def splits(self) -> bool:
        """Whether requests may be split into prefill and decode: an executor has a role that takes part."""
        return not LEGS.isdisjoint(self.roles)

    @property
    def forms_pair(self) -> bool:
        """Whether one executor may prefill for another one that decodes."""
        prefill = {number for number, role in enumerate(self.roles) if role in ("prefilling", "hybrid")}
        decode = {number for number, role in enumerate(self.roles) if role in ("decoding", "hybrid")}
        return bool(prefill and decode) and len(prefill | decode) > 1

    def to_json(self) -> str:
        """Return the spec as JSON, for ``from_json``."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a spec that ``to_json`` wrote."""
        fields = json.loads(text)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return cls(**values)
