"""Modelled executors whose engines take turns on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.sleep.instance_sleep import SleepReport, SleepState
from scheduler_svc.domain.instance_spec import DeviceGroup
from scheduler_svc.domain.instance_state import InstanceState
from tests.unit.control.world import ModelledExecutor, World

S = SleepState
POLL_S = 0.1


@dataclass
class Device:
    """What the lock files of a host say."""

    places: int = 1
    holders: list[str] = field(default_factory=list)

    def take(self, holder: str) -> bool:
        if holder not in self.holders and len(self.holders) < self.places:
            self.holders.append(holder)
        return holder in self.holders

    def give_back(self, holder: str) -> None:
        if holder in self.holders:
            self.holders.remove(holder)


@dataclass
class SharingExecutor(ModelledExecutor):
    """Starts and wakes its engine when it has a place on the device; computes only while it is awake."""

    device: Device = field(default_factory=Device)
    sleeps: SleepState = S.NOT_STARTED
    start_s: float = 0.5
    start_poll_s: float = POLL_S
    sleep_s: float = 0.2
    wake_s: float = 0.3
    wanted_asleep: bool = False
    number: int = 0  # of the latest order of the session
    reachable: bool = False  # a session is up, or is being opened

    def connect(self) -> None:
        self.number, self.reachable = 0, True
        self.register()
        if self.sleeps in (S.NOT_STARTED, S.STARTING):
            self.say(S.NOT_STARTED)
            self._start()
        else:
            self.ready()
            self.say(self.sleeps)

    def _start(self) -> None:
        if not self.device.take(self.instance_id):
            self._in(self.start_poll_s, self._start)
            return
        self.say(S.STARTING)
        if self.connected and self.session is not None:
            loading = InstanceState.LOADING
            self.world.plane.instances.reports.engine_status(self.session, loading, None, "", None)
        self._in(self.start_s, self._started)

    def _started(self) -> None:
        self.ready()
        self.say(S.AWAKE)

    def say(self, state: SleepState, reason: str = "") -> None:
        self.sleeps = state
        if self.connected and self.session is not None:
            report = SleepReport(
                state=state, number=self.number, reason=reason, sleep_s=self.sleep_s, wake_s=self.wake_s
            )
            self.world.plane.instances.reports.sleep_report(self.session, report)

    def want_sleep(self, number: int, *, asleep: bool) -> None:
        super().want_sleep(number, asleep=asleep)
        if self.reachable:
            self.number, self.wanted_asleep = number, asleep
            self._in(0.001, self._follow)

    def _follow(self) -> None:
        if self.wanted_asleep and self.sleeps is S.AWAKE:
            assert not self.computes, "ordered to sleep under a request"
            self.say(S.FALLING_ASLEEP)
            self._in(self.sleep_s, self._is_asleep)
        elif not self.wanted_asleep and self.sleeps is S.ASLEEP:
            if self.device.take(self.instance_id):
                self.say(S.WAKING)
                self._in(self.wake_s, self._is_awake)
            else:
                self.say(S.ASLEEP, "no place is free")
                self._in(POLL_S, self._follow)
        else:
            self.say(self.sleeps)

    def _is_asleep(self) -> None:
        self.device.give_back(self.instance_id)
        self.say(S.ASLEEP)
        self._follow()

    def _is_awake(self) -> None:
        self.say(S.AWAKE)
        self._follow()

    @property
    def computes(self) -> bool:
        return any(each.ended is None for each in self.held.values())

    def assign(self, order: AssignOrder) -> None:
        assert self.sleeps is S.AWAKE, f"assigned while it is {self.sleeps.value}"
        super().assign(order)

    def step(self) -> None:
        assert self.sleeps is S.AWAKE or not self.computes
        super().step()

    def disconnect(self) -> None:
        super().disconnect()
        self.reachable = False

    def crash(self) -> None:
        super().crash()
        self.device.give_back(self.instance_id)
        self.sleeps, self.wanted_asleep = S.NOT_STARTED, False
        self.start_id += "+"  # timers of the process that is gone do nothing

    def _in(self, seconds: float, call: Callable[[], object]) -> None:
        start_id = self.start_id

        def due() -> None:
            if self.start_id == start_id:
                call()

        self.world.clock.call_at(self.world.clock.now() + seconds, due)


def share(world: World, device: Device, instance_id: str, *, model: str = "", **options: object) -> SharingExecutor:
    """Add an executor to the group of a device, whose engine is not up yet; by default its model has its name."""
    made = SharingExecutor(
        world=world,
        instance_id=instance_id,
        model=model or f"model-{instance_id}",
        can_sleep=True,
        device_group=DeviceGroup(name="gpu-0", places=device.places),
        device=device,
        **options,  # type: ignore[arg-type]
    )
    world.executors[instance_id] = made
    made.connect()
    return made
