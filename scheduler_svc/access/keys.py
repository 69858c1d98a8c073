"""Bearer keys from the keys file."""

from __future__ import annotations

import hmac
from pathlib import Path

from sage_common import keys_file
from sage_common.keys_file import Key
from scheduler_svc.access.identity import Identity, Proof


class StaticKeys:
    """The keys of a file, as last read."""

    def __init__(self, path: Path) -> None:
        """Read the file.  Raises KeysFileError."""
        self.path = path
        self._keys: dict[str, Key] = {}  # by hash
        self.reload()

    def reload(self) -> None:
        """Read the file again.  Raises KeysFileError; the keys read before then stay."""
        self._keys = {key.sha256: key for key in keys_file.read(self.path)}

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def identity(self, token: str) -> Identity | None:
        """Return whose key ``token`` is; None if nobody's."""
        given = keys_file.hash_of(token)
        key = self._keys.get(given)
        if key is None or not hmac.compare_digest(key.sha256, given):
            return None
        return _identity(key)

    def stands(self, identity: Identity, sha256: str) -> bool:
        """Return whether the key with this hash still makes its caller ``identity``."""
        key = self._keys.get(sha256)
        return key is not None and _identity(key) == identity


def _identity(key: Key) -> Identity:
    return Identity(name=key.name, grant=key.grant, proof=Proof(source="key", key=key.sha256))
