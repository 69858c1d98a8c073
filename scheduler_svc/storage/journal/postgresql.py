"""PostgreSQL as the journal's database."""

from __future__ import annotations

import math

from sqlalchemy import URL, Engine, create_engine

from scheduler_svc.storage.journal.errors import UnusableJournal

APPLICATION = "sage-scheduler"
"""What the server's list of connections calls ours."""


def engine(url: URL, limit_s: float) -> Engine:
    """Return the engine of a database; ``limit_s`` bounds connecting, and each statement.  Raises UnusableJournal."""
    try:
        import psycopg  # noqa: F401
    except ModuleNotFoundError:
        raise UnusableJournal(
            "journal.url: psycopg is not installed: pip install 'sage-control-plane[postgres]'"
        ) from None
    return create_engine(
        url, pool_size=4, max_overflow=0, pool_timeout=limit_s, pool_pre_ping=True, connect_args=arguments(limit_s)
    )


def arguments(limit_s: float) -> dict[str, str | int]:
    """Return the arguments of a connection: no wait for the server is longer than about ``limit_s``."""
    limit_ms = math.ceil(limit_s * 1_000)
    return {
        "application_name": APPLICATION,
        "connect_timeout": max(2, math.ceil(limit_s)),  # libpq takes whole seconds, at least 2
        "tcp_user_timeout": limit_ms,
        "keepalives_idle": max(1, math.ceil(limit_s)),
        "keepalives_interval": 1,
        "keepalives_count": 3,
        "options": f"-c statement_timeout={limit_ms} -c lock_timeout={limit_ms}"
        f" -c idle_in_transaction_session_timeout={10 * limit_ms} -c synchronous_commit=on",
    }
