"""Mooncake's traces: JSONL with timestamp (ms), input_length, output_length, hash_ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.json_record import JsonRecord
from sage_simulator.traces.prefix_blocks import PrefixBlocks
from sage_simulator.traces.source_lines import source_lines

BLOCK_TOKENS = 512
FIELDS_OF_AIPERF = ("session_id", "delay", "context_mode", "message_mode")


def read_mooncake(path: Path) -> Iterator[TracedRequest]:
    """Yield the requests as the file has them; arrivals are seconds since the file's zero.  Raises TraceError."""
    for line in source_lines(path):
        record = JsonRecord.of(line)
        for field in FIELDS_OF_AIPERF:
            if record.has(field):
                raise record.error(field, "a field of aiperf's variant; read the file with format 'aiperf'")
        prompt = PrefixBlocks(BLOCK_TOKENS)
        append_hash_ids(prompt, record, record.tokens("input_length"))
        yield TracedRequest(
            arrival_s=record.number("timestamp") / 1000,
            prompt_tokens=record.tokens("input_length"),
            output_tokens=record.tokens("output_length"),
            block_hashes=tuple(prompt.hashes),
            block_tokens=BLOCK_TOKENS,
        )


def append_hash_ids(prompt: PrefixBlocks, record: JsonRecord, tokens: int) -> None:
    """Append a text whose blocks are known by `hash_ids`: equal ids mean equal text.

    Ids may be fewer than the text's blocks: what follows them is shared with nobody, and is not appended.
    """
    hash_ids = record.integers("hash_ids")
    if len(hash_ids) > -(-tokens // BLOCK_TOKENS):
        raise record.error("hash_ids", f"{len(hash_ids)} blocks of {BLOCK_TOKENS} tokens in a prompt of {tokens}")
    for index, hash_id in enumerate(hash_ids):
        prompt.append(hash_id, min(BLOCK_TOKENS, tokens - index * BLOCK_TOKENS))
