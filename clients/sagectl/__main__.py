"""``python -m sagectl`` and the ``sagectl`` script."""

from __future__ import annotations

from sagectl.cli import sagectl


def main() -> None:
    """Runs the command line and exits with a documented status."""
    sagectl(prog_name="sagectl")


if __name__ == "__main__":
    main()
