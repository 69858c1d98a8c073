"""Kills the processes of a fleet whose supervisor is gone, also after kill -9.

``python -m sage_local.fleet.reaper GRACE_S`` reads session ids from stdin, one per line: ``+ID`` adds a session and
``-ID`` removes it.  Stdin ends when the supervisor ends.  Processes of these sessions that still run GRACE_S seconds
later are killed.
"""

from __future__ import annotations

import signal
import sys
import time

from sage_local.fleet.sessions import kill, members

POLL_S = 0.1


def main() -> None:
    """Read the supervisor's list of sessions until stdin ends, then end the processes that are left in them."""
    # Signals of a terminal or a service manager are for the supervisor; this process ends after it.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    grace_s = float(sys.argv[1])
    sessions: set[int] = set()
    for line in sys.stdin:
        number = int(line[1:])
        (sessions.add if line[0] == "+" else sessions.discard)(number)
    _end(sessions, grace_s)


def _end(sessions: set[int], grace_s: float) -> None:
    """Wait for the sessions' leaders, to which the kernel sent SIGTERM (see ``bound_child``), and kill the rest."""
    end = time.monotonic() + grace_s
    while members(sessions):
        if time.monotonic() > end:
            kill(sessions)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
