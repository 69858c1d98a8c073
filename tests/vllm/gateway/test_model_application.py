"""What a model's application holds is let go once no request needs it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sage_gateway.asgi import Receive, Scope, Send
from sage_gateway.embedding_application import EmbeddingApplication

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


async def test_vllms_server_of_a_model_that_embeds_is_let_go_too(tmp_path: Path) -> None:
    from sage_gateway.vllm_server.model_application import ModelApplication, retire

    files, engine = tmp_path / "model", Engine()
    files.mkdir()
    unused: Any = None
    engine_client: Any = engine
    retire(EmbeddingApplication(unused, unused, ModelApplication(unused, engine_client, files)))
    assert (engine.shut_down, files.exists()) == (True, False)
    retire(EmbeddingApplication(unused, unused, None, "no such architecture"))


def test_flags_are_for_all_models_or_for_one(tmp_path: Path) -> None:
    from sage_gateway.vllm_server.model_application import ApplicationBuilder

    unused: Any = None
    made = ApplicationBuilder(unused, tmp_path, ["--max-log-len=7"], {"a": ["--reasoning-parser=qwen3"]})
    assert [made._parsed(name, []).reasoning_parser for name in ("a", "b")] == ["qwen3", ""]
    assert [made._parsed(name, []).max_log_len for name in ("a", "b")] == [7, 7]


def test_a_flag_that_vllm_does_not_know_ends_the_gateway(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sage_gateway.vllm_server.model_application import ApplicationBuilder

    unused: Any = None
    with pytest.raises(SystemExit) as exit_:
        ApplicationBuilder(unused, tmp_path, [], {"a": ["--volume=11"]})
    assert exit_.value.code == 2
    assert "--volume" in capsys.readouterr().err
