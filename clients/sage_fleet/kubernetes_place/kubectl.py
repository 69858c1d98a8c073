"""Runs kubectl, bounded in time, on the cluster and namespace of a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from typing import Any

from sage_fleet.errors import FleetError
from sage_fleet.specification.places import KubernetesSection

TIMEOUT_S = 60.0


class Kubectl:
    """kubectl with a context and a namespace."""

    def __init__(self, settings: KubernetesSection) -> None:
        self._arguments = ["--namespace", settings.namespace]
        if settings.context:
            self._arguments += ["--context", settings.context]

    async def run(self, *arguments: str, timeout_s: float = TIMEOUT_S) -> str:
        """Run kubectl and return what it prints.

        Raises:
            FleetError: it is not installed, fails, or does not end in time.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise FleetError("kubectl is not installed; `sagectl fleet render` writes the manifests without it")
        try:
            process = await asyncio.create_subprocess_exec(
                program,
                *self._arguments,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise FleetError(f"kubectl cannot be started: {error}") from error
        try:
            async with asyncio.timeout(timeout_s):
                out, err = await process.communicate()
        except TimeoutError:
            raise FleetError(f"kubectl {arguments[0]} did not end within {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            raise FleetError(f"kubectl {arguments[0]}: {' '.join(err.decode(errors='replace').split())}")
        return out.decode(errors="replace")

    async def objects(self, kinds: str, selector: str) -> list[dict[str, Any]]:
        """Return the objects of these kinds that a selector of labels finds.  Raises FleetError."""
        printed = await self.run("get", kinds, "--selector", selector, "--output", "json")
        try:
            items: list[dict[str, Any]] = json.loads(printed)["items"]
        except (ValueError, KeyError, TypeError) as error:
            raise FleetError(f"kubectl get: what it printed is no list of objects ({error!r})") from error
        return items
