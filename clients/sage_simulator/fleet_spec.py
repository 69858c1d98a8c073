"""The instances of a modelled fleet: named fleets, and the notation of ``--instances``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sage_common.near_names import names_instead
from scheduler_svc.domain.engine_facts import EngineFacts, Parallelism
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.prediction.pace import Pace

#: An engine of speed 1: about a 7 B model in bfloat16 on one recent data-centre GPU.
DEFAULT_PACE = Pace(base_s=7e-3, prefill_token_s=4e-5, running_s=4e-5, kv_token_s=1.2e-8)


class FleetSpecError(ValueError):
    """A fleet is described wrongly; the message says what and how it should be."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceModel:
    """One modelled instance."""

    speed: float = 1.0  # how many times faster than ``pace``
    price_per_hour: float = 1.0
    kv_capacity_tokens: int = 320_000
    max_running: int = 128  # sequences
    max_batched_tokens: int = 2_048  # tokens of one step: the prefill chunk
    role: InstanceRole = InstanceRole.GENERAL
    kv_block_size: int = 16  # tokens
    kv_bytes_per_token: float = 131_072.0  # of the KV that is handed over: 2 x 32 layers x 8 heads x 128 x 2 bytes
    max_model_len: int = 262_144  # tokens, prompt + output
    prefix_caching: bool = True
    cache_events: bool = True  # the engine tells what its prefix cache holds
    model: str = ""  # that it serves; empty: the trace's only one
    pace: Pace = DEFAULT_PACE

    def __post_init__(self) -> None:
        for key in (
            "speed",
            "kv_capacity_tokens",
            "max_running",
            "max_batched_tokens",
            "kv_block_size",
            "kv_bytes_per_token",
            "max_model_len",
        ):
            if not 0 < getattr(self, key) < float("inf"):
                raise FleetSpecError(f"{key}: {getattr(self, key)} is not a positive number")
        if not 0 <= self.price_per_hour < float("inf"):
            raise FleetSpecError(f"price_per_hour: {self.price_per_hour} is not zero or a positive number")
        if self.max_batched_tokens < self.max_running:
            raise FleetSpecError(
                f"a chunk of {self.max_batched_tokens} tokens for {self.max_running} running sequences"
            )
        if self.kv_capacity_tokens < self.kv_block_size:
            raise FleetSpecError(f"kv_capacity_tokens: {self.kv_capacity_tokens} is less than one block")
        if self.role.embeds:
            raise FleetSpecError(f"role {self.role.value}: the simulator's instances generate")

    @property
    def scaled_as(self) -> InstanceRole:
        """The role under which desired numbers count the instance: GENERAL stands for HYBRID, too."""
        return InstanceRole.GENERAL if self.role is InstanceRole.HYBRID else self.role

    @property
    def pace_here(self) -> Pace:
        """The pace of this instance's engine: ``pace`` at its speed."""
        each = self.pace
        return Pace(
            base_s=each.base_s / self.speed,
            prefill_token_s=each.prefill_token_s / self.speed,
            running_s=each.running_s / self.speed,
            kv_token_s=each.kv_token_s / self.speed,
        )

    def facts(self) -> EngineFacts:
        """Return the facts that the instance's engine states."""
        return EngineFacts(
            engine="modelled",
            engine_version="1",
            vocab_size=1 << 31,
            max_model_len=self.max_model_len,
            kv_capacity_tokens=self.kv_capacity_tokens // self.kv_block_size * self.kv_block_size,
            kv_block_size=self.kv_block_size,
            max_running=self.max_running,
            max_batched_tokens=self.max_batched_tokens,
            parallelism=Parallelism(gpu_count=1),
            supports_priority=True,
            prefix_caching=self.prefix_caching,
            kv_connector="modelled",
            compatibility_key=f"{self.kv_bytes_per_token:g} bytes in blocks of {self.kv_block_size}",
        )


_U8 = ((2.0, 7.0), (1.6, 5.0), (1.3, 3.6), (1.0, 2.8), (1.0, 2.2), (0.8, 1.8), (0.6, 1.2), (0.4, 0.8))

#: Fleets by name.  U8: the fastest instances cost most for what they do, as in price lists of GPUs.  PD: half of the
#: instances compute prompts, the other half outputs.
NAMED_FLEETS: Mapping[str, Sequence[InstanceModel]] = {
    "E8": (InstanceModel(price_per_hour=2.5),) * 8,
    "U8": tuple(InstanceModel(speed=speed, price_per_hour=price) for speed, price in _U8),
    "PD": tuple(
        InstanceModel(price_per_hour=2.5, role=role)
        for role in (InstanceRole.PREFILLING, InstanceRole.DECODING)
        for _ in range(4)
    ),
}

_KEYS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "speed": ("speed", float),
    "price": ("price_per_hour", float),
    "kv": ("kv_capacity_tokens", int),
    "slots": ("max_running", int),
    "chunk": ("max_batched_tokens", int),
    "length": ("max_model_len", int),
    "role": ("role", InstanceRole),
    "model": ("model", str),
    "kvbytes": ("kv_bytes_per_token", float),
}


_ROLES = [each.value for each in InstanceRole if not each.embeds]


def parse_instances(text: str, kinds: Mapping[str, InstanceModel] | None = None) -> tuple[InstanceModel, ...]:
    """Read groups such as ``4xspeed=1,price=2;2xA,slots=64``.

    A group is a number of instances, ``x``, a kind by its name where there is one, and what differs from that or from
    the default: speed, price (per hour), kv (tokens), slots (running sequences), chunk (tokens of a step), length
    (tokens of prompt and output), role, model (that it serves), kvbytes (bytes of KV per token).

    Raises FleetSpecError.
    """
    return tuple(instance for count, instance in parse_groups(text, kinds) for _ in range(count))


def parse_groups(text: str, kinds: Mapping[str, InstanceModel] | None = None) -> list[tuple[int, InstanceModel]]:
    """Read groups as ``parse_instances`` does, each as its number and its kind.  Raises FleetSpecError."""
    return [_group(group, kinds or {}) for group in text.split(";")]


def parse_kind(text: str) -> tuple[str, InstanceModel]:
    """Read a kind of instances such as ``A:speed=2,price=7``: its name and what it is.  Raises FleetSpecError."""
    name, found, changes = text.partition(":")
    if not found or not name.strip().isidentifier():
        raise FleetSpecError(f"{text!r}: a kind is a name, a colon and keys, such as A:speed=2,price=7")
    return name.strip(), _changed(InstanceModel(), changes.split(","))


def _group(group: str, kinds: Mapping[str, InstanceModel]) -> tuple[int, InstanceModel]:
    count, found, rest = group.strip().partition("x")
    if not found or not count.isdigit() or not 1 <= int(count) <= 4_096:
        raise FleetSpecError(f"{group!r}: a group begins with a number of instances up to 4096, such as 4xspeed=1")
    first, *others = rest.split(",")
    if first.strip() and "=" not in first:
        if first.strip() in _KEYS:
            raise FleetSpecError(f"{group!r}: {first.strip()} has no value, as in {first.strip()}=...")
        if first.strip() not in kinds:
            raise FleetSpecError(f"{group!r}: no kind {first.strip()!r}{names_instead(first.strip(), kinds)}")
        return int(count), _changed(kinds[first.strip()], others)
    return int(count), _changed(InstanceModel(), [first, *others])


def _changed(instance: InstanceModel, pairs: Sequence[str]) -> InstanceModel:
    changes: dict[str, object] = {}
    for pair in filter(None, map(str.strip, pairs)):
        key, _, value = pair.partition("=")
        if key.strip() not in _KEYS:
            instead = names_instead(key.strip(), _KEYS, title="the keys are")
            raise FleetSpecError(f"{pair!r}: no key {key.strip()!r}{instead}")
        name, read = _KEYS[key.strip()]
        try:
            changes[name] = read(value.strip())
        except ValueError:
            instead = names_instead(value.strip(), _ROLES) if name == "role" else ""
            raise FleetSpecError(f"{pair!r}: {value.strip()!r} is no {key.strip()}{instead}") from None
    try:
        return replace(instance, **changes)  # type: ignore[arg-type]
    except FleetSpecError as error:
        raise FleetSpecError(f"{','.join(pairs)!r}: {error}") from None


def named_fleet(name: str) -> tuple[InstanceModel, ...]:
    """Return a fleet by its name.  Raises FleetSpecError, which names those there are."""
    try:
        return tuple(NAMED_FLEETS[name])
    except KeyError:
        raise FleetSpecError(f"no fleet {name!r}{names_instead(name, NAMED_FLEETS)}") from None
