"""vLLM's own OpenAI server with the engine of the other arms, read by client processes over HTTP.

Run as a child: reads one line of engine settings and one with a port, then becomes the server.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.vllm.arguments import engine_arguments, set_environment
from tests.bench.child import Child, child
from tests.bench.engines import Engine
from tests.bench.pipe import http_client_process
from tests.bench.streams import RUN_TIMEOUT_S
from tests.bench.workload import Workload
from tests.support.free_port import free_port

SERVES = "Application startup complete"
CLIENT_TIMEOUT_S = 30.0
OURS = ("worker_extension_cls", "scheduler_cls", "scheduling_policy", "enable_logging_iteration_details")
"""Engine arguments that an executor needs and vLLM's own server does not."""


class VllmServer:
    """A server and its client processes, which share the streams of each workload."""

    def __init__(self, server: Child, port: int, clients: list[Child]) -> None:
        self.port = port
        self._server = server
        self._clients = clients

    @property
    def pids(self) -> list[int]:
        return [self._server.pid, *(each.pid for each in self._clients)]

    def cpu_s(self) -> float:
        """CPU seconds that the server's process has used so far; not those of its engine's."""
        return self._server.cpu_s()

    async def run(self, workload: Workload) -> tuple[float, float]:
        """Wall seconds, and CPU seconds of the server's process."""
        before, started = self._server.cpu_s(), time.perf_counter()
        await asyncio.gather(*(self._share(each, workload, place) for place, each in enumerate(self._clients)))
        return time.perf_counter() - started, self._server.cpu_s() - before

    async def _share(self, client: Child, workload: Workload, place: int) -> None:
        of = len(self._clients)
        share = dataclasses.replace(workload, streams=workload.streams // of, seed=workload.seed * of + place)
        await client.tell(json.dumps(dataclasses.asdict(share)))
        await client.wait_for(http_client_process.RESULT, RUN_TIMEOUT_S)


@asynccontextmanager
async def vllm_server(engine: Engine, client_processes: int) -> AsyncIterator[VllmServer]:
    """vLLM's server, serving, and ``client_processes`` clients of it."""
    port = free_port()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(child("vLLM's server", "tests.bench.pipe.vllm_server"))
        await server.tell(engine.settings.model_dump_json())
        await server.tell(str(port))
        await server.wait_for(SERVES, engine.start_timeout_s)
        clients = []
        for number in range(client_processes):
            name = f"http client {number}"
            client = await stack.enter_async_context(child(name, "tests.bench.pipe.http_client_process"))
            await client.tell(json.dumps([port, engine.settings.model.name]))
            await client.wait_for(http_client_process.READY, CLIENT_TIMEOUT_S)
            clients.append(client)
        yield VllmServer(server, port, clients)


def _flags(settings: EngineSettings, port: int) -> list[str]:
    """Return the command line of vLLM's server for the engine that an executor with these settings has."""
    arguments = engine_arguments(settings.model, settings.vllm, settings.model.model)
    flags = ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    for name, value in arguments.items():
        if name in OURS or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            flags.append(flag)
        else:
            flags += [flag, json.dumps(value) if isinstance(value, dict | list) else str(value)]
    return flags


def _serve() -> None:
    settings = EngineSettings.model_validate_json(sys.stdin.readline())
    port = int(sys.stdin.readline())
    set_environment(settings.vllm, os.environ)
    program = "vllm.entrypoints.openai.api_server"
    os.execv(sys.executable, [sys.executable, "-m", program, *_flags(settings, port)])


if __name__ == "__main__":
    _serve()
