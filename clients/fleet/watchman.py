"""Ends what a supervisor started, should the supervisor be gone without having done so itself.

``python -m fleet.watchman GRACE_S`` reads from stdin which sessions there are: ``+ID`` and ``-ID``, a line each.  The
end of stdin is the supervisor's end, kill -9 included.  What is still there after the grace is killed.
"""

from __future__ import annotations

import signal
import sys
import time

from fleet.sessions import kill, members

POLL_S = 0.1


def main() -> None:
    # A terminal's or a service manager's signal is for the supervisor; the watchman goes when it is gone.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    grace_s = float(sys.argv[1])
    sessions: set[int] = set()
    for line in sys.stdin:
        number = int(line[1:])
        (sessions.add if line[0] == "+" else sessions.discard)(number)
    _end(sessions, grace_s)


def _end(sessions: set[int], grace_s: float) -> None:
    """The kernel has sent SIGTERM to the leaders (see ``bound_child``): wait for them, then kill the rest."""
    end = time.monotonic() + grace_s
    while members(sessions):
        if time.monotonic() > end:
            kill(sessions)
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
