"""The gateway's lines on standard error."""

from __future__ import annotations

import logging

from sage_common.threaded_log import ThreadedLog

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"

OURS = ("sage_gateway", "sage_client", "sage_common")
"""Loggers with a handler of their own: a package that vLLM's server imports sets the root logger and its handlers to
ERROR."""


def write_log_lines() -> None:
    """Write what is logged at INFO and above, by the gateway and by what it imports."""
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=[ThreadedLog()])
    own = ThreadedLog()
    own.setFormatter(logging.Formatter(FORMAT))
    for name in OURS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.handlers = [own]
