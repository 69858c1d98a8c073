"""The keys file: who may call with which bearer key.  ``sagectl keys`` writes it, the scheduler reads it.

TOML, one table per key.  The file holds the SHA-256 of each key and never the key, which has 256 random bits: nobody
finds a key from its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_common.grants import Grant, role_of

if sys.platform != "win32":
    import fcntl

PREFIX = "sage_"
"""What every key begins with, so that secret scanners can find one that lies where it should not."""

SIZE_LIMIT = 16 * 1024 * 1024
"""Largest file that is read, in bytes: about 60,000 keys."""

_LISTS = ("tenants", "instances")
_FIELDS = frozenset({"name", "role", "sha256", "tenant", *_LISTS})


class KeysFileError(Exception):
    """The file cannot be read, written or understood: one sentence that names the file and the key at fault."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """One key of the file, without its secret."""

    name: str  # of who holds it: for logs, unique in the file
    sha256: str  # of the key as it is sent, hex
    grant: Grant


def new_secret() -> str:
    """Return a new random key."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """Return the hash under which the file holds a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read(path: Path) -> tuple[Key, ...]:
    """Return the keys of a file.

    Raises:
        KeysFileError: it cannot be read, or a key in it makes no sense; then none of its keys count.
    """
    return parse(_text(path), str(path))


def parse(text: str, name: str) -> tuple[Key, ...]:
    """Return the keys of a file's text; ``name`` is the file's, for messages.  Raises KeysFileError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and as many brackets
        raise KeysFileError(f"{name} is not TOML: {error}") from error
    entries = document.pop("key", [])
    if document or not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KeysFileError(f"{name}: holds something else than [[key]] tables")
    keys = tuple(_key(entry, f"{name}: key {number}") for number, entry in enumerate(entries, 1))
    for field in ("name", "sha256"):
        if twice := _twice([getattr(key, field) for key in keys]):
            raise KeysFileError(f"{name}: {field} {twice!r} is there twice")
    return keys


def add(path: Path, key: Key) -> None:
    """Add a key to a file, which is made if it is not there; others of this machine's users cannot read it.

    The file is replaced in one step: who reads it sees it with the key or without.

    Raises:
        KeysFileError: the file cannot be read or written, makes no sense, or has a key of this name.
    """
    path = path.resolve()  # a link stays one
    try:
        with _alone(path.parent):
            _replace(path, _with(path, key))
    except OSError as error:
        raise KeysFileError(f"cannot write {path}: {error.strerror}") from error


def _with(path: Path, key: Key) -> str:
    """Return the file's text with a key more.  Raises KeysFileError."""
    before = _text(path) if path.exists() else ""
    if any(known.name == key.name for known in parse(before, str(path))):
        raise KeysFileError(f"{path} has a key {key.name!r} already; give each holder a name of its own")
    text = (before.rstrip("\n") + "\n\n" if before.strip() else "") + _entry(key)
    parse(text, str(path))
    return text


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Wait while another process adds a key to a file of this directory: each would drop the other's."""
    if sys.platform == "win32":
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise KeysFileError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > SIZE_LIMIT:
        raise KeysFileError(f"{path} is larger than {SIZE_LIMIT} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise KeysFileError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from error


def _key(entry: dict[str, Any], where: str) -> Key:
    try:
        return _checked(entry)
    except ValueError as error:
        raise KeysFileError(f"{where} ({entry.get('name', 'without a name')}): {error}") from error


def _checked(entry: dict[str, Any]) -> Key:
    for field, value in entry.items():
        if field not in _FIELDS:
            raise ValueError(f"{field}: unknown field")
        if field in _LISTS and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise ValueError(f"{field}: is not a list of names")
        if field not in _LISTS and not isinstance(value, str):
            raise ValueError(f"{field}: is not text")
    name, sha256 = entry.get("name", ""), entry.get("sha256", "").lower()
    if not name or not name.isprintable():
        raise ValueError("name: is empty, or holds characters that cannot be printed")
    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        raise ValueError("sha256: is not the SHA-256 of a key in hex")
    lists = {field: tuple(entry.get(field, ())) for field in _LISTS}
    grant = Grant(role=role_of(entry.get("role", "")), tenant=entry.get("tenant", ""), **lists)
    return Key(name=name, sha256=sha256, grant=grant)


def _twice(values: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((value for value in values if value in seen or seen.add(value)), None)  # type: ignore[func-returns-value]


def _entry(key: Key) -> str:
    grant = key.grant
    fields = {"name": key.name, "role": grant.role.value, "sha256": key.sha256, "tenant": grant.tenant}
    lists = {"tenants": list(grant.tenants), "instances": list(grant.instances)}
    # A JSON string without escapes of the surrogate kind, and a JSON list of such strings, are TOML.
    lines = [f"{field} = {json.dumps(value, ensure_ascii=False)}" for field, value in (fields | lists).items() if value]
    return "\n".join(["[[key]]", *lines]) + "\n"


def _replace(path: Path, text: str) -> None:
    """Put ``text`` into the place of the file, which keeps its owner and who may read it.  Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # only its owner may read it
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            _hand_over(name, path.stat())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _hand_over(name: str, before: os.stat_result) -> None:
    """Give a new file the owner and the mode of the one that it replaces: the scheduler's user has to read it."""
    made = os.stat(name)
    if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
        os.chown(name, before.st_uid, before.st_gid)
    os.chmod(name, before.st_mode & 0o777)
