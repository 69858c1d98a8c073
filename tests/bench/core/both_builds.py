"""Decisions/s of the domain compiled and as Python: ``python -m tests.bench.core.both_builds BUILD [--rounds N]``.

``BUILD`` is the folder that `make compiled` fills, ``.cache/compiled/lib``.  A process for each build takes its turn
after the other's, so that a disturbance hits both alike.  Figures are CPU time.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from scheduler_svc.domain.build import build_name
from tests.bench.core.bench_core import POLICIES, TARGETS, Case, at_capacity, half_full, saturated
from tests.bench.report import Row, table

_ROOT = Path(__file__).parents[3]
_SOURCES = (_ROOT, _ROOT / "protos", _ROOT / "protos/gen", _ROOT / "clients")
_INSTANCES = 100
_DECISIONS = 200  # of a round
_SIMULATED_S = 10.0  # of a round at capacity


class Build:
    """A process that measures one build, a round whenever it is asked."""

    def __init__(self, *path: Path) -> None:
        """Start it with these folders before the sources."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, *_SOURCES)))}
        command = [sys.executable, "-P", "-m", "tests.bench.core.both_builds"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.name: str = self._read()
        self.rates: dict[str, list[float]] = {}

    def take_turn(self) -> None:
        """Measure every case once."""
        assert self._process.stdin is not None
        print(file=self._process.stdin, flush=True)
        for name, rate in self._read().items():
            self.rates.setdefault(name, []).append(rate)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def cases() -> list[Case]:
    """Return what is measured."""
    half = [half_full(p, _INSTANCES, _DECISIONS, prefixes=alike) for alike in (False, True) for p in POLICIES]
    full = [
        saturated(p, _INSTANCES, waiting, _DECISIONS, group="saturated", name=f"{p}, {waiting:,} waiting")
        for waiting in (1_000, 100_000)
        for p in POLICIES
    ]
    return half + full + [at_capacity(p, 1.1, _SIMULATED_S) for p in POLICIES]


def answer_turns() -> None:
    """Measure whenever a line comes, and print decisions/s by case; the process of one build does this."""
    print(json.dumps(build_name()), flush=True)
    measured = cases()
    gc.collect()
    gc.freeze()
    for _ in sys.stdin:
        rates = {}
        for case in measured:
            done, spent = case.run()
            rates[f"{case.group}: {case.name}"] = done / spent
        print(json.dumps(rates), flush=True)


def rows_of(build: Build) -> list[Row]:
    """Return a build's rows."""
    return [
        Row(
            benchmark=f"domain, {build.name}",
            case=name,
            value=median(rates),
            unit="decisions/s",
            lowest=min(rates),
            highest=max(rates),
            target="" if name.startswith("at capacity") else f">= {TARGETS[_INSTANCES]:,}",
        )
        for name, rates in build.rates.items()
    ]


def main(arguments: list[str]) -> int:
    """Measure both builds in turns, and print a table."""
    if not arguments:
        answer_turns()
        return 0
    parser = argparse.ArgumentParser(prog="python -m tests.bench.core.both_builds", description=__doc__)
    parser.add_argument("build", type=Path, help="folder with the compiled packages")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each build")
    options = parser.parse_args(arguments)
    builds = [Build(options.build.resolve()), Build()]
    if [each.name for each in builds] != ["compiled", "interpreted"]:
        parser.error(f"{options.build} has no compiled domain: make compiled")
    for number in range(options.rounds):
        for build in builds[:: -1 if number % 2 else 1]:
            build.take_turn()
    print(table([row for each in builds for row in rows_of(each)]))
    for build in builds:
        build.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
