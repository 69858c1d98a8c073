"""``python -m sage_fleet.local_place``: the process that ``sagectl fleet apply`` leaves in the background.

It runs the fleet that is wanted in the directory SAGE_HOME until SIGTERM.  Exit status: 0 after a signal, 1 if the
scheduler could not start or another supervisor holds the directory.
"""

from __future__ import annotations

import logging
import sys

from sage_fleet.local_place.supervised_fleet import supervise_fleet
from sage_local.fleet.state_dir import AlreadyRunning, StateDir


def main() -> int:
    """Run the fleet; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        return supervise_fleet(StateDir.default())
    except AlreadyRunning as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
