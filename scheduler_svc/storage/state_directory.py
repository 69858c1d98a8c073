"""The directory in which a scheduler leaves what the next one needs."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
import time
from pathlib import Path

from scheduler_svc.storage.adoption_key import KEY_BYTES
from scheduler_svc.storage.instances_record import EarlierInstances, decode, encode

log = logging.getLogger(__name__)

KEY_FILE = "adoption-key"
INSTANCES_FILE = "instances.json"
EPOCH_FILE = "epoch"
LOCK_FILE = "lock"
LARGEST_EPOCH = 2**63


class UnusableState(Exception):
    """The state directory cannot be used; says which file and why."""


class StateDirectory:
    """A directory of one scheduler at a time.  Files in it are written whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Open the directory, and make it if it is not there.  Raises UnusableState."""
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(path / LOCK_FILE)
        except OSError as error:
            raise UnusableState(f"state_dir {path}: {error}") from error
        try:
            self.secret = self._secret()
            last = self._last_epoch()
            self.instances = self._instances(last)
            self.epoch = self._next_epoch(last)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, OSError | ValueError):
                raise UnusableState(f"state_dir {path}: {error}") from error
            raise
        self._written = self.instances
        self._wanted = self.instances
        self._writing: asyncio.Task[None] | None = None
        self._frozen = False

    def _secret(self) -> bytes:
        file = self._path / KEY_FILE
        if not file.exists():
            _write(file, secrets.token_bytes(KEY_BYTES))
        secret = file.read_bytes()
        if len(secret) != KEY_BYTES:
            raise ValueError(f"{KEY_FILE} has {len(secret)} bytes instead of {KEY_BYTES}")
        return secret

    def _instances(self, last_epoch: int) -> EarlierInstances:
        file = self._path / INSTANCES_FILE
        if not file.exists():
            return {}
        try:
            return decode(file.read_bytes(), last_epoch)
        except ValueError as error:
            raise ValueError(f"{INSTANCES_FILE}: {error}") from error

    def _last_epoch(self) -> int:
        """Return the epoch of the start before this one; 0 if this is the first."""
        file = self._path / EPOCH_FILE
        if not file.exists():
            return 0
        text = file.read_bytes().strip()
        if not text.isdigit() or not 0 < (last := int(text)) < LARGEST_EPOCH:
            raise ValueError(f"{EPOCH_FILE} is not the number of an epoch")
        return last

    def _next_epoch(self, last: int) -> int:
        """Return this start's epoch, in nanoseconds since 1970: above the last one's, wherever the clock stands."""
        epoch = max(time.time_ns(), last + 1)
        _write(self._path / EPOCH_FILE, b"%d\n" % epoch)
        return epoch

    def keep_instances(self, instances: EarlierInstances) -> None:
        """Write down, in a thread, which instances have a session: the next scheduler waits for them."""
        if self._frozen:
            return
        self._wanted = instances
        if self._wanted != self._written and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="state directory")

    def freeze(self) -> None:
        """Write down nothing that comes later: the sessions that end from here on are the next scheduler's."""
        self._frozen = True

    async def close(self) -> None:
        """Finish writing, and let the next scheduler in."""
        if self._writing is not None:
            await self._writing
        os.close(self._lock)

    async def _write(self) -> None:
        while self._wanted != self._written:
            wanted = self._wanted
            try:
                content = encode(wanted, self.epoch).encode()
                await asyncio.to_thread(_write, self._path / INSTANCES_FILE, content)
            except OSError as error:
                log.error("state_dir: instances cannot be written: %s; the next scheduler may wait for others", error)
                return
            self._written = wanted


def _locked(file: Path) -> int:
    """Return the open file of a lock that ends with this process, however it ends.  Raises UnusableState, OSError."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise UnusableState(f"state_dir {file.parent}: another scheduler uses it (process {owner})") from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def _write(file: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner alone.  Raises OSError."""
    new = file.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
