"""Operators' decisions in the journal."""

from __future__ import annotations

import json
import time

from sqlalchemy import Connection

from scheduler_svc.control.journal.decisions import Decisions, InstanceDecision
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.tables.decisions import FLEET_DECISIONS, INSTANCE_DECISIONS

_ROLES = {role.value for role in InstanceRole}


class JournalDecisionStore:
    """Implements ``control.journal.decisions.DecisionStore``."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def load(self) -> Decisions:
        """Return every decision, the oldest first.  Raises JournalUnavailable."""
        return await self._journal.database.read(_load)

    async def save(self, changes: Decisions) -> None:
        """Write changes.  Raises JournalUnavailable."""
        await self._journal.writer.write(lambda connection: _save(connection, changes))


def _load(connection: Connection) -> Decisions:
    fleet = connection.execute(FLEET_DECISIONS.select()).all()
    instances = connection.execute(INSTANCE_DECISIONS.select().order_by(INSTANCE_DECISIONS.c.made_at)).all()
    return Decisions(
        fleet={row.name: json.loads(row.value) for row in fleet},
        instances=tuple(
            InstanceDecision(
                instance_id=row.instance_id,
                drained=row.drained,
                drain_reason=row.drain_reason,
                role=InstanceRole(row.role) if row.role in _ROLES else None,
            )
            for row in instances
        ),
    )


def _save(connection: Connection, changes: Decisions) -> None:
    now = time.time()
    for name, value in changes.fleet.items():
        connection.execute(FLEET_DECISIONS.delete().where(FLEET_DECISIONS.c.name == name))
        if value:
            row = {"name": name, "value": json.dumps(dict(value)), "made_at": now}
            connection.execute(FLEET_DECISIONS.insert().values(row))
    for each in changes.instances:
        same = INSTANCE_DECISIONS.c.instance_id == each.instance_id
        connection.execute(INSTANCE_DECISIONS.delete().where(same))
        if not each.is_empty:
            connection.execute(
                INSTANCE_DECISIONS.insert().values(
                    instance_id=each.instance_id,
                    drained=each.drained,
                    drain_reason=each.drain_reason.replace("\0", "\ufffd"),  # PostgreSQL takes no NUL
                    role=each.role.value if each.role is not None else "",
                    made_at=now,
                )
            )
