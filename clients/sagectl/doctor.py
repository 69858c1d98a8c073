"""``sagectl doctor``: who leads, who is reachable, and what is wrong, as seen from where it runs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata

import click

import sage_client as sage
from sagectl.certificate import Unknown, days_left
from sagectl.connecting import Connector, with_connector
from sagectl.exit_status import ExitStatus
from sagectl.json_output import print_json
from sagectl.sentences import sentence

CLOCKS_APART_S = 2.0
"""Differences of clocks that are reported: certificates, tokens and logs depend on them."""

CERTIFICATE_DAYS = 14
"""A certificate that ends sooner is reported."""

ALONE_LIMIT_S = 3.0
"""How long each scheduler may take to answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one address answered."""

    address: str
    error: str  # why it did not answer; empty if it did
    status: sage.SchedulerStatus | None
    took_s: float
    clock_off_s: float  # its clock less this machine's, to within half of ``took_s``
    certificate_days: float | None  # until it ends; None: it has none, or it is not known


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found, and what is wrong."""

    client_version: str
    schedulers: tuple[Found, ...]
    instances: tuple[sage.Instance, ...]
    problems: tuple[str, ...]  # one sentence each

    @property
    def leader(self) -> Found | None:
        """The scheduler that leads."""
        return next((each for each in self.schedulers if each.status is not None and each.status.leads), None)

    @property
    def exit_status(self) -> ExitStatus:
        """UNAVAILABLE without a leader, TROUBLE with problems, else OK."""
        if self.leader is None:
            return ExitStatus.UNAVAILABLE
        return ExitStatus.TROUBLE if self.problems else ExitStatus.OK


@click.command()
@with_connector
@click.pass_context
def doctor(ctx: click.Context, connector: Connector, as_json: bool) -> None:
    """Check all schedulers from here: who leads, who answers, clocks, certificates, versions, journal, instances.

    Exit status: 0 if all is well, 12 if something is wrong, 3 if no scheduler leads.
    """
    schedulers = tuple(_look(connector, each.strip()) for each in connector.address.split(","))
    instances, why = _instances(connector, schedulers)
    problems = (*_problems(schedulers), *([why] if why else []), *_of_instances(instances))
    report = Report(client_version=_version(), schedulers=schedulers, instances=instances, problems=problems)
    if as_json:
        print_json(report)
    else:
        _show(report)
    ctx.exit(report.exit_status)


def _look(connector: Connector, address: str) -> Found:
    """Ask one scheduler what it is."""
    days = _certificate_days(connector, address)
    asked_at = time.time()
    try:
        with connector.client(address) as client:
            asked_at = time.time()
            status = client.get_scheduler()
    except sage.ConfigurationError:
        raise
    except sage.SageError as error:
        return Found(
            address=address,
            error=sentence(error, name_of=str),
            status=None,
            took_s=time.time() - asked_at,
            clock_off_s=0.0,
            certificate_days=days,
        )
    answered_at = time.time()
    return Found(
        address=address,
        error="",
        status=status,
        took_s=answered_at - asked_at,
        clock_off_s=status.clock.timestamp() - (asked_at + answered_at) / 2,
        certificate_days=days,
    )


def _certificate_days(connector: Connector, address: str) -> float | None:
    if not (connector.tls or connector.tls_ca or connector.tls_cert):
        return None
    try:
        return days_left(address, connector.tls_ca, connector.tls_cert, connector.tls_key, timeout_s=ALONE_LIMIT_S)
    except Unknown:
        return None


def _instances(connector: Connector, schedulers: Sequence[Found]) -> tuple[tuple[sage.Instance, ...], str]:
    """Return the leader's instances, and why they are not known."""
    leader = next((each for each in schedulers if each.status is not None and each.status.leads), None)
    if leader is None:
        return (), ""
    try:
        with connector.client(leader.address) as client:
            return client.list_instances().instances, ""
    except sage.SageError as error:
        return (), f"{leader.address}: its instances cannot be listed: {sentence(error, name_of=str)}"


def _problems(schedulers: Sequence[Found]) -> Iterator[str]:
    answering = [each for each in schedulers if each.status is not None]
    leaders = [each for each in answering if each.status is not None and each.status.leads]
    if not leaders:
        yield "no scheduler leads"
    elif len(leaders) > 1:
        newest = max(leaders, key=lambda each: each.status.epoch if each.status is not None else 0)
        yield f"{len(leaders)} schedulers say that they lead; the largest epoch counts, that of {newest.address}"
    for each in schedulers:
        if each.error:
            yield f"{each.address}: {each.error}"
        if each.status is not None:
            yield from (f"{each.address}: {trouble}" for trouble in each.status.troubles)
        if abs(each.clock_off_s) > CLOCKS_APART_S + each.took_s / 2:
            yield f"{each.address}: its clock is {each.clock_off_s:+.1f} s off this machine's"
        if each.certificate_days is not None and each.certificate_days < CERTIFICATE_DAYS:
            yield f"{each.address}: its certificate ends in {each.certificate_days:.1f} days"
    versions = {each.status.software_version for each in answering if each.status is not None}
    if len(versions) > 1:
        yield f"the schedulers have different versions: {', '.join(sorted(versions))}"


def _of_instances(instances: Sequence[sage.Instance]) -> Iterator[str]:
    for each in instances:
        if each.state not in (sage.InstanceState.READY, sage.InstanceState.DRAINING, sage.InstanceState.DRAINED):
            yield f"instance {each.instance_id} is {each.state.value}: {each.state_reason or 'no reason is known'}"


def _show(report: Report) -> None:
    for each in report.schedulers:
        click.echo(f"scheduler {each.address}: {_in_words(each)}")
    if report.leader is not None:
        ready = sum(each.state is sage.InstanceState.READY for each in report.instances)
        versions = sorted({each.software_version for each in report.instances})
        of = f" (version {', '.join(versions)})" if versions else ""
        click.echo(f"instances: {ready} of {len(report.instances)} ready{of}")
    click.echo(f"sagectl: version {report.client_version}")
    for problem in report.problems:
        click.echo(f"problem: {problem}")
    if not report.problems:
        click.echo("no problems found")


def _in_words(found: Found) -> str:
    status = found.status
    if status is None:
        return "does not answer"
    words = [status.state.value]
    if status.leads:
        words.append(f"epoch {status.epoch}")
    elif status.leader:
        words.append(f"{status.leader} leads, epoch {status.epoch}")
    if status.leader_lease_s is not None:
        words.append(f"lease of {status.leader_lease_s:g} s, {status.lease_left_s:.1f} s left")
    words += [f"version {status.software_version}", f"answered in {found.took_s * 1000:.0f} ms"]
    words.append(f"clock {found.clock_off_s:+.2f} s")
    if found.certificate_days is not None:
        words.append(f"certificate ends in {found.certificate_days:.0f} days")
    return ", ".join(words)


def _version() -> str:
    try:
        return metadata.version("sage-control-plane")
    except metadata.PackageNotFoundError:
        return "unknown"
