"""Becomes a command that ends when its parent does, however the parent ends, and that keeps to its cores.

``python -m fleet.bound_child PARENT_PID CORES COMMAND...``; CORES is like ``0,1``, or ``-`` for any.  The kernel sends
SIGTERM to this process when its parent is gone, and what it becomes by exec inherits that.  Its children do not: they
are the watchman's business.  The cores bind them all.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
ANY = "-"


def main() -> None:
    parent, cores, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(f"the parent {parent} was gone before {command[0]} could start")
    if cores != ANY:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
