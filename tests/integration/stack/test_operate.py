"""docs/operate.md has a paragraph for each alert, and no other."""

from __future__ import annotations

import re

from tests.integration.stack.shipped import DOCKER, ROOT, read_yaml

PAGE = (ROOT / "docs/operate.md").read_text()


def alerts() -> list[str]:
    groups = read_yaml(DOCKER / "prometheus" / "alerts.yml")["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


def test_each_alert_has_its_paragraph_in_the_order_of_the_rules() -> None:
    assert re.findall(r"^### (\S+)$", PAGE, re.MULTILINE) == alerts()


def test_no_paragraph_is_empty() -> None:
    paragraphs = re.split(r"^###? .*$", PAGE, flags=re.MULTILINE)[1:]
    assert all(len(each.strip()) > 40 for each in paragraphs)
