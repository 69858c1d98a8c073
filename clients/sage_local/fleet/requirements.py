"""Checks that the packages which a local fleet's processes need are installed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata, util

from sage_local.fleet.spec import Engine

DISTRIBUTION = "sage-control-plane"
SERVICES = {"scheduler": "scheduler_svc", "executor": "executor_svc"}
"""The Python package of each service, by the extra that installs its requirements."""


class NotInstalled(Exception):
    """A package that the fleet needs is not installed; the message names the extra to install."""


def require_installed(engine: Engine) -> None:
    """Check that both services, and vLLM if it is the engine, can be imported.

    Raises:
        NotInstalled: a package is missing.
    """
    missing = {extra: packages for extra in SERVICES if (packages := missing_packages(extra))}
    if missing:
        names = ", ".join(sorted({name for packages in missing.values() for name in packages}))
        raise NotInstalled(
            f"the scheduler and executors need packages that are not installed: {names}; "
            f"install {how_to_install(list(missing))}"
        )
    if engine == "vllm" and util.find_spec("vllm") is None:
        raise NotInstalled(f"vLLM is not installed; install {how_to_install(['vllm'])}, or use --engine simulated")


def missing_packages(extra: str) -> list[str]:
    """List the packages of a service's extra that are not installed, the service itself included."""
    missing = [] if util.find_spec(SERVICES[extra]) else [SERVICES[extra]]
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return missing  # run from a source tree: the service itself reports what it cannot import
    wanted = [text for text in requirements if re.search(rf"""extra == ["']{extra}["']""", text)]
    names = [re.split(r"[^A-Za-z0-9._-]", text, maxsplit=1)[0] for text in wanted]
    return missing + [name for name in names if not _is_installed(name)]


def how_to_install(extras: Sequence[str]) -> str:
    """Return the pip arguments that install extras, from an index and from a checkout."""
    listed = ",".join(extras)
    plural = "s" if len(extras) > 1 else ""
    return f"the extra{plural} {listed}: pip install '{DISTRIBUTION}[{listed}]' (in a checkout: '.[{listed}]')"


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
