"""Entry point of the gateway: ``python -m sage_gateway``."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from typing import NoReturn

from sage_client import ConfigurationError
from sage_common.event_loop import loop_factory
from sage_common.garbage import start_and_end_fast
from sage_common.tasks import TaskDied
from sage_gateway.command_line import parse
from sage_gateway.listening import listening_socket
from sage_gateway.log_lines import write_log_lines
from sage_gateway.settings import GatewaySettings
from sage_gateway.vllm_version import VllmMissing, check_vllm
from sage_gateway.worker_processes import WorkerProcesses, worker_command, worker_number

log = logging.getLogger("sage_gateway")


def main() -> None:
    """Serve until SIGTERM or SIGINT.

    Exit status: 0 after SIGTERM or SIGINT; 1 if a part of the gateway died; 2 for wrong settings, a port that cannot be
    listened on, or a vLLM that is missing or of another version.
    """
    start_and_end_fast()
    settings = parse()
    write_log_lines()
    try:
        version = check_vllm()
    except VllmMissing as error:
        _wrong(str(error))
    if settings.check:
        return
    if settings.workers > 1 and worker_number() is None:
        _listener(settings, shared=False).close()  # workers would share the port with another gateway that has several
        workers = WorkerProcesses(worker_command(), settings.workers, grace_s=settings.grace_s)
        raise SystemExit(workers.run())
    _serve(settings, version)


def _serve(settings: GatewaySettings, version: str) -> None:
    listener = _listener(settings, shared=settings.workers > 1)
    from sage_gateway.vllm_server.server import GatewayProcess  # takes seconds: it imports vLLM

    try:
        with asyncio.Runner(loop_factory=loop_factory(uvloop=settings.uvloop)) as runner:
            runner.run(GatewayProcess(settings, listener, version).run())
    except ConfigurationError as error:
        _wrong(str(error))
    except TaskDied as error:
        log.error("%s", error, exc_info=error)
        raise SystemExit(1) from None
    finally:
        listener.close()


def _listener(settings: GatewaySettings, *, shared: bool) -> socket.socket:
    try:
        return listening_socket(settings.host, settings.port, shared=shared)
    except OSError as error:
        _wrong(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}")


def _wrong(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


if __name__ == "__main__":
    main()
