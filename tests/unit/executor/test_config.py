"""The executor's own settings; how sources are read and mistakes are worded is tested in ``tests/unit/common``."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from executor_svc.config import ConfigError, ExecutorConfig, load

BARE = ("--model", "m")


def configured(*flags: str, environment: Mapping[str, str] | None = None) -> ExecutorConfig:
    return load([*BARE, *flags], environment or {})


def test_defaults_are_safe() -> None:
    config = configured()
    assert config.scheduler == ("127.0.0.1:50051",)
    assert config.listen == "127.0.0.1:0"
    assert not config.insecure


def test_flags_fill_nested_settings() -> None:
    config = configured(
        *("--scheduler", "127.0.0.1:1,localhost:2", "--scheduler", "[::1]:3"),
        *("--engine.kind", "simulated", "--engine.simulated.max-running", "3"),
        *("--labels", "pool=a", "--labels", "gpu=none", "--role", "decoding"),
        *("--engine.vllm.engine-args", '{"max_logprobs": 5}'),
    )
    assert config.scheduler == ("127.0.0.1:1", "localhost:2", "[::1]:3")
    assert (config.engine.kind, config.engine.simulated.max_running) == ("simulated", 3)
    assert config.labels == {"pool": "a", "gpu": "none"}
    assert config.role == "decoding"
    assert config.engine.vllm.engine_args == {"max_logprobs": 5}


def test_flags_win_over_environment_and_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "executor.toml"
    file.write_text(
        'scheduler = ["127.0.0.1:1"]\nprice_per_hour = 1.0\nrole = "hybrid"\n'
        '[engine]\nkind = "simulated"\n[engine.model]\nmodel = "from-file"\n[engine.simulated]\nmax_running = 7\n'
    )
    environment = {
        "SAGE_EXECUTOR_CONFIG": str(file),
        "SAGE_EXECUTOR_PRICE_PER_HOUR": "2.0",
        "SAGE_EXECUTOR_ROLE": "decoding",
        "SAGE_EXECUTOR_ENGINE__SIMULATED__MAX_BATCHED_TOKENS": "99",
    }
    config = load(["--role", "general"], environment)
    assert (config.role, config.price_per_hour, config.scheduler) == ("general", 2.0, ("127.0.0.1:1",))
    assert config.engine.model.model == "from-file"
    assert (config.engine.simulated.max_running, config.engine.simulated.max_batched_tokens) == (7, 99)


def test_an_instance_without_a_name_is_named_after_machine_and_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-7")
    assert load(["--model", "/models/Tiny Llama (1B)/"], {}).name == "gpu-7-Tiny-Llama-1B-"
    assert configured("--instance-id", "mine").name == "mine"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--nonsense", "1"), "unrecognized arguments: --nonsense 1"),
        (("--price-per-hour", "cheap"), "price_per_hour: "),
        (("--price-per-hour", "nan"), "price_per_hour: "),
        (("--drain-timeout-s", "-1"), "drain_timeout_s: "),
        (("--engine.simulated.max-running", "0"), "engine.simulated.max_running: "),
        (("--engine.kind", "llama"), "engine.kind"),
        (("--instance-id", "a b"), "instance_id: 'a b'"),
        (("--scheduler", "somewhere"), "scheduler: 'somewhere' is not host:port"),
        (("--scheduler", ""), "scheduler: "),
        (("--listen", "127.0.0.1"), "listen: '127.0.0.1' is not host:port"),
        (("--scheduler", "10.0.0.1:50051"), "scheduler: 10.0.0.1:50051 is not loopback: give tls.ca, or insecure"),
        (("--tls.certificate", "c.pem"), "tls: certificate and private_key go together"),
        (("--config", "/does/not/exist.toml"), "config: cannot read '/does/not/exist.toml'"),
    ],
)
def test_a_bad_flag_is_named(flags: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(*flags)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_engines_that_take_turns_on_a_device_have_to_be_able_to_sleep() -> None:
    flags = ("--device-group.name", "gpu-0", "--engine.kind", "simulated")
    with pytest.raises(ConfigError, match=r"device_group\.name: needs engine\.simulated\.sleep_mode"):
        configured(*flags)
    group = configured(*flags, "--engine.simulated.sleep-mode").device_group
    assert (group.name, group.places, group.directory.is_absolute()) == ("gpu-0", 1, True)
    with pytest.raises(ConfigError, match=r"device_group\.name: 'a/b'"):
        configured(*flags[2:], "--device-group.name", "a/b")


def test_other_addresses_than_loopback_need_tls_or_a_word() -> None:
    far = ("--scheduler", "scheduler.example:50051", "--listen", "0.0.0.0:7000")
    assert configured(*far, "--insecure").insecure
    tls = ("--tls.ca", "ca.pem", "--tls.certificate", "c.pem", "--tls.private-key", "k.pem")
    assert configured(*far, *tls).tls.ca == Path("ca.pem")


def test_the_model_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match=r"^engine\.model\.model: is required \(--model\)$"):
        load([], {})


@pytest.mark.parametrize("variable", ["SAGE_EXECUTOR_SHEDULER", "SAGE_EXECUTOR_ENGINE_KIND"])
def test_an_unknown_variable_is_an_error(variable: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        configured(environment={variable: "x"})


def test_an_unknown_nested_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"engine\.kindd: unknown key"):
        configured(environment={"SAGE_EXECUTOR_ENGINE__KINDD": "x"})


def test_several_schedulers_fit_into_one_variable() -> None:
    config = configured(environment={"SAGE_EXECUTOR_SCHEDULER": "127.0.0.1:1, 127.0.0.1:2"})
    assert config.scheduler == ("127.0.0.1:1", "127.0.0.1:2")


@pytest.mark.parametrize(
    ("text", "complaint"), [("[engine]\nzork = 1\n", "engine.zork: unknown key"), ("zork = 1\n", "zork: unknown key")]
)
def test_an_unknown_key_of_the_file_is_an_error(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "executor.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        configured("--config", str(file))
    assert str(caught.value) == complaint
