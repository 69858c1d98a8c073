"""The manifests in docker/kubernetes, rendered as kubectl renders them."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.stack.shipped import DOCKER

KUBERNETES = DOCKER / "kubernetes"
OVERLAYS = tuple(sorted(path.name for path in (KUBERNETES / "overlays").iterdir()))
CUSTOM = ("monitoring.coreos.com/", "keda.sh/")  # of Prometheus Operator and KEDA: Kubernetes' schemas lack them

Manifest = dict[str, Any]


@functools.cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    """What ``kubectl apply -k`` would send of an overlay of ours.  Skips as ``rendered_at``."""
    return rendered_at(KUBERNETES / "overlays" / overlay)


def rendered_at(folder: Path) -> tuple[Manifest, ...]:
    """What ``kubectl apply -k`` would send.  Skips the test where kubectl is missing, or older than 1.21."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed (Debian: apt-get install kubernetes-client)")
    made = subprocess.run(
        [kubectl, "kustomize", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if made.returncode != 0 and "unknown field" in made.stderr:
        pytest.skip("this kubectl renders no components: 1.21 or later does")
    assert made.returncode == 0, made.stderr
    return tuple(yaml.safe_load_all(made.stdout))


def files() -> list[Path]:
    """Every manifest that is whole as it lies there, without patches and kustomizations."""
    return sorted([*KUBERNETES.glob("base/*.yaml"), *KUBERNETES.glob("executor/*.yaml")])


def of_kind(manifests: tuple[Manifest, ...], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def workloads(manifests: tuple[Manifest, ...]) -> dict[str, Manifest]:
    return of_kind(manifests, "StatefulSet") | of_kind(manifests, "Deployment")


def executors(manifests: tuple[Manifest, ...]) -> dict[str, Manifest]:
    return {name: each for name, each in workloads(manifests).items() if name.startswith("executor")}


def container(workload: Manifest) -> Manifest:
    """The workload's only container."""
    [found] = pod(workload)["containers"]
    made: Manifest = found
    return made


def pod(workload: Manifest) -> Manifest:
    made: Manifest = workload["spec"]["template"]["spec"]
    return made


def environment(workload: Manifest, known: Mapping[str, str]) -> dict[str, str]:
    """What the container's process sees; ``known``: values of fields and secrets, by the variable's name."""
    seen: dict[str, str] = {}
    for each in container(workload).get("env", []):
        name, value = each["name"], each.get("value")
        seen[name] = known[name] if value is None else _expanded(value, seen)
    return seen


def _expanded(value: str, seen: Mapping[str, str]) -> str:
    for name, known in seen.items():
        value = value.replace(f"$({name})", known)
    return value


def probes(workload: Manifest) -> Iterator[Manifest]:
    for name in ("readinessProbe", "livenessProbe", "startupProbe"):
        if probe := container(workload).get(name):
            yield probe
