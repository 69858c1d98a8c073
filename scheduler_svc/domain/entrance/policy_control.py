"""The policy in force, its switches, and the shadow policy."""

from __future__ import annotations

from dataclasses import replace

from scheduler_svc.domain.entrance.parts import Parts
from scheduler_svc.domain.errors import PolicyFailed
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.placement.shadow_policy import ShadowPolicy, ShadowReport
from scheduler_svc.domain.policies.governor import Signals
from scheduler_svc.domain.policies.in_force import PolicyInForce
from scheduler_svc.domain.policies.policy import PolicySwitch


class PolicyControl(Parts):
    """Switches policies, and reorders the queues by the one in force."""

    @property
    def policy(self) -> str:
        """Name of the policy in force."""
        return self._policy.name

    @property
    def delegate(self) -> str:
        """Name of the policy that the one in force follows now; empty if it decides itself."""
        return self._policy.delegate

    def followed(self, model: str) -> str:
        """Return the name of the policy that orders and places a model's requests now."""
        return self._policy.acting(model).name

    @property
    def switches(self) -> tuple[PolicySwitch, ...]:
        """The latest switches of policy, at most ``max_switches``, oldest first."""
        return self._policy.switches

    def policy_summaries(self) -> dict[str, str]:
        """One line about each policy that can be put in force, by name."""
        return self._policy.summaries()

    def policy_warnings(self) -> dict[str, str]:
        """Return what to know before a policy is put in force, by name; only of policies with a warning."""
        return self._policy.warnings()

    @property
    def policy_warning(self) -> str:
        """What to know about the policy in force; empty if there is nothing."""
        return self._policy.warning

    def set_policy(self, name: str, now: float, reason: str) -> tuple[str, int]:
        """Switch the policy and reorder all waiting requests; none is lost.

        Returns the previous policy's name and how many requests were reordered.  If the policy is in force already,
        nothing changes and the number is 0.  Raises UnknownPolicy, PolicyFailed if the new policy's code fails.
        """
        previous = self._policy.name
        if not self._policy.choose(name, now, reason):
            return previous, 0
        if self._placer.shadow is not None:  # what it was compared with is over
            self.set_shadow(self._shadow_name, now)
        try:
            return previous, self._reorder_all(now)
        except Exception as error:
            raise self._policy_failed(error, now) from error

    @property
    def shadow(self) -> ShadowReport | None:
        """How the shadow policy's choices compare with those that were made; None without a shadow policy."""
        return self._placer.shadow.report() if self._placer.shadow is not None else None

    def set_shadow(self, name: str, now: float) -> str:
        """Let a policy decide beside the one in force from now on, compared from zero; an empty name ends that.

        It decides on the same offers and reserves nothing.  The first exception that it raises switches it off
        (``ShadowReport.failure``) and touches no request.  ``set_policy`` starts the comparison over.  Returns the
        previous shadow policy's name, empty if there was none.  Raises UnknownPolicy; then nothing changes.
        """
        made = ShadowPolicy(PolicyInForce(self._policies, replace(self.settings, policy=name)), now) if name else None
        previous, self._shadow_name = self._shadow_name, name
        self._placer.shadow = made
        return previous

    def tick(self, now: float) -> list[PolicySwitch]:
        """Let a governing policy reconsider which policy each model follows.  Returns the switches it made.

        Cheap to call often: the policy evaluates at its own interval.
        """
        due, shadow = self._policy.due(now), self._placer.shadow
        if not due and shadow is None:
            return []
        pools = [pool for pool in self._registry.pools() if pool.queue is not None]
        if shadow is not None:
            shadow.tick(lambda: {pool.model: self._read_signals(pool, now) for pool in pools}, now)
        if not due:
            return []
        models = {pool.model for pool in pools}
        self._policy.forget(models)
        self._signals.forget(models)
        return [switch for pool in pools if (switch := self._reconsider(pool, now)) is not None]

    def _reconsider(self, pool: Pool, now: float) -> PolicySwitch | None:
        """Let a model's governor decide, and reorder the model's queue if it switches; fifo follows if it fails."""
        try:
            switch = self._policy.reconsider(pool.model, self._read_signals(pool, now), now)
            if switch is not None:
                self._reorder(pool, now)
        except Exception as error:
            switch = self._policy.fall_back(error, now)
            self._reorder_all(now)
        return switch

    def _read_signals(self, pool: Pool, now: float) -> Signals:
        waiting = pool.queue.by_priority if pool.queue is not None else {}
        return self._signals.read(pool.model, pool.accounts, pool.load, waiting, now)

    def _reorder_all(self, now: float) -> int:
        """Reorder all queues.  Returns the number of requests."""
        return sum(self._reorder(pool, now) for pool in self._registry.pools())

    def _reorder(self, pool: Pool, now: float) -> int:
        """Reorder a model's queue by the policy that it follows now.  Returns the number of requests."""
        pool.drain.reordered()
        return pool.queue.reorder(self._policy.acting(pool.model).ordering, now) if pool.queue is not None else 0

    def _policy_failed(self, error: Exception, now: float) -> PolicyFailed:
        """Put fifo in force, because the policy's code raised an error, and return the error for its request."""
        failed = PolicyFailed(self._policy.name)
        if self._policy.fall_back(error, now) is not None:
            self._reorder_all(now)
        return failed
