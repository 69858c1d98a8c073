"""What the configuration says arrives where it acts: a key that is read nowhere fails here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sage_common.tls import ServerTls
from sage_common.virtual_clock import VirtualClock
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.detached.settings import DetachedSettings
from scheduler_svc.control.instances.session_settings import SessionSettings
from scheduler_svc.control.requests.intake_settings import IntakeSettings
from scheduler_svc.control.requests.prompt_memory import PromptMemoryLimits
from scheduler_svc.control.requests.request_table import RecordLimits
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.prefixes.settings import PrefixSettings
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.shares.settings import ShareSettings, TenantSettings
from scheduler_svc.recording.recording import RecordingSettings
from scheduler_svc.settings.journal import JournalSection
from scheduler_svc.storage.journal.journal import JournalSettings
from scheduler_svc.wiring import doors, recorders, room_settings
from scheduler_svc.wiring.control_plane import build_control
from scheduler_svc.wiring.scheduler_service import SchedulerService
from tests.unit.control.world import NoTokenizers

SETTINGS: dict[str, Any] = {
    "config": Path("scheduler.toml"),
    "listen": "127.0.0.1:1",
    "insecure": True,
    "policy": "priority",
    "drain_timeout_s": 1.5,
    "log_level": "DEBUG",
    "log_format": "json",
    "state_dir": Path("state"),
    "executor_listen": "127.0.0.1:2",
    "admin_listen": "127.0.0.1:3",
    "reflection": False,
    "tls": {"certificate": "c", "private_key": "k", "client_ca": "a", "client_ca_listeners": ["executor_listen"]},
    "access": {
        "keys_file": "keys.toml",
        "jwt": {"jwks_file": "jwks.json", "audience": "sage"},
        "certificates": [{"cn": "*", "role": "observer"}],
    },
    "queue": {
        "limit_per_model": 11,
        "arriving_limit": 12,
        "prompt_memory_bytes": 16,
        "tenant_prompt_memory_bytes": 17,
        "default_deadline_s": 13.0,
        "orphan_timeout_s": 14.0,
        "max_attempts": 15,
        "choices_limit": 19,
        "unmeetable_deadlines": "accept",
        "wait_limit_s": {"LOW": 18.0},
    },
    "instance": {
        "lease_s": 21.0,
        "heartbeat_interval_s": 2.25,
        "reconnect_grace_s": 2.5,
        "stall_limit_s": 24.0,
        "known_wait_limit_s": 25.0,
        "adopt_s": 27.0,
        "forget_after_s": 26.0,
        "probation_s": 70.0,
    },
    "recovery": {"limit_s": 19.0, "on_stop": "drain"},
    "journal": {"url": "sqlite:///other.db", "fleet": "f", "limit_s": 2.5, "max_bytes": 2**21},
    "leadership": {"lease_s": 3.5, "address": "h:1"},
    "detached": {
        "default_deadline_s": 43.0,
        "keep_result_s": 44.0,
        "keep_result_limit_s": 45.0,
        "tenant_requests": 46,
        "tenant_bytes": 47,
        "requests": 48,
        "checkpoint_tokens": 49,
        "checkpoint_s": 0.5,
    },
    "batches": {
        "file_bytes": 81,
        "line_bytes": 82,
        "lines": 83,
        "tenant_bytes": 84,
        "tenant_files": 85,
        "tenant_batches": 86,
        "tenant_unfinished": 87,
        "bytes": 88,
        "files": 89,
        "batches": 90,
        "unfinished": 91,
        "lines_in_flight": 92,
        "deadline_s": 93.0,
        "deadline_limit_s": 94.0,
        "keep_s": 95.0,
        "keep_limit_s": 96.0,
        "unknown_model_s": 97.0,
        "tenant_uploads": 98,
        "uploads": 99,
    },
    "usage": {
        "keep_s": 42.0,
        "max_bytes": 2**22,
        "file": Path("usage.jsonl"),
        "file_max_bytes": 71_000,
        "files": 6,
        "otlp_endpoint": "http://127.0.0.1:4318",
    },
    "pd_separation": {
        "enabled": True,
        "routing_policy": "threshold",
        "prefilling_threshold_input_tokens": 31,
        "prefilling_threshold_ratio": 32.0,
    },
    "automatic_roles": {
        "enabled": True,
        "interval_s": 1.5,
        "pressed": 0.9,
        "room": 0.5,
        "gain": 0.25,
        "delay_s": 2.5,
        "cooldown_s": 3.5,
        "back_s": 4.5,
        "least_prefill": 2,
        "least_decode": 3,
    },
    "prefix": {"aware": False, "max_index_bytes": 2**21, "max_load_ratio": 3.5},
    "scaling": {
        "enabled": True,
        "interval_s": 1.25,
        "share": 0.5,
        "late_share": 0.25,
        "up_delay_s": 2.25,
        "down_delay_s": 3.25,
        "idle_s": 4.25,
        "trend_s": 5.25,
        "warm_up_s": 6.25,
        "min": 2,
        "max": 7,
        "models": {"scaled": {"decoding": {"min": 0, "max": 3}}},
    },
    "device_groups": {"min_awake_s": 1.5, "turn_factor": 2.5, "drain_limit_s": 3.5},
    "record": {"requests": 41, "memory_bytes": 2**20 + 1},
    "recording": {"file": Path("log.jsonl"), "max_bytes": 70_000, "files": 3, "tenants": False},
    "telemetry": {},  # has tests of its own
    "shares": {"prompt_token_weight": 3.0, "output_token_weight": 4.0},
    "tenant_default": {
        "weight": 5.0,
        "waiting_limit": 6,
        "running_limit": 7,
        "at_running_limit": "refuse",
        "tokens_per_minute": 8,
    },
    "tenants": {"t": {"weight": 9.0}},
    "models": {"m": {"sampling": {"temperature": 0.25}}},
}
CONFIG = SchedulerConfig(**SETTINGS)


def sections(model: type[BaseModel]) -> dict[str, set[str]]:
    """Keys of each section; those outside any under the empty name."""
    found: dict[str, set[str]] = {"": set()}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = set(kind.model_fields)
        else:
            found[""].add(name)
    return found


NEEDS_A_PACKAGE = {"uvloop"}
"""Keys that cannot be set here; tests/unit/common/test_event_loop.py does."""


def test_this_test_sets_every_key() -> None:
    for name, keys in sections(SchedulerConfig).items():
        given = SETTINGS[name] if name else {k for k in SETTINGS if k not in sections(SchedulerConfig)}
        assert name == "telemetry" or set(given) == keys - NEEDS_A_PACKAGE, f"section {name!r}"


def test_no_key_is_at_its_default_here() -> None:
    default = SchedulerConfig()
    for name, keys in sections(SchedulerConfig).items():
        ours, theirs = (getattr(CONFIG, name), getattr(default, name)) if name else (CONFIG, default)
        for key in keys - NEEDS_A_PACKAGE if name != "telemetry" else ():
            assert getattr(ours, key) != getattr(theirs, key), f"{name}.{key}"


def test_what_the_core_is_told() -> None:
    scheduler = room_settings.scheduler_settings(CONFIG)
    assert (scheduler.policy, scheduler.queue_limit_per_model) == ("priority", 11)
    assert (scheduler.stall_limit_s, scheduler.known_wait_limit_s) == (24.0, 25.0)
    assert scheduler.pd == PdSettings(mode=SplitMode.THRESHOLD, threshold_input_tokens=31, threshold_ratio=32.0)


def test_what_bounds_batches() -> None:
    told = room_settings.batch_settings(CONFIG)
    assert {name: getattr(told, name) for name in SETTINGS["batches"]} == SETTINGS["batches"]
    assert room_settings.batch_settings(SchedulerConfig()) == BatchSettings()


def test_how_the_number_of_instances_follows_the_load() -> None:
    assert room_settings.scheduler_settings(CONFIG).scaling == ScalingSettings(
        enabled=True,
        interval_s=1.25,
        share=0.5,
        late_share=0.25,
        up_delay_s=2.25,
        down_delay_s=3.25,
        idle_s=4.25,
        trend_s=5.25,
        warm_up_s=6.25,
        bounds=Bounds(least=2, most=7),
        models={"scaled": {InstanceRole.DECODING: Bounds(least=0, most=3)}},
    )
    assert room_settings.scheduler_settings(SchedulerConfig()).scaling == ScalingSettings()


def test_the_settings_of_automatic_roles_reach_the_domain() -> None:
    assert room_settings.scheduler_settings(CONFIG).roles == RoleSettings(
        automatic=True,
        interval_s=1.5,
        pressed=0.9,
        room=0.5,
        gain=0.25,
        delay_s=2.5,
        cooldown_s=3.5,
        back_s=4.5,
        least_prefill=2,
        least_decode=3,
    )
    assert room_settings.scheduler_settings(SchedulerConfig()).roles == RoleSettings()


def test_what_placement_is_told_of_prefix_caches() -> None:
    assert room_settings.scheduler_settings(CONFIG).prefix == PrefixSettings(
        aware=False, max_index_bytes=2**21, max_load_ratio=3.5
    )
    assert room_settings.scheduler_settings(SchedulerConfig()).prefix == PrefixSettings()


def test_what_the_journal_is_told() -> None:
    assert room_settings.journal_settings(CONFIG) == JournalSettings(
        url="sqlite:///other.db", fleet="f", limit_s=2.5, max_bytes=2**21
    )


def test_what_detached_work_is_told() -> None:
    assert room_settings.detached_settings(CONFIG) == DetachedSettings(
        default_deadline_s=43.0,
        keep_result_s=44.0,
        keep_result_limit_s=45.0,
        tenant_requests=46,
        tenant_bytes=47,
        requests=48,
        checkpoint_tokens=49,
        checkpoint_s=0.5,
    )
    assert room_settings.detached_settings(SchedulerConfig()) == DetachedSettings()


def test_a_state_directory_has_a_journal_unless_it_is_switched_off() -> None:
    assert room_settings.journal_settings(SchedulerConfig()) is None
    assert SchedulerConfig(state_dir=Path("/state")).journal_url == "sqlite:////state/journal.db"
    assert SchedulerConfig(state_dir=Path("/state"), journal=JournalSection(url="none")).journal_url == ""


def test_splitting_is_off_until_it_is_switched_on() -> None:
    assert room_settings.scheduler_settings(SchedulerConfig()).pd.mode is SplitMode.NEVER


def test_what_sessions_are_told() -> None:
    assert room_settings.session_settings(CONFIG) == replace(
        SessionSettings(),
        lease_s=21.0,
        heartbeat_interval_s=2.25,
        reconnect_grace_s=2.5,
        adopt_s=27.0,
        forget_after_s=26.0,
        probation_s=70.0,
        probation_max_s=70.0,
    )


def test_what_the_door_is_told() -> None:
    assert room_settings.intake_settings(CONFIG) == IntakeSettings(
        arriving_limit=12,
        choices_limit=19,
        default_deadline_s=13.0,
        sampling_defaults={"m": {"temperature": 0.25}},
        prefix_aware=False,
        prompt_memory=PromptMemoryLimits(total=16, tenant=17),
    )


def test_what_the_shares_are_told() -> None:
    default = TenantSettings(
        weight=5.0, waiting_limit=6, running_limit=7, refuses_at_running_limit=True, tokens_per_minute=8
    )
    assert room_settings.scheduler_settings(CONFIG).shares == ShareSettings(
        prompt_token_weight=3.0, output_token_weight=4.0, default=default, tenants={"t": TenantSettings(weight=9.0)}
    )


def test_what_the_server_is_told() -> None:
    assert doors.server_tls(CONFIG) == ServerTls(certificate=Path("c"), private_key=Path("k"), client_ca=Path("a"))
    assert doors.server_tls(SchedulerConfig()) is None


def test_what_the_recording_is_told() -> None:
    recording = recorders.traffic_recording(CONFIG, VirtualClock())
    assert recording is not None
    assert recording._settings == RecordingSettings(file=Path("log.jsonl"), max_bytes=70_000, files=3, tenants=False)
    assert recorders.traffic_recording(SchedulerConfig(), VirtualClock()) is None


def test_what_control_is_built_with() -> None:
    control = build_control(CONFIG, VirtualClock(), NoTokenizers(), epoch=7)
    assert control.scheduler.policy == "priority"
    assert control.requests._limits == RecordLimits(requests=41, memory_bytes=2**20 + 1)
    assert control.runner._max_attempts == 15
    assert control.watchdog._orphan_timeout_s == 14.0
    assert control.models._configured == {"m", "scaled"}
    assert control.epoch == 7


def test_an_epoch_is_later_than_the_one_before() -> None:
    first, second = SchedulerService(SchedulerConfig()), SchedulerService(SchedulerConfig())
    assert second.control.epoch > first.control.epoch
