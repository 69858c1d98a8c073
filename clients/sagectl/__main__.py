"""``python -m sagectl`` and the ``sagectl`` script."""

from __future__ import annotations

import os
import sys

from sage_common.garbage import start_and_end_fast

#: The extra that brings a package beyond the SDK's requirements, by package.
EXTRAS = {
    "click": "client",
    "rich": "client",
    "yaml": "client",
    "numpy": "simulator",
    "pydantic": "fleet",
    "pydantic_settings": "fleet",
}


def main() -> None:
    """Run the command line and exit with a documented status; 2 if an extra is not installed that it needs."""
    start_and_end_fast()
    try:
        from sagectl.cli import sagectl

        sagectl(prog_name="sagectl")
    except SystemExit as end:
        _leave_what_hangs(end)
        raise
    except KeyboardInterrupt:  # while the packages were loaded
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = EXTRAS.get(package)
        if extra is None:
            raise
        print(
            f"error: sagectl needs the package {package}, which is not installed; install the extra {extra}: "
            f"pip install 'sage-control-plane[{extra}]' (in a checkout: '.[{extra}]')",
            file=sys.stderr,
        )
        sys.exit(2)


def _leave_what_hangs(end: SystemExit) -> None:
    """End the process at once, with its status, where a call to a Ray cluster does not return."""
    calls = sys.modules.get("sage_fleet.ray_place.blocking_calls")  # imported by commands that made one
    if calls is not None and calls.hanging():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else int(end.code is not None))


if __name__ == "__main__":
    main()
