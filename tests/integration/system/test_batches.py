"""Batches through the whole control plane: files up and down, lines in OpenAI's form, ends, restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import batch_pb2
from tests.integration.system.local_fleet import MODEL, LocalExecutor, LocalFleet
from tests.support.raw_batches import CHAT, RawBatches, line
from tests.support.simulated_answer import answer


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    """A scheduler with a journal, no executor yet."""
    async with LocalFleet(state_dir=tmp_path / "state") as made:
        yield made


@pytest.fixture
def batches(fleet: LocalFleet) -> RawBatches:
    return RawBatches(fleet.channel())


async def test_each_line_has_its_answer_in_openais_form(batches: RawBatches, one: LocalExecutor) -> None:
    lines = [
        line("text", prompt="Once upon a time", max_tokens=12),
        line("chat", CHAT, model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=5),
    ]
    submitted = await batches.submit(lines, metadata={"of": "test"})
    batch = await batches.until_ended(submitted.batch_id)
    assert batch.state == batch_pb2.BATCH_STATE_COMPLETED
    assert (batch.counts.total, batch.counts.completed, batch.counts.failed) == (2, 2, 0)
    assert batch.error_file_id == ""
    found = await batches.results(batch.output_file_id)
    text = found["text"]["response"]
    wanted = await answer("Once upon a time", Sampling(temperature=0, max_tokens=12))
    assert text["status_code"] == 200
    assert text["request_id"] == f"{batch.batch_id}/0"
    assert text["body"]["object"] == "text_completion"
    assert text["body"]["choices"][0]["text"] == wanted.text
    assert text["body"]["choices"][0]["finish_reason"] == "length"
    assert text["body"]["usage"]["completion_tokens"] == 12
    chat = found["chat"]["response"]["body"]
    assert chat["object"] == "chat.completion"
    assert chat["choices"][0]["message"]["role"] == "assistant"
    assert chat["usage"]["completion_tokens"] == 5
