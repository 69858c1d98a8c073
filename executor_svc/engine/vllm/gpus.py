"""Reads the GPUs that an engine runs on: number, name, memory."""

from __future__ import annotations

from typing import Any


class Gpus:
    """The engine's NVIDIA GPUs, read through NVML, without a CUDA context in this process.

    On other platforms, and of an engine on several nodes, only ``count`` is known.
    """

    def __init__(self, config: Any) -> None:
        """Open the engine's GPUs.  ``config``: vLLM's VllmConfig."""
        from vllm.platforms import current_platform

        self.count = 0 if current_platform.is_cpu() else config.parallel_config.world_size
        self.name: str | None = None
        self.total_bytes: int | None = None
        self._handles: list[Any] = []
        if config.parallel_config.placement_group is not None:
            return  # they are other machines', at least in part
        if self.count:
            self.name = current_platform.get_device_name(0)
        if current_platform.is_cuda():
            self._open(current_platform)

    def _open(self, platform: Any) -> None:
        from vllm.utils.import_utils import import_pynvml

        self._nvml = import_pynvml()
        self._nvml.nvmlInit()
        ids = [platform.device_id_to_physical_device_id(device) for device in range(self.count)]
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(device) for device in ids]
        self.total_bytes = sum(self._nvml.nvmlDeviceGetMemoryInfo(handle).total for handle in self._handles)

    def used_bytes(self) -> int | None:
        """Return the bytes that all processes use on the engine's GPUs; None if that cannot be read."""
        if not self._handles:
            return None
        return int(sum(self._nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles))
