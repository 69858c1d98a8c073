"""What a model's application holds is let go once no request needs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sage_gateway.asgi import Receive, Scope, Send

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("default")]  # vLLM warns when it is imported


class Engine:
    def __init__(self) -> None:
        self.shut_down = False

    def shutdown(self) -> None:
        self.shut_down = True


async def test_a_retired_application_finishes_its_requests(tmp_path: Path) -> None:
    from sage_gateway.vllm_server.model_application import ModelApplication

    files, engine, finish = tmp_path / "model", Engine(), asyncio.Event()
    files.mkdir()

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await finish.wait()

    engine_client: Any = engine
    unused: Any = None
    made = ModelApplication(application, engine_client, files)
    running = asyncio.create_task(made({}, unused, unused))
    await asyncio.sleep(0)
    made.retire()
    assert (engine.shut_down, files.exists()) == (False, True)
    finish.set()
    await running
    assert (engine.shut_down, files.exists()) == (True, False)
