"""In JSON, whatever an executor and the processes of its engine log is one JSON object a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from executor_svc.telemetry.engine_logs import CONFIG_PATH, engine_logs_in_json

ROOT = Path(__file__).parents[3]

ENGINE = """
import json, logging, logging.config, os, sys, warnings

with open(os.environ["VLLM_LOGGING_CONFIG_PATH"]) as file:
    logging.config.dictConfig(json.load(file))
sys.stderr.write = lambda text: os.write(2, b"(EngineCore pid=7) " + text.encode())  # as vLLM 0.26 has it
logging.getLogger("vllm.v1").info("two\\nlines")
logging.getLogger("vllm.v1").debug("below vLLM's level")
logging.getLogger("nixl").warning("of another library")
logging.getLogger("nixl").info("below the executor's level")
try:
    raise ValueError("no memory")
except ValueError:
    logging.getLogger("vllm.v1").exception("it failed")
warnings.warn("old", FutureWarning)
"""

EXECUTOR = f"""
import os, subprocess, sys, logging
from executor_svc.telemetry.engine_logs import engine_logs_in_json
from executor_svc.telemetry.logs import configure_logging

configure_logging("WARNING", json_lines=True, instance_id="one")
with engine_logs_in_json("WARNING", "one", os.environ):
    logging.getLogger("executor_svc.x").warning("ours")
    subprocess.run([sys.executable, "-c", {ENGINE!r}], check=True)
"""


def test_every_line_is_one_json_object() -> None:
    made = subprocess.run(
        [sys.executable, "-c", EXECUTOR], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in made.stderr.splitlines()]
    assert made.stdout == ""
    assert {line["instance"] for line in lines} == {"one"}
    logged = [(line["logger"], line["level"], line["message"]) for line in lines]
    assert [each for each in logged if each[0] != "py.warnings"] == [
        ("executor_svc.x", "WARNING", "ours"),
        ("vllm.v1", "INFO", "two\nlines"),
        ("nixl", "WARNING", "of another library"),
        ("vllm.v1", "ERROR", "it failed"),
    ]
    assert ["FutureWarning: old" in each[2] for each in logged if each[0] == "py.warnings"] == [True]
    assert [line["exception"].splitlines()[-1] for line in lines if "exception" in line] == ["ValueError: no memory"]


def test_the_configuration_is_its_owners_alone_and_gone_at_the_end() -> None:
    environment: dict[str, str] = {}
    with engine_logs_in_json("INFO", "one", environment):
        path = Path(environment[CONFIG_PATH])
        assert path.stat().st_mode & 0o077 == 0
    assert not path.exists()
    assert environment == {}


def test_vllm_keeps_its_own_level() -> None:
    environment = {"VLLM_LOGGING_LEVEL": "debug"}
    with engine_logs_in_json("WARNING", "one", environment):
        config = json.loads(Path(environment[CONFIG_PATH]).read_text())
    assert (config["loggers"]["vllm"]["level"], config["root"]["level"]) == ("DEBUG", "WARNING")


@pytest.mark.parametrize("own", [{CONFIG_PATH: "mine.json"}, {"VLLM_CONFIGURE_LOGGING": "0"}])
def test_what_an_operator_says_of_vllms_logging_stays(own: dict[str, str]) -> None:
    environment = dict(own)
    with engine_logs_in_json("INFO", "one", environment):
        assert environment == own
    assert environment == own
