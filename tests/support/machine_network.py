"""A network between sets of namespaces of this machine, and this machine itself."""

from __future__ import annotations

import subprocess
import time

import psutil

JOIN_WITHIN_S = 10.0


class MachineNetwork:
    """A bridge that has an address of its own; each member gets an interface ``eth0``.

    ``mark``: at least four hexadecimal digits that tell this network from others on this machine.
    """

    def __init__(self, mark: str) -> None:
        number = int(mark[:4], 16)
        self._name = f"sage{mark[:4]}"
        self._members: set[int] = set()
        self._prefix = f"10.{128 + number // 256 % 128}.{number % 256}"

    @property
    def host(self) -> str:
        """This machine's address."""
        return f"{self._prefix}.1"

    def ip(self, index: int) -> str:
        """The address of a member."""
        return f"{self._prefix}.{index + 2}"

    def open(self) -> None:
        """Make the bridge."""
        _ip("link", "add", self._name, "type", "bridge")
        _ip("address", "add", f"{self.host}/24", "dev", self._name)
        _ip("link", "set", self._name, "up")

    def close(self) -> None:
        """Remove the bridge and the members' interfaces, which may outlive their namespaces."""
        for name in (*(f"{self._name}x{index}" for index in sorted(self._members)), self._name):
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)

    def script(self, index: int) -> str:
        """Return the shell's script that a member runs first: it waits for its interface, then runs its arguments."""
        inside = self._inside(index)
        return (
            f"mount -t tmpfs tmpfs /dev/shm && hostname machine-{index} && ip link set lo up && "
            f"until ip link show {inside} >/dev/null 2>&1; do sleep 0.05; done && "
            f"ip link set {inside} name eth0 && ip address add {self.ip(index)}/24 dev eth0 && ip link set eth0 up && "
            f"ip route add default via {self.host} && "
            'exec "$@"'
        )

    def join(self, index: int, unshare: int) -> None:
        """Give the member whose ``unshare`` has this process id its interface."""
        self._members.add(index)
        end = time.monotonic() + JOIN_WITHIN_S
        while not (children := psutil.Process(unshare).children()):
            if time.monotonic() > end:
                raise AssertionError(f"member {index} has not started")
            time.sleep(0.02)
        outside, inside = f"{self._name}x{index}", self._inside(index)
        subprocess.run(["ip", "link", "delete", outside], capture_output=True, check=False)  # of one that was killed
        _ip("link", "add", outside, "type", "veth", "peer", "name", inside)
        _ip("link", "set", outside, "master", self._name, "up")
        _ip("link", "set", inside, "netns", str(children[0].pid))

    def _inside(self, index: int) -> str:
        return f"{self._name}y{index}"


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
