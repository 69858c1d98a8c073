"""Gives a seed to a request that could only be replayed after a failover, so that the replay has the same tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.request import RequestKey, Sampling

SEED_BYTES = 6


def with_own_seed(sampling: Sampling, key: RequestKey, digest: bytes, engines: Iterable[EngineFacts]) -> Sampling:
    """Return ``sampling`` with a seed if a replay would otherwise draw other tokens.

    ``engines`` are those known for the model.  Where all of them keep output histories, or the request can be resumed,
    no replay is needed, and seeded sampling would only cost time.
    """
    replayable = sampling.seed is not None or sampling.temperature == 0
    if replayable or sampling.resumable or _all_keep_histories(engines):
        return sampling
    return replace(sampling, seed=_seed(key, digest))


def _all_keep_histories(engines: Iterable[EngineFacts]) -> bool:
    """Return whether there is an engine, and none that keeps no output history."""
    found = False
    for facts in engines:
        if not facts.keeps_output_history:
            return False
        found = True
    return found


def _seed(key: RequestKey, digest: bytes) -> int:
    """Return the seed that tenant, id and content decide, the same at every run."""
    found = hashlib.sha256(f"{key.tenant}\0{key.request_id}\0".encode() + digest).digest()
    return int.from_bytes(found[:SEED_BYTES], "big")
