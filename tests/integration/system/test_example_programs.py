"""The example programs against a whole control plane."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.integration.system.local_fleet import LocalExecutor, LocalFleet

EXAMPLES = Path(__file__).parents[3] / "clients" / "examples"


async def run(fleet: LocalFleet, name: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / name), *arguments, "--address", fleet.address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


async def test_structured_prints_an_object(fleet: LocalFleet, one: LocalExecutor) -> None:
    status, out, err = await run(fleet, "structured.py", "A city:")
    assert status == 0, err
    assert out.endswith(" people\n")
    assert json.loads(err)["parsed"].keys() == {"name", "people"}


@pytest.mark.parametrize(("within", "max_tokens", "cut"), [("25s", 3, False), ("2s", 4_000, True)])
async def test_in_time_prints_what_there_is(
    fleet: LocalFleet, one: LocalExecutor, within: str, max_tokens: int, cut: bool
) -> None:
    status, out, err = await run(fleet, "in_time.py", "Once", "--within", within, "--max-tokens", str(max_tokens))
    assert status == 0, err
    assert out.strip()
    assert ("[cut after " in err) == cut


async def test_many_streams_get_all_their_tokens(fleet: LocalFleet, one: LocalExecutor) -> None:
    status, out, err = await run(fleet, "many_streams.py", "20")
    assert (status, err) == (0, "")
    assert out.endswith(" tokens in 20 requests, 0 failed\n")


async def test_fleet_shows_models_and_instances(fleet: LocalFleet, one: LocalExecutor) -> None:
    status, out, err = await run(fleet, "fleet.py", "--snapshots", "2")
    assert (status, err) == (0, "")
    first, *snapshots = out.splitlines()
    assert first == "sim: generates, 1 of 1 instances ready"
    assert len(snapshots) == 2
    assert all(f"{one.instance_id} ready" in line for line in snapshots)


def test_every_program_is_listed_and_run_by_a_test() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    tests = "".join(path.read_text() for path in (EXAMPLES.parents[1] / "tests").rglob("test_*.py"))
    for program in EXAMPLES.glob("*.py"):
        assert f"| `{program.name}` |" in readme
        assert f'"{program.name}"' in tests, f"no test runs {program.name}"
