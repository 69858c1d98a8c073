"""``sagectl doctor``: who leads, who is reachable, and what is wrong, as seen from where it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

import sage_client as sage
from sagectl.doctor.problems import of_instances, of_schedulers
from sagectl.doctor.scheduler_check import Found, leader_of, look
from sagectl.exit_status import ExitStatus
from sagectl.options.command import command
from sagectl.options.connecting import with_connector
from sagectl.options.connection import Connector
from sagectl.output.formats import Output
from sagectl.output.sentences import sentence
from sagectl.output.software_version import own_version


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What was found, and what is wrong."""

    client_version: str
    schedulers: tuple[Found, ...]
    instances: tuple[sage.Instance, ...]
    problems: tuple[str, ...]  # one sentence each

    @property
    def leader(self) -> Found | None:
        """The scheduler that leads; of several that say so the one whose epoch counts."""
        return leader_of(self.schedulers)

    @property
    def exit_status(self) -> ExitStatus:
        """UNAVAILABLE without a leader, TROUBLE with problems, else OK."""
        if self.leader is None:
            return ExitStatus.UNAVAILABLE
        return ExitStatus.TROUBLE if self.problems else ExitStatus.OK


@command(
    examples=[
        ("doctor", "check the scheduler and its instances"),
        ("doctor --address one:50051,two:50051 --tls-ca ca.pem", "check both schedulers of a pair, certificates too"),
    ]
)
@with_connector
@click.pass_context
def doctor(ctx: click.Context, connector: Connector, output: Output) -> None:
    """Check all schedulers from here, and say what is wrong.

    Looks at who leads, who answers, clocks, certificates, versions, journal and instances.

    Exit status: 0 if all is well, 12 if something is wrong, 3 if no scheduler leads.
    """
    schedulers = tuple(look(connector, each) for each in connector.addresses)
    instances, why = _instances(connector, schedulers)
    problems = (*of_schedulers(schedulers), *([why] if why else []), *of_instances(instances))
    report = Report(client_version=own_version(), schedulers=schedulers, instances=instances, problems=problems)
    if not output.printed(report, names=[each.address for each in schedulers if each.status is not None]):
        _show(report)
    ctx.exit(report.exit_status)


def _instances(connector: Connector, schedulers: Sequence[Found]) -> tuple[tuple[sage.Instance, ...], str]:
    """Return the leader's instances, and why they are not known."""
    leader = leader_of(schedulers)
    if leader is None:
        return (), ""
    try:
        with connector.client(leader.address) as client:
            return client.list_instances().instances, ""
    except sage.SageError as error:
        return (), f"{leader.address}: its instances cannot be listed: {sentence(error, name_of=str)}"


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
