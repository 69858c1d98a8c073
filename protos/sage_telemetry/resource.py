"""Who is telling: attributes that every export carries."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

NAMESPACE = "sage"
DISTRIBUTION = "sage-control-plane"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """One process."""

    service: str  # "scheduler" | "executor"
    instance_id: str  # unique among the processes of this service
    further: Mapping[str, str] = field(default_factory=dict)  # the operator's; they win

    def resource(self) -> Resource:
        """With what OTEL_RESOURCE_ATTRIBUTES adds."""
        return Resource.create(
            {
                "service.name": f"{NAMESPACE}-{self.service}",
                "service.namespace": NAMESPACE,
                "service.instance.id": self.instance_id,
                "service.version": version(),
                "host.name": socket.gethostname(),
                "process.pid": os.getpid(),
                **self.further,
            }
        )


def scope() -> InstrumentationScope:
    return InstrumentationScope(DISTRIBUTION, version())


def version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
