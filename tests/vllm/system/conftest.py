"""Model, reference and fleet: made once, shared by all tests of this room."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from executor_svc.engine.tiny_model import make_tiny_model
from sage_client import AsyncClient
from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port
from tests.vllm.system.cases import GREEDY, SHORT, Reference
from tests.vllm.system.engine_settings import NAMES, UP_WITHIN_S, executor_flags

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def tiny_model_float32() -> Path:
    path = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(path, "float32")
    return path


@pytest.fixture(scope="session")
def encode(tiny_model_float32: Path) -> Callable[[str], list[int]]:
    """The model's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(tiny_model_float32 / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text).ids)


@pytest.fixture(scope="session")
def references(tiny_model_float32: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    """By the case's name."""
    folder = tmp_path_factory.mktemp("reference")
    out, log = folder / "answers.json", folder / "log.txt"
    command = [sys.executable, "-m", "tests.vllm.system.reference", str(tiny_model_float32), str(out)]
    with log.open("wb") as output:
        made = subprocess.run(command, stdout=output, stderr=output, cwd=ROOT, timeout=UP_WITHIN_S, check=False)
    assert made.returncode == 0, log.read_text()[-4000:]
    found = {name: _reference(answer) for name, answer in json.loads(out.read_text()).items()}
    for name in GREEDY:
        distinct = len(set(found[name].token_ids[:SHORT]))
        assert distinct >= 20, f"{name}: {distinct} distinct tokens in {SHORT}: a fault would not show"
    assert len({found[name].token_ids[:SHORT] for name in GREEDY}) == len(GREEDY), "one answer for two prompts"
    return found


def _reference(answer: dict[str, Any]) -> Reference:
    rows = answer["logprobs"] or ()
    return Reference(
        token_ids=tuple(answer["token_ids"]),
        text=answer["text"],
        logprobs=tuple({int(token): value for token, value in row.items()} for row in rows),
    )


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fleet's scheduler records, from its start on."""
    return tmp_path_factory.mktemp("recording") / "log.jsonl"


@pytest.fixture(scope="session")
def session_fleet(
    references: dict[str, Reference],
    tiny_model_float32: Path,
    recording: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FleetProcesses]:
    """Both executors are READY; the reference is done, so that no third engine runs beside them."""
    flags = ["--policy", "fifo", "--record", str(recording), "--state-dir", str(tmp_path_factory.mktemp("state"))]
    fleet = FleetProcesses(tmp_path_factory.mktemp("fleet"), flags, listen=f"127.0.0.1:{free_port()}")

    async def start() -> None:
        await fleet.start()
        for core, name in enumerate(NAMES):
            fleet.launch(name, executor_flags(str(tiny_model_float32), core), environment=ONE_PROCESS)
        await fleet.ready(*NAMES, within_s=UP_WITHIN_S)

    try:
        asyncio.run(start())
        yield fleet
    finally:
        asyncio.run(fleet.leave())


@pytest.fixture
async def fleet(session_fleet: FleetProcesses) -> FleetProcesses:
    """Whole: an executor that the test before took down is started again."""
    for process in session_fleet.executors.values():
        if not process.running:
            process.start()
    await session_fleet.ready(*NAMES, within_s=UP_WITHIN_S)
    return session_fleet


@pytest.fixture
async def client(fleet: FleetProcesses) -> AsyncIterator[AsyncClient]:
    async with fleet.client() as made:
        yield made
