"""LoRA adapters of an engine, as vLLM takes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from executor_svc.engine.vllm.errors import first_line
from executor_svc.runtime.engine_port import ModelError


def adapter_requests(paths: Mapping[str, str]) -> dict[str, Any]:
    """Return vLLM's LoRARequest for each adapter, by name; ``paths``: folder of each, by name."""
    from vllm.lora.request import LoRARequest

    return {
        name: LoRARequest(lora_name=name, lora_int_id=number, lora_path=path)
        for number, (name, path) in enumerate(paths.items(), start=1)
    }


async def load_adapters(llm: Any, adapters: Mapping[str, Any]) -> None:
    """Load each adapter into an AsyncLLM.  Raises ModelError for one that does not load."""
    for name, adapter in adapters.items():
        try:
            await llm.add_lora(adapter)
        except Exception as error:
            raise ModelError(f"adapter {name!r} does not load: {first_line(error)}") from error
