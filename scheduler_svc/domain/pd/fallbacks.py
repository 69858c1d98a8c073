"""Why a request that should have been split ran whole, or its handoff failed."""

from __future__ import annotations

from enum import Enum


class Fallback(Enum):
    """Why a request that should have been split ran whole, or why its handoff failed; counted by this reason."""

    NO_PAIR = "no_pair"  # no pair of instances can hand over
    NO_ROOM = "no_room"  # no pair has capacity now
    HELD_BACK = "held_back"  # its policy has it wait for a decode instance, and not for another one
    FAILED_BEFORE = "failed_before"  # the request runs whole because its handoff failed before
    PREFILL_FAILED = "prefill_failed"  # the prefill leg was rejected, lost, stalled or failed
    LEASE_EXPIRED = "lease_expired"  # the decode leg came too late for its blocks
    NOT_FETCHED = "not_fetched"  # the decode leg was over before its first token
    RECOMPUTED = "recomputed"  # the decode instance computed the prompt after all
