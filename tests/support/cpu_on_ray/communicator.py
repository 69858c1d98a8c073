"""What the ranks of an engine send each other.  Only vLLM imports this module, once its platform is known."""

from __future__ import annotations

from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator


class OverTcp(CpuCommunicator):
    """Sends everything over TCP: vLLM takes shared memory for ranks of one port number, also on other machines."""

    def _all_group_ranks_share_shm_group_name(self) -> bool:
        return False
