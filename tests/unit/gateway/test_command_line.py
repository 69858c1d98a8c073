"""The gateway's command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_gateway import command_line
from sage_gateway.command_line import parse
from sage_gateway.media_hosts import MediaHost


def test_the_defaults_are_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_SCHEDULER_ADDRESS", raising=False)
    settings = parse([])
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert (settings.connection.address, settings.connection.insecure) == ("127.0.0.1:50051", False)


def test_the_environment_names_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_SCHEDULER_ADDRESS", "host:1")
    monkeypatch.setenv("SAGE_TOKEN_FILE", "token.txt")
    assert parse([]).connection.address == "host:1"
    assert parse([]).connection.token_file == Path("token.txt")
    assert parse(["--address", "other:2"]).connection.address == "other:2"


def test_flags_of_vllm_are_passed_on() -> None:
    assert parse(["--vllm-arg=--enable-auto-tool-choice", "--vllm-arg=--tool-call-parser=hermes"]).vllm_arguments == (
        "--enable-auto-tool-choice",
        "--tool-call-parser=hermes",
    )


def test_flags_of_vllm_may_be_for_one_model() -> None:
    flags = ["--model-arg=a=--reasoning-parser=qwen3", "--model-arg=b=-v", "--model-arg=a=--enable-auto-tool-choice"]
    assert parse(flags).model_arguments == {
        "a": ("--reasoning-parser=qwen3", "--enable-auto-tool-choice"),
        "b": ("-v",),
    }


def test_images_are_fetched_from_the_hosts_that_are_named() -> None:
    assert parse([]).media_hosts == ()
    hosts = parse(["--media-host", "*.example.com", "--media-host", "127.0.0.1:8080"]).media_hosts
    assert hosts == (MediaHost(name="*.example.com"), MediaHost(name="127.0.0.1", port=8080))


def test_images_and_audio_are_bounded_over_all_requests() -> None:
    assert parse([]).media_bytes == 256 * 1024 * 1024
    assert parse(["--media-bytes", "100000000"]).media_bytes == 100_000_000


@pytest.mark.parametrize("flags", [["--insecure-http"], ["--https-cert", "c.pem", "--https-key", "k.pem"]])
def test_other_machines_are_served_with_https_or_when_told_to(flags: list[str]) -> None:
    assert parse(["--host", "0.0.0.0", *flags]).host == "0.0.0.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "70000 is not in the range 0 to 65535"),
        (["--workers", "0"], "0 is not in the range 1 to 64"),
        (["--workers", "2", "--port", "0"], "need a --port"),
        (["--https-cert", "x"], "belong together"),
        (["--host", "0.0.0.0"], "not loopback: give --https-cert and --https-key, or --insecure-http"),
        (["--grace-s", "nan"], "not in the range"),
        (["--media-bytes", "1000"], "1000 is not in the range 67108864"),
        (["--media-host", "https://a"], "is not HOST or HOST:PORT"),
        (["--model-arg", "a=b"], "is not MODEL=FLAG"),
        (["--model-arg", "--tool-call-parser=hermes"], "expected one argument"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_uvloop_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: object())
    assert (parse([]).uvloop, parse(["--uvloop"]).uvloop) == (False, True)


def test_without_uvloop_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        parse(["--uvloop"])
    assert "pip install 'sage-control-plane[uvloop]'" in capsys.readouterr().err
