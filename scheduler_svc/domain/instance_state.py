"""The states of an instance, and which state may follow which."""

from __future__ import annotations

from enum import Enum

from scheduler_svc.domain.errors import InvalidTransition


class InstanceState(Enum):
    """Where an instance stands.  ``TRANSITIONS`` says what may follow what, and why."""

    DOWNLOADING = "downloading"  # registered; its engine fetches the model
    LOADING = "loading"  # its engine loads the weights
    WARMING = "warming"  # its engine compiles and warms up
    READY = "ready"  # takes requests
    SUSPECT = "suspect"  # a stream broke, a lease is late or failures followed one another: no new work
    STALLED = "stalled"  # holds work and makes no progress: no new work
    DRAINING = "draining"  # finishes what it has: no new work
    DRAINED = "drained"  # has finished what it had
    SLEEPING = "sleeping"  # its engine sleeps: it can be woken, and holds no KV
    LOST = "lost"  # its executor is gone
    FAILED = "failed"  # its engine is gone, as its executor reported


_S = InstanceState

#: Its engine is on its way up.
STARTING = frozenset({_S.DOWNLOADING, _S.LOADING, _S.WARMING})
#: Its engine is gone, and with it everything it held.
GONE = frozenset({_S.LOST, _S.FAILED})
#: It takes nothing new because an operator or its executor wants so.
DRAINS = frozenset({_S.DRAINING, _S.DRAINED})

#: What may follow what, 48 of 110 pairs.  A state may also follow itself: that changes the reason only.
#:
#: LOST and FAILED may follow every state but each other, as an executor may go away (LOST) or report that its engine
#: died (FAILED) at any time.  A FAILED instance whose executor goes stays FAILED: that state says more.
TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    # While it starts, the executor reports where its engine is.  The order is the engine's own and may repeat: an
    # executor that reconnects before its engine is up is registered again and begins with DOWNLOADING.  There is no
    # way to SUSPECT or to a drain: it takes no requests yet, so there is nothing to hold back and nothing to finish.
    _S.DOWNLOADING: STARTING - {_S.DOWNLOADING} | GONE | {_S.READY},
    _S.LOADING: STARTING - {_S.LOADING} | GONE | {_S.READY},
    _S.WARMING: STARTING - {_S.WARMING} | GONE | {_S.READY},
    # SUSPECT: its streams or its lease falter, or its attempts fail in a row.  STALLED: its engine does no iteration.
    # DRAINING: an operator or its executor drains it.  A running engine does not go back to a starting state: a new
    # engine registers, and by then the old one is LOST or FAILED.  SLEEPING: its executor comes back and says that its
    # engine sleeps, as an earlier scheduler ordered.
    _S.READY: GONE | {_S.SUSPECT, _S.STALLED, _S.DRAINING, _S.SLEEPING},
    # It recovers to what it was, READY or DRAINING, or is drained meanwhile.  It does not stall: silence is no proof
    # that its engine stands still.  SLEEPING: as from READY.
    _S.SUSPECT: GONE | {_S.READY, _S.DRAINING, _S.SLEEPING},
    # It recovers to what it was, READY or DRAINING, or is drained meanwhile.  A broken stream does not make it
    # SUSPECT: that would hide the worse trouble.
    _S.STALLED: GONE | {_S.READY, _S.DRAINING},
    # READY: the drain is lifted.  DRAINED: nothing is in flight any more.  SUSPECT and STALLED: as from READY.
    _S.DRAINING: GONE | {_S.READY, _S.DRAINED, _S.SUSPECT, _S.STALLED},
    # READY: the drain is lifted.  SLEEPING: its engine is put to sleep; nothing may be in flight there.  It holds no
    # work, so it neither stalls nor needs to be held back.
    _S.DRAINED: GONE | {_S.READY, _S.SLEEPING},
    # READY: its engine is awake.  DRAINED: the same, while an operator's drain holds.
    _S.SLEEPING: GONE | {_S.READY, _S.DRAINED},
    # Only a new registration brings it back; its engine, the same one or another, has to become READY again.
    _S.LOST: frozenset({_S.DOWNLOADING}),
    # A new registration, or an executor that starts its engine again in the same session and reports so.
    _S.FAILED: STARTING,
}


def check_transition(instance_id: str, before: InstanceState, after: InstanceState) -> None:
    """Raise InvalidTransition unless ``after`` may follow ``before`` or is the same state."""
    if after is not before and after not in TRANSITIONS[before]:
        raise InvalidTransition(f"instance {instance_id!r}", before.value, after.value)
