"""What Prometheus' own checker says of the files and of both pages."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.stack.conftest import Stack
from tests.integration.stack.shipped import ALERTS, PROMETHEUS, read_yaml, rules
from tests.integration.stack.tool import promtool
from tests.integration.telemetry.scraped_page import fetch


def test_the_rules_are_valid() -> None:
    checked = promtool("check", "rules", str(ALERTS))
    assert checked.returncode == 0, checked.stderr
    assert f"{len(rules())} rules found" in checked.stdout


def test_the_configuration_is_valid() -> None:
    checked = promtool("check", "config", str(PROMETHEUS))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_alerts_fire_when_they_should_and_not_before() -> None:
    tested = promtool("test", "rules", str(ALERTS.with_suffix(".test.yml")))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_is_tested_and_says_what_to_do() -> None:
    tests = ALERTS.with_suffix(".test.yml").read_text()
    alerts = [rule for rule in rules() if "alert" in rule]
    assert [rule["alert"] for rule in alerts if rule["alert"] not in tests] == []
    for rule in alerts:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        assert rule["annotations"].keys() == {"summary", "description"}, rule["alert"]


def test_prometheus_scrapes_what_the_compose_file_starts() -> None:
    services = read_yaml(PROMETHEUS.parents[1] / "compose.yaml")["services"]
    named = {name for job in read_yaml(PROMETHEUS)["scrape_configs"] for name in hosts(job)}
    assert named - {"127.0.0.1"} <= services.keys()
    assert {name for name in services if name.startswith("executor-")} <= named


def hosts(job: dict[str, list[dict[str, list[str]]]]) -> set[str]:
    static = {target.partition(":")[0] for each in job.get("static_configs", []) for target in each["targets"]}
    return static | {name for each in job.get("dns_sd_configs", []) for name in each["names"]}


@pytest.mark.asyncio(loop_scope="session")
async def test_our_metrics_keep_the_conventions_on_both_pages(stack: Stack) -> None:
    for port in (stack.scheduler_port, stack.executor_port):
        page = await asyncio.to_thread(fetch, port)
        assert "sage_build_info" in page
        checked = await asyncio.to_thread(promtool, "check", "metrics", stdin=page)
        said = (checked.stdout + checked.stderr).splitlines()
        assert checked.returncode in (0, 3), said  # 3: found something to say
        assert [line for line in said if line.startswith(("sage_", "error"))] == []


def test_promtool_would_notice_a_name_against_the_conventions() -> None:
    page = "# HELP sage_waits_total_ms Waits.\n# TYPE sage_waits_total_ms counter\nsage_waits_total_ms 1\n"
    checked = promtool("check", "metrics", stdin=page)
    assert checked.returncode == 3
    assert "sage_waits_total_ms" in checked.stdout + checked.stderr
