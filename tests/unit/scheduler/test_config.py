"""The scheduler's own settings; how sources are read and mistakes are worded is tested in ``tests/unit/common``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from scheduler_svc.config import ENV_PREFIX, ConfigError, load
from scheduler_svc.wiring.room_settings import usage_retention


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().startswith(ENV_PREFIX)]:
        monkeypatch.delenv(variable)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str) -> str:
        path = tmp_path / "scheduler.toml"
        path.write_text(text)
        return str(path)

    return write


def complaint(*arguments: str) -> str:
    """What ``load`` says is wrong."""
    with pytest.raises(ConfigError) as refused:
        load(arguments)
    said = str(refused.value)
    assert "\n" not in said, "one line"
    return said


# --- where settings come from ---------------------------------------------------------------------


def test_without_anything_there_are_defaults() -> None:
    config = load([])
    assert (config.listen, config.policy, config.insecure) == ("127.0.0.1:50051", "adaptive", False)
    assert config.instance.lease_s == 5.0
    assert config.models == {}


def test_the_same_inside_a_section(file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = file("[instance]\nlease_s = 11\nstall_limit_s = 12\nforget_after_s = 13\n")
    monkeypatch.setenv("SAGE_SCHEDULER_INSTANCE__STALL_LIMIT_S", "22")
    monkeypatch.setenv("SAGE_SCHEDULER_INSTANCE__FORGET_AFTER_S", "23")
    instance = load(["--config", path, "--instance.forget-after-s", "33"]).instance
    assert (instance.lease_s, instance.stall_limit_s, instance.forget_after_s) == (11, 22, 33)
    assert instance.probation_s == 5.0, "what nobody names keeps its default"


def test_switches() -> None:
    assert load(["--insecure"]).insecure
    assert not load(["--no-insecure"]).insecure


def test_models_from_a_file(file: Callable[[str], str]) -> None:
    path = file('[models."Org/Model-1".sampling]\ntemperature = 0\nstop = ["a", "b"]\nmax_tokens = 7\n')
    sampling = load(["--config", path]).models["Org/Model-1"].sampling
    assert sampling == {"temperature": 0.0, "stop": ("a", "b"), "max_tokens": 7}


def test_models_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SCHEDULER_MODELS", '{"Org/Model-1": {"sampling": {"temperature": "0.5"}}}')
    assert load([]).models["Org/Model-1"].sampling == {"temperature": 0.5}


def test_where_clients_look_for_a_scheduler_is_no_setting_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SCHEDULER_ADDRESS", "10.0.0.1:50051")
    load([])


# --- unknown keys ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("polizy = 1", "polizy"),
        ("[queue]\nlimit = 1", "queue.limit"),
        ("[qeue]\nlimit_per_model = 1", "qeue"),
        ("[models.m]\nsampeling = {}", "models.m.sampeling"),
        ("[models.m.sampling]\ntemprature = 1", "temprature"),
        ("[telemetry]\nx = 1", "telemetry.x"),
    ],
)
def test_an_unknown_key_in_the_file(file: Callable[[str], str], text: str, key: str) -> None:
    assert key in complaint("--config", file(text))


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("SAGE_SCHEDULER_POLIZY", "SAGE_SCHEDULER_POLIZY"),
        ("SAGE_SCHEDULER_QUEUE__LIMIT", "queue.limit"),
        ("SAGE_SCHEDULER_QEUE__LIMIT_PER_MODEL", "SAGE_SCHEDULER_QEUE__LIMIT_PER_MODEL"),
        ("SAGE_SCHEDULER_QUEUE_LIMIT_PER_MODEL", "SAGE_SCHEDULER_QUEUE_LIMIT_PER_MODEL"),
        ("sage_scheduler_polizy", "sage_scheduler_polizy"),
        ("SAGE_SCHEDULER_", "SAGE_SCHEDULER_"),
    ],
)
def test_an_unknown_key_in_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    monkeypatch.setenv(variable, "1")
    assert said in complaint()


@pytest.mark.parametrize(
    "flag", ["--polizy", "--queue.limit", "--qeue.limit-per-model", "--listen-on", "--list", "--queue.limit-per"]
)
def test_an_unknown_flag(flag: str) -> None:
    """The beginning of a flag is none either: it would change its meaning when another is added."""
    assert flag in complaint(flag, "1")


# --- bad values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "key"),
    [
        ("--listen", "nowhere", "listen"),
        ("--listen", "127.0.0.1", "listen"),
        ("--listen", "127.0.0.1:port", "listen"),
        ("--listen", "127.0.0.1:65536", "listen"),
        ("--listen", "127.0.0.1:-1", "listen"),
        ("--drain-timeout-s", "-1", "drain_timeout_s"),
        ("--drain-timeout-s", "soon", "drain_timeout_s"),
        ("--drain-timeout-s", "inf", "drain_timeout_s"),
        ("--log-level", "LOUD", "log_level"),
        ("--queue.limit-per-model", "0", "queue.limit_per_model"),
        ("--queue.limit-per-model", "1.5", "queue.limit_per_model"),
        ("--queue.default-deadline-s", "0", "queue.default_deadline_s"),
        ("--queue.default-deadline-s", "inf", "queue.default_deadline_s"),
        ("--queue.default-deadline-s", "nan", "queue.default_deadline_s"),
        ("--instance.lease-s", "inf", "instance.lease_s"),
        ("--instance.lease-s", "nan", "instance.lease_s"),
        ("--instance.reconnect-grace-s", "-0.1", "instance.reconnect_grace_s"),
        ("--record.requests", "0", "record.requests"),
        ("--pd-separation.routing-policy", "sometimes", "pd_separation.routing_policy"),
        ("--telemetry.sampling-ratio", "2", "telemetry.sampling_ratio"),
    ],
)
def test_a_bad_value_is_named_with_its_key(flag: str, value: str, key: str) -> None:
    assert complaint(f"{flag}={value}").startswith(f"{key}: ")


def test_everything_wrong_is_named_at_once() -> None:
    said = complaint("--listen=nowhere", "--queue.max-attempts=0", "--instance.lease-s=-1")
    assert all(key in said for key in ("listen", "queue.max_attempts", "instance.lease_s"))


def test_a_value_of_the_wrong_kind_in_the_file(file: Callable[[str], str]) -> None:
    assert "queue" in complaint("--config", file("queue = 3"))
    assert "listen" in complaint("--config", file("listen = 50051"))


def test_what_is_no_json_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SCHEDULER_MODELS", "{")
    assert "models" in complaint()


def test_heartbeats_must_come_well_within_the_lease() -> None:
    """Else every instance would be suspect between two of them."""
    said = complaint("--instance.lease-s=1", "--instance.heartbeat-interval-s=0.6")
    assert "heartbeat_interval_s" in said
    load(["--instance.lease-s=1", "--instance.heartbeat-interval-s=0.5"])


TLS = ("--tls.certificate=c", "--tls.private-key=k")
KEYS = ("--access.keys-file=keys.toml",)


@pytest.mark.parametrize("flag", ["listen", "executor-listen", "admin-listen"])
def test_an_address_that_others_reach_needs_tls_and_identities(flag: str) -> None:
    far, key = f"--{flag}=0.0.0.0:1", flag.replace("-", "_")
    not_loopback = f"{key}: 0.0.0.0:1 is not loopback: give "
    assert complaint(far) == f"{not_loopback}tls.certificate and tls.private_key, or insecure"
    assert complaint(far, *KEYS) == f"{not_loopback}tls.certificate and tls.private_key, or insecure"
    assert complaint(far, *TLS) == f"{not_loopback}access.keys_file, access.jwt or access.certificates, or insecure"
    for enough in ((*TLS, *KEYS), ("--insecure",), (*TLS, "--insecure"), (*KEYS, "--insecure")):
        assert load([far, *enough]).listeners[key] == "0.0.0.0:1"


def test_loopback_needs_neither() -> None:
    config = load(["--executor-listen=127.0.0.1:1", "--admin-listen=unix:/tmp/s"])
    assert not config.access.on
    assert load([*KEYS]).access.on


def test_certificates_prove_nothing_without_an_authority(file: Callable[[str], str]) -> None:
    path = file('[[access.certificates]]\ncn = "op"\nrole = "operator"\n')
    assert complaint("--config", path) == "access.certificates: needs tls.client_ca, which signs the certificates"
    assert load(["--config", path, *TLS, "--tls.client-ca=a"]).access.on


def test_certificates_have_to_be_asked_for_at_an_address_that_is_served(file: Callable[[str], str]) -> None:
    """Else executors would be taken without one on ``listen``."""
    asked = "--tls.client-ca-listeners=executor_listen"
    assert complaint(*TLS, "--tls.client-ca=a", asked) == (
        "tls.client_ca_listeners: executor_listen is not set, so its service takes any client"
    )
    own = "--executor-listen=127.0.0.1:1"
    assert load([*TLS, "--tls.client-ca=a", asked, own]).tls.client_ca_listeners == ("executor_listen",)
    assert load([*TLS, "--tls.client-ca=a"]).tls.client_ca is not None
    path = file('tls.client_ca_listeners = []\n[[access.certificates]]\ncn = "op"\nrole = "operator"\n')
    assert complaint("--config", path, *TLS, "--tls.client-ca=a") == (
        "access.certificates: no address of tls.client_ca_listeners is served"
    )


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--executor-listen=nowhere"], "executor_listen"),
        (["--admin-listen=127.0.0.1"], "admin_listen"),
        (["--access.jwt.jwks-file=j"], "access.jwt"),
        (["--access.jwt.leeway-s=-1"], "access.jwt.leeway_s"),
        (["--tls.client-ca-listeners=metrics"], "tls.client_ca_listeners.0"),
    ],
)
def test_a_setting_of_who_may_do_what_that_makes_no_sense(arguments: list[str], key: str) -> None:
    assert complaint(*arguments).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--tls.certificate=c"], "tls"),
        (["--tls.private-key=k"], "tls"),
        (["--tls.client-ca=a"], "tls"),
    ],
)
def test_half_a_certificate(arguments: list[str], key: str) -> None:
    assert complaint(*arguments).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('temperature = "hot"', "temperature"),
        ("temperature = -1", "temperature"),
        ("top_p = 0", "top_p"),
        ("top_k = -1", "top_k"),
        ("max_tokens = 0", "max_tokens"),
        ("max_tokens = 1.5", "max_tokens"),
        ("min_tokens = 9\nmax_tokens = 3", "min_tokens"),
        ('stop = "x"', "stop"),
        ('stop = [""]', "stop"),
        ("stop_token_ids = [-1]", "stop_token_ids"),
        ("seed = 9223372036854775808", "seed"),
        ("temperature = nan", "temperature"),
        ("logit_bias = {}", "logit_bias"),
    ],
)
def test_sampling_defaults_are_checked_at_the_start(file: Callable[[str], str], text: str, said: str) -> None:
    """Not by the first caller, who set none of it."""
    line = complaint("--config", file(f"[models.m.sampling]\n{text}\n"))
    assert line.startswith("models.m.sampling: ")
    assert said in line


# --- the recording --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--record", "log"], ["--record=log"], ["--recording.file=log"]])
def test_record_is_short_for_the_recordings_file(arguments: list[str]) -> None:
    config = load([*arguments, "--record.requests=7"])
    assert config.recording.file == Path("log")
    assert config.record.requests == 7


@pytest.mark.parametrize(
    ("arguments", "most"),
    [
        ([], 2**30),
        (["--journal.url", "sqlite:////a/journal.db"], 2**30),
        (["--journal.url", "sqlite:////a/journal.db", "--journal.max-bytes", str(2**20)], 2**18),
        (["--journal.url", "sqlite:////a/journal.db", "--usage.max-bytes", str(2**21)], 2**21),
        (["--journal.url", "postgresql://sage@db/sage", "--journal.max-bytes", str(2**20)], 2**30),
    ],
)
def test_usage_records_leave_room_in_a_bounded_journal(arguments: list[str], most: int) -> None:
    assert usage_retention(load(arguments)).max_bytes == most


def test_usage_and_recording_share_no_file(tmp_path: Path) -> None:
    file = str(tmp_path / "log.jsonl")
    assert "usage.file" in complaint("--recording.file", file, "--usage.file", file)


@pytest.mark.parametrize("url", ["http://collector:4317", "http://user:hunter2@127.0.0.1", "127.0.0.1:4317"])
def test_an_unusable_receiver_of_usage_records_is_named(url: str) -> None:
    said = complaint("--usage.otlp-endpoint", url)
    assert "usage.otlp_endpoint" in said
    assert "hunter2" not in said


def test_a_receiver_of_usage_records_with_tls_may_be_anywhere() -> None:
    assert load(["--usage.otlp-endpoint", "https://collector"]).usage.otlp_endpoint == "https://collector"
