"""The demonstrations in small: real services, simulated engines."""

from __future__ import annotations

import io
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sage_local.demo import prefill_decode_demo
from sage_local.demo.display import Display
from sage_local.demo.policy_demo import POLICIES, policy_demo_spec, run_policy_demo
from sage_local.demo.prefill_decode_demo import MIX, prefill_decode_demo_spec, run_prefill_decode_demo


@pytest.fixture(autouse=True)
def _directories_of_failed_starts_go_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


async def test_the_whole_of_it_in_small(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.console = Console(file=io.StringIO(), width=200, highlight=False)
    status = await run_policy_demo(policy_demo_spec("simulated", ""), display, burst_s=0.3, pause_s=0.0)
    assert isinstance(display.console.file, io.StringIO)
    text = display.console.file.getvalue()

    assert (status, capsys.readouterr().err) == (0, "")
    assert "so under fifo BACKGROUND waits least" in text
    assert "prices per hour, in any currency: executor-1 3, executor-2 1; " in text
    for policy in POLICIES:
        assert len(re.findall(rf"^  {policy}-[bt]\d\d .* executor-\d .*TTFT .* tokens/s .*$", text, re.M)) >= 24 + 8
        assert f"{policy}: the burst, by class" in text
        assert re.search(rf"^{policy}: (NO EFFECT SHOWN: )?\S", text.partition("what the numbers show")[2], re.M)
    assert text.endswith("everything is shut down; no process is left\n")


async def test_a_start_that_fails_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.console = Console(file=io.StringIO(), width=200, highlight=False)
    wrong = ("--engine.simulated.step-base-s=-1",)
    spec = replace(policy_demo_spec("simulated", ""), executors=1, executor_arguments=wrong)
    status = await run_policy_demo(spec, display)
    assert isinstance(display.console.file, io.StringIO)

    assert status == 1
    assert "step_base_s: Input should be greater than or equal to 0" in display.console.file.getvalue()
    assert "ended with status 2 while it started" in capsys.readouterr().err


def _lines(display: Display) -> str:
    assert isinstance(display.console.file, io.StringIO)
    return display.console.file.getvalue()


@pytest.fixture
def wide() -> Display:
    display = Display()
    display.console = Console(file=io.StringIO(), width=220, highlight=False)
    return display


async def test_prefill_and_decode_apart_in_small(wide: Display, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--engine.simulated.prefill-tokens-per-s=100000", "--engine.simulated.step-base-s=0.002")
    spec = replace(prefill_decode_demo_spec("simulated", ""), executor_arguments=quick)
    status = await run_prefill_decode_demo(spec, wide, turn_s=0.1)
    text = _lines(wide)

    assert (status, capsys.readouterr().err) == (0, "")
    split = re.findall(r"^  long +\d+ tokens  split decoding  executor-1 -> executor-2 .*, threshold 2000$", text, re.M)
    assert len(split) == MIX.count("long")
    assert all(
        re.search(r"queue +\d+ ms prefill +\d+ ms transfer +\d+ ms decode +\d+ ms  TTFT +\d+ ms", line)
        for line in split
    )
    whole = re.findall(r"^  short .* whole .* executor-2 .* transfer +- .*: below both thresholds$", text, re.M)
    assert len(whole) == MIX.count("short")
    assert re.search(r"^  ratio .* split decoding .* times the predicted output, threshold 4$", text, re.M)
    assert re.search(r"^  one token .* whole .* never split: one output token", text, re.M)
    assert re.search(r"^│ 2 general .* 6 │ +0 │$", text, re.M), "both turns, none of them split"
    assert re.search(r"^│ 1 prefill \+ 1 decode .* 6 │ +6 │$", text, re.M), "both turns, all of them split"
    assert re.search(r"^p99 inter-token latency of the short streams: [\d.]+ ms with prefill and decode", text, re.M)
    assert text.endswith("everything is shut down; no process is left\n")


async def test_a_pair_that_cannot_hand_over_fails_the_showing(
    wide: Display, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_decode_demo, "PAIR_TIMEOUT_S", 0.5)
    short_lease = "--engine.simulated.kv-transfer.lease-s=0.5"
    spec = replace(prefill_decode_demo_spec("simulated", ""), executor_arguments=(short_lease,))
    status = await run_prefill_decode_demo(spec, wide)

    assert status == 1
    assert "no usable pair in 0.5 s: no pair of 'simulated' can hand over" in capsys.readouterr().err
