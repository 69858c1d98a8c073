"""Chooses the KV connector of an engine by its configured name.

To add a connector, add a file beside ``nixl.py``, an entry in ``CONNECTORS``, and its name to
``common_settings.KV_CONNECTORS``.
"""

from __future__ import annotations

from executor_svc.engine.common_settings import KvTransferSettings
from executor_svc.engine.vllm.kv_connectors.connector import KvConnector
from executor_svc.engine.vllm.kv_connectors.nixl import NixlConnector

CONNECTORS: dict[str, KvConnector] = {connector.name: connector for connector in (NixlConnector(),)}


def connector_named(name: str) -> KvConnector:
    """Return the connector that vLLM calls ``name``.  Raises ValueError that lists the known names."""
    connector = CONNECTORS.get(name)
    if connector is None:
        raise ValueError(f"unknown KV connector {name!r}; there are: {', '.join(sorted(CONNECTORS))}")
    return connector


def configured_connector(settings: KvTransferSettings) -> KvConnector | None:
    """Return the configured connector; None if the engine transfers no KV."""
    return connector_named(settings.connector) if settings.connector else None
