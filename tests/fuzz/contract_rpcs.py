"""Every RPC of the contract, KEDA's, health checks and reflection, found from the descriptors of their services."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from google.protobuf.descriptor import Descriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import sage.controlplane.v1 as contract_package
from externalscaler import externalscaler_pb2

_SCALER = externalscaler_pb2.DESCRIPTOR.services_by_name["ExternalScaler"]
_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
_REFLECTION = reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"]

REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"
"""The same messages as v1alpha under another name, of which there is no generated code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rpc:
    path: str  # "/package.Service/Method"
    request: Descriptor
    response: Descriptor
    requests_stream: bool
    responses_stream: bool

    @property
    def service(self) -> str:
        return self.path.split("/")[1]

    @property
    def method(self) -> str:
        return self.path.split("/")[2]


def contract_rpcs() -> list[Rpc]:
    """Return every RPC that a scheduler serves, so that a new one is fuzzed without a change here."""
    found = [rpc for service in _contract_services() for rpc in _rpcs(service, service.full_name)]
    found += _rpcs(_SCALER, _SCALER.full_name)
    return found + executors_rpcs() + _rpcs(_REFLECTION, REFLECTION_V1)


def executors_rpcs() -> list[Rpc]:
    """Return the RPCs that executors serve: health checks and reflection."""
    return _rpcs(_HEALTH, _HEALTH.full_name) + _rpcs(_REFLECTION, _REFLECTION.full_name)


def _contract_services() -> Iterator[Any]:
    for module in pkgutil.iter_modules(contract_package.__path__):
        if module.name.endswith("_pb2"):
            generated: Any = import_module(f"{contract_package.__name__}.{module.name}")
            yield from generated.DESCRIPTOR.services_by_name.values()


def _rpcs(service: Any, name: str) -> list[Rpc]:
    return [
        Rpc(
            path=f"/{name}/{method.name}",
            request=method.input_type,
            response=method.output_type,
            requests_stream=method.client_streaming,
            responses_stream=method.server_streaming,
        )
        for method in service.methods
    ]
