"""aiperf's `mooncake_trace`: Mooncake's fields, and sessions of several turns with `session_id` and `delay` (ms)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_simulator.traced_request import TracedRequest
from sage_simulator.traces.json_record import JsonRecord
from sage_simulator.traces.mooncake import BLOCK_TOKENS, append_hash_ids
from sage_simulator.traces.prefix_blocks import PrefixBlocks, content_id
from sage_simulator.traces.source_lines import source_lines

# A turn with a `delay` is sent that long after the answer to the turn before has ended, which a trace does not say.
ASSUMED_TTFT_S = 0.5
ASSUMED_TPOT_S = 0.03

APPENDED = "deltas_without_responses"  # a turn holds the new text; the answer before it is appended too; the default
APPENDED_WITH_ANSWERS = "deltas_with_responses"  # a turn holds the answer before it and the new text
WHOLE = "message_array_with_responses"  # a turn holds the whole conversation
CONTEXT_MODES = (APPENDED, APPENDED_WITH_ANSWERS, WHOLE)


@dataclass(kw_only=True, slots=True)
class _Session:
    """A conversation as far as it has been read."""

    prompt: PrefixBlocks
    turns: int
    answered_at_s: float  # when the last answer ends, as assumed


def read_aiperf(path: Path) -> Iterator[TracedRequest]:
    """Yield the turns as the file has them, which is not always in the order of arrival.  Raises TraceError.

    `hash_ids` name the text of a turn, `input_length` is its length.  Without `hash_ids` a turn's text is shared with
    the later turns of its session only.  `input_length` and `output_length` are needed: a prompt that is given as text
    would need the model's tokenizer.
    """
    sessions: dict[str, _Session] = {}
    for line in source_lines(path):
        record = JsonRecord.of(line)
        name = record.text("session_id") if record.has("session_id") else ""
        before = sessions.get(name) if name else None
        mode = _context_mode(record)
        output_tokens = _length(record, "output_length")
        arrival_s = _arrival_s(record, before)
        turn = before.turns + 1 if before else 1
        prompt = before.prompt if before and mode != WHOLE else PrefixBlocks(BLOCK_TOKENS)
        _append_turn(prompt, record, f"{name}/{turn}" if name else f"line {line.number}")
        yield TracedRequest(
            arrival_s=arrival_s,
            prompt_tokens=prompt.tokens,
            output_tokens=output_tokens,
            block_hashes=tuple(prompt.hashes),
            block_tokens=BLOCK_TOKENS,
            session=name,
        )
        if name:
            if mode == APPENDED:
                prompt.append(content_id(f"{name}/{turn}/answer"), output_tokens)
            answered_at_s = arrival_s + ASSUMED_TTFT_S + ASSUMED_TPOT_S * (output_tokens - 1)
            sessions[name] = _Session(prompt=prompt, turns=turn, answered_at_s=answered_at_s)


def _append_turn(prompt: PrefixBlocks, record: JsonRecord, name: str) -> None:
    """Append a turn's text.  What `hash_ids` do not name is known by the turn's name."""
    tokens = _length(record, "input_length")
    before = prompt.tokens
    append_hash_ids(prompt, record, tokens)
    prompt.append(content_id(name), before + tokens - prompt.tokens)


def _length(record: JsonRecord, field: str) -> int:
    if field == "input_length" and not record.has(field) and (record.has("text_input") or record.has("messages")):
        raise record.error(field, "the field is missing, and a prompt given as text has no known length in tokens")
    return record.tokens(field)


def _context_mode(record: JsonRecord) -> str:
    if not record.has("context_mode"):
        return APPENDED
    mode = record.text("context_mode")
    if mode not in CONTEXT_MODES:
        raise record.error("context_mode", f"expected one of {', '.join(CONTEXT_MODES)}, got {mode!r:.80}")
    return mode


def _arrival_s(record: JsonRecord, before: _Session | None) -> float:
    """Return the stated time in seconds, or the delay after the assumed end of the answer before."""
    if record.has("timestamp"):
        return record.number("timestamp") / 1000
    if before is None:
        raise record.error("timestamp", "the field is missing; the first turn of a session needs it")
    return before.answered_at_s + (record.number("delay") / 1000 if record.has("delay") else 0.0)
