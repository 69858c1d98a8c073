"""Finds the files of a LoRA adapter: a local directory, or a snapshot of the hub at a fixed commit."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executor_svc.engine.vllm.adapter_download import CONFIG, WEIGHT_FILES, download
from executor_svc.engine.vllm.models import adapter_fingerprint
from executor_svc.runtime.engine_port import AdapterSource, ModelError

CONFIG_BYTES = 1 << 20  # largest adapter_config.json


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterFiles:
    """An adapter whose files are on this machine."""

    path: str  # directory with its files
    weights: str  # fingerprint
    rank: int


def find_adapter(source: AdapterSource, *, rank_limit: int, bytes_limit: int, cache_dir: Path | None) -> AdapterFiles:
    """Find an adapter's files, downloading what is missing, and check them.  Blocks; call it from a thread.

    ``rank_limit``: the largest rank that the engine takes.  ``bytes_limit``: most bytes of a download.

    Raises ModelError: no such directory, hub id or revision, no access, files missing or broken, a rank or a download
    too large.
    """
    if _is_directory(source.source):
        if source.revision:
            raise ModelError(f"revision is for adapters of the hub; {source.source} is a local directory")
        path = Path(source.source)
    else:
        _refuse_missing_path(source.source)
        path = Path(download(source, cache_dir, bytes_limit))
    rank = _rank(path)
    limit = min(rank_limit, source.max_rank or rank_limit)
    if rank > limit:
        whose = "the registry" if limit < rank_limit else "this engine"
        raise ModelError(f"adapter {source.name!r} has rank {rank}; {whose} allows {limit}")
    if not any((path / name).is_file() for name in WEIGHT_FILES):
        raise ModelError(f"{path} holds no weights (none of {', '.join(WEIGHT_FILES)})")
    try:
        return AdapterFiles(path=str(path), weights=adapter_fingerprint(str(path)), rank=rank)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _is_directory(source: str) -> bool:
    """Return whether a source is a directory here.  Raises ModelError where that cannot be found out."""
    try:
        return Path(source).is_dir()
    except OSError as error:  # no access to the directory above it, or a name that is too long
        raise ModelError(f"{source} cannot be read: {error}") from error


def _refuse_missing_path(source: str) -> None:
    """Raise ModelError for a mistyped path.  A hub id is 'name' or 'organisation/name'."""
    if source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise ModelError(f"there is no directory {source}")


def _rank(path: Path) -> int:
    """Return the largest rank that an adapter's configuration states.  Raises ModelError."""
    config = _config(path / CONFIG)
    pattern = config.get("rank_pattern") or {}
    stated = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else ())]
    ranks = [rank for rank in stated if isinstance(rank, int) and rank > 0]
    if len(ranks) != len(stated):
        raise ModelError(f"{path / CONFIG} states no rank: r is {config.get('r')!r}")
    return max(ranks)


def _config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_BYTES + 1)
        found = json.loads(content) if len(content) <= CONFIG_BYTES else None
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}: it is not an adapter's directory") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no JSON object of at most {CONFIG_BYTES} bytes")
    return found
