"""Gives each executor its own GPUs or CPU cores of this machine, and takes them back."""

from __future__ import annotations

from collections.abc import Sequence

from sage_fleet.errors import FleetError
from sage_fleet.specification.group import GroupSection
from sage_local.fleet.devices import Devices

_CPU_DEFAULTS = {"enforce_eager": (), "kv_cache_bytes": (str(1 << 30),)}
"""Graph capture gains nothing on a CPU; without a bound each engine's KV cache takes a share of all memory."""


class DevicePool:
    """The devices of this machine, and which executor holds which."""

    def __init__(self, gpus: Sequence[str], cores: Sequence[int]) -> None:
        self._gpus = tuple(gpus)
        self._cores = tuple(cores)
        self._held_gpus: dict[str, tuple[str, ...]] = {}
        self._device_groups: dict[str, str] = {}  # of executors that share their GPUs, by name
        self._held_cores: dict[str, tuple[int, ...]] = {}

    def check(self, group: GroupSection) -> None:
        """Raise FleetError for a group whose engines need more GPUs than this machine has; simulated ones need none."""
        if _gpus(group) > len(self._gpus):
            raise FleetError(f"gpus is {group.gpus}: this machine has {len(self._gpus)}")

    def has_room(self, group: GroupSection) -> bool:
        """Return whether the devices of one more executor of this group are free."""
        return _gpus(group) <= len(self._shared_gpus(group) or self._free_gpus())

    def take(self, name: str, group: GroupSection) -> Devices:
        """Take the devices of an executor; ``has_room`` was True.  Cores are shared where too few are free."""
        if group.engine == "simulated":
            return Devices()
        if group.gpus:
            found = self._shared_gpus(group) or tuple(self._free_gpus()[: group.gpus])
            held = self._held_gpus[name] = found
            if group.device_group:
                self._device_groups[name] = group.device_group
            named = ",".join(held)
            return Devices(environment={"CUDA_VISIBLE_DEVICES": named}, where=f"GPU {named}")
        return self._take_cores(name, group)

    def give_back(self, name: str) -> None:
        """Give back what an executor held."""
        self._held_gpus.pop(name, None)
        self._held_cores.pop(name, None)
        self._device_groups.pop(name, None)

    def _shared_gpus(self, group: GroupSection) -> tuple[str, ...]:
        """Return the GPUs that executors of the same device group have; empty if none has any."""
        sharing = (name for name, found in self._device_groups.items() if found == group.device_group)
        return next((self._held_gpus[name] for name in sharing), ())

    def _free_gpus(self) -> list[str]:
        taken = {gpu for held in self._held_gpus.values() for gpu in held}
        return [gpu for gpu in self._gpus if gpu not in taken]

    def _take_cores(self, name: str, group: GroupSection) -> Devices:
        users = dict.fromkeys(self._cores, 0)
        for held in self._held_cores.values():
            for core in held:
                users[core] += 1
        own = tuple(sorted(sorted(self._cores, key=lambda core: (users[core], core))[: group.cpus]))
        self._held_cores[name] = own
        named = ",".join(map(str, own))
        shared = [str(core) for core in own if users[core]]
        arguments = ["--engine.vllm.cpu-cores", named]
        for setting, value in _CPU_DEFAULTS.items():
            if setting not in group.engine_arguments:
                arguments += [f"--engine.vllm.{setting.replace('_', '-')}", *value]
        return Devices(
            arguments=tuple(arguments),
            cores=named,
            where=f"core{'s' if len(own) > 1 else ''} {named}",
            warning=f"cores shared with other executors: {', '.join(shared)}" if shared else "",
        )


def _gpus(group: GroupSection) -> int:
    return 0 if group.engine == "simulated" else group.gpus
