"""The instances of one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import fsum

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.claim import Claim
from scheduler_svc.domain.capacity.offered_load import OfferedLoad
from scheduler_svc.domain.engine_facts import EngineFacts, ModelIdentity
from scheduler_svc.domain.fleet.common_abilities import CommonAbilities
from scheduler_svc.domain.fleet.isolation import Isolation
from scheduler_svc.domain.fleet.quiet_instances import QuietInstances
from scheduler_svc.domain.fleet.recent_legs import RecentLegs
from scheduler_svc.domain.fleet.recent_trouble import RecentTrouble
from scheduler_svc.domain.fleet.start_times import StartTimes
from scheduler_svc.domain.instance import Instance
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import STARTING, InstanceState
from scheduler_svc.domain.most_asked import MostAsked
from scheduler_svc.domain.prediction.forgetting_mean import ForgettingMean
from scheduler_svc.domain.prediction.pace import CPU_PRIOR, Pace
from scheduler_svc.domain.prediction.queue_drain import QueueDrain
from scheduler_svc.domain.queue import ModelQueue
from scheduler_svc.domain.request import Request
from scheduler_svc.domain.waiting_request import WaitingRequest

_NAMES_SHOWN = 4  # instances named for each model in a disagreement
_PACE_AGE_S = 1.0
_SERVICE_FORGETTING = 0.98
_SPLITS_FORGETTING = 0.98
_TYPICAL_PROMPT = 256  # tokens, where nothing was seen yet
_TYPICAL_OUTPUT = 128
_WHOLE = (InstanceRole.GENERAL, InstanceRole.HYBRID)
# If no instance is meant for whole requests, DECODING ones run them, and PREFILLING ones if there is no other.
_INSTEAD = (InstanceRole.DECODING, InstanceRole.PREFILLING)


class Pool:
    """Sorts the instances of one model by what they can take now, again only after one of them changed."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.queue: ModelQueue | None = None  # None before the first request of the model
        self.changed = False  # capacity or members changed since the last pass
        self.generation = 1  # counts the changes of members, their states, roles and engines
        self.isolation = Isolation()
        self.quiet = QuietInstances()
        self._members: dict[str, Instance] = {}
        self._sorted: list[Instance] | None = None  # the members by id; None after one came or went
        self._stale = True
        self._accounts = Accounts()
        self._unavailable: tuple[tuple[str, str, str], ...] = ()
        self._common = CommonAbilities()  # of the instances for whole requests
        self._common_of_legs = CommonAbilities()
        self._slots = 0
        self.last_slots = 0  # of the instances for whole requests that were READY last
        self._kv_block_sizes: tuple[int, ...] = ()
        self._served_facts: tuple[EngineFacts, ...] = ()
        self._disagreement = ""
        self._unserved_since: float | None = None
        self._specialists = False
        self._prefillers = Accounts()
        self._decoders = Accounts()
        self.load = OfferedLoad()
        self.trouble = RecentTrouble()
        self.legs = RecentLegs()
        self.starts = StartTimes()
        self.split_share = ForgettingMean(_SPLITS_FORGETTING)  # of placements
        self._service = ForgettingMean(_SERVICE_FORGETTING)
        self.drain = QueueDrain()
        self.claim: Claim | None = None  # of a head that fits nowhere
        self.claimant: WaitingRequest | None = None
        self._pace = CPU_PRIOR
        self._pace_until = float("-inf")

    def __len__(self) -> int:
        return len(self._members)

    def __bool__(self) -> bool:
        return bool(self._members)

    def instances(self) -> list[Instance]:
        """Return all instances of the model, sorted by id."""
        if self._sorted is None:
            self._sorted = [self._members[i] for i in sorted(self._members)]
        return list(self._sorted)

    def get(self, instance_id: str) -> Instance:
        """Return an instance of the model.  Raises KeyError."""
        return self._members[instance_id]

    def add(self, instance: Instance) -> None:
        """Take an instance in."""
        self._members[instance.instance_id] = instance
        self._sorted = None
        self.invalidate()

    def remove(self, instance: Instance) -> None:
        """Drop an instance."""
        self._close()
        del self._members[instance.instance_id]
        self._sorted = None
        self.invalidate()

    def invalidate(self) -> None:
        """Note that an instance changed: everything is computed again, and a pass is due."""
        self._stale = True
        self.changed = True
        self.generation += 1

    @property
    def accounts(self) -> Accounts:
        """Accounts of the READY instances that take whole requests, sorted by instance id."""
        if self._stale:
            self._refresh()
        return self._accounts

    @property
    def unavailable(self) -> tuple[tuple[str, str, str], ...]:
        """The other instances: id, what takes the instance out ("state" or "role"), and the reason in words."""
        if self._stale:
            self._refresh()
        return self._unavailable

    @property
    def longest_for_all(self) -> int:
        """Longest request, prompt and output in tokens, that fits every instance's model length and KV cache."""
        if self._stale:
            self._refresh()
        return self._common.longest

    def serves_alike(self, request: Request, total_tokens: int) -> bool:
        """Return whether all READY instances can serve a request without adapter and constraint.

        ``total_tokens``: prompt plus max_tokens.
        """
        if self._stale:
            self._refresh()
        return self._common.serve(request, total_tokens)

    def legs_serve_alike(self, request: Request, total_tokens: int) -> bool:
        """Return the same of all READY instances that take legs of split requests."""
        if self._stale:
            self._refresh()
        return self._common_of_legs.serve(request, total_tokens)

    def serves_all(self, most: MostAsked) -> bool:
        """Return whether all READY instances can serve every request that asks for no more than this, and is plain."""
        if self._stale:
            self._refresh()
        return self._common.serve_all(most)

    @property
    def served_facts(self) -> tuple[EngineFacts, ...]:
        """The different facts of the live instances that generate, those that most instances have in common first.

        Groups of one tokenizer stay together, within a group the longest model length comes first.  If none generates,
        those of the others, which say why the request is refused.
        """
        if self._stale:
            self._refresh()
        return self._served_facts

    @property
    def hopeful(self) -> bool:
        """Whether an engine starts that did not fail to start since it was READY last."""
        return any(i.state in STARTING and not i.failed_starts for i in self._members.values())

    @property
    def on_demand(self) -> bool:
        """Whether no instance is READY, and one gets its turn on its device when requests wait for it.

        An engine that failed to start is no hope: requests have it tried again, and wait for no longer than elsewhere.
        """
        return not self.accounts and any(i.on_demand and not i.failed_starts for i in self._members.values())

    def unserved_since(self, now: float) -> float | None:
        """Return since when no instance is READY or comes on demand, as far as was asked; None if one does."""
        if self.accounts or self.on_demand:
            self._unserved_since = None
        elif self._unserved_since is None:
            self._unserved_since = now
        return self._unserved_since

    @property
    def disagreement(self) -> str:
        """Say that the live instances run different models under one name; empty if they do not."""
        if self._stale:
            self._refresh()
        return self._disagreement

    @property
    def kv_block_sizes(self) -> tuple[int, ...]:
        """Tokens of a KV block, of all engines that are known; each size once."""
        if self._stale:
            self._refresh()
        return self._kv_block_sizes

    @property
    def slots(self) -> int:
        """Sequences that the instances for whole requests run at once."""
        if self._stale:
            self._refresh()
        return self._slots

    @property
    def specialists(self) -> bool:
        """Whether whole requests run on instances meant for legs, because there are no others."""
        if self._stale:
            self._refresh()
        return self._specialists

    @property
    def prefillers(self) -> Accounts:
        """Accounts of the READY instances that take prefill legs of split requests, sorted by instance id."""
        if self._stale:
            self._refresh()
        return self._prefillers

    @property
    def decoders(self) -> Accounts:
        """Accounts of the READY instances that take decode legs of split requests, sorted by instance id."""
        if self._stale:
            self._refresh()
        return self._decoders

    def _refresh(self) -> None:
        self._stale = False
        ready = [i for i in self.instances() if i.state is InstanceState.READY and i.facts is not None]
        whole = [i for i in ready if i.role in _WHOLE]
        chosen = whole
        for role in _INSTEAD:
            chosen = chosen or [i for i in ready if i.role is role]
        if not any(i.live and not i.role.embeds for i in self.instances()):
            chosen = [i for i in ready if i.facts is not None and i.facts.embedding_dimensions]
        suited = [(i.account, i.specialization) for i in ready]
        self._close()
        self._prefillers = Accounts(account for account, how in suited if how.prefill > 0)
        self._decoders = Accounts(account for account, how in suited if how.decode > 0)
        embeds = any(i.role.embeds for i in chosen)
        self._specialists = bool(chosen) and not whole and not embeds
        self._accounts = Accounts(i.account for i in chosen)
        self._common = CommonAbilities.of(self._accounts, generate=not embeds)
        self._common_of_legs = CommonAbilities.of((*self._prefillers, *self._decoders))
        known = (i.facts.kv_block_size for i in self._members.values() if i.facts is not None)
        self._kv_block_sizes = tuple(sorted(set(known)))
        self._slots = sum(a.max_running for a in self._accounts)
        self.last_slots = self._slots or self.last_slots
        live = [i for i in self.instances() if i.live]
        generating = [i for i in live if not i.role.embeds]
        self._served_facts = _in_order(i.facts for i in generating) or _in_order(i.facts for i in live)
        self._disagreement = _disagreement(self.model, generating or live) or _both_kinds(self.model, generating, live)
        names = {i.instance_id for i in chosen}
        self._unavailable = tuple(_why_not(i) for i in self.instances() if i.instance_id not in names)

    def _close(self) -> None:
        """Have no account tell of its changes any more: the accounts are composed anew before they are read again."""
        for old in (self._accounts, self._prefillers, self._decoders):
            old.close()

    def states(self) -> str:
        """Say how many instances are in which state: "2 ready, 1 suspect"."""
        counts = Counter(i.state.value for i in self._members.values())
        return ", ".join(f"{n} {state}" for state, n in sorted(counts.items())) or "none registered"

    def pace(self, now: float) -> Pace:
        """Return the mean pace of the READY instances, at most a second old; a prior if there is none."""
        if self._stale or now >= self._pace_until:
            self._pace = self._mean_pace()
            self._pace_until = now + _PACE_AGE_S
        return self._pace

    def _mean_pace(self) -> Pace:
        accounts = self.accounts
        n = len(accounts)
        if not n:
            return CPU_PRIOR
        return Pace(
            base_s=fsum(a.pace.base_s for a in accounts) / n,
            prefill_token_s=fsum(a.pace.prefill_token_s for a in accounts) / n,
            running_s=fsum(a.pace.running_s for a in accounts) / n,
            kv_token_s=fsum(a.pace.kv_token_s for a in accounts) / n,
        )

    def observe_service(self, seconds: float) -> None:
        """Take the seconds a request was on an instance, from decision to end."""
        self._service.add(seconds)

    @property
    def knows_service(self) -> bool:
        """Whether a request has ended, so that ``service_s`` is measured."""
        return bool(self._service.count)

    def placement_s(self, now: float) -> float:
        """Return the mean seconds from one placement to the next while requests wait.

        Measured, or what the slots allow until it is.
        """
        measured = self.drain.placement_s(now)
        return measured if measured is not None else self.service_s(now) / self.slots

    def service_s(self, now: float) -> float:
        """Return the mean seconds that a request is on an instance."""
        if self._service.count:
            return self._service.value
        return self.pace(now).service_s(_TYPICAL_PROMPT, _TYPICAL_OUTPUT)


