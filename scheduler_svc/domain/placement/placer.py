"""Places one request: filter, score, pick, and reserve at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler_svc.domain.decision import Decision, Phase, Prediction, PrefillLeg
from scheduler_svc.domain.fleet_signals import FleetSignals
from scheduler_svc.domain.ledger import Account, Ledger, Reservation
from scheduler_svc.domain.output_length import OutputLengths
from scheduler_svc.domain.pd.pairs import Pair
from scheduler_svc.domain.pd.planner import HANDOFF_PRIOR_S, Split, SplitPlan, SplitPlanner
from scheduler_svc.domain.placement import scorers
from scheduler_svc.domain.placement.ask import Ask
from scheduler_svc.domain.placement.candidates import CandidateTable
from scheduler_svc.domain.placement.claim import Claim
from scheduler_svc.domain.placement.filters import able, no_room_reason, whole_blocks, with_room
from scheduler_svc.domain.placement.objective import Choice
from scheduler_svc.domain.policy import Policy
from scheduler_svc.domain.pool import Pool
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.waiting_request import WaitingRequest

_WHOLE = "runs whole on one instance"
_SPECIALISTS = "no instance for whole requests is ready: runs whole on one meant for legs of split requests"

_KEPT = "takes the slot that is kept for CRITICAL"


@dataclass(slots=True, kw_only=True)
class Offer:
    """The instances one request has to choose from now."""

    ask: Ask
    able: Sequence[Account]  # can serve it some time
    unable: Sequence[tuple[str, str, str]]  # instance id, filter, reason
    roomy: Sequence[Account]  # have room now


class Placer:
    """Stateless: what it knows and does is in the ledger, the output lengths and the signals."""

    def __init__(self, ledger: Ledger, outputs: OutputLengths, signals: FleetSignals, splits: SplitPlanner) -> None:
        self._ledger = ledger
        self._outputs = outputs
        self._signals = signals
        self._splits = splits

    def ask(self, waiting: WaitingRequest, policy: Policy) -> Ask:
        request = waiting.request
        max_tokens = request.sampling.max_tokens
        output = self._outputs.predict(request.model, max_tokens, waiting.emitted_tokens)
        prompt = waiting.prompt_tokens
        return Ask(
            request=request,
            prompt_tokens=prompt,
            output_tokens=output,
            tokens=prompt + output,
            total_tokens=request.prompt_tokens + max_tokens,
            started=waiting.emitted_tokens > 0,
            headroom=policy.objective.headroom > 0 and request.priority is not Priority.CRITICAL,
            excluded=waiting.excluded,
        )

    def offer(self, ask: Ask, pool: Pool) -> Offer:
        accounts: Sequence[Account] = pool.accounts
        unable: Sequence[tuple[str, str, str]] = pool.unavailable
        if ask.constrained or ask.total_tokens > pool.shortest_room:
            accounts, out = able(accounts, ask)
            unable = (*unable, *out)
        return Offer(ask=ask, able=accounts, unable=unable, roomy=with_room(accounts, ask))

    def plan(self, waiting: WaitingRequest, ask: Ask, pool: Pool, policy: Policy, now: float) -> SplitPlan | None:
        """Whether to split the request, and where; None while splitting is off."""
        if not self._splits.settings.enabled:
            return None
        return self._splits.plan(ask, pool, policy.objective, now, whole=waiting.whole)

    def pairs_open(self, pool: Pool) -> bool:
        """Whether splitting is on and a slot is free at both sides; cheap, and says nothing of any one request."""
        if not self._splits.settings.enabled:
            return False
        return any(a.prompt_room > 0 for a in pool.decoders) and any(a.prompt_room > 0 for a in pool.prefillers)

    def place_split(
        self,
        waiting: WaitingRequest,
        ask: Ask,
        plan: SplitPlan,
        split: Split,
        pool: Pool,
        policy: Policy,
        now: float,
        *,
        said: tuple[str, ...] = (),
    ) -> Decision:
        """Reserve room at both ends.  ``said``: further reasons, in words."""
        decode = split.decode
        prediction = predict_split(decode, split, ask, now)
        prefill = self._reserve(
            split.prefill, split.prefill_ask, waiting, predict(split.prefill, split.prefill_ask, now), now
        )
        reservation = self._reserve(decode, ask, waiting, prediction, now, prefills=False)
        self._splits.splits += 1
        request = ask.request
        decision = Decision(
            key=request.key,
            attempt_number=reservation.attempt_number,
            policy=policy.governed_by or policy.name,
            instance_id=decode.instance_id,
            phase=Phase.DECODING,
            phase_reason=plan.phase.reason,
            engine_priority=int(request.priority) if policy.engine_classes else 0,
            prediction=prediction,
            reserved_tokens=reservation.tokens,
            decided_at=now,
            waited_s=now - request.arrived_at,
            queue_length=len(pool.queue) - 1 if pool.queue is not None else 0,
            rule=split.choice.rule,
            reasons=(
                f"decode: {split.choice.why}; 1 of {len(split.decoders)}",
                split.why,
                *said,
                *split.choice.loud,
                _ordered_by(policy, waiting, now),
            ),
            candidates=_table(split.choice, _decode_offer(ask, split, pool), len(pool)),
            candidates_considered=len(pool),
            prefill=PrefillLeg(
                instance_id=split.prefill.instance_id,
                attempt_number=prefill.attempt_number,
                reserved_tokens=prefill.tokens,
            ),
        )
        self._signals.placed(request, decision, started=ask.started)
        return decision

    def place(
        self,
        waiting: WaitingRequest,
        offer: Offer,
        pool: Pool,
        policy: Policy,
        now: float,
        *,
        said: tuple[str, ...] = (),
        plan: SplitPlan | None = None,
    ) -> Decision:
        """``offer.roomy`` is not empty.  ``said``: further reasons, in words."""
        if plan is not None and plan.fallback_cause is not None:
            self._splits.fallback_causes[plan.fallback_cause] += 1
            said = (*said, f"should be split and runs whole: {plan.fallback}")
        ask, roomy = offer.ask, offer.roomy
        choice = policy.objective.choose(ask, roomy, now)
        loud = choice.loud
        if ask.request.preferred_instance:
            loud += self._prefer(choice, offer, pool)
        account = roomy[choice.index]
        prediction = predict(account, ask, now)
        if pool.specialists and plan is None:
            loud += (_SPECIALISTS,)
        if policy.engine_classes and account.facts is not None and not account.facts.supports_priority:
            loud += ("its engine has no priorities: the class orders the queue only",)
        if policy.governed_by:
            loud += (f"{policy.governed_by} follows {policy.name}",)
        considered = len(offer.able) + len(offer.unable)
        why = f"{choice.why}; {len(roomy) - len(choice.rejected)} of {considered} candidates"
        table = _table(choice, offer, considered)
        if policy.objective.headroom and not ask.headroom and account.common_room < 0 < account.free_slots:
            loud += (_KEPT,)
        reservation = self._reserve(account, ask, waiting, prediction, now)
        request = ask.request
        decision = Decision(
            key=request.key,
            attempt_number=reservation.attempt_number,
            policy=policy.governed_by or policy.name,
            instance_id=account.instance_id,
            phase=Phase.HYBRID,
            phase_reason=plan.phase.reason if plan is not None else _WHOLE,
            engine_priority=int(request.priority) if policy.engine_classes else 0,
            prediction=prediction,
            reserved_tokens=reservation.tokens,
            decided_at=now,
            waited_s=now - request.arrived_at,
            queue_length=len(pool.queue) - 1 if pool.queue is not None else 0,
            rule=choice.rule,
            reasons=(why, *said, *loud, _ordered_by(policy, waiting, now)),
            candidates=table,
            candidates_considered=considered,
        )
        self._signals.placed(request, decision, started=ask.started)
        return decision

    def _prefer(self, choice: Choice, offer: Offer, pool: Pool) -> tuple[str, ...]:
        """Turn the choice to the instance the caller prefers, or say why not."""
        wanted = offer.ask.request.preferred_instance
        for i, account in enumerate(offer.roomy):
            if account.instance_id == wanted:
                choice.index = i
                choice.why = "preferred by the caller"
                choice.rule = "preferred"
                return ()
        return (f"preferred instance {wanted!r} not used: {_why_not_preferred(wanted, offer)}",)

    def _reserve(
        self,
        account: Account,
        ask: Ask,
        waiting: WaitingRequest,
        prediction: Prediction,
        now: float,
        *,
        prefills: bool = True,
    ) -> Reservation:
        output = ask.output_tokens
        token_s = (prediction.finish_s - prediction.first_token_s) / (output - 1) if output > 1 else 0.0
        reservation = Reservation(
            key=ask.request.key,
            tokens=whole_blocks(ask.tokens, account.block),
            prompt_tokens=ask.prompt_tokens,
            output_tokens=output,
            emitted_tokens=waiting.emitted_tokens,
            max_tokens=ask.request.sampling.max_tokens,
            critical=ask.request.priority is Priority.CRITICAL,
            made_at=now,
            first_token_in_s=prediction.first_token_s,
            token_s=token_s,
            finish_in_s=prediction.finish_s,
            prefills=prefills,
        )
        self._ledger.enter(account, reservation, now)
        return reservation


def predict(account: Account, ask: Ask, now: float) -> Prediction:
    """Of the request there, if it were sent now."""
    one = (account,)
    starts = scorers.start_s(one, now)
    first_tokens = scorers.first_token_s(one, ask, starts)
    per_token = scorers.token_s(one, ask)
    return Prediction(
        start_s=starts[0],
        first_token_s=first_tokens[0],
        finish_s=scorers.finish_s(ask, first_tokens, per_token)[0],
        output_tokens=ask.output_tokens,
        cost=scorers.cost(one, ask, per_token)[0],
    )


def predict_split(decode: Account, split: Split, ask: Ask, now: float) -> Prediction:
    """Of a split request: prefill there, the handoff, the rest here."""
    one = (decode,)
    per_token = scorers.token_s(one, ask)
    prefill = split.prefill
    start_s = split.prefill_start_s
    first_s = start_s + prefill.decode_token_s + prefill.prefill_token_s * ask.prompt_tokens + _handoff_s(split.pair)
    prefill_cost = prefill.price_per_s * prefill.prefill_token_s * ask.prompt_tokens
    decode_cost = decode.price_per_s * (ask.output_tokens - 1) * per_token[0] / (decode.live + 1)
    return Prediction(
        start_s=start_s,
        first_token_s=first_s,
        finish_s=scorers.finish_s(ask, [first_s], per_token)[0],
        output_tokens=ask.output_tokens,
        cost=prefill_cost + decode_cost,
    )


def _handoff_s(pair: Pair) -> float:
    return pair.handoff_s if pair.handoff_s is not None else HANDOFF_PRIOR_S


def _decode_offer(ask: Ask, split: Split, pool: Pool) -> Offer:
    """The decode side as an offer, for the explanation."""
    ids = {a.instance_id for a in pool.decoders}
    others = [i for i in pool.instances() if i.instance_id not in ids]
    unable = tuple((i.instance_id, "decode_leg", f"is {i.state.value} in the role {i.role.value}") for i in others)
    return Offer(ask=ask, able=pool.decoders, unable=unable, roomy=split.decoders)


def without_claimed(offer: Offer, claim: Claim, now: float) -> Sequence[Account]:
    """The roomy instances, less the claimed one if the request would delay the claimant there.

    A CRITICAL request may take the slot that is kept for its class and that the claimant could not take.
    """
    account = claim.account
    if account not in offer.roomy:
        return offer.roomy
    kept_for_it = claim.common and not offer.ask.headroom and account.common_room < 0 < account.free_slots
    if kept_for_it or claim.allows(offer.ask, predict(account, offer.ask, now).finish_s, now):
        return offer.roomy
    return [a for a in offer.roomy if a is not account]


def _table(choice: Choice, offer: Offer, considered: int) -> CandidateTable:
    roomy = offer.roomy
    full: Sequence[tuple[Account, int, int]] = ()
    if len(roomy) < len(offer.able):
        with_room_now = set(map(id, roomy))
        full = [(a, a.free_slots, a.free_tokens) for a in offer.able if id(a) not in with_room_now]
    return CandidateTable(ask=offer.ask, choice=choice, offered=roomy, full=full, unable=offer.unable)


def _why_not_preferred(wanted: str, offer: Offer) -> str:
    for instance_id, _, reason in offer.unable:
        if instance_id == wanted:
            return reason
    for a in offer.able:
        if a.instance_id == wanted:
            return no_room_reason(a.free_slots, a.free_tokens, offer.ask.tokens, offer.ask.headroom)[1]
    return "no such instance of this model"


def _ordered_by(policy: Policy, waiting: WaitingRequest, now: float) -> str:
    """Why it was its turn; kept with the decision, as it says nothing once the request runs."""
    return f"ordered by {policy.ordering.describe(waiting, now)}"
