"""Start here: ``python -m executor_svc``."""

from __future__ import annotations

import asyncio
import sys

from executor_svc.config import ConfigError, load_or_exit
from executor_svc.telemetry.logs import configure_logging
from executor_svc.wiring import run


def main() -> None:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for a bad configuration; the others are ``runtime.service.Exit``."""
    config = load_or_exit(sys.argv[1:])
    configure_logging(config.log_level, json_lines=config.log_format == "json", instance_id=config.name)
    try:
        status = asyncio.run(run(config))
    except ConfigError as error:
        print(f"sage-executor: configuration: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(status)


if __name__ == "__main__":
    main()
