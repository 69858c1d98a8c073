"""The lines of a recording, as plain values that are made on the event loop and written out elsewhere.

Times are seconds since the recording began.  Nothing here holds a prompt or an output.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

FORMAT = "sage_log"
VERSION = 1

_DECIMALS = 6  # of times: microseconds


class LogLine(Protocol):
    """One line of a recording."""

    def content(self, salt: bytes) -> dict[str, Any]:
        """Return the line's fields; names are hashed with the salt.  Runs in the writer's thread."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderLine:
    """The first line of a file."""

    began: str  # when the recording began: UTC, as in ISO 8601
    software_version: str
    part: int  # number of the file within the recording, from 1

    def content(self, salt: bytes) -> dict[str, Any]:
        """Return the format, its version and what the header says."""
        return {"format": FORMAT, "version": VERSION, **_stated(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceLine:
    """An instance that joined, changed its state or role, or left."""

    kind: str = "instance"
    at_s: float
    instance: str
    model: str
    state: str
    role: str
    price_per_hour: float
    # of its engine; 0 or empty until it is ready
    engine: str = ""
    engine_version: str = ""
    engine_start: str = ""
    max_model_len: int = 0
    kv_capacity_tokens: int = 0
    kv_block_size: int = 0
    max_running: int = 0
    max_batched_tokens: int = 0
    supports_priority: bool = False
    gpu_count: int = 0
    gpu_name: str = ""

    def content(self, salt: bytes) -> dict[str, Any]:
        """Return what is known of the instance."""
        return _stated(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadLine:
    """What an instance's heartbeats said since its line before."""

    kind: str = "load"
    at_s: float
    instance: str
    heartbeats: int  # since the line before
    shortest_gap_s: float | None  # between two of them; None for a single first one
    longest_gap_s: float | None
    running: int
    waiting: int
    kv_used_tokens: int
    iterations: int  # since the engine was ready
    prefix_queries_tokens: int
    prefix_hits_tokens: int
    #: Prefill tokens, decode tokens, running sequences, KV tokens in use, seconds; oldest first.
    samples: Sequence[tuple[int, int, int, int, float]] = ()

    def content(self, salt: bytes) -> dict[str, Any]:
        """Return the load; an instance that did nothing has no samples."""
        return _stated(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestLine:
    """A request that ended."""

    kind: str = "request"
    arrival_s: float
    model: str
    prompt_tokens: int
    output_tokens: int  # that arrived
    max_tokens: int
    priority: str
    ttft_target_s: float | None = None
    tpot_target_s: float | None = None
    deadline_s: float | None = None  # after arrival; only one that the caller stated
    tenant: str = ""
    session: str = ""
    block_hashes: Sequence[int] = ()
    block_tokens: int = 0
    # what became of it
    end: str  # finished, failed, cancelled, expired
    finish_reason: str = ""  # of a finished one: stop, length
    policy: str = ""  # that placed it last
    rule: str = ""  # that chose the instance
    instance: str = ""  # that had it last
    prefill_instance: str = ""  # of a split request
    attempts: int = 0
    decided_s: float | None = None  # first placement
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended_s: float
    cached_prompt_tokens: int = 0
    expected_wait_s: float | None = None  # in the queue, told with the acceptance
    predicted_first_token_s: float | None = None  # at the last placement, after it
    predicted_finish_s: float | None = None

    def content(self, salt: bytes) -> dict[str, Any]:
        """Return the request with its tenant, session and block hashes hashed again, so that none can be guessed."""
        stated = _stated(self)
        for name in ("tenant", "session"):
            if name in stated:
                stated[name] = _digest(stated[name].encode(), salt).hex()
        if "block_hashes" in stated:
            stated["block_hashes"] = [
                int.from_bytes(_digest((each % 2**64).to_bytes(8), salt)) for each in self.block_hashes
            ]
        return stated


Line = InstanceLine | LoadLine | RequestLine


def _stated(line: Any) -> dict[str, Any]:
    """Return the fields that say something: those that are not at their default, and ``kind``."""
    found: dict[str, Any] = {}
    for each in fields(line):
        value = getattr(line, each.name)
        if value is None or (each.name != "kind" and value == each.default):
            continue
        found[each.name] = round(value, _DECIMALS) if isinstance(value, float) else value
    return found


def _digest(text: bytes, salt: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8, key=salt).digest()
