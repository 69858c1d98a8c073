"""Detached work: requests, their contents and their output."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, String, Table, Text

from scheduler_svc.storage.journal.tables.metadata import METADATA, PRIVATE, WALL_TIME

DETACHED_REQUESTS = Table(
    "detached_requests",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("model", Text, nullable=False),
    Column("about", LargeBinary, nullable=False, info=PRIVATE),  # sage.controlplane.v1.RequestView
    Column("accepted_at", WALL_TIME, nullable=False),
    Column("deadline_at", WALL_TIME),  # NULL: it has none
    Column("keep_s", Double, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),  # what it counts in its tenant's bytes
    Column("output_tokens", Integer, nullable=False),
    Column("epoch", BigInteger, nullable=False),  # of the attempt that made the last token; 0: there is none
    Column("attempt_number", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cost", Double, nullable=False),
    Column("first_token_at", WALL_TIME),
    Column("weights", Text),  # NULL: no model gave a token yet
    Column("dtype", Text),
    Column("tokenizer_hash", Text),
    Column("adapter_weights", Text),
    Column("state", String(20)),  # NULL: it has not ended
    Column("outcome", LargeBinary, info=PRIVATE),  # sage.controlplane.v1.DetachedEnd
    Column("tail", LargeBinary, info=PRIVATE),  # UTF-8
    Column("ended_at", WALL_TIME),
    Column("keep_until", WALL_TIME),
)
"""A row for each request, until its result is deleted."""

Index(
    "detached_requests_by_time",
    DETACHED_REQUESTS.c.tenant,
    DETACHED_REQUESTS.c.accepted_at,
    DETACHED_REQUESTS.c.request_id,
)

Index(
    "detached_requests_unfinished",
    DETACHED_REQUESTS.c.accepted_at,
    DETACHED_REQUESTS.c.tenant,
    DETACHED_REQUESTS.c.request_id,
    sqlite_where=DETACHED_REQUESTS.c.state.is_(None),
    postgresql_where=DETACHED_REQUESTS.c.state.is_(None),
)

DETACHED_CONTENTS = Table(
    "detached_contents",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("content", LargeBinary, nullable=False, info=PRIVATE),  # sage.controlplane.v1.DetachedRecord
)
"""A row for each request: apart from the others, since a row is written as a whole at every change."""

DETACHED_OUTPUT = Table(
    "detached_output",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("first_index", Integer, primary_key=True, autoincrement=False),  # output position
    Column("token_ids", LargeBinary, nullable=False, info=PRIVATE),  # four bytes each, the lowest first
    Column("text_lengths", LargeBinary, nullable=False, info=PRIVATE),  # of each token in code points; the same
    Column(
        "text", LargeBinary, nullable=False, info=PRIVATE
    ),  # UTF-8: an output may hold what a text column does not take
    Column(
        "logprobs", LargeBinary, info=PRIVATE
    ),  # of each token: four bytes of length, then the message; NULL: not asked for
)
"""A row for each checkpoint of choice 0 that has output."""

DETACHED_CHOICES = Table(
    "detached_choices",
    METADATA,
    Column("tenant", Text, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("choice", Integer, primary_key=True, autoincrement=False),  # index of the output, from 1
    Column("first_index", Integer, primary_key=True, autoincrement=False),  # output position
    Column("tokens", Integer, nullable=False),  # of the piece; 0: the row has the end alone
    Column("token_ids", LargeBinary, nullable=False, info=PRIVATE),  # this and the next three as in detached_output
    Column("text_lengths", LargeBinary, nullable=False, info=PRIVATE),
    Column("text", LargeBinary, nullable=False, info=PRIVATE),
    Column("logprobs", LargeBinary, info=PRIVATE),
    Column("epoch", BigInteger, nullable=False),  # this and the next eight as in detached_requests, of this choice
    Column("attempt_number", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("cost", Double, nullable=False),
    Column("first_token_at", WALL_TIME),
    Column("weights", Text),
    Column("dtype", Text),
    Column("tokenizer_hash", Text),
    Column("adapter_weights", Text),
    Column("state", String(20)),  # NULL but in the choice's last row, once the request has ended
    Column("outcome", LargeBinary, info=PRIVATE),  # sage.controlplane.v1.DetachedEnd
    Column("tail", LargeBinary, info=PRIVATE),  # UTF-8
)
"""A row for each checkpoint of a further choice, with what was known of the choice then: the last row counts."""
