"""Attributes of the process, which every export carries."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

NAMESPACE = "sage"
"""service.namespace of both services, and the first part of service.name."""
DISTRIBUTION = "sage-control-plane"
"""The name of the installed package, and of the instrumentation scope."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What tells one process from others."""

    service: str  # "scheduler" | "executor"
    instance_id: str  # unique among the processes of the service
    further: Mapping[str, str] = field(default_factory=dict)  # the operator's attributes; they replace ours

    def resource(self) -> Resource:
        """Return the SDK's resource of this process, with the attributes of OTEL_RESOURCE_ATTRIBUTES."""
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
    """Return the instrumentation scope of all spans and metrics: this package and its version."""
    return InstrumentationScope(DISTRIBUTION, version())


def version() -> str:
    """Return the version of the installed package, or "unknown" where it is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
