"""The sessions that executors have now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.instances.registration import UnknownSession
from scheduler_svc.control.instances.session import Session


class SessionTable:
    """The sessions by instance, at most one each; what is sent to an instance goes over its session.

    Bounded by the scheduler's limit of instances.
    """

    def __init__(self, links: ExecutorLinks, seen: Callable[[Mapping[str, str]], None]) -> None:
        """``seen`` is told the models of the instances that have a session, by id, whenever that changes."""
        self._links = links
        self._seen = seen
        self._sessions: dict[str, Session] = {}  # by instance id
        self._by_id: dict[str, Session] = {}

    def __iter__(self) -> Iterator[Session]:
        """Go through the sessions that there are now; they may change meanwhile."""
        return iter(list(self._sessions.values()))

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._sessions

    def find(self, instance_id: str) -> Session | None:
        """Return the session of an instance; None if it has none."""
        return self._sessions.get(instance_id)

    def by_id(self, session_id: str) -> Session:
        """Return the session of this id.  Raises UnknownSession."""
        session = self._by_id.get(session_id)
        if session is None:
            raise UnknownSession()
        return session

    def current(self, session: Session) -> bool:
        """Return whether this is still the instance's session; late messages of a replaced one are ignored."""
        return self._sessions.get(session.instance_id) is session

    def add(self, session: Session) -> None:
        """Add the session of an instance that has none."""
        self._sessions[session.instance_id] = session
        self._by_id[session.session_id] = session
        self._links.open(session.instance_id, session)
        self.tell_seen()

    def remove(self, session: Session) -> None:
        """Remove a session, also one that a newer one replaced."""
        self._by_id.pop(session.session_id, None)
        if self.current(session):
            del self._sessions[session.instance_id]
            self._links.close(session.instance_id)
            self.tell_seen()

    @property
    def models(self) -> Mapping[str, str]:
        """The models of the instances that have a session, by the instances' ids."""
        return {each.instance_id: each.instance.spec.model for each in self._sessions.values()}

    def tell_seen(self) -> None:
        """Tell ``seen`` again which instances have a session."""
        self._seen(self.models)
