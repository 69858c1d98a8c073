"""Finds a model's files: a local directory, or a snapshot of the hub at a fixed commit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm.hub_answers import from_hub
from executor_svc.runtime.engine_port import EngineState, ModelError, ProgressListener

WATCH_PERIOD_S = 1.0  # between progress reports of a download
_FINGERPRINT_BYTES = 65_536  # read from each end of a file
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_NOT_NEEDED = ["*.onnx", "*.onnx_data", "*.h5", "*.msgpack", "*.ot", "*.tflite", "original/*", "onnx/*"]
_OTHER_WEIGHTS = ["*.bin", "*.pt", "*.pth", "*.gguf"]  # not needed where there are safetensors


@dataclass(frozen=True, kw_only=True, slots=True)
class ResolvedModel:
    """A model whose files are on this machine."""

    path: str  # directory with its files
    revision: str | None  # commit of a hub model, None for a local one
    chat_template: str | None  # Jinja source that replaces the model's own


def resolve_model(settings: ModelSettings, progress: ProgressListener) -> ResolvedModel:
    """Find the model's files, downloading what is missing.  Blocks; call it from a thread.

    Raises ModelError: no such model or revision, no access, hub out of reach, files missing or broken.
    """
    template = _chat_template(settings.chat_template)
    if Path(settings.model).is_dir():
        if settings.revision is not None:
            raise ModelError(f"model.revision is for models of the hub; {settings.model} is a local directory")
        path, revision = settings.model, None
        progress(EngineState.DOWNLOADING, 1.0, f"{settings.model} is a local directory")
    else:
        _refuse_missing_path(settings.model)
        path, revision = _download(settings, progress)
    _check_files(Path(path))
    return ResolvedModel(path=path, revision=revision, chat_template=template)


def _chat_template(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"model.chat_template cannot be read: {error}") from error


def _refuse_missing_path(model: str) -> None:
    """Raise ModelError for a mistyped path.  A hub id is 'name' or 'organisation/name'."""
    if Path(model).exists():
        raise ModelError(f"{model} is not a directory: give the directory that holds config.json")
    if model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise ModelError(f"there is no directory {model}")


def weights_fingerprint(path: str) -> str:
    """Return a fingerprint that differs between models, without reading all of their files.

    The fingerprint covers the configuration, and of each weight file its name, size and the first and last 64 KiB.
    """
    return _fingerprint(path, "config.json")


def adapter_fingerprint(path: str) -> str:
    """Return a LoRA adapter's fingerprint, as of a model; its hub id where it is not in a directory."""
    return _fingerprint(path, "adapter_config.json") if Path(path).is_dir() else path


def _fingerprint(path: str, config: str) -> str:
    described = Path(path) / config
    digest = hashlib.sha256(described.read_bytes() if described.exists() else b"")
    for file in sorted(file for pattern in _WEIGHTS for file in Path(path).glob(pattern)):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}:".encode())
        with file.open("rb") as weights:
            digest.update(weights.read(_FINGERPRINT_BYTES))
            weights.seek(max(0, size - _FINGERPRINT_BYTES))
            digest.update(weights.read())
    return digest.hexdigest()[:16]


def _check_files(path: Path) -> None:
    _read_json(path / "config.json")
    weights = [file for pattern in _WEIGHTS for file in path.glob(pattern)]
    if not weights:
        raise ModelError(f"{path} holds no weights (none of {', '.join(_WEIGHTS)})")
    for file in weights:
        if not file.exists() or file.stat().st_size == 0:
            raise ModelError(f"{file} is empty or missing: the model is incomplete, download it again")
    for index in path.glob("*.index.json"):
        _check_shards(path, index)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (path / name).exists():
            _read_json(path / name)


def _check_shards(path: Path, index: Path) -> None:
    shards = _read_json(index).get("weight_map", {}).values()
    missing = sorted({shard for shard in shards if not (path / shard).exists()})
    if missing:
        raise ModelError(f"{path} lacks {', '.join(missing)}, which {index.name} lists: download the model again")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} has no {path.name}: it is not a model's directory") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content


# --- the hub ------------------------------------------------------------------------------------------------


def _download(settings: ModelSettings, progress: ProgressListener) -> tuple[str, str]:
    """Download a snapshot.  Return its directory and commit.

    If the hub cannot be reached, a complete snapshot in the cache is used.  Raises ModelError.
    """
    progress(EngineState.DOWNLOADING, None, f"looking for {settings.model} on the hub")
    found, from_cache = from_hub(
        settings.model,
        settings.revision,
        what="model",
        fetch=lambda: _fetch(settings, progress),
        cached=lambda: _cached(settings),
    )
    if from_cache:
        progress(EngineState.DOWNLOADING, 1.0, f"the hub cannot be reached; using {settings.model} from the cache")
    return found


def _fetch(settings: ModelSettings, progress: ProgressListener) -> tuple[str, str]:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    info = HfApi().model_info(settings.model, revision=settings.revision, files_metadata=True)
    ignored = _ignored([sibling.rfilename for sibling in info.siblings or ()])
    wanted = [file for file in info.siblings or () if not any(fnmatch(file.rfilename, pattern) for pattern in ignored)]
    disable_progress_bars()
    cache = Path(settings.cache_dir or constants.HF_HUB_CACHE)
    blobs = cache / f"models--{settings.model.replace('/', '--')}" / "blobs"
    with _DownloadProgress(blobs, wanted, lambda fraction, text: progress(EngineState.DOWNLOADING, fraction, text)):
        # By the revision's name, not its commit: then the cache also knows the name's commit.
        path = snapshot_download(
            settings.model, revision=settings.revision, cache_dir=settings.cache_dir, ignore_patterns=ignored
        )
    commit = Path(path).name
    progress(EngineState.DOWNLOADING, 1.0, f"{settings.model} at {commit}")
    return str(path), commit


def _ignored(files: list[str]) -> list[str]:
    """Return patterns of files that are not needed."""
    safetensors = any("/" not in name and name.endswith(".safetensors") for name in files)
    return [*_NOT_NEEDED, *(_OTHER_WEIGHTS if safetensors else ())]


def _cached(settings: ModelSettings) -> tuple[str, str]:
    """Find a snapshot that an earlier download left in the cache.  Return its directory and commit."""
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        settings.model, revision=settings.revision, cache_dir=settings.cache_dir, local_files_only=True
    )
    return str(path), Path(path).name


class _DownloadProgress:
    """Reports once a second how much of a download is on disk, inside a ``with`` block.

    The library's own progress bars differ from version to version.  The blobs in its cache do not: each is named after
    the file's hash, with a suffix while it is incomplete.
    """

    def __init__(self, blobs: Path, files: list[Any], report: Callable[[float | None, str], None]) -> None:
        self._blobs = blobs
        self._names = {file.lfs.sha256 if file.lfs else file.blob_id for file in files}
        self._total = sum(file.size or 0 for file in files)
        self._report = report
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="download-progress", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(WATCH_PERIOD_S):
            there = self._bytes_there()
            fraction = min(1.0, there / self._total) if self._total else None
            self._report(fraction, f"{there / 1e9:.2f} of {self._total / 1e9:.2f} GB")

    def _bytes_there(self) -> int:
        if not self._blobs.is_dir():
            return 0
        total = 0
        for blob in self._blobs.iterdir():
            if blob.name.partition(".")[0] in self._names:
                with contextlib.suppress(FileNotFoundError):  # renamed when complete
                    total += blob.stat().st_size
        return total
