"""The scheduler's control room with modelled executors, in virtual time: fault schedules of minutes in milliseconds."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

from sage_common.clock import Clock
from sage_common.virtual_clock import VirtualClock
from sage_media.kinds import MediaInput
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.control.instances.fleet_observer import NULL_FLEET_OBSERVER, FleetObserver
from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.outcome import Finished
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.output_reader import Event
from scheduler_svc.control.requests.placement import Placement
from scheduler_svc.control.requests.submission import Submission, TokenPrompt
from scheduler_svc.control.requests.subscription import ChoiceEnd, Subscription
from scheduler_svc.control.requests.tokenizers import NO_LIMITS, Conversation, Mark, TokenizingLimits
from scheduler_svc.control.roles.kept_role import KeptRole
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import DeviceGroup, InstanceRole, InstanceSpec, Location
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.load_report import IterationSample, LoadReport
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.role_change import RoleChange
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.signed_receipts import SignedReceipts
from scheduler_svc.wiring.control_plane import ControlPlane, build_control
from scheduler_svc.wiring.earlier_scheduler import NO_EARLIER_SCHEDULER, EarlierScheduler

EPOCH = 7
MODEL = "m"
STEP_S = 0.01
IMAGE_ID = 999  # stands for an image in prompts
AUDIO_ID = 998  # the same for audio
MARKS = {Mark.IMAGE: IMAGE_ID, Mark.AUDIO: AUDIO_ID}
KEY = AdoptionKey(b"k" * 32)


def token_at(position: int) -> int:
    """What every modelled engine generates at an output position: a lost or doubled token shows."""
    return (position * 7 + 3) % 1000


def expected(count: int) -> list[int]:
    return [token_at(i) for i in range(count)]


class NoTokenizers:
    """Prompts in these tests are token ids."""

    def has(self, tokenizer_hash: str) -> bool:
        return True

    async def install(self, tokenizer_hash: str, document: bytes) -> None:
        raise AssertionError

    async def encode(
        self, tokenizer_hash: str, text: str, limits: TokenizingLimits = NO_LIMITS, *, special_tokens: bool
    ) -> Sequence[int]:
        return [ord(c) % 1000 for c in text]

    async def encode_chat(
        self, tokenizer_hash: str, conversation: Conversation, limits: TokenizingLimits = NO_LIMITS
    ) -> Sequence[int]:
        turns = [turn.parts or (turn.text,) for turn in conversation.turns]
        return [
            id_
            for turn in turns
            for part in turn
            for id_ in ([MARKS[part]] if isinstance(part, Mark) else map(ord, part))
        ]


@dataclass
class Running:
    order: AssignOrder
    tokens: int  # output positions filled, over all attempts
    sent: int  # of those, sent in this session
    ended: AttemptEnd | None = None
    end_sent: bool = False
    wrong_by: int = 0  # what its tokens are off by: it was computed on another prompt's KV
    recomputed: bool = False  # the KV of its prompt could not be fetched


@dataclass
class ModelledExecutor:
    """Implements ExecutorLink; generates a token a step for whatever it holds, up to ``max_running`` at once."""

    world: World
    instance_id: str
    max_running: int = 4
    role: InstanceRole = InstanceRole.GENERAL
    kv_connector: str = ""
    prefix_caching: bool = False
    kv_block_size: int = 16
    start_id: str = "start-1"
    model: str = MODEL
    adapters: frozenset[str] = frozenset()
    max_model_len: int = 4096
    vocab_size: int = 1000
    tokenizer_hash: str = "t"
    media: tuple[MediaInput, ...] = ()
    processor_files: Mapping[str, str] = field(default_factory=dict)
    weights: str = "w"
    adapter_weights: dict[str, str] = field(default_factory=dict)
    adapter_slots: int = 0
    run_time_adapters: bool = True
    wanted_adapters: list[str] | None = None
    adapters_number: int = 0  # of the latest order
    can_sleep: bool = False
    device_group: DeviceGroup | None = None
    host: str = ""
    sleep_orders: list[bool] = field(default_factory=list)  # whether it was to sleep
    keeps_role: bool = True
    kept_role: KeptRole | None = None  # that a scheduler gave by itself, with its age then
    resume_secret: bytes = b""
    session: Session | None = None
    held: dict[int, Running] = field(default_factory=dict)
    iterations: int = 0
    last_assign: int = 0
    hung: bool = False
    silent: bool = False
    connected: bool = False
    dead: bool = False
    refuses: str = ""  # reject what is assigned, with this reason
    fails: str = ""  # end what is assigned as the engine's failure
    invalid: str = ""  # end what is assigned as the caller's fault
    lost_assigns: bool = False  # assignments do not arrive
    loses_ends: bool = False  # tokens arrive, the end of an attempt does not
    draining: bool = False
    log: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    acknowledged_heartbeats: list[float] = field(default_factory=list)  # when

    # ExecutorLink

    def assign(self, order: AssignOrder) -> None:
        if self.lost_assigns or not self.connected:
            return
        number = order.attempt_number
        self.last_assign = order.number
        self.log.append(f"assign {order.request.key.request_id}")
        start = len(order.continuation.emitted_token_ids) if order.continuation else 0
        if order.continuation is not None:  # what it says now; a message on the wire does not grow any more
            emitted = list(order.continuation.emitted_token_ids)
            order = replace(order, continuation=replace(order.continuation, emitted_token_ids=emitted))
        if self.refuses:
            reason = self.refuses
            self._later(lambda: self.world.plane.attempts.rejected(self.instance_id, number, reason, "as told"))
        elif self.fails:
            end = AttemptEnd(attempt_number=number, cause=EndCause.FAILED, message=self.fails, total_tokens=start)
            self._later(lambda: self.world.plane.attempts.ended(self.instance_id, end))
        elif self.invalid:
            end = AttemptEnd(
                attempt_number=number,
                cause=EndCause.INVALID,
                field=f"spec.{self.invalid}",
                message="the engine says so",
            )
            self._later(lambda: self.world.plane.attempts.ended(self.instance_id, end))
        else:
            self.held[number] = Running(order=order, tokens=start, sent=start)
            if start >= order.request.sampling.max_tokens:
                self._finish(self.held[number])  # everything was delivered, only the end was lost

    def cancel(self, attempt_number: int, reason: str) -> None:
        self.log.append(f"cancel {attempt_number}: {reason}")
        running = self.held.get(attempt_number)
        if running is None or self.hung or not self.connected:
            return
        self.held.pop(attempt_number)
        end = AttemptEnd(attempt_number=attempt_number, cause=EndCause.CANCELLED, total_tokens=running.tokens)
        self._later(lambda: self.world.plane.attempts.ended(self.instance_id, end))

    def drain(self, *, resume: bool) -> None:
        self.draining = not resume

    def resend(self, attempt_number: int, from_index: int) -> None:
        running = self.held.get(attempt_number)
        if running is not None:
            running.sent, running.end_sent = from_index, False

    def acknowledge(self, attempt_number: int, tokens: int, *, ended: bool) -> None:
        self.held.pop(attempt_number, None)

    def release_kv(self, number: int, params: bytes) -> None:
        self.log.append(f"release_kv {params.decode()}")

    def resend_named(self, epoch: int, number: int, from_index: int) -> None:
        self.resend(number, from_index)

    def fetch_assign(self, epoch: int, number: int) -> None:
        self.log.append(f"fetch_assign {epoch}/{number}")

    def cancel_named(self, epoch: int, number: int, reason: str) -> None:
        self.log.append(f"cancel {epoch}/{number}: {reason}")

    def want_tokenizer(self, tokenizer_hash: str) -> None:
        raise AssertionError("tokenizers are always here")

    def want_sleep(self, number: int, *, asleep: bool) -> None:
        self.sleep_orders.append(asleep)

    def want_adapters(self, number: int, sources: Sequence[AdapterSource]) -> None:
        self.adapters_number = number
        self.wanted_adapters = [each.name for each in sources]

    def keep_role(self, change: RoleChange | None, age_s: float) -> None:
        self.kept_role = None
        if change is not None:
            self.kept_role = KeptRole(
                role=change.role, previous=change.before, cause=change.cause, reason=change.reason, age_s=age_s
            )

    def acknowledge_heartbeat(self, number: int) -> None:
        self.acknowledged_heartbeats.append(self.world.clock.now())

    def close(self, reason: str) -> None:
        self.closed.append(reason)
        self.connected = False

    # what it does

    def connect(self) -> None:
        """Register, report READY, open the output stream."""
        self.register()
        self.ready()

    def register(self) -> None:
        plane = self.world.plane
        held = tuple(
            HeldAttempt(epoch=EPOCH, number=n, tokens=r.tokens, ended=r.ended is not None) for n, r in self.held.items()
        )
        spec = InstanceSpec(
            instance_id=self.instance_id,
            model=self.model,
            engine_start_id=self.start_id,
            role=self.role,
            device_group=self.device_group,
            location=Location(host=self.host),
        )
        registration = Registration(
            spec=spec,
            resume_secret=self.resume_secret,
            held=held,
            run_time_adapters=self.run_time_adapters,
            keeps_role=self.keeps_role,
            kept_role=self.kept_role,
        )
        welcome = plane.instances.registrar.register(registration, self)
        self.resume_secret = welcome.resume_secret
        self.held = {n: r for n, r in self.held.items() if n in welcome.keep}
        self.session = plane.instances.sessions.by_id(welcome.session_id)
        self.connected, self.dead = True, False

    def ready(self) -> None:
        """Report READY, open the output stream."""
        assert self.session is not None
        self.world.plane.instances.reports.engine_status(self.session, InstanceState.READY, None, "", self.facts())
        self.world.plane.instances.sessions.outputs_opened(self.session.session_id)

    def facts(self) -> EngineFacts:
        return EngineFacts(
            engine="modelled",
            engine_version="1",
            vocab_size=self.vocab_size,
            max_model_len=self.max_model_len,
            adapters=self.adapters,
            weights=self.weights,
            adapter_weights=self.adapter_weights,
            adapter_slots=self.adapter_slots,
            can_sleep=self.can_sleep,
            kv_capacity_tokens=100_000,
            max_running=self.max_running,
            max_batched_tokens=2048,
            tokenizer_hash=self.tokenizer_hash,
            media=self.media,
            processor_files=self.processor_files,
            kv_connector=self.kv_connector,
            compatibility_key="k" if self.kv_connector else "",
            kv_block_size=self.kv_block_size,
            prefix_caching=self.prefix_caching,
            embedding_dimensions=int(self.role.embeds),
        )

    def crash(self) -> None:
        """The process is gone, and everything in it."""
        assert self.session is not None
        self.dead = True
        self.held.clear()
        self.disconnect()

    def disconnect(self) -> None:
        """The network is gone; the engine goes on."""
        assert self.session is not None
        self.connected = False
        self.world.plane.instances.sessions.control_broken(self.session, "reset")
        self.world.plane.instances.sessions.outputs_broken(self.session, "reset")

    def restart(self) -> None:
        """A new process, a new engine."""
        self.start_id += "+"
        self.kept_role = None
        self.iterations = self.last_assign = 0
        self.hung = False
        self.connect()

    def step(self) -> None:
        """One engine iteration, and what it sends."""
        if self.dead or self.hung:
            return
        running = [r for r in self.held.values() if r.ended is None][: self.max_running]
        for one in running:
            one.tokens += 1
            if one.tokens >= one.order.request.sampling.max_tokens:
                self._finish(one)
        self.iterations += bool(running)
        if self.connected:
            self.flush()

    def _finish(self, one: Running) -> None:
        one.ended = AttemptEnd(
            attempt_number=one.order.attempt_number,
            cause=EndCause.FINISHED,
            finish_reason="length",
            total_tokens=one.tokens,
            kv_recomputed=one.recomputed,
            engine_time_s=1.0,
            embedding=b"" if one.order.request.embedding is None else bytes(4),
        )

    def flush(self) -> None:
        for number, one in list(self.held.items()):
            if one.tokens > one.sent:
                ids = [token_at(i) + one.wrong_by for i in range(one.sent, one.tokens)]
                self._send(number, one, ids)
                one.sent = one.tokens
            if one.ended is not None:
                if self.loses_ends:
                    continue
                self._end(number, one, one.ended)

    def _end(self, number: int, one: Running, end: AttemptEnd) -> None:
        """Report an end; the attempt is held until it is acknowledged."""
        if one.end_sent:
            return
        one.end_sent = True
        live = self.world.plane.attempts.ended(self.instance_id, end)
        acknowledge = partial(self.acknowledge, number, one.tokens, ended=True)
        if live is None:
            acknowledge()
        else:
            self.world.plane.intake.ends.keep(live, self.instance_id, acknowledge)

    def _send(self, number: int, one: Running, ids: list[int]) -> None:
        table, text = self.world.plane.attempts, "x" * len(ids)
        if one.recomputed:
            table.tokens(self.instance_id, number, one.sent, ids, text, None, True)
        else:
            counts = [] if len(ids) == 1 else [len(ids)]
            table.columns(self.instance_id, OutputColumns([number], [one.sent], counts, [len(text)], ids, text))

    def beat(self, number: int) -> None:
        if self.dead or self.silent or not self.connected or self.session is None:
            return
        held = sum(r.ended is None for r in self.held.values())
        report = LoadReport(
            number=number,
            last_assign=self.last_assign,
            running=min(held, self.max_running),
            waiting=max(0, held - self.max_running),
            unfinished=held,
            kv_used_tokens=sum(r.order.request.prompt_tokens + r.tokens for r in self.held.values()),
            iterations=self.iterations,
            samples=(
                IterationSample(prefill_tokens=0, decode_tokens=held, running=held, kv_used_tokens=0, elapsed_s=STEP_S),
            ),
        )
        self.world.plane.instances.reports.heartbeat(self.session, report)

    def _later(self, call: Callable[[], object]) -> None:
        """On its stream a millisecond from now, if that is still up."""
        session = self.session

        def arrive() -> None:
            if self.connected and self.session is session:
                call()

        self.world.clock.call_at(self.world.clock.now() + 0.001, arrive)


class Reader:
    """A client: reads its request's events to the end."""

    def __init__(self, world: World, subscription: Subscription) -> None:
        self._world = world
        self.subscription = subscription
        self.events: list[Event | ChoiceEnd] = []
        self.by_choice: dict[int, list[int]] = {}  # output tokens
        self.error: Exception | None = None
        self.task = asyncio.get_running_loop().create_task(self._read())

    @property
    def live(self) -> LiveRequest:
        return self.subscription.live

    @property
    def token_ids(self) -> list[int]:
        return [t for e in self.events if isinstance(e, TokenSlice) for t in e.token_ids]

    @property
    def instances(self) -> list[str]:
        return [e.decision.instance_id for e in self.events if isinstance(e, Placement)]

    @property
    def finished(self) -> Finished:
        last = self.events[-1] if self.events else None
        assert isinstance(last, Finished), f"not finished: {self.error or last}; {self.live.history}"
        return last

    async def go_away(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                event = await self.subscription.next()
                if isinstance(event, Exception):
                    self.error = event
                    return
                self.events.append(event)
                if isinstance(event, TokenSlice):
                    choice = self.subscription.source.live.key.choice
                    self.by_choice.setdefault(choice, []).extend(event.token_ids)
                if isinstance(event, Finished):
                    return
        finally:
            self._world.plane.intake.readers.leave(self.subscription)


class World:
    def __init__(self, **settings: Any) -> None:
        self.clock = VirtualClock()
        self.wall_at = 0.0
        self._step_s: float = settings.pop("step_s", STEP_S)
        observe_fleet: Callable[[Clock], FleetObserver] = settings.pop(
            "observe_fleet", lambda clock: NULL_FLEET_OBSERVER
        )
        adopts: bool = settings.pop("adopts", False)  # a next scheduler could go on with what executors hold
        config = SchedulerConfig(policy=settings.pop("policy", "fifo"), **settings)
        self.plane: ControlPlane = build_control(
            config,
            self.clock,
            NoTokenizers(),
            epoch=EPOCH,
            observe_fleet=observe_fleet(self.clock),
            earlier=EarlierScheduler(proofs=KEY, receipts=SignedReceipts(KEY), wall=lambda: self.wall_at)
            if adopts
            else NO_EARLIER_SCHEDULER,
        )
        self.executors: dict[str, ModelledExecutor] = {}
        self._beats = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self.dispatching = loop.create_task(self.plane.dispatcher.run())
        self._tasks.append(self.dispatching)
        for work in (self.plane.watchdog.run(), self._steps(), self._heartbeats()):
            self._tasks.append(loop.create_task(work))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.raise_what_died()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def raise_what_died(self) -> None:
        """A background task ends only by an error, which is the test's to hear of."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def add(self, instance_id: str, **options: Any) -> ModelledExecutor:
        executor = ModelledExecutor(world=self, instance_id=instance_id, **options)
        self.executors[instance_id] = executor
        executor.connect()
        return executor

    def submission(self, request_id: str, *, prompt: int = 10, max_tokens: int = 20, **options: Any) -> Submission:
        sampling = {"max_tokens": max_tokens, **options.pop("sampling", {})}
        model = options.pop("model", MODEL)
        after_token = options.pop("after_token", 0)  # says where to read from; no part of the content
        content = repr((prompt, model, sorted(sampling.items()), sorted(options.items())))
        tenant = options.pop("tenant", "t")
        return Submission(
            key=RequestKey(tenant=tenant, request_id=request_id),
            digest=hashlib.sha256(content.encode()).digest(),
            model=model,
            prompt=TokenPrompt(token_ids=[i % 1000 for i in range(prompt)]),
            sampling=sampling,
            after_token=after_token,
            **options,
        )

    async def submit(self, request_id: str, **options: Any) -> Reader:
        return Reader(self, await self.plane.intake.submit(self.submission(request_id, **options)))

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)

    def state(self, instance_id: str) -> InstanceState:
        return self.plane.scheduler.instance(instance_id).state

    def assert_all_room_is_free(self) -> None:
        assert len(self.plane.attempts) == 0
        for instance in self.plane.scheduler.instances():
            assert not instance.account.reservations, f"{instance} still holds reservations"

    async def _steps(self) -> None:
        while True:
            await self.clock.sleep(self._step_s)
            for executor in list(self.executors.values()):
                executor.step()

    async def _heartbeats(self) -> None:
        while True:
            await self.clock.sleep(0.5)
            self._beats += 1
            for executor in list(self.executors.values()):
                executor.beat(self._beats)
