"""Calls that may hang: bounded in time and number, and no reason for a process to stay."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from sage_fleet.ray_place.blocking_calls import BlockingCalls, hanging
from tests.support.eventually import eventually

NEVER_S = 60.0  # more than any of these tests takes
HANGS = """
import asyncio, threading
from sage_fleet.ray_place.blocking_calls import BlockingCalls

async def main():
    try:
        await BlockingCalls().run(threading.Event().wait, 0.01)
    except TimeoutError:
        print("given up", flush=True)

asyncio.run(main())
"""
SAGECTL = """
import atexit, sys
from sagectl.__main__ import main

atexit.register(print, "the interpreter's own end")
sys.argv = ["sagectl", "generate", "--no-such-option"]
main()
"""


def fails() -> None:
    raise ValueError("no such actor")


async def test_a_call_answers_or_raises() -> None:
    calls = BlockingCalls()
    assert await calls.run(lambda: 7, NEVER_S) == 7
    with pytest.raises(ValueError, match="no such actor"):
        await calls.run(fails, NEVER_S)


async def test_calls_that_hang_keep_their_places_until_they_return() -> None:
    calls, release = BlockingCalls(limit=1), threading.Event()
    for _ in range(2):  # the second one does not even begin
        with pytest.raises(TimeoutError):
            await calls.run(release.wait, 0.01)
    assert hanging()
    release.set()
    assert await calls.run(lambda: 7, NEVER_S) == 7
    await eventually(lambda: not hanging(), what="calls to return")


async def test_more_calls_than_places_are_all_made() -> None:
    calls = BlockingCalls(limit=2)
    assert await asyncio.gather(*(calls.run(lambda n=n: n, NEVER_S) for n in range(9))) == list(range(9))  # type: ignore[misc]


def test_a_process_ends_although_a_call_hangs() -> None:
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert (ended.returncode, ended.stdout) == (0, "given up\n"), ended.stderr


def test_sagectl_ends_at_once_with_its_status_although_a_call_hangs() -> None:
    script = HANGS + SAGECTL
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=NEVER_S, check=False)
    assert (ended.returncode, ended.stdout) == (2, "given up\n"), ended.stderr
    assert "--no-such-option" in ended.stderr
