"""``python -m sagectl`` and the ``sagectl`` script."""

from __future__ import annotations

import sys

EXTRA = "client"
OWN_PACKAGES = frozenset({"click", "rich"})  # what the extra brings beyond the SDK's requirements


def main() -> None:
    """Run the command line and exit with a documented status; 2 if the extra ``client`` is not installed."""
    try:
        from sagectl.cli import sagectl

        sagectl(prog_name="sagectl")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OWN_PACKAGES:
            raise
        print(
            f"error: sagectl needs the package {package}, which is not installed; install the extra {EXTRA}: "
            f"pip install 'sage-control-plane[{EXTRA}]' (in a checkout: '.[{EXTRA}]')",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
