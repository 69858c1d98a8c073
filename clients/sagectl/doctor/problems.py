"""Says what is wrong with schedulers and instances, a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import sage_client as sage
from sagectl.doctor.scheduler_check import Found, leader_of

CLOCKS_APART_S = 2.0
"""Differences of clocks that are reported: certificates, tokens and logs depend on them."""

CERTIFICATE_DAYS = 14
"""A certificate that ends sooner is reported."""


def _about_leaders(schedulers: Sequence[Found]) -> Iterator[str]:
    """Say what is wrong with who leads, and with what those that stand by believe."""
    leader, answers = leader_of(schedulers), [(each, each.status) for each in schedulers if each.status is not None]
    leading = sum(status.leads for _, status in answers)
    if leading > 1 and leader is not None:
        yield f"{leading} schedulers say that they lead; the largest epoch counts, that of {leader.address}"
    believed = [(each, status) for each, status in answers if status.leader and not status.leads]
    if leader is None:
        yield "no scheduler leads" if not believed else "none of these schedulers leads"
        for each, status in believed:
            yield f"{each.address}: it says that {status.leader} leads; is that one of the addresses?"
    for each, status in believed:
        if leader is not None and leader.status is not None and status.epoch != leader.status.epoch:
            yield (
                f"{each.address}: it says that {status.leader} leads, epoch {status.epoch}, and not {leader.address},"
                f" epoch {leader.status.epoch}; do they have the same database?"
            )


def of_schedulers(schedulers: Sequence[Found]) -> Iterator[str]:
    """Say what is wrong with the schedulers, each and together."""
    yield from _about_leaders(schedulers)
    for each in schedulers:
        if each.error:
            yield f"{each.address}: {each.error}"
        if each.status is not None:
            yield from (f"{each.address}: {trouble}" for trouble in each.status.troubles)
        if abs(each.clock_off_s) > CLOCKS_APART_S + each.took_s / 2:
            yield f"{each.address}: its clock is {each.clock_off_s:+.1f} s off this machine's"
        if each.certificate_days is not None and each.certificate_days < CERTIFICATE_DAYS:
            yield f"{each.address}: its certificate ends in {each.certificate_days:.1f} days"
    versions = {each.status.software_version for each in schedulers if each.status is not None}
    if len(versions) > 1:
        yield f"the schedulers have different versions: {', '.join(sorted(versions))}"


_AS_WANTED = frozenset(
    {
        sage.InstanceState.READY,
        sage.InstanceState.DRAINING,
        sage.InstanceState.DRAINED,
        sage.InstanceState.SLEEPING,
    }
)


def of_instances(instances: Sequence[sage.Instance]) -> Iterator[str]:
    """Name the instances that neither work, nor sleep, nor are drained, and why."""
    for each in instances:
        if each.state not in _AS_WANTED:
            yield f"instance {each.instance_id} is {each.state.value}: {each.state_reason or 'no reason is known'}"
