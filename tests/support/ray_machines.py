"""A Ray cluster of several machines, all of them on this one.  Whatever happens, no process outlives the test.

Where the kernel allows it, a machine is a set of namespaces: process ids, network, host name and shared memory of its
own, so that only what goes over the network arrives.  Else it is a raylet with a loopback address of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import psutil

from tests.support.machine_network import MachineNetwork
from tests.support.ray_nodes import GONE_WITHIN_S, HEALTH, OBJECT_STORE_BYTES
from tests.support.service_process import FAMILY, of_family

MACHINE = "SAGE_TEST_MACHINE"  # environment variable of all processes of one machine: its index
HEAD_PORT = 6379
UP_WITHIN_S = 60.0
ROOT = Path(__file__).parents[2]
PATHS = (ROOT, ROOT / "protos", ROOT / "protos/gen", ROOT / "clients")
_NAMESPACES = ("--pid", "--net", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
_RAY = (sys.executable, "-m", "ray.scripts.scripts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What one machine has."""

    cpus: int
    gpus: int = 1  # that its raylet declares
    environment: Mapping[str, str] = field(default_factory=dict)


def can_isolate() -> bool:
    """Whether machines can be namespaces here: that needs root and the programs ``unshare``, ``nsenter`` and ``ip``."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return False
    return subprocess.run(["unshare", *_NAMESPACES, "true"], capture_output=True, check=False).returncode == 0


class RayMachines:
    """The first machine has the cluster's head.  ``paths``: what their Python finds beside this checkout."""

    def __init__(self, machines: Sequence[Machine], *, isolated: bool, paths: Sequence[Path] = ()) -> None:
        self._machines = machines
        self._isolated = isolated
        self._folder = Path(tempfile.mkdtemp(prefix="sage-ray-"))
        self._family = secrets.token_hex(8)
        self._network = MachineNetwork(self._family) if isolated else None
        self._started: dict[int, subprocess.Popen[bytes]] = {}
        search = [*map(str, (*paths, *PATHS)), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._environment = {
            **os.environ,
            FAMILY: self._family,
            "PYTHONPATH": os.pathsep.join(search),
            "PYTHONWARNINGS": "ignore",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_memory_monitor_refresh_ms": "0",  # the kernel decides who has too much memory
            "GLOO_SOCKET_IFNAME": "eth0" if isolated else "lo",
            "NCCL_SOCKET_IFNAME": "eth0" if isolated else "lo",
        }

    def __enter__(self) -> Self:
        try:
            if self._network is not None:
                self._network.open()
            for index in range(len(self._machines)):
                self.start(index)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in of_family(self._family):
            process.kill()
        for started in self._started.values():
            started.wait(GONE_WITHIN_S)
        if self._network is not None:
            self._network.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """The cluster's, for processes on its machines."""
        return f"{self._ip(0)}:{HEAD_PORT}"

    @property
    def host(self) -> str:
        """The address by which the machines reach what runs beside them, like a scheduler."""
        return self._network.host if self._network is not None else "127.0.0.1"

    def where(self, index: int) -> str:
        """The beginning of what an executor's status says of its node, if that is this machine."""
        return f"{self._ip(index)} "

    def command(self, index: int, *command: str) -> list[str]:
        """Return the command line that runs ``command`` on a machine."""
        if not self._isolated:
            return [*command]
        inside = psutil.Process(self._started[index].pid).children()[0].pid
        return ["nsenter", f"--target={inside}", "--pid", "--net", "--mount", "--uts", "--ipc", "--", *command]

    def environment(self, index: int) -> dict[str, str]:
        """Return the environment of a machine's processes."""
        own = {MACHINE: str(index), "RAY_TMPDIR": str(self._folder / str(index)), "VLLM_HOST_IP": self._ip(index)}
        return self._environment | own | dict(self._machines[index].environment)

    def start(self, index: int) -> None:
        """Start a machine, also one that was killed.  Returns when its raylet runs."""
        log = self._folder / f"{index}.log"
        (self._folder / str(index)).mkdir(exist_ok=True)
        command = self._ray_start(index)
        if self._network is not None:
            command = ["unshare", *_NAMESPACES, "sh", "-c", self._network.script(index), "sh", *command]
        with log.open("wb") as output:
            self._started[index] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=self.environment(index)
            )
        if self._network is not None:
            self._network.join(index, self._started[index].pid)
        end = time.monotonic() + UP_WITHIN_S
        while b"Ray runtime started" not in log.read_bytes():
            if time.monotonic() > end or self._started[index].poll() is not None:
                raise AssertionError(f"machine {index} did not start:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)

    def kill(self, index: int) -> None:
        """kill -9 of everything that runs on a machine."""
        end = time.monotonic() + GONE_WITHIN_S
        while processes := self.processes(index):
            if time.monotonic() > end:
                raise AssertionError(f"machine {index}: {len(processes)} processes outlive kill -9")
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        self._started[index].wait(GONE_WITHIN_S)

    def processes(self, index: int, *parts: str) -> list[psutil.Process]:
        """The processes of a machine whose command line has all of these parts."""
        found = []
        for process in of_family(self._family):
            try:
                if process.environ().get(MACHINE) == str(index) and all(
                    part in " ".join(process.cmdline()) for part in parts
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def logs(self) -> list[Path]:
        """What Ray's workers on all machines have written: executors and their engines' workers."""
        return sorted(self._folder.glob("*/ray/session_2*/logs/worker-*"))

    def _ip(self, index: int) -> str:
        return self._network.ip(index) if self._network is not None else f"127.0.0.{index + 2}"

    def _ray_start(self, index: int) -> list[str]:
        machine = self._machines[index]
        role = ["--head", f"--port={HEAD_PORT}", "--include-dashboard=false", f"--system-config={json.dumps(HEALTH)}"]
        return [
            *(*_RAY, "start", "--block", *(role if index == 0 else [f"--address={self.address}"])),
            *(f"--node-ip-address={self._ip(index)}", f"--num-cpus={machine.cpus}", f"--num-gpus={machine.gpus}"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--min-worker-port=0", "--max-worker-port=0"),
        ]
