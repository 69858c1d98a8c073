"""gRPC reflection, in the version of today's tools (v1) and of older ones (v1alpha), which have the same messages."""

from __future__ import annotations

from collections.abc import Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1 = "grpc.reflection.v1.ServerReflection"


def serve_reflection(server: grpc.aio.Server, names: Iterable[str]) -> None:
    """Let clients ask for the descriptors of the services of these names."""
    reflection.enable_server_reflection((*names, reflection.SERVICE_NAME), server)
    servicer = reflection.aio.ReflectionServicer((*names, reflection.SERVICE_NAME))
    answer = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": answer})])
