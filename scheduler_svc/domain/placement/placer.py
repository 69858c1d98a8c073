"""Decides where one request goes, and reserves its capacity there at once."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.kv_blocks import whole_blocks
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.decision import Decision, Phase, Prediction, PrefillLeg
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.placement.candidates import CandidateTable
from scheduler_svc.domain.placement.chooser import PREFERRED, Chooser, prefer
from scheduler_svc.domain.placement.context import PassContext
from scheduler_svc.domain.placement.filters import prompt_limit
from scheduler_svc.domain.placement.offer import Offer
from scheduler_svc.domain.placement.reasons import ADOPTED, cached_at, changed_roles, order_of, unusual_at, why_whole
from scheduler_svc.domain.placement.room import MostRoom
from scheduler_svc.domain.placement.run_prediction import predict_run, predict_split_run
from scheduler_svc.domain.placement.shadow_policy import ShadowPolicy
from scheduler_svc.domain.placement.split_planner import Split, SplitPlan, SplitPlanner
from scheduler_svc.domain.policies.fleet_signals import FleetSignals
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.prediction.output_length import OutputLengths
from scheduler_svc.domain.prefixes.cached_prefixes import CachedPrefixes
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.targets import Targets
from scheduler_svc.domain.waiting_request import WaitingRequest


class Placer:
    """Filters the instances, has the policy's objective choose one, reserves capacity there and explains it all.

    Its only state is the shadow policy: it reads and changes the ledger, the output lengths, the signals and what
    caches hold.
    """

    def __init__(
        self,
        ledger: Ledger,
        outputs: OutputLengths,
        signals: FleetSignals,
        splits: SplitPlanner,
        prefixes: CachedPrefixes,
        *,
        automatic_roles: bool = False,
    ) -> None:
        """``automatic_roles``: roles follow the load, so placements are noted for the pressures of both sides."""
        self._automatic_roles = automatic_roles
        self._ledger = ledger
        self._outputs = outputs
        self._signals = signals
        self._splits = splits
        self._prefixes = prefixes
        self._chooser = Chooser(prefixes)
        self.shadow: ShadowPolicy | None = None  # decides beside each decision; None: none

    def demand(self, waiting: WaitingRequest, policy: Policy) -> Demand:
        """Work out what a request needs of an instance now, with a fresh prediction of its output length."""
        request = waiting.request
        output = self._output_tokens(waiting)
        prompt = waiting.prompt_tokens
        leaves_reserve, overtakes = _by_class(request, policy)
        return Demand(
            request=request,
            prompt_tokens=prompt,
            output_tokens=output,
            tokens=prompt + output,
            total_tokens=waiting.total_tokens,
            started=waiting.emitted_tokens > 0,
            must_leave_reserve=leaves_reserve,
            overtakes=overtakes,
            excluded=waiting.excluded,
            cached_tokens=self._prefixes.cached_tokens(request, prompt),
            cache_known=self._prefixes.knows(request),
            identity=waiting.identity,
        )

    def finds_no_room(self, waiting: WaitingRequest, policy: Policy, room: MostRoom) -> bool:
        """Whether no instance has capacity for a request; if it is False, one may have.  Cheap: makes no demand."""
        prompt = waiting.prompt_tokens
        leaves_reserve, overtakes = _by_class(waiting.request, policy)
        limit = prompt_limit(leaves_reserve=leaves_reserve, overtakes=overtakes)
        return room.lacks(limit, prompt, prompt + self._output_tokens(waiting))

    def _output_tokens(self, waiting: WaitingRequest) -> int:
        request = waiting.request
        return self._outputs.predict(request.model, request.sampling.max_tokens, waiting.emitted_tokens)

    @property
    def splits(self) -> bool:
        """Whether requests may be split."""
        return self._splits.settings.enabled

    def plan_split(self, waiting: WaitingRequest, demand: Demand, context: PassContext) -> SplitPlan | None:
        """Decide whether to split the request, and between which instances; None while splitting is off."""
        if not self._splits.settings.enabled:
            return None
        pool = context.pool
        objective = context.policy.objective
        prefilled_by = self._chooser.balanced(demand, pool.prefillers, objective)
        chosen_by = self._chooser.balanced(prefilled_by, pool.decoders, objective)
        return self._splits.plan(chosen_by, pool, objective, context.now, failed_before=waiting.whole)

    def choose(self, offer: Offer, context: PassContext) -> Choice:
        """Have the objective choose an instance of the offer; at least one has capacity for the request."""
        return self._chooser.choose(offer, context)

    def pairs_open(self, pool: Pool) -> bool:
        """Whether splitting is on and a prefill and a decode instance have a slot.  Cheap: looks at no request."""
        if not self._splits.settings.enabled:
            return False
        return any(a.slot_limit > 0 for a in pool.decoders) and any(a.slot_limit > 0 for a in pool.prefillers)

    def place_whole(
        self,
        waiting: WaitingRequest,
        offer: Offer,
        choice: Choice,
        context: PassContext,
        *,
        remarks: tuple[str, ...] = (),
        plan: SplitPlan | None = None,
    ) -> Decision:
        """Place a request on the instance of the offer that was chosen, or that the caller prefers.

        ``plan``: why the request is not split; None while splitting is off.  ``remarks``: further reasons, in words.
        """
        if plan is not None and plan.fallback_cause is not None:
            self._splits.count_fallback(plan.fallback_cause)
            remarks = (*remarks, f"should be split and runs whole: {plan.fallback}")
        demand, now = offer.demand, context.now
        preferred = prefer(choice, offer) if demand.request.preferred_instance else ()
        account = offer.with_capacity[choice.index]
        if plan is not None and self._automatic_roles:
            remarks = (*remarks, *changed_roles(context.pool, (account,), now))
            context.pool.legs.whole(now, wanted=plan.lacks_room)
        prediction = predict_run(account, demand, now)
        if self.shadow is not None:
            self._ask_shadow(self.shadow, choice, offer, prediction, now)
        candidates = offer.candidates(choice)
        unusual = unusual_at(account, demand, context, plan)
        ordered = order_of(waiting, context.policy, now)  # a plug-in's code: it runs before anything is reserved
        eligible = len(offer.with_capacity) - len(choice.rejected)
        why = f"{choice.why}; {eligible} of {len(candidates)} candidates"
        reasons = (why, *cached_at(demand, account), *remarks, *choice.remarks, *preferred, *unusual, ordered)
        reservation = self._reserve(account, demand, waiting, prediction, now)  # nothing of a plug-in's comes after it
        return self._decide(
            waiting, reservation, prediction, choice, candidates, context, Phase.HYBRID, why_whole(plan), reasons
        )

    def adopt(self, waiting: WaitingRequest, account: Account, policy_name: str, context: PassContext) -> Decision:
        """Reserve for an attempt that an earlier scheduler placed on this instance and that runs there."""
        demand, now = self.demand(waiting, context.policy), context.now
        prediction = predict_run(account, demand, now)
        reservation = self._reserve(account, demand, waiting, prediction, now, prefills=False)
        reservation.assign_number = -1  # the engine's next figures include it
        if waiting.emitted_tokens:
            self._ledger.first_token(reservation, now)
        request, placed_by = waiting.request, policy_name or context.policy.name
        return Decision(
            key=request.key,
            attempt_number=reservation.attempt_number,
            policy=placed_by,
            instance_id=account.instance_id,
            phase=Phase.HYBRID,
            phase_reason=ADOPTED,
            engine_priority=int(request.priority),
            prediction=prediction,
            reserved_tokens=reservation.tokens,
            decided_at=now,
            waited_s=now - request.arrived_at,
            queue_length=0,
            rule="adopted",
            reasons=(ADOPTED,),
            candidates=(),
            candidates_considered=0,
        )

    def place_split(
        self,
        waiting: WaitingRequest,
        demand: Demand,
        plan: SplitPlan,
        split: Split,
        context: PassContext,
        *,
        remarks: tuple[str, ...] = (),
    ) -> Decision:
        """Place a request on a pair of instances and reserve at both.  ``remarks``: further reasons, in words."""
        now, pool, choice = context.now, context.pool, split.choice
        candidates = Offer.for_decode(demand, split.decoders, pool).candidates(choice)
        ordered = order_of(waiting, context.policy, now)  # a plug-in's code: it runs before anything is reserved
        why = f"decode: {choice.why}; 1 of {len(split.decoders)}"
        reasons = (why, *cached_at(demand, split.decode), split.why, *cached_at(demand, split.prefill))
        if self._automatic_roles:
            reasons += changed_roles(pool, (split.prefill, split.decode), now)
        reasons += (*remarks, *choice.remarks, ordered)
        prediction = predict_split_run(split, demand)
        prefill_demand = replace(split.prefill_demand, cached_tokens=demand.cached_tokens)
        prefill_prediction = predict_run(split.prefill, prefill_demand, now)
        prefill = self._reserve(split.prefill, prefill_demand, waiting, prefill_prediction, now)
        reservation = self._reserve(split.decode, demand, waiting, prediction, now, prefills=False)
        self._splits.count_split()
        if self._automatic_roles:
            _note_split(pool, split, self._signals.targets_of(demand.request), now)
        if self.shadow is not None:
            self.shadow.leave_out()
        leg = PrefillLeg(
            instance_id=prefill.instance_id,
            attempt_number=prefill.attempt_number,
            reserved_tokens=prefill.tokens,
            cached_tokens=prefill.cached_tokens or 0,
        )
        return self._decide(
            waiting,
            reservation,
            prediction,
            choice,
            candidates,
            context,
            Phase.DECODING,
            plan.phase.reason,
            reasons,
            prefill=leg,
        )

    @staticmethod
    def _ask_shadow(shadow: ShadowPolicy, choice: Choice, offer: Offer, prediction: Prediction, now: float) -> None:
        if choice.rule == PREFERRED:
            shadow.leave_out()
        else:
            shadow.compare(offer, offer.with_capacity[choice.index], prediction, now)

    def _decide(
        self,
        waiting: WaitingRequest,
        reservation: Reservation,
        prediction: Prediction,
        choice: Choice,
        candidates: CandidateTable,
        context: PassContext,
        phase: Phase,
        phase_reason: str,
        reasons: tuple[str, ...],
        *,
        prefill: PrefillLeg | None = None,
    ) -> Decision:
        """Build the decision; every decision is built here."""
        request, policy, pool, now = waiting.request, context.policy, context.pool, context.now
        decision = Decision(
            key=request.key,
            attempt_number=reservation.attempt_number,
            policy=policy.governed_by or policy.name,
            instance_id=reservation.instance_id,
            phase=phase,
            phase_reason=phase_reason,
            engine_priority=int(request.priority if policy.engine_classes else Priority.NORMAL),
            prediction=prediction,
            reserved_tokens=reservation.tokens,
            decided_at=now,
            waited_s=now - request.arrived_at,
            queue_length=len(pool.queue) - 1 if pool.queue is not None else 0,
            rule=choice.rule,
            reasons=reasons,
            candidates=candidates,
            candidates_considered=len(candidates),
            prefill=prefill,
            cached_tokens=reservation.cached_tokens or 0,
        )
        pool.split_share.add(prefill is not None)
        if policy.governed_by:
            self._signals.placed(request, decision, started=waiting.emitted_tokens > 0)
        return decision

    def _reserve(
        self,
        account: Account,
        demand: Demand,
        waiting: WaitingRequest,
        prediction: Prediction,
        now: float,
        *,
        prefills: bool = True,
    ) -> Reservation:
        output = demand.output_tokens
        token_s = (prediction.finish_s - prediction.first_token_s) / (output - 1) if output > 1 else 0.0
        request, targets = demand.request, self._signals.targets_of(demand.request)
        reservation = Reservation(
            key=request.key,
            instance_id=account.instance_id,
            tokens=whole_blocks(demand.tokens, account.block),
            prompt_tokens=demand.prompt_tokens,
            output_tokens=output,
            emitted_tokens=waiting.emitted_tokens,
            max_tokens=demand.request.sampling.max_tokens,
            critical=request.priority is Priority.CRITICAL,
            made_at=now,
            first_token_in_s=prediction.first_token_s,
            token_s=token_s,
            finish_in_s=prediction.finish_s,
            prefills=prefills,
            cached_tokens=demand.cached_on(account.instance_id),
            first_token_by=inf if targets.ttft_s is None or demand.started else request.arrived_at + targets.ttft_s,
            tpot_target_s=inf if targets.tpot_s is None else targets.tpot_s,
        )
        self._ledger.enter(account, reservation, now)
        busy_s = reservation.prefill_s + (output - 1) * token_s / max(1, account.live)
        self._prefixes.placed(demand.request, reservation, busy_s=busy_s, now=now)
        return reservation


def _by_class(request: Request, policy: Policy) -> tuple[bool, bool]:
    """Return whether a request must leave the reserved slot free, and whether it overtakes, as in ``Demand``."""
    if not policy.objective.reserved_slots > 0:
        return False, False
    critical = request.priority is Priority.CRITICAL
    return not critical, policy.engine_classes and critical


def _note_split(pool: Pool, split: Split, targets: Targets, now: float) -> None:
    """Note how much of the targets a split request is predicted to use, for the pressures of the two sides."""
    base_s, room_s = split.decode.pace.base_s, 0.0
    if targets.tpot_s is not None:
        room_s = targets.tpot_s - base_s  # a target below an empty step's time says nothing of the load
    pool.legs.split(
        now,
        wait_share=split.prefill_start_s / targets.ttft_s if targets.ttft_s else None,
        token_share=(split.decode.output_token_s - base_s) / room_s if room_s > 0 else None,
    )
