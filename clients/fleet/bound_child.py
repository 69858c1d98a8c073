"""Becomes a command that ends when its parent does, however the parent ends.

``python -m fleet.bound_child PARENT_PID COMMAND...``: the kernel sends SIGTERM to this process when its parent is gone,
and what it becomes by exec inherits that.  Only the process itself is covered, not its children: those are the
watchman's business.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(f"the parent {parent} was gone before {command[0]} could start")
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
