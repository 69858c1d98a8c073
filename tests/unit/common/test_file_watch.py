"""Files that change while a service runs: who notices, and what stays if the new ones are of no use."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sage_common import file_watch
from sage_common.file_watch import FileWatch, Reloader
from sage_common.tls import ReloadedTls, ServerTls, UnreadableFile, UnusableFiles
from tests.support.authority import Authority, needs_openssl
from tests.support.eventually import eventually


def test_each_change_is_noticed_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("a")
    watch = FileWatch([one, two])
    assert not watch.changed()
    for change in (
        lambda: two.write_text("it is there now"),
        lambda: one.write_text("longer"),
        one.unlink,
    ):
        change()
        assert [watch.changed() for _ in range(4)] == [False, True, False, False]


def test_files_that_are_being_written_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "one"
    path.write_text("all")
    watch = FileWatch([path])
    for size in range(5):
        path.write_text("x" * size)
        assert not watch.changed()
    assert watch.changed()


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "one", tmp_path / "other"
    path.write_text("a")
    other.write_text("b")
    found = path.stat()
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    watch = FileWatch([path])
    other.replace(path)
    assert not watch.changed()
    assert watch.changed()


async def test_files_are_looked_at_now_and_then_and_read_when_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_watch, "CHECK_S", 0.01)
    calls: list[bool] = []
    reloader = Reloader([calls.append])
    task = asyncio.create_task(reloader.run())
    await eventually(lambda: len(calls) > 2, what="the checks")
    assert not any(calls)
    reloader.ask()
    await eventually(lambda: any(calls), what="a read")
    await eventually(lambda: not calls[-1], what="the checks that follow")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# --- certificates ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def tls(authority: Authority, tmp_path: Path) -> ServerTls:
    files = ServerTls(certificate=tmp_path / "c", private_key=tmp_path / "k", client_ca=tmp_path / "ca")
    (tmp_path / "ca").write_bytes(authority.certificate.read_bytes())
    install(files, authority, "first")
    return files


def install(files: ServerTls, authority: Authority, name: str, *, days: int = 2) -> None:
    certificate, key = authority.issue(name, days=days)
    files.certificate.write_bytes(certificate.read_bytes())
    files.private_key.write_bytes(key.read_bytes())


@needs_openssl
def test_a_new_certificate_is_read(tls: ServerTls, authority: Authority) -> None:
    reloaded = ReloadedTls(tls)
    before = reloaded.current
    reloaded.check()
    assert reloaded.current is before
    install(tls, authority, "second")
    for _ in range(2):
        reloaded.check()
    assert reloaded.current.certificate == tls.certificate.read_bytes() != before.certificate
    assert reloaded.current.client_ca == authority.certificate.read_bytes()


@needs_openssl
def test_files_that_are_read_again_unchanged_stay_the_same_object(tls: ServerTls) -> None:
    """gRPC is told of a change by identity: a new object would cost each handshake a parse."""
    reloaded = ReloadedTls(tls)
    before = reloaded.current
    reloaded.check(True)
    assert reloaded.current is before


@needs_openssl
@pytest.mark.parametrize("name", ["certificate", "private_key"])
def test_files_of_no_use_change_nothing_and_are_said_once(
    tls: ServerTls, authority: Authority, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    reloaded = ReloadedTls(tls)
    before = reloaded.current
    other = dict(zip(("certificate", "private_key"), authority.issue("other"), strict=True))
    path: Path = getattr(tls, name)
    for content in (b"nonsense", other[name].read_bytes()):  # the second is a half of another pair
        path.write_bytes(content)
        for _ in range(3):
            reloaded.check()
    path.unlink()
    for _ in range(3):
        reloaded.check()
    assert reloaded.current is before
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3
    assert all("the certificate read before stays in use" in line for line in errors)


@needs_openssl
def test_a_certificate_that_has_ended_does_not_replace_one_that_counts(
    tls: ServerTls, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    install(tls, authority, "long", days=30)
    now = datetime.now(UTC) + timedelta(days=10)
    reloaded = ReloadedTls(tls, lambda: now)
    assert not caplog.records
    before = reloaded.current
    install(tls, authority, "short", days=2)
    for _ in range(3):
        reloaded.check()
    assert reloaded.current is before
    assert [f"stays in use: that in {tls.certificate}: it ended at 2" in each for each in caplog.messages] == [True]
    now += timedelta(days=30)  # the one in use has ended too: the files count
    reloaded.check(True)
    assert reloaded.current is not before
    assert ReloadedTls(tls, lambda: now).current.certificate == reloaded.current.certificate
    assert caplog.messages[-1].startswith(f"tls: clients refuse the certificate in {tls.certificate}: it ended at 2")


@needs_openssl
def test_files_of_no_use_at_the_start_are_named(tls: ServerTls, authority: Authority) -> None:
    for path, kind in ((tls.client_ca, "no certificate of an authority"), (tls.private_key, "not a certificate and")):
        assert path is not None
        good = path.read_bytes()
        path.write_text("nonsense")
        with pytest.raises(UnusableFiles, match=kind) as error:
            ReloadedTls(tls)
        assert str(path) in str(error.value)
        path.write_bytes(good)
    tls.certificate.unlink()
    with pytest.raises(UnreadableFile):
        ReloadedTls(tls)


@needs_openssl
def test_the_key_is_in_no_repr(tls: ServerTls) -> None:
    assert "PRIVATE" not in repr(ReloadedTls(tls).current)
