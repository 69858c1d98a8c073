"""The gateway's command line."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from sage_client import DEFAULT_ADDRESS
from sage_common.addresses import is_loopback
from sage_gateway.connection_settings import ConnectionSettings
from sage_gateway.media_hosts import MediaHost, media_host
from sage_gateway.media_memory import LEAST_MEDIA_BYTES, MEDIA_BYTES, MOST_MEDIA_BYTES
from sage_gateway.settings import DEFAULT_HOST, DEFAULT_PORT, GRACE_S, GatewaySettings

WORKERS_LIMIT = 64

_Add = Callable[..., object]
"""``add_argument`` of a group of flags."""


def parse(arguments: Sequence[str] | None = None) -> GatewaySettings:
    """Return the settings of a command line; exits with status 2 if it is wrong."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if (given.https_cert is None) != (given.https_key is None):
        parser.error("--https-cert and --https-key belong together")
    if given.https_cert is None and not given.insecure_http and not is_loopback(given.host):
        parser.error(f"--host {given.host} is not loopback: give --https-cert and --https-key, or --insecure-http")
    if given.uvloop and find_spec("uvloop") is None:
        parser.error("--uvloop needs the package uvloop: pip install 'sage-control-plane[uvloop]'")
    if given.workers > 1 and given.port == 0:
        parser.error("several workers need a --port that is not 0")
    return GatewaySettings(
        connection=ConnectionSettings(
            address=given.address,
            tls=given.tls,
            tls_ca=given.tls_ca,
            tls_cert=given.tls_cert,
            tls_key=given.tls_key,
            insecure=given.insecure,
            token_file=given.token_file,
        ),
        host=given.host,
        port=given.port,
        workers=given.workers,
        tls_cert=given.https_cert,
        tls_key=given.https_key,
        grace_s=given.grace_s,
        uvloop=given.uvloop,
        vllm_arguments=tuple(given.vllm_arg),
        model_arguments=_by_model(given.model_arg),
        media_hosts=tuple(given.media_host),
        media_bytes=given.media_bytes,
        check=given.check,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sagectl gateway", description="Serve the fleet's models over HTTP, as OpenAI's API does.  Needs vLLM."
    )
    _add_serving(parser.add_argument_group("serving").add_argument)
    _add_scheduler(parser.add_argument_group("scheduler").add_argument)
    _add_vllm(parser.add_argument_group("vLLM").add_argument)
    _add_media(parser.add_argument_group("images and audio").add_argument)
    return parser


def _add_serving(add: _Add) -> None:
    add("--host", default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    add("--port", type=_port, default=DEFAULT_PORT, help="port to listen on; 0: a free one (default: %(default)s)")
    add("--workers", type=_workers, default=1, help="processes that share the port (default: %(default)s)")
    add("--https-cert", type=Path, help="PEM file of the certificate for HTTPS (default: HTTP)")
    add("--https-key", type=Path, help="PEM file of its private key")
    add("--insecure-http", action="store_true", help="allow a --host that is not loopback without HTTPS")
    add(
        "--grace-s",
        type=_seconds,
        default=GRACE_S,
        help="seconds that running requests get when the gateway stops (default: %(default)s)",
    )
    add("--uvloop", action="store_true", help="run the event loop of uvloop, which takes less CPU; vLLM brings it")


def _add_scheduler(add: _Add) -> None:
    add(
        "--address",
        default=os.environ.get("SAGE_SCHEDULER_ADDRESS") or DEFAULT_ADDRESS,
        metavar="HOST:PORT",
        help="address of the scheduler (default: SAGE_SCHEDULER_ADDRESS, else %(default)s)",
    )
    add("--tls", action="store_true", help="use TLS with the system's certificate authorities")
    add("--tls-ca", type=Path, default=_file("SAGE_TLS_CA"), help="PEM file of the certificate authority; enables TLS")
    add("--tls-cert", type=Path, default=_file("SAGE_TLS_CERT"), help="PEM file of the gateway's client certificate")
    add("--tls-key", type=Path, default=_file("SAGE_TLS_KEY"), help="PEM file of its private key")
    add("--insecure", action="store_true", help="allow a scheduler that is not on loopback without TLS")
    add(
        "--token-file",
        type=Path,
        default=_file("SAGE_TOKEN_FILE"),
        help="file with the bearer token of the gateway's own calls, which list models (default: SAGE_TOKEN's value)",
    )


def _add_vllm(add: _Add) -> None:
    add(
        "--vllm-arg",
        action="append",
        default=[],
        metavar="FLAG",
        help="further flag of vLLM's server, such as --vllm-arg=--tool-call-parser=hermes; may be repeated",
    )
    add(
        "--model-arg",
        action="append",
        type=_model_flag,
        default=[],
        metavar="MODEL=FLAG",
        help="the same for one model, such as --model-arg=qwen3=--reasoning-parser=qwen3; may be repeated",
    )
    add("--check", action="store_true", help="check that a fitting vLLM is installed, and end")


def _add_media(add: _Add) -> None:
    add(
        "--media-host",
        action="append",
        type=_media_host,
        default=[],
        metavar="HOST",
        help="host from which images and audio in conversations are fetched, such as images.example.com, "
        "*.example.com or HOST:PORT; may be repeated (default: none)",
    )
    add(
        "--media-bytes",
        type=_media_bytes,
        default=MEDIA_BYTES,
        metavar="BYTES",
        help="bytes of fetched images and audio, and of decoded audio, that the running requests of a process may hold "
        "together; a request beyond it is answered 503 (default: %(default)s)",
    )


def _media_host(text: str) -> MediaHost:
    try:
        return media_host(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _media_bytes(text: str) -> int:
    return _whole(text, LEAST_MEDIA_BYTES, MOST_MEDIA_BYTES)


def _model_flag(text: str) -> tuple[str, str]:
    model, equals, flag = text.partition("=")
    if not (model and equals and flag.startswith("-")):
        raise argparse.ArgumentTypeError(f"{text!r} is not MODEL=FLAG")
    return model, flag


def _by_model(flags: Sequence[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for model, flag in flags:
        found[model] = (*found.get(model, ()), flag)
    return found


def _file(variable: str) -> Path | None:
    return Path(value) if (value := os.environ.get(variable)) else None


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _workers(text: str) -> int:
    return _whole(text, 1, WORKERS_LIMIT)


def _whole(text: str, lowest: int, highest: int) -> int:
    number = int(text)
    if not lowest <= number <= highest:
        raise argparse.ArgumentTypeError(f"{number} is not in the range {lowest} to {highest}")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{seconds:g} is not in the range 0 to 3600")
    return seconds
