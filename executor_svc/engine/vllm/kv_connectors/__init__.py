"""KV connectors of vLLM that the executor can start an engine with.  Another one is another file, and a line here."""

from __future__ import annotations

from executor_svc.engine.vllm.kv_connectors.connector import KvConnector
from executor_svc.engine.vllm.kv_connectors.nixl import NixlConnector

CONNECTORS: dict[str, KvConnector] = {connector.name: connector for connector in (NixlConnector(),)}


def connector_named(name: str) -> KvConnector:
    """Raises ValueError with the names there are."""
    connector = CONNECTORS.get(name)
    if connector is None:
        raise ValueError(f"unknown KV connector {name!r}; there are: {', '.join(sorted(CONNECTORS))}")
    return connector
