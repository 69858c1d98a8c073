"""Has vLLM's CPU build take the GPUs that raylets only declare, so that an engine over several nodes runs without GPUs.

vLLM's Ray backend refuses platforms without ``ray_device_key``, which its CPU platform lacks.  A platform plugin, which
vLLM finds by an entry point, is the CPU platform with that key.
"""

from __future__ import annotations

from pathlib import Path

_ENTRY_POINTS = "[vllm.platform_plugins]\ncpu_on_ray = tests.support.cpu_on_ray:platform\n"


def install(folder: Path) -> None:
    """Write what has vLLM find the plugin in processes that have ``folder`` and this checkout on their PYTHONPATH."""
    described = folder / "cpu_on_ray-1.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: cpu-on-ray\nVersion: 1\n")
    (described / "entry_points.txt").write_text(_ENTRY_POINTS)


def platform() -> str:
    """Return the name of the platform's class, which vLLM imports when it needs it."""
    return "tests.support.cpu_on_ray.platform.CpuOnRay"
