"""The headers of an HTTP request, as ASGI gives them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

BEARER = "bearer "


class HttpHeaders(Mapping[str, str]):
    """Headers by their names in lower case; of a name that comes several times, the first."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in raw:
            self._values.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def token(self) -> str:
        """Return the caller's bearer token; empty if there is none.

        OpenAI's clients send it in ``authorization``, Anthropic's in ``x-api-key``.
        """
        authorization = self._values.get("authorization", "")
        if authorization[: len(BEARER)].lower() == BEARER:
            return authorization[len(BEARER) :].strip()
        return self._values.get("x-api-key", "").strip()
