"""The gateway's own log lines, beside packages that change the root logger."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from sage_gateway.log_lines import OURS, write_log_lines


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", *OURS)]
    before = [(each, each.level, each.propagate, list(each.handlers)) for each in loggers]
    levels = [(handler, handler.level) for handler in logging.getLogger().handlers]  # pytest's own are among them
    yield
    for handler, level in levels:
        handler.setLevel(level)
    for each, level, propagate, handlers in before:
        each.level, each.propagate, each.handlers = level, propagate, handlers
        each.manager._clear_cache()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", OURS)
def test_own_lines_are_written_once_whatever_the_root_logger_leaves_out(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    write_log_lines()
    root = logging.getLogger()
    root.setLevel(logging.ERROR)
    for handler in root.handlers:
        handler.setLevel(logging.ERROR)
    logging.getLogger(f"{name}.part").info("it serves")
    for handler in logging.getLogger(name).handlers:
        handler.flush()
    assert capfd.readouterr().err.count(f"INFO {name}.part: it serves\n") == 1
