"""What a scheduler records of real requests is a trace that the simulator replays."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sage_simulator.traces import read_trace
from sage_simulator.traces.recording.log_reader import read_log
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually


async def test_a_recording_is_a_trace_of_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    async with LocalFleet(recording={"file": path}) as fleet:
        await fleet.add("one")
        client = fleet.new_client(tenant="acme")
        await asyncio.gather(
            *(client.generate("a secret prompt", max_tokens=n, session="s").result() for n in (5, 6, 7))
        )
        await eventually(lambda: "samples" in path.read_text(), what="iterations in the recording")
    text = path.read_text()
    assert "secret" not in text
    assert "acme" not in text
    log = read_log(path)
    assert sorted(each.output_tokens for each in log.requests) == [5, 6, 7]
    assert {(each.end, each.instance, each.policy) for each in log.requests} == {("finished", "one", "fifo")}
    assert all(each.ttft_s is not None and each.tpot_s is not None for each in log.requests)
    assert [each.instance for each in log.latest_instances()] == ["one"]
    assert any(each.samples for each in log.loads)
    trace = read_trace(path)
    assert sorted(each.output_tokens for each in trace) == [5, 6, 7]
    assert trace[0].arrival_s == 0.0
