"""The part of the schema of LeaderWorkerSet (leaderworkerset.x-k8s.io/v1) that our manifests use."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate

Manifest = dict[str, Any]

_SPEC = {"replicas", "leaderWorkerTemplate", "startupPolicy", "rolloutStrategy", "networkConfig"}
_TEMPLATE = {"leaderTemplate", "workerTemplate", "size", "restartPolicy"}
_RESTART = {"RecreateGroupOnPodRestart", "None", "Default"}


def validate(manifest: Manifest, version: str) -> None:
    """Check the fields of its own here, and its pods by Kubernetes' schema.  Raises AssertionError, ValidationError."""
    assert manifest["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    spec = manifest["spec"]
    assert set(spec) <= _SPEC, set(spec) - _SPEC
    assert isinstance(spec["replicas"], int)
    template = spec["leaderWorkerTemplate"]
    assert set(template) <= _TEMPLATE, set(template) - _TEMPLATE
    assert isinstance(template["size"], int)
    assert template["size"] >= 1
    assert template["restartPolicy"] in _RESTART
    for part in ("leaderTemplate", "workerTemplate"):
        pod = copy.deepcopy(template[part])
        pod["metadata"]["name"] = part.lower()
        kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **pod}, version, strict=True)
