"""The writer of the recording: nothing it meets reaches the event loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scheduler_svc.recording import log_writer
from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.recording.log_lines import HeaderLine, InstanceLine, RequestLine
from scheduler_svc.recording.log_writer import DROPPED_FAILED, DROPPED_FULL, RETRY_S, WRITTEN, LogWriter


def header(part: int) -> HeaderLine:
    return HeaderLine(began="2026-01-01T00:00:00+00:00", software_version="1", part=part)


def request(**changes: Any) -> RequestLine:
    given = {"arrival_s": 1.0, "model": "m", "prompt_tokens": 5, "output_tokens": 3, "max_tokens": 9}
    return RequestLine(**{**given, "priority": "NORMAL", "end": "finished", "ended_s": 2.0, **changes})


def instance(name: str, state: str = "ready") -> InstanceLine:
    return InstanceLine(at_s=0.0, instance=name, model="m", state=state, role="general", price_per_hour=1.0)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Disk(LogFile):
    """A file whose disk can be full."""

    full = False

    def append(self, lines: Sequence[bytes]) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super().append(lines)


class Time:
    now = 0.0


def writer_to(path: Path, *, max_bytes: int = 10**6) -> tuple[LogWriter, Disk, Time]:
    """A writer whose thread does not run: the test calls ``write_pending``."""
    disk, time = Disk(path, max_bytes=max_bytes, files=3), Time()
    writer = LogWriter(disk, header, now=lambda: time.now)
    return writer, disk, time


def test_a_file_begins_with_a_header(tmp_path: Path) -> None:
    writer, _, _ = writer_to(tmp_path / "log")
    writer.put(request())
    writer.write_pending()
    first, second = lines_of(tmp_path / "log")
    assert (first["format"], first["version"], first["part"]) == ("sage_log", 1, 1)
    assert (second["kind"], second["prompt_tokens"]) == ("request", 5)


def test_names_and_hashes_are_told_apart_and_not_told(tmp_path: Path) -> None:
    writer, _, _ = writer_to(tmp_path / "log")
    for tenant in ("acme", "acme", "other"):
        writer.put(request(tenant=tenant, session="secret session", block_hashes=(1, 2), block_tokens=2))
    writer.write_pending()
    text = (tmp_path / "log").read_text()
    assert "acme" not in text
    assert "secret" not in text
    one, same, other = lines_of(tmp_path / "log")[1:]
    assert one["tenant"] == same["tenant"] != other["tenant"]
    assert one["block_hashes"] == other["block_hashes"] != [1, 2]


def test_another_recording_hashes_the_same_name_differently(tmp_path: Path) -> None:
    for name in ("a", "b"):
        writer, _, _ = writer_to(tmp_path / name)
        writer.put(request(tenant="acme"))
        writer.write_pending()
    assert lines_of(tmp_path / "a")[1]["tenant"] != lines_of(tmp_path / "b")[1]["tenant"]


def test_a_full_file_is_put_aside_and_the_next_knows_the_instances(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer, _, _ = writer_to(path, max_bytes=900)
    for line in (instance("left"), instance("left", "lost"), instance("here")):
        writer.put(line)
    writer.write_pending()
    for _ in range(4):
        writer.put(request())
        writer.write_pending()
    head, known, *_ = lines_of(path)
    assert head["part"] == 2
    assert known["instance"] == "here"
    assert lines_of(tmp_path / "log.1")[0]["part"] == 1
    assert writer.counts()[WRITTEN] == 7


def test_a_full_disk_costs_lines_and_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log"
    writer, disk, time = writer_to(path)
    writer.put(request(prompt_tokens=1))
    writer.write_pending()
    disk.full = True
    for second in range(3):
        time.now = second * RETRY_S
        writer.put(request(prompt_tokens=2))
        writer.write_pending()
    assert writer.counts() == {WRITTEN: 1, DROPPED_FAILED: 3, DROPPED_FULL: 0}
    assert caplog.text.count("No space left on device") == 1
    disk.full = False
    time.now += RETRY_S
    writer.put(request(prompt_tokens=3))
    writer.write_pending()
    assert [each["prompt_tokens"] for each in lines_of(path)[1:]] == [1, 3]
    assert "recording goes on; 3 lines were dropped" in caplog.text


def test_a_disk_that_was_full_is_left_alone_for_a_while(tmp_path: Path) -> None:
    writer, disk, time = writer_to(tmp_path / "log")
    disk.full = True
    writer.put(request())
    writer.write_pending()
    disk.full = False
    time.now = RETRY_S / 2
    writer.put(request())
    writer.write_pending()
    assert writer.counts()[DROPPED_FAILED] == 2


def test_a_file_whose_header_could_not_be_written_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer, disk, time = writer_to(path)
    disk.full = True
    writer.put(request())
    writer.write_pending()
    disk.full, time.now = False, RETRY_S
    writer.put(request())
    writer.write_pending()
    assert lines_of(path)[0]["format"] == "sage_log"


def test_lines_beyond_the_bound_are_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(log_writer, "PENDING_LIMIT", 2)
    writer, _, _ = writer_to(tmp_path / "log")
    for _ in range(5):
        writer.put(request())
    writer.write_pending()
    assert writer.counts() == {WRITTEN: 2, DROPPED_FAILED: 0, DROPPED_FULL: 3}
    assert caplog.text.count("further ones are dropped") == 1


async def test_what_waits_is_written_when_it_closes(tmp_path: Path) -> None:
    writer, _, _ = writer_to(tmp_path / "log")
    writer.start()
    writer.put(request())
    await writer.close()
    assert len(lines_of(tmp_path / "log")) == 2
    assert not writer._thread.is_alive()


async def test_a_writer_that_never_started_closes(tmp_path: Path) -> None:
    await writer_to(tmp_path / "log")[0].close()
