"""``sagectl up|down|status`` with the real services and simulated engines."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sage_client as sage
from sage_local.fleet.ports import free_address
from sage_local.fleet.sessions import members
from sage_local.fleet.state_dir import StateDir

UP = ("up", "--engine", "simulated", "--executors", "1", "--http", "")

Fleet = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def fleet(home: Path) -> Iterator[Fleet]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "sagectl", *arguments],
            capture_output=True,
            text=True,
            timeout=40,
            check=False,
            env=os.environ | {"SAGE_HOME": str(home), "SAGE_SCHEDULER_ADDRESS": "127.0.0.1:1"},
        )

    yield run
    if StateDir(path=home).is_held():
        run("down")


def pids(home: Path) -> dict[str, int]:
    status = StateDir(path=home).read_status()
    assert status is not None
    return {each.name: each.pid for each in status.processes if each.pid is not None}


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + 15
    while not reached():
        assert time.monotonic() < end, "it was not reached in 15 s"
        time.sleep(0.1)


def test_a_life(fleet: Fleet, home: Path) -> None:
    address = free_address()
    up = fleet(*UP, "--address", address, "--model", "sim", "--price-per-hour", "3")
    assert (up.returncode, up.stderr) == (0, "")
    said = up.stdout.splitlines()
    assert f"scheduler: process {pids(home)['scheduler']} on {address}" in said
    assert said[said.index("ready: model sim on 1 executor with the simulated engine") + 1 :][:5] == [
        f"  scheduler, gRPC   {address}",
        "  OpenAI's API      off: no HTTP gateway runs",
        "  metrics           off; --scheduler-arg --telemetry.metrics-listen=127.0.0.1:9464",
        "  dashboards        none; Grafana and Jaeger are in docker/compose.yaml",
        f"  logs              {home / 'logs'}",
    ]

    command = up.stdout.splitlines()[-1]
    printed = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=100, check=False)
    assert (printed.returncode, bool(printed.stdout.strip())) == (0, True), printed.stderr

    with sage.Client(address) as client:
        assert len(client.generate("hello", max_tokens=5, ignore_eos=True).result().token_ids) == 5
        prices = {each.instance_id: each.price_per_hour for each in client.list_instances().instances}
    assert prices == {"executor-1": 3.0}

    again = fleet(*UP, "--address", address)
    assert again.returncode == 1
    assert "already running" in again.stderr

    first = pids(home)
    os.kill(first["executor-1"], signal.SIGKILL)
    until(lambda: pids(home)["executor-1"] != first["executor-1"])
    until(lambda: fleet("status").returncode == 0)
    assert f"pid {first['scheduler']}  on {address}  restarts 0" in fleet("status").stdout
    shown = json.loads(fleet("status", "--json").stdout)
    assert [each["restarts"] for each in shown["processes"]] == [0, 1]

    sessions = {*first.values(), *pids(home).values()}
    down = fleet("down")
    assert (down.returncode, down.stdout) == (0, "stopped\n")
    assert members(sessions) == []
    assert fleet("down").stdout.startswith(f"no fleet is running in {home}; ")


def test_a_fleet_that_separates_prefill_from_decode(fleet: Fleet) -> None:
    address = free_address()
    up = fleet("up", "--engine", "simulated", "--roles", "prefilling,decoding", "--http", "", "--address", address)
    assert (up.returncode, up.stderr) == (0, "")
    assert "prefill/decode separation: executor-1 prefilling, executor-2 decoding\n" in up.stdout
    assert "a pair of them can hand over; all pairs: " in up.stdout
    assert all(f"executor-{number}: ready\n" in up.stdout for number in (1, 2))

    with sage.Client(address) as client:
        done = client.generate("hello " * 700, max_tokens=5, ignore_eos=True).result()
    assert (done.decisions[0].prefill_instance_id, done.instance_id) == ("executor-1", "executor-2")
    assert len(done.token_ids) == 5


def test_a_port_that_is_taken_is_named(fleet: Fleet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        up = fleet(*UP, "--address", address)

    assert (up.returncode, up.stderr) == (1, f"error: cannot listen on {address}: Address already in use\n")


def test_a_policy_that_there_is_not_is_named_with_the_one_that_was_meant(fleet: Fleet) -> None:
    up = fleet(*UP, "--address", free_address(), "--policy", "slo-aware")

    assert up.returncode == 1
    assert (
        "configuration: policy: unknown policy 'slo-aware'; did you mean slo_aware? There are: adaptive, " in up.stdout
    )


def test_a_failed_start_shows_the_last_lines_and_leaves_nothing(fleet: Fleet) -> None:
    wrong = "--executor-arg=--engine.simulated.step-base-s=-1"
    up = fleet(*UP, "--address", free_address(), wrong)

    assert up.returncode == 1
    assert "step_base_s: Input should be greater than or equal to 0" in up.stdout
    assert "ended with status 2 while it started" in up.stderr
    assert fleet("status").stdout.startswith("no fleet is running in ")


def test_the_foreground_stops_at_a_signal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "sagectl", *UP, "--address", free_address(), "--foreground"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"SAGE_HOME": str(tmp_path)},
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("to send"):
            process.send_signal(signal.SIGINT)
    process.stdout.close()

    assert process.wait(20) == 0
    sessions = {int(line.rpartition("process ")[2].split()[0]) for line in lines if ": process " in line}
    assert len(sessions) == 2
    assert members(sessions) == []
