"""``sagectl version``: the versions of client, schedulers and executors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import click

import sage_client as sage
from sagectl.options.command import command
from sagectl.options.connecting import with_connector
from sagectl.options.connection import Connector
from sagectl.output.formats import Output
from sagectl.output.software_version import UNKNOWN, own_version
from sagectl.output.tables import Cells, show_table


@dataclass(frozen=True, kw_only=True, slots=True)
class SchedulerVersion:
    """The version of one scheduler."""

    address: str
    version: str
    state: str  # in a word: "leading", "standby"


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecutorVersion:
    """The version of one executor."""

    instance_id: str
    version: str
    engine: str  # with its version


@dataclass(frozen=True, kw_only=True, slots=True)
class Versions:
    """What runs which version."""

    client: str
    schedulers: tuple[SchedulerVersion, ...] = ()
    executors: tuple[ExecutorVersion, ...] = ()

    @property
    def differ(self) -> bool:
        """Whether not everything has the same version."""
        return len({self.client, *(e.version for e in self.schedulers), *(e.version for e in self.executors)}) > 1


@command(
    examples=[
        ("version", "of the client, the schedulers and the executors"),
        ("version --client", "of the client only; needs no scheduler"),
    ]
)
@click.option("--client", "client_only", is_flag=True, help="Only the client's version; calls no scheduler.")
@with_connector
def version(connector: Connector, client_only: bool, output: Output) -> None:
    """Show the versions of client, schedulers and executors.

    If no scheduler can be reached, the client's version is printed all the same.
    """
    try:
        found = Versions(client=own_version()) if client_only else _ask(connector)
    except sage.SageError:
        if output.for_people:
            _show(Versions(client=own_version()), output)
        raise
    if not output.printed(found, names=[found.client]):
        _show(found, output)


def _ask(connector: Connector) -> Versions:
    schedulers = tuple(_scheduler(connector, each) for each in connector.addresses)
    with connector.client() as client:
        instances = client.list_instances().instances
    return Versions(
        client=own_version(),
        schedulers=schedulers,
        executors=tuple(
            ExecutorVersion(
                instance_id=each.instance_id,
                version=each.software_version or UNKNOWN,
                engine=f"{each.engine} {each.engine_version}".strip(),
            )
            for each in instances
        ),
    )


def _scheduler(connector: Connector, address: str) -> SchedulerVersion:
    """Ask one scheduler; of several, one that does not answer has an unknown version."""
    try:
        with connector.client(address) as client:
            status = client.get_scheduler()
    except sage.TryAgainError:
        if address == connector.address:
            raise
        return SchedulerVersion(address=address, version=UNKNOWN, state="does not answer")
    return SchedulerVersion(address=address, version=status.software_version, state=status.state.value)


def _show(found: Versions, output: Output) -> None:
    rows: Sequence[Cells] = [
        ["client", "sagectl", found.client, ""],
        *(["scheduler", each.address, each.version, each.state] for each in found.schedulers),
        *(["executor", each.instance_id, each.version, each.engine] for each in found.executors),
    ]
    show_table("", ["what", "which", "version", "about"], rows, whole=["what", "which", "version"], wide=output.wide)
    if found.differ:
        click.echo("warning: not all versions are the same", err=True)
