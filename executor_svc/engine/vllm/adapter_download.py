"""Downloads a LoRA adapter from the hub, in a bounded number of bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from executor_svc.engine.vllm.hub_answers import from_hub
from executor_svc.runtime.engine_port import AdapterSource, ModelError

CONFIG = "adapter_config.json"
SAFETENSORS = "adapter_model.safetensors"
WEIGHT_FILES = (SAFETENSORS, "adapter_model.bin", "adapter_model.pt")
HUB_LIMIT_S = 10.0  # for one answer of the hub


def download(source: AdapterSource, cache_dir: Path | None, bytes_limit: int) -> str:
    """Download a snapshot of the hub, or find it in the cache; return its directory.

    ``bytes_limit``: most bytes of the files; more are refused by what the hub says of their sizes, and while they come.

    Raises ModelError.
    """
    path, _ = from_hub(
        source.source,
        source.revision,
        what="adapter",
        fetch=lambda: _fetch(source, cache_dir, bytes_limit),
        cached=lambda: _snapshot(source, cache_dir, [CONFIG, *WEIGHT_FILES], local_files_only=True),
    )
    return path


def _fetch(source: AdapterSource, cache_dir: Path | None, bytes_limit: int) -> str:
    from huggingface_hub import HfApi

    info = HfApi().model_info(source.source, revision=source.revision or None, files_metadata=True, timeout=HUB_LIMIT_S)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    wanted = [CONFIG, *([SAFETENSORS] if SAFETENSORS in sizes else WEIGHT_FILES)]
    _refuse_large(source, {name: sizes[name] for name in wanted if name in sizes}, bytes_limit)
    return _snapshot(source, cache_dir, wanted, tqdm_class=_bounded_progress(source, bytes_limit))


def _refuse_large(source: AdapterSource, sizes: dict[str, int | None], bytes_limit: int) -> None:
    unknown = [name for name, size in sizes.items() if size is None]
    if unknown:
        raise ModelError(f"the hub does not say how large {', '.join(unknown)} of {source.source} is")
    total = sum(size or 0 for size in sizes.values())
    if total > bytes_limit:
        raise ModelError(f"{source.source} has {total} bytes; vllm.adapter_bytes allows {bytes_limit}")


def _bounded_progress(source: AdapterSource, bytes_limit: int) -> type[Any]:
    """Return a progress bar that ends the download once more bytes came than are allowed.

    The hub may serve more than it said, and a branch may move in between.  The library's bar is told of all bytes
    before they are written.
    """
    from huggingface_hub.utils.tqdm import tqdm

    class BoundedProgress(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **{**options, "disable": True})  # type: ignore[no-untyped-call]
            self._came = 0.0

        def update(self, n: float | None = 1) -> bool | None:
            self._came += n or 0
            if self._came > bytes_limit:
                raise ModelError(
                    f"more bytes of {source.source} came than the hub said; vllm.adapter_bytes allows {bytes_limit}"
                )
            return None

    return BoundedProgress


def _snapshot(source: AdapterSource, cache_dir: Path | None, files: list[str], **options: Any) -> str:
    from huggingface_hub import snapshot_download

    return str(
        snapshot_download(
            source.source,
            revision=source.revision or None,
            cache_dir=cache_dir,
            allow_patterns=files,
            etag_timeout=HUB_LIMIT_S,
            **options,
        )
    )
