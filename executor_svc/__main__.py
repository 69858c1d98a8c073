"""Entry point of the executor: ``python -m executor_svc``.

A process that the engine spawns imports this module first, so what only the executor needs is imported by ``main``.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import nullcontext

from executor_svc.engine.vllm.lifeline import watch_executor_if_spawned
from sage_common.early_signals import ignore_hangups
from sage_common.garbage import start_and_end_fast

ignore_hangups()  # the imports of `main` take a second, in which SIGHUP would end the process
start_and_end_fast()  # spawned processes, too: each of them imports vLLM

# From here on a spawned process ends when the executor ends.
watch_executor_if_spawned()


def main() -> None:
    """Run the executor until SIGTERM or SIGINT, or until its engine fails.

    Exit status: 0 after SIGTERM or SIGINT, 2 for a bad configuration; ``runtime.service.Exit`` lists the others.
    """
    try:
        from executor_svc.config import PROGRAM, ConfigError, load_or_exit
        from executor_svc.telemetry.engine_logs import engine_logs_in_json
        from executor_svc.telemetry.logs import configure_logging
        from executor_svc.wiring import run
        from sage_common.configuration import exit_for
        from sage_common.event_loop import loop_factory
    except ModuleNotFoundError as absent:
        sys.exit(f"sage-executor: {absent.name} is not installed: pip install 'sage-control-plane[executor]'")

    config = load_or_exit(sys.argv[1:])
    in_json = config.log_format == "json"
    configure_logging(config.log_level, json_lines=in_json, instance_id=config.name)
    vllm_in_json = in_json and config.engine.kind == "vllm"
    with engine_logs_in_json(config.log_level, config.name, os.environ) if vllm_in_json else nullcontext():
        try:
            with asyncio.Runner(loop_factory=loop_factory(uvloop=config.uvloop)) as runner:
                status = runner.run(run(config))
        except ConfigError as error:
            exit_for(error, PROGRAM)
    raise SystemExit(status)


if __name__ == "__main__":
    # By its name, multiprocessing would not import this module in processes that it spawns; by its file it does.
    sys.modules["__main__"].__spec__ = None
    main()
