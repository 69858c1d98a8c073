"""Requests over HTTP while containers are killed, drained and replaced."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.images.stack import GATEWAY, Stack

pytestmark = pytest.mark.timeout(1_800)  # the first test builds the images and starts the services

STREAMS = 8
MAX_TOKENS = 400
REQUEST_TIMEOUT_S = 180.0


def stream(number: int) -> str:
    """Run one streamed completion to its end and return its text; the chunks are checked."""
    asked = {
        "model": "tiny",
        "prompt": f"Story {number}: once upon a time",
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    request = urllib.request.Request(f"{GATEWAY}/v1/completions", json.dumps(asked).encode())
    request.add_header("content-type", "application/json")
    text, done = "", 0
    with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as answer:
        for line in answer:
            if line.strip() == b"data: [DONE]":
                done += 1
            elif line.startswith(b"data: "):
                chunk = json.loads(line.removeprefix(b"data: "))
                assert "error" not in chunk, chunk
                text += chunk["choices"][0]["text"] if chunk["choices"] else ""
    assert done == 1
    return text


def streams_during(what: Callable[[], None]) -> list[str]:
    """Run some streams at once, do ``what`` while they run, and return their texts."""
    with ThreadPoolExecutor(STREAMS) as pool:
        running = [pool.submit(stream, number) for number in range(STREAMS)]
        what()
        return [each.result(timeout=REQUEST_TIMEOUT_S) for each in running]


@pytest.fixture(scope="module")
def undisturbed(stack: Stack) -> list[str]:
    """The texts of the same streams while nothing happens."""
    texts = streams_during(lambda: None)
    assert all(len(each) > MAX_TOKENS for each in texts)
    return texts


def test_streams_go_on_when_an_executor_is_killed_and_it_comes_back(stack: Stack, undisturbed: list[str]) -> None:
    before = stack.restarts("executor-cpu-1")
    assert streams_during(lambda: stack.kill("executor-cpu-1")) == undisturbed
    stack.wait_until_healthy("executor-cpu-1")
    assert stack.restarts("executor-cpu-1") == before + 1


def test_an_executor_that_is_stopped_drains_and_ends_well(stack: Stack, undisturbed: list[str]) -> None:
    assert streams_during(lambda: stack.compose("stop", "executor-cpu-2")) == undisturbed
    assert stack.exit_status("executor-cpu-2") == 0
    stack.compose("start", "executor-cpu-2")
    stack.wait_until_healthy("executor-cpu-2")


def test_streams_go_on_when_the_scheduler_is_killed(stack: Stack, undisturbed: list[str]) -> None:
    assert streams_during(lambda: stack.kill("scheduler")) == undisturbed
    stack.wait_until_healthy("scheduler")


def test_a_scheduler_that_is_replaced_ends_well(stack: Stack, undisturbed: list[str]) -> None:
    assert streams_during(lambda: stack.compose("restart", "scheduler")) == undisturbed
    stack.wait_until_healthy("scheduler")


def test_a_gateway_that_is_stopped_lets_its_streams_end(stack: Stack, undisturbed: list[str]) -> None:
    assert streams_during(lambda: stack.compose("stop", "gateway")) == undisturbed
    assert stack.exit_status("gateway") == 0
