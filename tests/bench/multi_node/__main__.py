"""``python -m tests.bench.multi_node``: an engine over two machines, which are raylets of one host."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path

import psutil

from tests.bench.child import ChildFailed
from tests.bench.multi_node import devices
from tests.bench.multi_node.answers import answers, compared, rate
from tests.bench.multi_node.devices import FIRST, ONE, SECOND, WIDE, Devices
from tests.bench.multi_node.fleet_on_machines import FleetOnMachines, fleet_on_machines
from tests.bench.multi_node.strikes import STREAMS, strike
from tests.support.ray_machines import can_isolate

_BEGAN = time.monotonic()


def main() -> int:
    """Exit status: 0 when everything was measured, whatever the figures; 1 when something could not be."""
    options = _parser().parse_args()
    on = devices.two_gpus(graphs=options.graphs) if options.gpu else devices.cpu()
    isolated = options.machines == "namespaces" or (options.machines == "auto" and can_isolate())
    _say(f"machines are {'namespaces' if isolated else 'loopback addresses'}")
    try:
        asyncio.run(_run(on, options, isolated=isolated))
    except (AssertionError, ChildFailed, TimeoutError) as error:
        _say(f"error: {str(error) or type(error).__name__}")
        return 1
    return 0


async def _run(on: Devices, options: argparse.Namespace, *, isolated: bool) -> None:
    async with fleet_on_machines(on, isolated=isolated) as fleet:
        _say("three raylets and a scheduler are up")
        try:
            async with asyncio.timeout(options.limit_s):
                await _measure(fleet)
        finally:
            if options.logs is not None:
                _keep_logs(fleet, options.logs)


async def _measure(fleet: FleetOnMachines) -> None:
    on, client = fleet.devices, fleet.client
    _say(f"{ONE}: READY {await fleet.apply(ONE):.1f} s after apply")
    wanted = await answers(client, f"{ONE}-1", STREAMS, on.tokens)
    await _say_rate(fleet, ONE)
    _say(f"{WIDE}: READY {await fleet.apply(ONE, WIDE):.1f} s after apply")
    workers = len(fleet.workers(FIRST)), len(fleet.workers(SECOND))
    _say(f"{WIDE}: {workers[0]} worker on its executor's machine, {workers[1]} on the other")
    got = await answers(client, f"{WIDE}-1", STREAMS, on.tokens)
    served = sum(each.instance_id == f"{WIDE}-1" for each in got)
    _say(f"{WIDE}: {compared(got, wanted)} with those of {ONE}; {served} of them served by {WIDE}-1")
    await _say_rate(fleet, WIDE)
    _say_ways(fleet)
    strikes = {
        "worker on the other machine": (lambda: _kill(fleet.workers(SECOND)), _nothing),
        "executor": (lambda: _kill(fleet.executors(FIRST)), _nothing),
        "other machine": (lambda: fleet.machines.kill(SECOND), lambda: fleet.machines.start(SECOND)),
    }
    for what, (kill, restore) in strikes.items():
        found = await strike(fleet, wanted, kill, restore)
        _say(f"kill -9 of the {what}: {found.streams}, {found.moved} of them went on at {ONE}-1")
        _say(f"    back after {found.back_s:.1f} s: {found.again}; {found.orphans}")
    await fleet.sagectl("fleet", "delete", str(fleet.file))
    left = [each for machine in (FIRST, SECOND) for each in fleet.executors(machine) | fleet.workers(machine)]
    _say(f"deleted; {len(left)} processes of the engine left")


async def _say_rate(fleet: FleetOnMachines, group: str) -> None:
    on = fleet.devices
    for _ in range(2):  # the first time warms up
        rate_, served = await rate(fleet.client, f"{group}-1", on.streams, on.tokens)
    _say(f"{group}: {rate_:.0f} tokens/s at {on.streams} streams of {on.tokens} tokens, {served} served by {group}-1")


def _say_ways(fleet: FleetOnMachines) -> None:
    ways = {
        line.split(" via ")[1].split()[0] for line in _lines(fleet) if " via " in line and "NCCL INFO Channel" in line
    }
    if ways:
        _say(f"{WIDE}: the GPUs send via {', '.join(sorted(ways))}")


def _lines(fleet: FleetOnMachines) -> list[str]:
    return [line for file in fleet.machines.logs() for line in file.read_text(errors="replace").splitlines()]


def _kill(processes: set[psutil.Process]) -> None:
    for process in processes:
        process.kill()


def _nothing() -> None:
    """Restore nothing."""


def _keep_logs(fleet: FleetOnMachines, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "workers.log").open("w") as kept:
        for file in fleet.machines.logs():
            with file.open(errors="replace") as log:
                kept.write(f"=== {file.name}\n")
                shutil.copyfileobj(log, kept)


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:6.1f} s] {text}", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.multi_node")
    parser.add_argument("--gpu", action="store_true", help="a model of 1.4 B on two GPUs; else the tiny one on the CPU")
    parser.add_argument("--graphs", action="store_true", help="with CUDA graphs, which take longer to start")
    parser.add_argument(
        "--machines",
        choices=("auto", "namespaces", "addresses"),
        default="auto",
        help="what tells machines apart: namespaces, which need root, or loopback addresses (default: %(default)s)",
    )
    parser.add_argument("--limit-s", type=float, default=330.0, help="most seconds of all steps (default: %(default)s)")
    parser.add_argument("--logs", type=Path, help="folder for the log of Ray's workers")
    return parser


if __name__ == "__main__":
    sys.exit(main())
