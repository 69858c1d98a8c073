"""The HTTP gateway of a local fleet: whether it can run, and whether it answers."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess

from sage_local.fleet.command_lines import gateway_command
from sage_local.fleet.ports import why_not_free

CHECK_TIMEOUT_S = 60.0  # for starting Python once
ANSWER_TIMEOUT_S = 2.0
READY = b"HTTP/1.1 200"


def why_no_gateway(address: str) -> str:
    """Return why no gateway can listen on ``host:port``; empty if one can."""
    command = [*gateway_command(address), "--check"]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"its check did not end within {CHECK_TIMEOUT_S:g} s"
    if ended.returncode:
        lines = ended.stderr.strip().splitlines()
        return lines[-1].rpartition("error: ")[2] if lines else f"its check ended with status {ended.returncode}"
    why = why_not_free(address)
    return f"cannot listen on {address}: {why}" if why else ""


async def answers(address: str) -> bool:
    """Return whether the gateway on ``host:port`` says that it is healthy."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            try:
                writer.write(f"GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.read(len(READY))) == READY
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
