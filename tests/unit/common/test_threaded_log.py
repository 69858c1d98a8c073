"""Whoever reads a service's log cannot hold the service up."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sage_common import threaded_log
from sage_common.threaded_log import ThreadedLog

ROOT = Path(__file__).parents[3]

PIPE_BYTES = 64 * 2**10
LINE = "x" * 1023  # with its line break 1 KiB


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("test_threaded_log")
    made.propagate = False
    made.setLevel(logging.INFO)
    yield made
    made.handlers.clear()


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for each in ends:
            os.close(each)


def read_lines(descriptor: int, until: str = "") -> list[str]:
    """Read whole lines, until one ends with ``until``."""
    text = ""
    while not text.endswith(f"{until}\n"):
        text += os.read(descriptor, PIPE_BYTES).decode()
    return text.splitlines()


def notes(lines: list[str]) -> int:
    return sum("dropped" in line for line in lines)


def dropped(lines: list[str]) -> int:
    return sum(int(line.split()[-1]) for line in lines if "dropped" in line)


def test_a_reader_that_stands_still_holds_nobody_up_and_is_told_what_it_missed(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threaded_log, "WAITING_BYTES", 3 * PIPE_BYTES)
    monkeypatch.setattr(threaded_log, "FLUSH_S", 0.01)
    with pipe() as (reading, writing):
        handler = ThreadedLog(writing)
        logger.addHandler(handler)
        for _ in range(1_000):  # nearly 1 MiB; each write would block
            logger.info(LINE)
        handler.flush()
        written: list[str] = []
        while len(written) - notes(written) + dropped(written) < 1_000:
            written += read_lines(reading)
    assert dropped(written) >= 500
    assert {line for line in written if "dropped" not in line} == {LINE}


def test_lines_are_in_order_and_written_when_flush_returns(logger: logging.Logger) -> None:
    with pipe() as (reading, writing):
        handler = ThreadedLog(writing)
        logger.addHandler(handler)
        for number in range(100):
            logger.info("%d \ud800é", number)
        handler.flush()
        assert os.read(reading, PIPE_BYTES).decode() == "".join(f"{number} \\ud800é\n" for number in range(100))


def test_a_descriptor_that_fails_loses_lines_and_nothing_else(logger: logging.Logger) -> None:
    reading, broken = os.pipe()
    os.close(reading)
    handler = ThreadedLog(broken)
    logger.addHandler(handler)
    logger.info("to nobody")
    handler.flush()
    with pipe() as (reading, writing):
        os.dup2(writing, broken)
        logger.info("to somebody")
        assert read_lines(reading, until=": 1") == [
            "to somebody",
            "log lines were dropped while stderr took none: 1",
        ]
    os.close(broken)


def test_a_format_that_fails_for_the_line_about_dropped_lines_does_not_end_the_log(logger: logging.Logger) -> None:
    class OwnFormat(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.levelno == logging.WARNING:
                raise ValueError("no field of this name")
            return super().format(record)

    reading, broken = os.pipe()
    os.close(reading)
    handler = ThreadedLog(broken)
    handler.setFormatter(OwnFormat())
    logger.addHandler(handler)
    logger.info("to nobody")
    handler.flush()
    with pipe() as (reading, writing):
        os.dup2(writing, broken)
        logger.info("to somebody")
        handler.flush()
        logger.info("to somebody again")
        assert read_lines(reading, until="again") == ["to somebody", "to somebody again"]
    os.close(broken)


def test_the_last_lines_are_written_before_the_process_ends() -> None:
    code = (
        "import logging, os\n"
        "from sage_common.threaded_log import ThreadedLog\n"
        "logging.basicConfig(level='INFO', format='%(message)s', handlers=[ThreadedLog()])\n"
        "logging.info('before')\n"
        "logging.getLogger().handlers[0].flush()\n"
        "if os.fork() == 0:\n"
        "    logging.info('of the child')\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "logging.info('the end')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, cwd=ROOT, check=True, text=True
    )
    assert ended.stderr.splitlines() == ["before", "of the child", "the end"]


@pytest.mark.parametrize("before", ["", "logging.info('before')"])
def test_a_line_after_the_last_flush_is_written_and_holds_no_end_up(before: str) -> None:
    code = (
        "import logging\n"
        "from sage_common.threaded_log import ThreadedLog\n"
        "logging.basicConfig(level='INFO', format='%(message)s', handlers=[ThreadedLog()])\n"
        "class Late:\n"
        "    def __del__(self, log=logging.getLogger('late')): log.error('late')\n"
        f"late = Late()\n{before}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, cwd=ROOT, check=True, text=True
    )
    assert ended.stderr.splitlines() == [*(["before"] if before else []), "late"]


def test_a_thread_that_cannot_start_is_tried_again(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with pipe() as (reading, writing):
        logger.addHandler(ThreadedLog(writing))
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            logger.info("first")
        logger.info("second")
        assert read_lines(reading, until="second") == ["first", "second"]


def test_lines_of_two_handlers_keep_their_order(logger: logging.Logger) -> None:
    with pipe() as (reading, writing):
        other = logger.getChild("other")
        other.propagate = False
        logger.addHandler(ThreadedLog(writing))
        other.addHandler(ThreadedLog(writing))
        for number in range(0, 2_000, 2):
            logger.info("%d", number)
            other.info("%d", number + 1)
        other.handlers.clear()
        assert read_lines(reading, until="\n1999") == [str(number) for number in range(2_000)]


def test_a_handler_that_is_closed_does_not_make_its_lines_wait_for_their_reader(logger: logging.Logger) -> None:
    """``logging.config.dictConfig`` closes all handlers of the process, also those that stay in use."""
    with pipe() as (reading, writing):
        handler = ThreadedLog(writing)
        logger.addHandler(handler)
        logger.info("before")
        handler.close()
        for _ in range(200):  # more than the pipe takes
            logger.info(LINE)
        logger.info("last")
        assert read_lines(reading, until="last")[-1] == "last"


def test_lines_of_two_processes_to_one_pipe_stay_whole(logger: logging.Logger) -> None:
    with pipe() as (reading, writing):
        logger.addHandler(ThreadedLog(writing))
        code = f"import os\nfor _ in range(400): os.write({writing}, b'2' * 500 + b'\\n')"
        other = subprocess.Popen([sys.executable, "-c", code], pass_fds=[writing])
        for _ in range(400):
            logger.info("1" * 500)
        found = b""
        while found.count(b"\n") < 800:
            found += os.read(reading, 3_000)
        assert other.wait() == 0
    assert set(found.decode().splitlines()) == {"1" * 500, "2" * 500}
