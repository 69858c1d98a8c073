"""The directory in which a scheduler leaves what the next one needs."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from scheduler_svc.storage.adoption_key import KEY_BYTES

log = logging.getLogger(__name__)

KEY_FILE = "adoption-key"
INSTANCES_FILE = "instances.json"
INSTANCES_LIMIT = 65_536


class UnusableState(Exception):
    """The state directory cannot be used; says which file and why."""


class StateDirectory:
    """A directory of one scheduler at a time.  Files in it are written whole or not at all."""

    def __init__(self, path: Path) -> None:
        """Open the directory, and make it if it is not there.  Raises UnusableState."""
        self._path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.used_before = (path / KEY_FILE).exists()
            self.secret = self._secret()
            self.instances = self._instances()
        except (OSError, ValueError) as error:
            raise UnusableState(f"state_dir {path}: {error}") from error
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

    def _instances(self) -> frozenset[str]:
        file = self._path / INSTANCES_FILE
        if not file.exists():
            return frozenset()
        found = json.loads(file.read_bytes())
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            raise ValueError(f"{INSTANCES_FILE} is not a list of instance ids")
        return frozenset(found)

    def keep_instances(self, instances: Iterable[str]) -> None:
        """Write down, in a thread, which instances have a session: the next scheduler waits for them."""
        if self._frozen:
            return
        self._wanted = frozenset(list(instances)[:INSTANCES_LIMIT])
        if self._wanted != self._written and (self._writing is None or self._writing.done()):
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="state directory")

    def freeze(self) -> None:
        """Keep what is written down now: the sessions that end from here on are the next scheduler's."""
        self._frozen = True

    async def close(self) -> None:
        """Finish writing."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._wanted != self._written:
            wanted = self._wanted
            try:
                await asyncio.to_thread(_write, self._path / INSTANCES_FILE, json.dumps(sorted(wanted)).encode())
            except OSError as error:
                log.error("state_dir: instances cannot be written: %s; the next scheduler may wait for others", error)
                return
            self._written = wanted


def _write(file: Path, content: bytes) -> None:
    """Replace a file as a whole, readable by its owner alone.  Raises OSError."""
    new = file.with_suffix(".new")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
