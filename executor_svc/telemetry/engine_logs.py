"""Makes vLLM, and every process that it starts, log JSON lines in the executor's format."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from executor_svc.telemetry.logs import engine_json_handler

CONFIG_PATH = "VLLM_LOGGING_CONFIG_PATH"
CONFIGURES = "VLLM_CONFIGURE_LOGGING"
LEVEL = "VLLM_LOGGING_LEVEL"


@contextmanager
def engine_logs_in_json(level: str, instance_id: str, environment: MutableMapping[str, str]) -> Iterator[None]:
    """Have a vLLM engine that starts inside the block log JSON lines.

    ``level`` applies to all loggers except vLLM's, which keep VLLM_LOGGING_LEVEL.  Nothing is changed if
    ``environment`` configures vLLM's logging or switches it off.  The configuration is a file in the temporary
    directory, which is removed when the block ends; kill -9 leaves it there.
    """
    if CONFIG_PATH in environment or environment.get(CONFIGURES, "1") == "0":
        yield
        return
    descriptor, path = tempfile.mkstemp(prefix="sage-logging-", suffix=".json")  # readable by its owner alone
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(logging_config(level, environment.get(LEVEL, "INFO").upper(), instance_id), file)
        environment[CONFIG_PATH] = path
        yield
    finally:
        environment.pop(CONFIG_PATH, None)
        Path(path).unlink(missing_ok=True)


def logging_config(level: str, vllm_level: str, instance_id: str) -> dict[str, Any]:
    """Return the configuration that vLLM gives to ``logging.config.dictConfig`` in all processes, this one included."""
    handler = {"()": f"{engine_handler.__module__}.{engine_handler.__qualname__}", "instance_id": instance_id}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"sage": handler},
        "root": {"handlers": ["sage"], "level": level},
        "loggers": {"vllm": {"handlers": ["sage"], "level": vllm_level, "propagate": False}},
    }


def engine_handler(instance_id: str) -> logging.Handler:
    """Make the log handler of one of the engine's processes.  Python warnings become log lines too."""
    logging.captureWarnings(True)
    return engine_json_handler(instance_id)
