"""Runs a command that ends together with its parent process and uses only given CPU cores.

``python -m sage_local.fleet.bound_child PARENT_PID CORES COMMAND...``; CORES is like ``0,1``, or ``-`` for any.  The
kernel sends SIGTERM to this process when its parent has ended for whatever reason.  The command, which replaces this
process by exec, inherits that signal.  Processes that the command starts inherit the cores but not the signal:
``reaper`` ends them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
ANY = "-"


def main() -> None:
    """Bind this process to its parent and its cores, then replace it with the command."""
    parent, cores, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(f"the parent process {parent} ended before {command[0]} could start")
    if cores != ANY:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
