"""What a fleet says of the places that it may run on: each place reads its own section."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from sage_common.configuration import Section
from sage_fleet.specification.names import Name

PlaceKind = Literal["local", "ray", "kubernetes"]


class RaySection(Section):
    """A Ray cluster."""

    address: str = Field(default="auto", min_length=1, description="Address of the cluster; auto: the one here.")
    max_restarts: int = Field(
        default=-1, ge=-1, description="How often Ray starts an executor again that died; -1: without end."
    )
    gpus_per_node: int = Field(default=8, ge=1, description="An engine with more GPUs runs on several nodes.")


class KubernetesSection(Section):
    """A Kubernetes cluster."""

    namespace: Name = Field(default="sage", description="Namespace of everything.")
    context: str = Field(default="", description="Context of kubectl's configuration.  Default: its current one.")
    scheduler_image: str = Field(default="sage-scheduler", min_length=1, description="Image of the scheduler.")
    executor_image: str = Field(default="sage-executor:cpu", min_length=1, description="Of executors without GPUs.")
    gpu_executor_image: str = Field(default="sage-executor:gpu", min_length=1, description="Of executors with GPUs.")
    gateway_image: str = Field(default="sage-gateway", min_length=1, description="Image of the HTTP gateway.")
    gpus_per_node: int = Field(default=8, ge=1, description="An engine with more GPUs runs on several nodes.")
    storage_gib: int = Field(default=100, ge=1, description="Volume of each executor, for its model's files, in GiB.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the executors' nodes.")
    manifests: Path | None = Field(
        default=None, description="Folder docker/kubernetes of a checkout.  Default: that of this checkout."
    )
    monitoring: bool = Field(default=False, description="Prometheus Operator's monitors, and our alerts.")
