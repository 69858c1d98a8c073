"""NIXL: the decode engine reads the prompt's KV from the prefill engine's memory, with RDMA where it is available.

Every engine gets the vLLM role ``kv_both``, because an instance's role may change while it runs.  vLLM 0.26 to 0.32
accept ``kv_both`` with a deprecation warning.

The prefill engine keeps a prompt's blocks for the length of the lease, which the decode engine renews while the request
waits there.  Blocks that are read after the lease may hold another prompt's KV, and no error shows it.  Therefore the
executor refuses a decode leg shortly before the lease ends (``runtime.attempts.admission``), and seals the parameters
(``engine.handoff``).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from executor_svc.engine.common_settings import KvTransferSettings
from executor_svc.engine.vllm.kv_connectors.connector import KvLayout, Pull, TransferCounts, UnusableParams
from executor_svc.engine.vllm.kv_connectors.nixl_on_cores import THREADS_VARIABLE
from executor_svc.runtime.engine_port import JsonValue, ModelError

LEAST_LEASE_S = 2
_CACHED = "remote_prefill_cached_tokens"  # vLLM 0.32
_FAILURES = ("num_failed_transfers", "num_failed_handshakes")  # the second one exists in vLLM 0.32


class NixlConnector:
    """The port to vLLM's NixlConnector.  Implements ``KvConnector``."""

    name = "NixlConnector"

    def refuse_missing(self) -> None:
        """Raise ModelError that says what to install, if NIXL is missing."""
        if importlib.util.find_spec("nixl") is None:
            raise ModelError(
                "kv_transfer.connector NixlConnector needs NIXL, which is not installed: on a host with GPUs install "
                "'sage-control-plane[nixl]'; elsewhere run 'make setup-vllm'"
            )

    def config(self, settings: KvTransferSettings, device: str) -> dict[str, Any]:
        """Return the arguments of vLLM's KVTransferConfig.

        Raises ModelError for a lease that NIXL does not support.
        """
        lease_s = settings.lease_s
        if lease_s < LEAST_LEASE_S or lease_s != int(lease_s):
            raise ModelError(
                f"kv_transfer.lease_s: NixlConnector takes whole seconds, at least {LEAST_LEASE_S}, not {lease_s:g}"
            )
        return {
            "kv_connector": self.name,
            "kv_role": "kv_both",
            "kv_buffer_device": device,
            "kv_load_failure_policy": settings.load_failure_policy,
            "kv_connector_extra_config": {**settings.extra, "kv_lease_duration": int(lease_s)},
        }

    def environment(self, settings: KvTransferSettings, port: int) -> dict[str, str]:
        """Return variables with the side channel's address and with whether NIXL keeps its threads."""
        return {
            "VLLM_NIXL_SIDE_CHANNEL_HOST": settings.side_channel_host,
            "VLLM_NIXL_SIDE_CHANNEL_PORT": str(port),
            THREADS_VARIABLE: "own" if "num_threads" in settings.extra else "none",
        }

    def compatibility_key(self, layout: KvLayout, settings: KvTransferSettings) -> str:
        """Return a key over everything that must be equal for a handoff.

        NIXL itself compares versions, model, types and heads when two engines connect.  The key also has block size and
        parallelism, because NIXL's users report mixed values as slow or broken.
        """
        factors = [
            layout.model,
            layout.weights,
            layout.dtype,
            layout.cache_dtype,
            layout.block_size,
            layout.kv_heads,
            layout.head_size,
            layout.layers,
            layout.tensor_parallel_size,
            layout.pipeline_parallel_size,
            sorted(settings.extra.items(), key=lambda item: item[0]),
        ]
        digest = hashlib.sha256(repr(factors).encode()).hexdigest()
        return f"{self.name}/vllm-{layout.engine_version}/{digest[:16]}"

    def prefill_params(self) -> dict[str, JsonValue]:
        """Return parameters that make NIXL keep the prompt's KV."""
        return {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        }

    def check(self, params: Mapping[str, JsonValue]) -> None:
        """Raise UnusableParams unless these are the parameters of a finished prefill."""
        if params.get("do_remote_prefill") is not True or params.get("do_remote_decode"):
            raise UnusableParams("does not come from a prefill leg")
        for name, kind in (
            ("remote_engine_id", str),
            ("remote_request_id", str),
            ("remote_host", str),
            ("remote_port", int),
            ("tp_size", int),
        ):
            if not isinstance(params.get(name), kind):
                raise UnusableParams(f"has no {name}")
        _blocks(params.get("remote_block_ids"))

    def pull(self, params: Mapping[str, JsonValue], prompt_tokens: int, block_size: int) -> Pull:
        """Return the pull of a prompt.  Raises UnusableParams, also for too few blocks."""
        self.check(params)
        blocks = _blocks(params.get("remote_block_ids"))
        computed = params.get("remote_num_tokens")
        cached = params.get(_CACHED)
        tokens = min(computed, prompt_tokens) if isinstance(computed, int) else prompt_tokens
        if blocks < -(-tokens // block_size):
            raise UnusableParams(f"has {blocks} blocks of {block_size} tokens for a prompt of {prompt_tokens} tokens")
        return Pull(
            # Without this parameter vLLM reports how much of the prompt was really fetched.
            params={name: value for name, value in params.items() if name != _CACHED},
            peer=self.peer(params),
            tokens=tokens,
            cached_tokens=cached if isinstance(cached, int) else None,
        )

    def peer(self, params: Mapping[str, JsonValue]) -> str:
        """Return NIXL's id of the engine that keeps the KV."""
        return str(params.get("remote_engine_id"))

    def counts(self, report: Mapping[str, Any]) -> TransferCounts:
        """Count pulls, failures and expired leases of one report."""
        return TransferCounts(
            pulls=len(report.get("transfer_duration", ())),
            failed=sum(len(report.get(name, ())) for name in _FAILURES),
            notices_failed=len(report.get("num_failed_notifications", ())),
            expired=len(report.get("num_kv_expired_reqs", ())),
        )


def _blocks(groups: JsonValue) -> int:
    """Count the blocks of the largest group.  Raises UnusableParams.

    Groups of layers with a sliding window keep fewer blocks than the others.
    """
    if not isinstance(groups, list) or not groups:
        raise UnusableParams("has no remote_block_ids")
    for group in groups:
        if not isinstance(group, list) or not all(isinstance(block, int) and block >= 0 for block in group):
            raise UnusableParams("has malformed remote_block_ids")
    return max(len(group) for group in groups if isinstance(group, list))
