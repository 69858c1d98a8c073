"""Asks grpc.health.v1 once: exit status 0 for SERVING, 1 for anything else, 2 for a wrong command line.

    python health_probe.py 127.0.0.1:50051 [--service NAME] [--ca FILE] [--server-name NAME]

This is the images' HEALTHCHECK.  It imports only packages that the services need too, and prints the status or the
error in one line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(arguments: list[str] | None = None) -> int:
    """Ask once and return the exit status."""
    asked = _parser().parse_args(arguments)
    with _channel(asked.address, asked.ca, asked.server_name) as channel:
        return _check(health_pb2_grpc.HealthStub(channel), asked.service, asked.timeout_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="health_probe", description="Asks grpc.health.v1 once.")
    parser.add_argument("address", help="host:port")
    parser.add_argument("--service", default="", help="service to ask about (default: the whole server)")
    parser.add_argument(
        "--ca", type=Path, help="PEM file of the authority that signed the server's certificate (default: no TLS)"
    )
    parser.add_argument("--server-name", help="name in that certificate, if it differs from the address")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="seconds to wait (default: 2)")
    return parser


def _channel(address: str, ca: Path | None, server_name: str | None) -> grpc.Channel:
    if ca is None:
        return grpc.insecure_channel(address)
    options = [("grpc.ssl_target_name_override", server_name)] if server_name else []
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(ca.read_bytes()), options=options)


def _check(stub: Any, service: str, timeout_s: float) -> int:
    try:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}")
        return 1
    print(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))
    return int(answer.status != health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    sys.exit(main())
