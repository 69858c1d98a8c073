"""Which build of the domain runs: compiled, or as Python."""

from __future__ import annotations

from scheduler_svc.domain import queue


def is_compiled() -> bool:
    """Whether the domain's modules are compiled (``setup.py`` says which)."""
    return not str(queue.__file__).endswith(".py")


def build_name() -> str:
    """Return "compiled" or "interpreted"."""
    return "compiled" if is_compiled() else "interpreted"
