"""The keys file: what is written into it, what is read from it, and which keys count after it changed."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sage_common import keys_file
from sage_common.grants import Grant, Role
from sage_common.keys_file import Key, KeysFileError, hash_of, new_secret
from scheduler_svc.access.authenticator import Authenticator
from scheduler_svc.access.files import AccessFiles
from scheduler_svc.access.identity import Unauthenticated
from scheduler_svc.access.settings import AccessSection

OPERATOR = Grant(role=Role.OPERATOR)


def entry(name: str, secret: str, grant: Grant = OPERATOR) -> Key:
    return Key(name=name, sha256=hash_of(secret), grant=grant)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.mark.parametrize(
    "grant",
    [
        OPERATOR,
        Grant(role=Role.APPLICATION, tenant='team "é" \\ 1'),
        Grant(role=Role.GATEWAY, tenants=("a", "b-*")),
        Grant(role=Role.EXECUTOR, instances=("host-1",)),
    ],
)
def test_what_is_added_is_read(path: Path, grant: Grant) -> None:
    first, second = entry("first", "s1"), entry("second", "s2", grant)
    keys_file.add(path, first)
    keys_file.add(path, second)
    assert keys_file.read(path) == (first, second)


def test_a_new_file_is_for_its_owner_alone_and_an_old_one_keeps_its_mode(path: Path) -> None:
    keys_file.add(path, entry("a", "s1"))
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    keys_file.add(path, entry("b", "s2"))
    assert path.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in path.parent.iterdir()] == ["keys.toml"]


def test_the_secret_is_not_in_the_file(path: Path) -> None:
    secret = new_secret()
    keys_file.add(path, entry("a", secret))
    assert secret not in path.read_text()


def test_secrets_are_long_and_differ() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(secret) >= 48 and secret.startswith("sage_") for secret in made)


def test_comments_stay(path: Path) -> None:
    path.write_text("# ours\n")
    keys_file.add(path, entry("a", "s"))
    assert path.read_text().startswith("# ours\n")


def test_a_link_to_the_file_stays_one(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere.toml")
    for name in ("a", "b"):
        keys_file.add(path, entry(name, name))
    assert path.is_symlink()
    assert len(keys_file.read(tmp_path / "elsewhere.toml")) == 2


def test_keys_that_are_added_at_the_same_time_are_all_there(path: Path) -> None:
    names = [f"k{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: keys_file.add(path, entry(name, name)), names))
    assert {key.name for key in keys_file.read(path)} == set(names)


def test_the_file_keeps_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator adds a key to the file of the scheduler's user, who alone may read it."""
    keys_file.add(path, entry("a", "s1"))
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "chown", lambda name, uid, gid: given.append((uid, gid)))
    real = os.stat

    def others(file: Any, **options: Any) -> Any:
        found = real(file, **options)
        return found if Path(file) != path else os.stat_result((*found[:4], 10_001, 10_002, *found[6:]))

    monkeypatch.setattr(os, "stat", others)
    keys_file.add(path, entry("b", "s2"))
    assert given == [(10_001, 10_002)]


def test_a_name_is_given_once(path: Path) -> None:
    keys_file.add(path, entry("a", "s1"))
    with pytest.raises(KeysFileError, match="has a key 'a' already"):
        keys_file.add(path, entry("a", "s2"))


HASH = hash_of("s")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[key]", "is not TOML"),
        ("x = " + "[" * 100_000, "is not TOML"),
        ("x = " + "1" * 10_000, "is not TOML"),
        ("x = 1", "something else"),
        ("key = 1", "something else"),
        (f'[[key]]\nname = "a"\nrole = "root"\nsha256 = "{HASH}"', r"key 1 \(a\): role: 'root' is not a role"),
        (f'[[key]]\nrole = "operator"\nsha256 = "{HASH}"', r"key 1 \(without a name\): name: is empty"),
        ('[[key]]\nname = "a"\nrole = "operator"\nsha256 = "s"', "sha256: is not the SHA-256"),
        ('[[key]]\nname = "a"\nrole = "operator"', "sha256"),
        (f'[[key]]\nname = "a"\nrole = "operator"\nsha256 = "{HASH}"\nexpires = 1', "expires: unknown field"),
        (f'[[key]]\nname = 3\nrole = "operator"\nsha256 = "{HASH}"', "name: is not text"),
        (f'[[key]]\nname = "a"\nrole = "gateway"\nsha256 = "{HASH}"\ntenants = "a"', "tenants: is not a list"),
        (f'[[key]]\nname = "a"\nrole = "application"\nsha256 = "{HASH}"', "tenant: the role application needs it"),
        (f'[[key]]\nname = "a"\nrole = "operator"\nsha256 = "{HASH}"\n' * 2, "name 'a' is there twice"),
        (
            f'[[key]]\nname="a"\nrole="operator"\nsha256="{HASH}"\n[[key]]\nname="b"\nrole="observer"\nsha256="{HASH}"',
            "sha256 .* is there twice",
        ),
    ],
)
def test_a_file_that_makes_no_sense(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(KeysFileError, match=said) as error:
        keys_file.read(path)
    assert str(path) in str(error.value)


def test_a_file_that_cannot_be_read(path: Path) -> None:
    with pytest.raises(KeysFileError, match="cannot read"):
        keys_file.read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(KeysFileError, match="is not UTF-8"):
        keys_file.read(path)


def test_a_file_that_is_too_large(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_file, "SIZE_LIMIT", 10)
    path.write_text("# " + "x" * 20)
    with pytest.raises(KeysFileError, match="larger than 10 bytes"):
        keys_file.read(path)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match="cannot write"):
        keys_file.add(tmp_path / "no" / "keys.toml", entry("a", "s"))


# --- reading it again -------------------------------------------------------------------------------------------------


def authenticator(path: Path) -> tuple[Authenticator, AccessFiles]:
    made = Authenticator(AccessSection(keys_file=path))
    return made, AccessFiles(made)


def test_keys_come_and_go_with_the_file(path: Path) -> None:
    keys_file.add(path, entry("a", "s1"))
    access, files = authenticator(path)
    assert access.identity("Bearer s1", None).name == "a"
    keys_file.add(path, entry("b", "s2"))
    for _ in range(2):
        files.check()
    assert access.identity("Bearer s2", None).name == "b"
    path.write_text("")
    files.check()
    assert access.identity("Bearer s2", None).name == "b", "an editor may be in the middle of writing it"
    files.check()
    for token in ("s1", "s2"):
        with pytest.raises(Unauthenticated, match="not known"):
            access.identity(f"Bearer {token}", None)


def test_a_bad_file_keeps_the_keys_and_is_said_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys_file.add(path, entry("a", "s1"))
    access, files = authenticator(path)
    path.write_text("[[key]")
    for _ in range(3):
        files.check()
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "the keys read before go on counting" in errors[0].getMessage()
    assert access.identity("Bearer s1", None).name == "a"
    path.unlink()
    for _ in range(2):
        files.check()
    assert access.identity("Bearer s1", None).name == "a"
