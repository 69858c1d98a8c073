"""Sends mutated messages over RPCs, many calls at a time; one number and the seed make one call again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from tests.fuzz.byte_mutations import mutated
from tests.fuzz.call import Metadata, Outcome, call
from tests.fuzz.contract_rpcs import Rpc
from tests.fuzz.findings import Findings
from tests.fuzz.inside import statuses_of, texts_of
from tests.fuzz.known_values import KnownValues
from tests.fuzz.message_maker import MessageMaker
from tests.fuzz.set_everywhere import set_everywhere

WORKERS = 12
TIMEOUTS_S = (0.3, 1.0, 1.0, 3.0)
BYTES_SHARE = 0.35  # of the messages have changed bytes
RIGHT_IDENTITY_SHARE = 0.9
OWN_TENANT_SHARE = 0.85
WITHOUT_SHARE = 0.95
STREAM_BYTES_SHARE = 0.08  # the same, on a stream that was opened properly
OTHERS_KEPT = 16
REPLIES = (1, 3, 50)

Send = Callable[[], bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who calls, and whether what it is told may be only its own tenants'."""

    name: str
    metadata: Metadata
    tenant: str = ""  # its own; empty: it need not name one
    sees_every_tenant: bool = False


@dataclass(slots=True)
class Case:
    """One call.  ``dice`` decide everything about it that is not learned from earlier ones."""

    number: int
    rpc: Rpc
    identity: Identity
    dice: Random
    sent: int = 0
    last: bytes = b""

    def __str__(self) -> str:
        shown = self.last[:200].hex() + ("..." if len(self.last) > 200 else "")
        return (
            f"case {self.number}, {self.rpc.path} as {self.identity.name}, after {self.sent} messages, the last of"
            f" {len(self.last)} bytes: {shown}"
        )


class Fuzzer:
    """Calls RPCs chosen by their weight until so many messages are sent."""

    def __init__(
        self,
        *,
        seed: int,
        rpcs: Mapping[Rpc, int],
        identities: Callable[[Rpc], tuple[Sequence[Identity], Sequence[Identity]]],
        known: KnownValues,
        findings: Findings,
        scripts: Mapping[str, Script] | None = None,
    ) -> None:
        """Make a fuzzer.

        ``rpcs``: their weights.  ``identities``: who may call an RPC, and who may not.  ``scripts``: by an RPC's
        path, what runs its calls instead of a random sequence of messages.
        """
        self.known, self.findings = known, findings
        self.messages: Counter[str] = Counter()  # sent, by the RPC's path
        self._seed = seed
        self._rpcs, self._weights = list(rpcs), list(rpcs.values())
        self._identities = identities
        self._scripts = dict(scripts or {})
        self._others: dict[str, list[bytes]] = {}
        self._next = 0

    async def run(self, channels: Sequence[grpc.aio.Channel], messages: int) -> None:
        """Send at least ``messages`` more messages."""
        end = self.messages.total() + messages

        async def work(channel: grpc.aio.Channel) -> None:
            while self.messages.total() < end:
                self._next += 1
                await self.one(self._next, channel)

        async with asyncio.TaskGroup() as tasks:
            for worker in range(WORKERS):
                tasks.create_task(work(channels[worker % len(channels)]))

    async def one(self, number: int, channel: grpc.aio.Channel) -> None:
        """Make the call of this number."""
        dice = Random(f"{self._seed}/{number}")
        [rpc] = dice.choices(self._rpcs, self._weights)
        may, others = self._identities(rpc)
        right = dice.random() < RIGHT_IDENTITY_SHARE
        case = Case(number, rpc, dice.choice(may if right else others), dice)
        script = self._scripts.get(rpc.path)
        if script is not None and dice.random() < 0.7:
            await script(case, channel, self)
        else:
            await self._random_call(case, channel)

    async def _random_call(self, case: Case, channel: grpc.aio.Channel) -> None:
        count = case.dice.choice((0, 1, 2, 5, 12)) if case.rpc.requests_stream else 1

        async def messages() -> AsyncGenerator[bytes, None]:
            for _ in range(count):
                yield self.message(case, case.rpc)

        async with aclosing(messages()) as made:
            outcome = await call(
                channel,
                case.rpc,
                made,
                metadata=case.identity.metadata,
                timeout_s=case.dice.choice(TIMEOUTS_S),
                replies=case.dice.choice(REPLIES),
                dice=case.dice,
            )
        self.judge(case, outcome)

    def message(self, case: Case, rpc: Rpc, *, bytes_share: float = BYTES_SHARE, without: str = "") -> bytes:
        """Make the next message of a call.

        ``bytes_share``: how many have changed bytes, which mostly ends a stream.  ``without``: a field that does too.
        """
        made = MessageMaker(case.dice, self.known).message(rpc.request)
        if case.dice.random() < OWN_TENANT_SHARE:
            set_everywhere(made, "tenant", case.identity.tenant)
        if without and case.dice.random() < WITHOUT_SHARE:
            made.ClearField(without)
        return self.noted(case, rpc, changed(harmless(made), rpc.path, self._others, case.dice, bytes_share))

    def noted(self, case: Case, rpc: Rpc, data: bytes) -> bytes:
        """Count a message that is sent."""
        case.sent += 1
        case.last = data
        self.messages[rpc.path] += 1
        return data

    def judge(self, case: Case, outcome: Outcome) -> None:
        """Note what is wrong with an outcome; learn from the replies."""
        self.findings.status(case.rpc.method, outcome.code, outcome.details, str(case))
        if case.identity.sees_every_tenant:
            return  # nothing is learned either: what the fuzzer knows it may send, and what it sends is told it again
        replies = [GetMessageClass(case.rpc.response).FromString(data) for data in outcome.replies]
        for reply in replies:
            self.known.learn(reply)
        texts = [text for reply in replies for text in texts_of(reply)]
        self.findings.told_to_others([*texts, outcome.details, outcome.trailing], str(case))
        for status in (status for reply in replies for status in statuses_of(reply)):
            self.findings.status_told(status, str(case))


Script = Callable[[Case, grpc.aio.Channel, Fuzzer], Awaitable[None]]
"""Makes one call, or several that belong together."""


def changed(
    message: Message, kind: str, others: dict[str, list[bytes]], dice: Random, bytes_share: float = BYTES_SHARE
) -> bytes:
    """Return a message's bytes, some of them changed; ``others`` has the latest messages by their kind."""
    data = message.SerializeToString()
    known = others.setdefault(kind, [])
    if len(data) < 4_096:
        known.append(data)
        del known[:-OTHERS_KEPT]
    if dice.random() >= bytes_share:
        return data
    pieces = [data for group in others.values() for data in group]
    mixed = mutated(data, pieces, dice)
    return mixed if _still_harmless(mixed, message) else data


def harmless(message: Message) -> Message:
    """Rename the model of an instance that would join the real executors: its word would count as theirs."""
    if message.DESCRIPTOR.name == "ControlRequest" and message.register.model == "sim":  # type: ignore[attr-defined]
        message.register.model = "rogue-0"  # type: ignore[attr-defined]
    return message


def _still_harmless(data: bytes, message: Message) -> bool:
    if message.DESCRIPTOR.name != "ControlRequest":
        return True
    try:
        parsed: Any = type(message).FromString(data)
    except DecodeError:
        return True
    return bool(parsed.register.model != "sim")
