"""A fleet as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sage_simulator.calibration.described_fleet import described_fleet
from sage_simulator.fleet_file import FleetFile, read_fleet, write_fleet
from sage_simulator.fleet_spec import FleetSpecError, InstanceModel
from sage_simulator.heartbeats import HeartbeatTimes
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.prediction.pace import Pace

FLEET = FleetFile(
    instances=(
        InstanceModel(speed=2.0, role=InstanceRole.PREFILLING, model="m", prefix_caching=False),
        InstanceModel(pace=Pace(base_s=0.1, prefill_token_s=0.2, running_s=0.3, kv_token_s=0.0), max_running=7),
    ),
    delay_s=0.002,
    noise=0.25,
    heartbeats=HeartbeatTimes(interval_s=0.4, gap_s=0.1),
)


def test_a_fleet_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_fleet(FLEET, tmp_path / "fleet.json")
    assert read_fleet(tmp_path / "fleet.json") == FLEET
    assert described_fleet(tmp_path / "fleet.json") == FLEET


def test_what_lies_between_is_part_of_the_settings() -> None:
    settings = FLEET.settings()
    assert (settings.network_delay_s, settings.noise, settings.heartbeats.interval_s) == (0.002, 0.25, 0.4)


def test_an_instance_may_leave_fields_at_their_default(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda content: content.update(instances=[{}, {"speed": 2}]))
    assert read_fleet(path).instances == (InstanceModel(), InstanceModel(speed=2))


def changed(tmp_path: Path, change: Any) -> Path:
    path = tmp_path / "fleet.json"
    write_fleet(FLEET, path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(version=2), "expected the format 'sage_fleet', version 1"),
        (lambda c: c.pop("noise"), "noise is missing"),
        (lambda c: c.update(noise=-1), "noise: -1 is not zero or a positive number"),
        (lambda c: c.update(delay_s="short"), "delay_s: 'short' is not zero or a positive number"),
        (lambda c: c.update(instances=[]), "instances: expected a list of at least one"),
        (lambda c: c.update(instances=[3]), r"instances\[0\]: expected an object, got int"),
        (lambda c: c["instances"][1].update(sped=1), r"instances\[1\].sped: there is no such field"),
        (lambda c: c["instances"][0].update(speed="fast"), r"instances\[0\].speed: 'fast' is no number"),
        (lambda c: c["instances"][0].update(prefix_caching=1), r"instances\[0\].prefix_caching: 1 is no bool"),
        (lambda c: c["instances"][0].update(role="boss"), "boss"),
        (lambda c: c["instances"][0].update(speed=0), "speed: 0 is not a positive number"),
        (lambda c: c["instances"][0]["pace"].update(base_s=None), r"instances\[0\].pace.base_s: None is no number"),
        (lambda c: c["instances"][0]["pace"].pop("base_s"), "base_s"),
        (lambda c: c["heartbeats"].update(gap_s=9), "heartbeats: a gap of 9 s"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: Any, said: str) -> None:
    path = changed(tmp_path, change)
    with pytest.raises(FleetSpecError, match=said) as caught:
        read_fleet(path)
    assert str(path) in str(caught.value)


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fleet.json"
    path.write_text("{")
    with pytest.raises(FleetSpecError, match="not JSON"):
        described_fleet(path)
