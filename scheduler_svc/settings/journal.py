"""What outlives a scheduler: the journal, the lease of the leader, going on after a start."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sage_common.configuration import Section


class RecoverySection(Section):
    """Going on with the requests of an earlier scheduler, after a start with its state_dir."""

    limit_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that a start waits for the instances which the earlier scheduler had; until they are back,"
        " requests with unknown ids are asked to come again.",
    )
    on_stop: Literal["hand_over", "drain"] = Field(
        default="hand_over",
        description="What SIGTERM does, with a state_dir: leave running requests to the next scheduler, which has"
        " instance.adopt_s to start; or wait for them as without a state_dir.",
    )


class JournalSection(Section):
    """The database of what outlives a scheduler: operators' decisions, usage records, detached requests."""

    url: str = Field(
        default="",
        description="Database: sqlite:///FILE, postgresql://USER@HOST/NAME (needs the extra `postgres`), or none.  "
        "Default: journal.db in state_dir, and no journal without a state_dir.",
    )
    fleet: str = Field(
        default="",
        max_length=200,
        description="Name of the fleet whose journal it must be; a new database gets it.  Default: any; a random one.",
    )
    limit_s: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds that a write may take, from its arrival until it is on the disk; then the journal is slow"
        " and detached requests are refused.",
    )
    max_bytes: int = Field(
        default=8 * 2**30,
        ge=2**20,
        description="Most bytes of a SQLite file; at this size it takes no more, and detached requests are refused.",
    )


class LeadershipSection(Section):
    """Which of several schedulers leads, where they share a journal in PostgreSQL."""

    lease_s: float = Field(
        default=2.0,
        ge=0.2,
        le=60,
        description="Seconds for which a scheduler leads without renewing it in the database, and for which none may"
        " lead when one dies.",
    )
    address: str = Field(
        default="",
        description="host:port at which clients and executors reach this scheduler, told by the others; several are"
        " separated by commas.  Default: its listening addresses, with this machine's name for 0.0.0.0.",
    )
