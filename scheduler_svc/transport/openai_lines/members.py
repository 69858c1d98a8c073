"""The members of a JSON object: each is taken once, checked, and what nobody took is refused by its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler_svc.transport.violations import Violations

NAMED_AT_MOST = 8
"""Members that are refused by name; an object may have thousands."""


NO_TEXT = "holds a character that UTF-8 does not have"
"""What is wrong with a string that ``is_text`` says is none: JSON can write half a surrogate pair."""


def is_text(found: Any) -> bool:
    """Return whether something is a string that a message of the contract can hold."""
    if not isinstance(found, str):
        return False
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True


class Members:
    """A JSON object whose members are taken one by one.  A member that is null counts as absent."""

    def __init__(self, found: Mapping[str, Any], violations: Violations, path: str = "") -> None:
        """``path``: of the object in the body, with a dot behind it."""
        self._left = {name: value for name, value in found.items() if value is not None}
        self._path = path
        self._violations = violations

    def take(self, name: str) -> Any:
        """Return a member of any kind; None without one."""
        return self._left.pop(name, None)

    def text(self, name: str) -> str:
        """Return a string; empty without one."""
        found = self._of_kind(name, str, "a string")
        if found is not None and not is_text(found):
            self.refuse(name, NO_TEXT)
            return ""
        return "" if found is None else str(found)

    def number(self, name: str) -> float | None:
        """Return a number; None without one."""
        found = self._of_kind(name, (int, float), "a number")
        try:
            return None if found is None else float(found)
        except OverflowError:  # JSON's integers have any number of digits
            self.refuse(name, "is out of range")
            return None

    def integer(self, name: str) -> int | None:
        """Return an integer; None without one."""
        found = self._of_kind(name, int, "an integer")
        return None if found is None else int(found)

    def flag(self, name: str) -> bool | None:
        """Return a boolean; None without one."""
        found = self.take(name)
        if found is None or isinstance(found, bool):
            return found
        self.refuse(name, "is not a boolean")
        return None

    def members(self, name: str) -> dict[str, Any] | None:
        """Return an object; None without one."""
        found = self._of_kind(name, dict, "an object")
        return found if isinstance(found, dict) else None

    def several(self, name: str, kind: type, what: str) -> list[Any]:
        """Return a list whose entries are all of one kind, or one entry alone as a list; empty without one."""
        found = self.take(name)
        entries = [] if found is None else found if isinstance(found, list) else [found]
        if all(isinstance(each, kind) and not isinstance(each, bool) for each in entries):
            return entries
        self.refuse(name, f"is not a list of {what}")
        return []

    def refuse(self, name: str, why: str) -> None:
        """Note what is wrong with a member."""
        self._violations.add((self._path + name).encode(errors="backslashreplace").decode(), why)

    def allow(self, name: str, *values: Any) -> None:
        """Take a member that has no effect with these values, and refuse it with any other."""
        found = self.take(name)
        if found is not None and not any(found == each and type(found) is type(each) for each in values):
            self.refuse(name, "is not supported in a batch")

    def drop(self, *names: str) -> None:
        """Take members that have no effect here, whatever they hold."""
        for name in names:
            self._left.pop(name, None)

    def refuse_rest(self) -> None:
        """Refuse each member that nobody took."""
        for name in list(self._left)[:NAMED_AT_MOST]:
            self.refuse(name[:64], "is not supported in a batch")
        self._left.clear()

    def _of_kind(self, name: str, kind: type | tuple[type, ...], what: str) -> Any:
        found = self.take(name)
        if found is None or (isinstance(found, kind) and not isinstance(found, bool)):
            return found
        self.refuse(name, f"is not {what}")
        return None
