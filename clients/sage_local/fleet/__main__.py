"""``python -m sage_local.fleet``: the supervisor process that ``sagectl up`` leaves in the background.

It reads the fleet's spec from the state directory and runs until SIGTERM.  Exit status: 0 after a signal, 1 if the
fleet could not start or another supervisor holds the directory.
"""

from __future__ import annotations

import sys

from sage_local.fleet.state_dir import AlreadyRunning, StateDir
from sage_local.fleet.supervise import supervise


def main() -> int:
    """Supervise the fleet described in the state directory; return the exit status."""
    state = StateDir.default()
    try:
        return supervise(state.read_spec(), state)
    except AlreadyRunning as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
