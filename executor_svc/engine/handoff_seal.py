"""Seals KV transfer parameters, so that KV is only fetched for the prompt that it was computed from.

An engine fetches whatever KV the parameters point at.  KV of another prompt would cause no error, only wrong tokens.
The seal detects mistakes, not attacks.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence

from executor_svc.runtime.engine_port import EngineError, JsonValue

SEAL = "sage_seal"  # "<digest of the parameters>:<digest of parameters, prompt and adapter>"


def sealed(params: Mapping[str, JsonValue], prompt: Sequence[int], adapter: str | None) -> dict[str, JsonValue]:
    """Return the parameters with the seal added."""
    content = _canonical(params)
    return {**params, SEAL: f"{_digest(content)}:{_digest(content, *_prompt(prompt, adapter))}"}


def opened(
    params: Mapping[str, JsonValue], prompt: Sequence[int] | None, adapter: str | None = None
) -> dict[str, JsonValue]:
    """Return the parameters without the seal.

    ``prompt`` is None if nothing is to be fetched; then only the parameters themselves are checked.  Raises EngineError
    if the seal is missing, broken or that of another prompt.
    """
    bare = {name: value for name, value in params.items() if name != SEAL}
    alone, _, whole = str(params.get(SEAL, "")).partition(":")
    content = _canonical(bare)
    if alone != _digest(content):
        raise EngineError("the handoff was changed, or has no seal")
    if prompt is not None and whole != _digest(content, *_prompt(prompt, adapter)):
        raise EngineError("the handoff belongs to another prompt")
    return bare


def _canonical(params: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(params, sort_keys=True).encode()


def _prompt(prompt: Sequence[int], adapter: str | None) -> tuple[bytes, bytes]:
    return array("I", prompt).tobytes(), (adapter or "").encode()


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
