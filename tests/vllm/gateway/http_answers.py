"""Answers over HTTP without what two servers cannot have in common: ids, times, and where a stream is cut."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

OWN = frozenset(
    {
        *("id", "created", "created_at", "completed_at", "system_fingerprint", "item_id", "call_id", "request_id"),
        *("sequence_number", "prompt_tokens_details", "input_tokens_details", "cache_read_input_tokens"),
        *(
            "cache_creation_input_tokens",
            "obfuscation",
            "kv_transfer_params",
            "metrics",
            "signature",
            "reasoning_tokens",
        ),
    }
)
"""Fields that each server fills in its own way."""


def plain(value: Any) -> Any:
    """Return a JSON value without OWN fields."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items() if name not in OWN}
    return [plain(each) for each in value] if isinstance(value, list) else value


@dataclass
class Streamed:
    """What a stream says in all: its texts by the place that they belong to, and what comes once."""

    texts: dict[str, str] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)  # names of events, without repetitions
    last: dict[str, Any] = field(default_factory=dict)  # the latest other values, by place
    done: int = 0  # how often ``[DONE]`` came


def streamed(body: str) -> Streamed:
    """Return what a stream of server-sent events says."""
    found = Streamed()
    for block in body.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        data = lines.get("data", "")
        kind = lines.get("event", "")
        if kind and found.kinds[-1:] != [kind]:
            found.kinds.append(kind)
        if data == "[DONE]":
            found.done += 1
        elif data:
            _add(found, json.loads(data), kind)
    return found


def difference(ours: Any, theirs: Any, place: str = "") -> str:
    """Return where two answers differ first, and how; empty: nowhere."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [name for name in {**ours, **theirs} if ours.get(name, ...) != theirs.get(name, ...)]
        return difference(ours.get(names[0]), theirs.get(names[0]), f"{place}.{names[0]}") if names else ""
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(at, *pair) for at, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]]
        return difference(pairs[0][1], pairs[0][2], f"{place}[{pairs[0][0]}]") if pairs else ""
    return "" if ours == theirs else f"{place}: {str(ours)[:300]} instead of {str(theirs)[:300]}"


TEXTS = frozenset(
    {"text", "content", "reasoning", "reasoning_content", "arguments", "thinking", "partial_json", "delta"}
)


def _add(found: Streamed, value: Any, place: str) -> None:
    if isinstance(value, dict):
        place = f"{place}[{value['index']}]" if "index" in value else place
        for name, each in value.items():
            if name in OWN:
                continue
            at = f"{place}.{name}"
            if name in TEXTS and isinstance(each, str) and ".done" not in place and ".completed" not in place:
                found.texts[at] = found.texts.get(at, "") + each
            else:
                _add(found, each, at)
    elif isinstance(value, list):
        for each in value:
            _add(found, each, place)
    elif value is not None:
        found.last[place] = value