def _disagreement(model: str, instances: Iterable[Instance]) -> str:
    """Say which instances serve other weights than others under one name: of the model, or of one of its adapters."""
    known = [(i.instance_id, i.facts) for i in instances if i.facts is not None]
    adapters = sorted({name for _, facts in known for name in facts.adapters.intersection(facts.adapter_weights)})
    for adapter in ("", *adapters):
        found: dict[ModelIdentity, list[str]] = {}
        for instance_id, facts in known:
            if not adapter or adapter in facts.adapters.intersection(facts.adapter_weights):
                found.setdefault(facts.identity_for(adapter), []).append(instance_id)
        if len(found) > 1:
            groups = (f"{', '.join(names[:_NAMES_SHOWN])} ({identity})" for identity, names in found.items())
            what = f"adapter {adapter!r} of {model!r}" if adapter else repr(model)
            return f"instances of {what} run different models: {'; '.join(groups)}"
    return ""


def _both_kinds(model: str, generating: Sequence[Instance], live: Sequence[Instance]) -> str:
    """Say that instances under one name embed while others generate: then only those that generate get requests."""
    embedding = [i.instance_id for i in live if i.role.embeds]
    if not generating or not embedding:
        return ""
    names = ", ".join(embedding[:_NAMES_SHOWN])
    return f"instances of {model!r} generate, so those that embed get nothing under this name: {names}"


def _in_order(found: Iterable[EngineFacts | None]) -> tuple[EngineFacts, ...]:
    """Return one of the facts for each difference in abilities.

    First come those with the tokenizer that most have, among them those with the longest model length.
    """
    known = [facts for facts in found if facts is not None]
    share = Counter(facts.tokenizer_hash for facts in known)
    different = {facts.abilities: facts for facts in known}.values()
    return tuple(
        sorted(different, key=lambda f: (-share[f.tokenizer_hash], f.tokenizer_hash, -f.max_model_len, -f.vocab_size))
    )


def _why_not(instance: Instance) -> tuple[str, str, str]:
    if instance.state is not InstanceState.READY:
        reason = f"is {instance.state.value}"
        if instance.state_reason:
            reason += f": {instance.state_reason}"
        return instance.instance_id, "state", reason
    return instance.instance_id, "role", f"has the role {instance.role.value}"
