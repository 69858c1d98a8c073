"""Requests/s of a batch through the control plane, and of vLLM's run-batch on the same engine; the texts compared.

Both engines are up throughout and take turns.  Our time is from the upload's begin to the end that the scheduler notes,
so it has the upload, the checks, the journal and the results; that of run-batch is reading, running and writing.
``python -m tests.bench.batch`` is a command of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from executor_svc.engine.tiny_model import make_tiny_model
from sage_client import AsyncClient
from tests.bench.child import Child, child
from tests.bench.control_plane import control_plane
from tests.bench.engines import Engine, tiny_vllm
from tests.bench.report import Row, table
from tests.bench.rounds import spread
from tests.bench.run_batch_process import READY, RESULT

TINY_MODEL = Path(".cache/tiny-model")
MODEL = "tiny"
WARM_UP_LINES = 64
BATCH_TIMEOUT_S = 120.0


def lines(count: int, max_tokens: int, number: int) -> bytes:
    """A file of conversations at temperature 0."""
    return b"".join(
        json.dumps(
            {
                "custom_id": f"line-{each}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": MODEL,
                    "messages": [{"role": "user", "content": f"Tell me story {each} of round {number}."}],
                    "max_tokens": max_tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                },
            }
        ).encode()
        + b"\n"
        for each in range(count)
    )


async def measure(engine: Engine, *, rounds: int, count: int, max_tokens: int) -> list[Row]:
    ours, theirs, equal = [], [], []
    async with AsyncExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-"))
        )  # a disk: /tmp may be memory
        named = ("--engine.model.served-name", MODEL, "--engine.vllm.dtype", "float32")
        state = ("--state-dir", str(folder / "state"))
        plane = await stack.enter_async_context(control_plane(engine, scheduler_flags=state, executor_flags=named))
        client = await stack.enter_async_context(AsyncClient(plane.address))
        other = await stack.enter_async_context(child("run-batch", "tests.bench.run_batch_process", MODEL))
        await other.tell(engine.settings.model_dump_json())
        await other.wait_for(READY, engine.start_timeout_s)
        _say("both engines are up")
        for number in range(rounds + 1):  # the first warms up
            content = lines(count if number else WARM_UP_LINES, max_tokens, number)
            await asyncio.sleep(engine.settle_s)
            seconds, texts = await _through(client, content)
            await asyncio.sleep(engine.settle_s)
            wanted_seconds, wanted = await _run_batch(other, folder, content)
            _say(f"round {number}: {seconds:.2f} s here, {wanted_seconds:.2f} s by run-batch")
            if number:
                ours.append(count / seconds)
                theirs.append(count / wanted_seconds)
                equal.append(100 * sum(texts[each] == wanted[each] for each in wanted) / len(wanted))
    return _rows(ours, theirs, equal, f"{count} chats of {max_tokens} tokens")


async def _through(client: AsyncClient, content: bytes) -> tuple[float, dict[str, str]]:
    begun = time.time()
    outcome = await client.run_batch(content, timeout=BATCH_TIMEOUT_S)
    assert outcome.batch.ended_at is not None
    assert all(each.ok for each in outcome), "a line failed"
    return outcome.batch.ended_at.timestamp() - begun, {each.custom_id: each.text for each in outcome}


async def _run_batch(other: Child, folder: Path, content: bytes) -> tuple[float, dict[str, str]]:
    given, made = folder / "input.jsonl", folder / "output.jsonl"
    given.write_bytes(content)
    await other.tell(f"{given} {made}")
    line = await other.wait_for(RESULT, BATCH_TIMEOUT_S)
    found = [json.loads(each) for each in made.read_text().splitlines()]
    texts = {each["custom_id"]: each["response"]["body"]["choices"][0]["message"]["content"] for each in found}
    return float(line.partition(RESULT)[2]), texts


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _rows(ours: list[float], theirs: list[float], equal: list[float], case: str) -> list[Row]:
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    note = f"texts equal: {statistics.fmean(equal):.1f} %"
    return [
        Row(benchmark="batch", case=f"{case}, this control plane", unit="requests/s", note=note, **spread(ours)),
        Row(benchmark="batch", case=f"{case}, vLLM's run-batch", unit="requests/s", **spread(theirs)),
        Row(benchmark="batch", case="ratio", unit="x", **spread(ratios)),
    ]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="A batch here and by vLLM's run-batch, on the same engine.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--running", type=int, default=32, help="requests that the engine runs at once")
    given = parser.parse_args()
    if not TINY_MODEL.exists():
        make_tiny_model(TINY_MODEL, "float32")
    engine = tiny_vllm(TINY_MODEL, streams=given.running)
    measured = measure(engine, rounds=given.rounds, count=given.lines, max_tokens=given.max_tokens)
    print(table(asyncio.run(measured)))


if __name__ == "__main__":
    main()
