"""A Ray cluster of several raylets on this machine.  Whatever happens, no process of it outlives the test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import psutil

from tests.support.service_process import FAMILY, of_family

OBJECT_STORE_BYTES = 80 << 20  # the least that Ray takes
# Ray needs 15 s with its own settings until it takes a raylet that was killed for dead.
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1_000,
    "health_check_failure_threshold": 4,
}
GONE_WITHIN_S = 15.0


class RayNodes:
    """One raylet for each entry of ``labels``, the first of them with the cluster's head."""

    def __init__(self, labels: Sequence[Mapping[str, str]], *, cpus: int) -> None:
        self._labels = labels
        self._cpus = cpus
        self._folder = tempfile.mkdtemp(prefix="sage-ray-")
        self._family = secrets.token_hex(8)
        os.mkdir(os.path.join(self._folder, "ray"))  # where Ray writes the cluster's address, but for the folder
        self._environment = {
            FAMILY: self._family,
            "RAY_TMPDIR": self._folder,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONWARNINGS": "ignore",
        }
        self._nodes: list[Any] = []
        self._cluster: Any = None

    def __enter__(self) -> Self:
        before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)  # raylets and what they start inherit it
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._start()
        except BaseException:
            self.__exit__()
            raise
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        return self

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        of_head = {"temp_dir": self._folder, "include_dashboard": False, "_system_config": HEALTH}
        for labels in self._labels:
            self._add(labels, **({} if self._nodes else of_head))

    def _add(self, labels: Mapping[str, str], **options: Any) -> None:
        node = self._cluster.add_node(
            num_cpus=self._cpus, object_store_memory=OBJECT_STORE_BYTES, labels=dict(labels), **options
        )
        self._nodes.append(node)

    def __exit__(self, *_: object) -> None:
        if self._cluster is not None:
            self._cluster.shutdown()
        for process in of_family(self._family):
            process.kill()
            process.wait(GONE_WITHIN_S)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def is_head(self, where: str) -> bool:
        """Whether the node that an executor's status names is the head's."""
        return self._nodes[0].node_id[:8] in where

    def kill(self, where: str) -> None:
        """kill -9 of the raylet of the node that an executor's status names; not of the head."""
        [node] = [each for each in self._nodes[1:] if each.node_id[:8] in where]
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)

    def alive(self, processes: Iterable[psutil.Process]) -> set[psutil.Process]:
        """Those of the processes that have not ended."""
        return set(processes) & set(of_family(self._family))

    def executors(self) -> dict[str, list[psutil.Process]]:
        """The processes of the executors on all nodes, engines apart, by instance id."""
        found: dict[str, list[psutil.Process]] = {}
        for process in of_family(self._family):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.cmdline()[1:3] == ["-m", "executor_svc"]:
                    found.setdefault(process.environ()["SAGE_EXECUTOR_INSTANCE_ID"], []).append(process)
        return found
