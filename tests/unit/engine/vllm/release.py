"""One vLLM release's signatures, as recorded, and stand-ins that have what the release has and nothing else."""

from __future__ import annotations

import builtins
import dataclasses
import inspect
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).with_name("vllm_0_26_signatures.json")


class Release:
    """One release's signatures."""

    def __init__(self, path: Path = RECORDED) -> None:
        recorded = json.loads(path.read_text())
        self.version: str = recorded["version"]
        self.finish_reasons: list[str] = recorded["finish_reasons"]
        self.nixl_words: list[str] = recorded["nixl_words"]
        self.classes: dict[str, dict[str, Any]] = recorded["classes"]

    def names(self, key: str) -> set[str]:
        """All attributes an instance of a class has, inherited ones of other files left out."""
        described = self.classes[key]
        return {*described["fields"], *described["properties"], *described["attributes"], *described["methods"]}

    def fields(self, key: str) -> list[str]:
        return list(self.classes[key]["fields"])

    def thing(self, key: str, **values: object) -> Any:
        """An object with those of a class's attributes that are given; others of the class are None."""
        unknown = set(values) - self.names(key)
        assert not unknown, f"vLLM {self.version} has no {unknown} in {key}"
        return types.SimpleNamespace(**{**dict.fromkeys(self.names(key)), **values})

    def checked(self, key: str, method: str, body: Callable[..., Any]) -> Callable[..., Any]:
        """``body``, callable only as the recorded method is."""
        described = self.classes[key]["methods"][method]
        kinds = inspect.Parameter
        signature = inspect.Signature(
            [
                inspect.Parameter(
                    name,
                    kinds.POSITIONAL_OR_KEYWORD if name in described["positional"] else kinds.KEYWORD_ONLY,
                    default=kinds.empty if name in described["required"] else None,
                )
                for name in (*described["positional"], *described["keyword_only"])
                if name not in ("self", "cls")
            ]
        )

        def call(*arguments: Any, **keywords: Any) -> Any:
            bound = signature.bind(*arguments, **keywords)
            bound.apply_defaults()
            return body(**bound.arguments)

        call.__signature__ = signature  # type: ignore[attr-defined]  # what ``inspect.signature`` answers
        return call

    def class_with_all(self, key: str) -> type[Any]:
        """A class with every recorded attribute, to be asked what it has."""
        return type(key.partition(":")[2], (), dict.fromkeys(self.names(key)))

    def value_class(self, key: str) -> type[Any]:
        """A class that is made from any of its recorded fields, by keyword."""
        return dataclasses.make_dataclass(
            key.partition(":")[2],
            [(name, Any, dataclasses.field(default=None)) for name in self.fields(key)],
            kw_only=True,
        )

    def exceptions(self, module: str) -> types.ModuleType:
        made = types.ModuleType(module)
        for key, described in self.classes.items():
            home, _, name = key.partition(":")
            if home == module:
                bases = tuple(getattr(made, base, None) or getattr(builtins, base) for base in described["bases"])
                setattr(made, name, type(name, bases, {}))  # all of them define their bases first
        return made
