"""``docs/security.md`` says what the code does: roles, the table of RPCs, the settings that it names."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from sage_common.grants import Role
from scheduler_svc.access.audit import LOGGER, REFUSALS_AT_ONCE, REFUSALS_PER_S
from scheduler_svc.access.rpcs import RULES
from scheduler_svc.config import SchedulerConfig

PAGE = (Path(__file__).parents[3] / "docs" / "security.md").read_text()


def rows(header: str) -> list[list[str]]:
    """The cells of the table whose header begins so."""
    lines = PAGE[PAGE.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_has_every_role() -> None:
    assert [row[0] for row in rows("| role |")] == [role.value for role in Role]


def test_the_table_of_rpcs_is_the_codes() -> None:
    said = {row[0]: row[1:] for row in rows("| RPC |")}
    done = {}
    for method, rule in RULES.items():
        service, name = method.rsplit(".", 1)[1].split("/")
        yes = "everyone" if rule.public else "yes"
        done[f"{service}/{name}"] = [yes if role in rule.roles else "–" for role in Role]
    assert said == done


def test_examples_of_the_configuration_are_read() -> None:
    examples = [block for block in re.findall(r"```toml\n(.*?)```", PAGE, re.S) if "[[key]]" not in block]
    assert len(examples) == 3
    for block in examples:
        found = tomllib.loads(block)
        found.setdefault("tls", {}).update({"certificate": "c", "private_key": "k", "client_ca": "a"})
        found.setdefault("access", {}).setdefault("keys_file", "keys.toml")
        assert SchedulerConfig(**found).access.on


def test_the_audit_log_is_as_the_page_says() -> None:
    assert f"`{LOGGER}`" in PAGE
    assert f"{REFUSALS_PER_S:g} a second after the first {REFUSALS_AT_ONCE}" in " ".join(PAGE.split())
