"""The version of this software, as it is installed."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "sage-control-plane"
UNKNOWN = "unknown"


def own_version() -> str:
    """Return the installed version; UNKNOWN in a checkout that is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNKNOWN
