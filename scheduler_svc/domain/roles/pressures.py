"""Reads how much the two sides of a model have to do."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.offered_load import TokenCosts
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import STARTING
from scheduler_svc.domain.roles.candidates import on_side
from scheduler_svc.domain.roles.side import Side
from scheduler_svc.domain.scaling.parts import parts_of

#: Share of its TTFT target that a split request may wait for a prefill instance before that side is at its limit.
WAITED = 0.5
#: Times the mean time of a start after which an instance that still starts is no help on its way.
LATE = 3.0
#: Seconds in place of that while no start was measured.
LONG_START_S = 600.0
#: Share of KV tokens at which the decode side is at its limit: engines preempt soon after.
KV_USE = 0.9
_WHOLE = (InstanceRole.GENERAL, InstanceRole.HYBRID)


def pressures(pool: Pool, now: float) -> tuple[Side, Side]:
    """Return the prefill and the decode side of a model."""
    return prefill_side(pool, now), decode_side(pool, now)


def prefill_side(pool: Pool, now: float) -> Side:
    """Return the prefill side: the load of prompts, and the wait for an instance."""
    accounts = _accounts(pool, InstanceRole.PREFILLING)
    wait_share = pool.legs.wait_share(now)
    return _side(
        "prefill",
        pool,
        InstanceRole.PREFILLING,
        now,
        [
            _load(pool, InstanceRole.PREFILLING, accounts, now),
            (wait_share / WAITED, f"prompts are to wait {wait_share:.0%} of their TTFT target"),
        ],
    )


def decode_side(pool: Pool, now: float) -> Side:
    """Return the decode side: the load of outputs, the time per token, slots and KV tokens."""
    accounts = _accounts(pool, InstanceRole.DECODING)
    slots, capacity = sum(a.max_running for a in accounts), sum(a.capacity for a in accounts)
    taken = sum(min(_decoding(a), a.max_running) for a in accounts) / slots if slots else 0.0
    free = sum(min(a.capacity, max(0, a.free_tokens)) for a in accounts)
    kv_use = 1 - free / capacity if capacity else 0.0
    token_share = pool.legs.token_share(now)
    return _side(
        "decode",
        pool,
        InstanceRole.DECODING,
        now,
        [
            _load(pool, InstanceRole.DECODING, accounts, now),
            (token_share, f"tokens take {token_share:.0%} of what their TPOT target leaves"),
            (taken, f"{taken:.0%} of the slots are taken"),
            (kv_use / KV_USE, f"{kv_use:.0%} of the KV tokens are taken"),
        ],
    )


def _decoding(account: Account) -> int:
    """Count the reservations of an instance, but for decode legs whose prompt is still computed elsewhere.

    These hold a slot because prefill is slow; they are no work of the decode side yet.
    """
    return account.live - sum(not each.prefills for each in account.pending.prompts.values())


def _side(name: str, pool: Pool, role: InstanceRole, now: float, found: Sequence[tuple[float, str]]) -> Side:
    pressure, why = max(found)
    ready = len(_accounts(pool, role))
    soon = now - (LATE * pool.starts.mean_s if pool.starts.mean_s else LONG_START_S)
    return Side(
        name=name,
        ready=ready,
        starting=sum(i.role is role and _starts(i) and i.start_began_at >= soon for i in pool.instances()),
        pressure=pressure if ready else 0.0,
        why=why if ready else "no instance is ready",
        stood_in=bool(on_side(pool.instances(), InstanceRole.HYBRID)),
    )


def _starts(instance: Instance) -> bool:
    return instance.state in STARTING and not instance.failed_starts


def _accounts(pool: Pool, role: InstanceRole) -> list[Account]:
    return [i.account for i in on_side(pool.instances(), role)]


def _load(pool: Pool, role: InstanceRole, accounts: Sequence[Account], now: float) -> tuple[float, str]:
    """Return the load of a side over what its instances can do with every slot taken, and say so."""
    roles = {InstanceRole.PREFILLING, InstanceRole.DECODING}
    if any(i.role in _WHOLE and i.live for i in pool.instances()):
        roles.add(InstanceRole.GENERAL)
    prompts, outputs = parts_of(role, roles, pool.legs.wanted_share(now))
    rates = pool.load.rates(now)
    costs = [TokenCosts.of(account) for account in accounts]
    units = [prompts * each.prefill_of(rates) + outputs * each.decode_of(rates) for each in costs]
    load = 1 / fsum(1 / unit for unit in units) if units and all(units) else 0.0
    return load, f"the load is {load:.0%} of what they can do"
