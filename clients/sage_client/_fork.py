"""Refuses gRPC in a process that was forked from one that had used it: calls there hang, or end the process."""

from __future__ import annotations

import os

from sage_client._errors import InvalidStateError

_used_by: int | None = None  # id of the process that opened the first channel; None: none was opened


def check_not_forked() -> None:
    """Raise InvalidStateError in a process that was forked after a client had opened a channel."""
    if _used_by not in (None, os.getpid()):
        raise InvalidStateError(
            "this process was forked from one in which a client had made calls, and gRPC does not survive a fork: "
            'start processes with multiprocessing\'s "spawn" or "forkserver", or fork before the first call'
        )


def note_channel() -> None:
    """Note that this process opens a channel.  Raises as ``check_not_forked``."""
    global _used_by  # noqa: PLW0603 - a fact of the process, as gRPC's own state is
    check_not_forked()
    _used_by = os.getpid()
