"""Start here: ``python -m executor_svc``."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from contextlib import nullcontext

try:
    from executor_svc.config import ConfigError, load_or_exit
    from executor_svc.engine.vllm.lifeline import hang_on_executor_if_spawned
    from executor_svc.telemetry.engine_logs import engine_logs_in_json
    from executor_svc.telemetry.logs import configure_logging
    from executor_svc.wiring import run
except ModuleNotFoundError as absent:
    sys.exit(f"sage-executor: {absent.name} is not installed: pip install 'sage-control-plane[executor]'")

GARBAGE_THRESHOLD = 20_000
"""Objects made and not freed, after which young ones are looked through for cycles: a step of a few hundred sequences
makes thousands that need no looking through, and the default is 700."""

# Processes that the engine spawns import this module first: from then on they end with the executor.
hang_on_executor_if_spawned()


def main() -> None:
    """Exit status: 0 after SIGTERM or SIGINT, 2 for a bad configuration; the others are ``runtime.service.Exit``."""
    config = load_or_exit(sys.argv[1:])
    in_json = config.log_format == "json"
    gc.set_threshold(GARBAGE_THRESHOLD)
    configure_logging(config.log_level, json_lines=in_json, instance_id=config.name)
    vllm_in_json = in_json and config.engine.kind == "vllm"
    with engine_logs_in_json(config.log_level, config.name, os.environ) if vllm_in_json else nullcontext():
        try:
            status = asyncio.run(run(config))
        except ConfigError as error:
            print(f"sage-executor: configuration: {error}", file=sys.stderr)
            raise SystemExit(2) from None
    raise SystemExit(status)


if __name__ == "__main__":
    main()
