"""How the gateway's benchmark divides loads between its clients, and what it makes of the rounds."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import cast

import pytest

from tests.bench.gateway.engine_rows import OURS, VLLM, rows
from tests.bench.gateway.engine_turns import LoadKind, Turn
from tests.bench.gateway.load_client import Load, LoadClient
from tests.bench.gateway.load_clients import LoadClients
from tests.bench.http_streams import COMPLETIONS
from tests.bench.process_tree import descendants

KIND = LoadKind(path=COMPLETIONS, streams=10, prompt_tokens=4, max_tokens=8)


class Client:
    """Implements what is used of LoadClient."""

    def __init__(self) -> None:
        self.loads: list[Load] = []

    def cpu_s(self) -> float:
        return 0.0

    async def run(self, load: Load) -> list[float]:
        self.loads.append(load)
        return [0.5] * load.workload.streams


@pytest.mark.parametrize("count", [1, 3, 4])
def test_clients_share_all_streams_and_no_prompt_comes_twice(count: int) -> None:
    clients = [Client() for _ in range(count)]
    shared = LoadClients(cast("list[LoadClient]", clients))
    for seed in (1, 2):
        assert len(asyncio.run(shared.run(KIND.load(1, "m", seed))).firsts) == KIND.streams
    prompts = [tuple(prompt) for each in clients for load in each.loads for prompt in load.workload.prompts()]
    assert len(set(prompts)) == len(prompts) == 2 * KIND.streams


def turn(rate: float, client: float = 0.1) -> Turn:
    return Turn(rate=rate, first_p50_ms=1.0, first_p99_ms=2.0, cpu={"main process": 3.0}, busiest_client=client)


def test_the_gateway_is_compared_with_vllms_server_round_by_round() -> None:
    found = rows("an engine", KIND, [{VLLM: turn(10), OURS: turn(20, 0.7)}, {VLLM: turn(40), OURS: turn(40)}])
    ratio = found[0]
    assert (ratio.case, ratio.lowest, ratio.value, ratio.highest) == (OURS, 1.0, 1.5, 2.0)
    assert "busiest client 70%" in ratio.note
    assert {row.case for row in found[1:]} == {
        f"{arm}: {what}"
        for arm in (VLLM, OURS)
        for what in ("first token, median", "first token, 99 of 100", "main process")
    }


def test_descendants_are_children_and_their_children() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        found = descendants(os.getpid())
        assert child.pid in found
        assert descendants(child.pid)[0] in found
        child.communicate(b"\n")
    assert descendants(child.pid) == []
