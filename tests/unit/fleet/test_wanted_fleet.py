"""The files by which commands and the supervisor's process understand one another."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_fleet.errors import FleetError
from sage_fleet.local_place import wanted_fleet
from sage_fleet.local_place.wanted_fleet import FleetFiles, Progress, WantedFleet
from sage_fleet.specification.fleet_file import parse_fleet

FLEET = parse_fleet("groups: {g: {model: m, count: 2}}")


def test_what_is_wanted_is_read_as_it_was_written(tmp_path: Path) -> None:
    files = FleetFiles(tmp_path)
    assert files.wanted() is None
    files.want(WantedFleet(fleet=FLEET, counts={"g": 2}).scaled("g", 1, ["g-2"]))
    wanted = files.wanted()
    assert wanted is not None
    assert (wanted.fleet, wanted.counts, wanted.generation) == (FLEET, {"g": 1}, 2)
    assert list(wanted.remove_first["g"]) == ["g-2"]
    assert (tmp_path / "fleet-wanted.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["{", "{}", '{"fleet": {"new": 1}}', "[]"])
def test_a_file_of_another_version_is_named(tmp_path: Path, text: str) -> None:
    for name in ("fleet-wanted.json", "fleet-progress.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(FleetError, match=r"cannot read .*fleet-wanted\.json"):
        FleetFiles(tmp_path).wanted()
    with pytest.raises(FleetError, match=r"cannot read .*fleet-progress\.json"):
        FleetFiles(tmp_path).progress()


def test_a_disk_that_takes_nothing_is_a_fault_of_the_place_and_names_the_file(tmp_path: Path) -> None:
    for name in ("fleet-wanted.new", "fleet-progress.new"):
        (tmp_path / name).mkdir()  # in the place of the file that is written first
    files = FleetFiles(tmp_path)
    with pytest.raises(FleetError, match=r"cannot write .*fleet-wanted\.json"):
        files.want(WantedFleet(fleet=FLEET, counts={"g": 2}))
    with pytest.raises(FleetError, match=r"cannot write .*fleet-progress\.json"):
        files.report(Progress(supervisor_pid=1, generation=1, settled=True))


async def test_the_wait_for_another_command_is_bounded_and_blocks_no_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wanted_fleet, "LOCK_TIMEOUT_S", 0.01)
    async with FleetFiles(tmp_path).locked():
        with pytest.raises(FleetError, match="another command has been changing this fleet"):
            async with FleetFiles(tmp_path).locked():
                pass
    async with FleetFiles(tmp_path).locked():
        pass
