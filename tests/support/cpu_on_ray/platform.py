"""vLLM's CPU platform, for its Ray backend.  Only vLLM imports this module."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class CpuOnRay(CpuPlatform):
    """Computes on the CPU where Ray assigned a GPU."""

    ray_device_key = "GPU"
    ray_noset_device_env_vars = ("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES",)

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "tests.support.cpu_on_ray.communicator.OverTcp"
