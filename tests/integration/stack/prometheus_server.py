"""A real Prometheus that scrapes and evaluates what the stack's would, quicker."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from sage_local.fleet.bound_child import ANY
from tests.integration.stack.shipped import ALERTS, PROMETHEUS, read_yaml
from tests.integration.stack.tool import tool
from tests.support.eventually import eventually


class BadQuery(Exception):
    """Prometheus' own words."""


class PrometheusServer:
    """``async with``: it runs and has scraped everything once."""

    def __init__(self, folder: Path, port: int, targets: Mapping[str, Mapping[str, int]]) -> None:
        """``targets``: by job, a name and the loopback port of each."""
        self._folder = folder
        self._port = port
        self._targets = targets
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        config = self._folder / "prometheus.yml"
        config.write_text(yaml.safe_dump(self._config()))
        flags = [
            f"--config.file={config}",
            f"--storage.tsdb.path={self._folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self._port}",
        ]
        bound = [sys.executable, "-m", "sage_local.fleet.bound_child", str(os.getpid()), ANY]
        command = [*bound, tool("prometheus", "prometheus"), *flags]
        with (self._folder / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        wanted = sum(map(len, self._targets.values()))
        try:
            await eventually(lambda: self._scraped(wanted), within_s=30.0, what="Prometheus to have scraped everything")
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.terminate()
        await asyncio.wait_for(self._process.wait(), 20)

    def _config(self) -> dict[str, Any]:
        """The stack's own, with our targets in place of its."""
        config: dict[str, Any] = read_yaml(PROMETHEUS)
        config["global"] = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        config["rule_files"] = [str(ALERTS)]
        known = {job["job_name"] for job in config["scrape_configs"]}
        assert known >= self._targets.keys(), f"jobs of the stack are {known}"
        config["scrape_configs"] = [
            {
                "job_name": job,
                "static_configs": [
                    {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in named.items()
                ],
            }
            for job, named in self._targets.items()
        ]
        return config

    async def _scraped(self, wanted: int) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, (self._folder / "log").read_text()
        try:
            return len(await self.query("up == 1")) == wanted
        except (OSError, BadQuery):
            return False  # it is on its way up

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Series that the expression has now.  Raises BadQuery."""
        found: list[dict[str, Any]] = (await self.ask("query", query=expression))["result"]
        return found

    async def ask(self, what: str, **parameters: str) -> Any:
        """``data`` of an answer of the HTTP API."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        return await asyncio.to_thread(_fetch, url)


def _fetch(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        with error:
            raise BadQuery(error.read().decode()) from None
