"""KV connectors of vLLM that the executor can start an engine with, by name.

Another one is a file beside ``nixl.py``, an entry in ``CONNECTORS`` and its name in ``common_settings.KV_CONNECTORS``.
"""

from __future__ import annotations

from executor_svc.engine.common_settings import KvTransferSettings
from executor_svc.engine.vllm.kv_connectors.connector import KvConnector
from executor_svc.engine.vllm.kv_connectors.nixl import NixlConnector

CONNECTORS: dict[str, KvConnector] = {connector.name: connector for connector in (NixlConnector(),)}


def connector_named(name: str) -> KvConnector:
    """Return a connector by vLLM's name for it.  Raises ValueError with the names there are."""
    connector = CONNECTORS.get(name)
    if connector is None:
        raise ValueError(f"unknown KV connector {name!r}; there are: {', '.join(sorted(CONNECTORS))}")
    return connector


def configured_connector(settings: KvTransferSettings) -> KvConnector | None:
    """Return the connector that an operator configured; None where the engine cannot hand over."""
    return connector_named(settings.connector) if settings.connector else None
