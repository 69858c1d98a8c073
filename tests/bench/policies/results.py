"""What was measured so far: in memory, and in a JSON file with which a run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path

import sage_simulator
import scheduler_svc.domain
from tests.bench.policies.cell import Cell
from tests.bench.policies.figures import Figures

#: Modules beside this one that decide what a cell gives.
_DECIDING = ("cell.py", "figures.py", "fleets.py", "synthetic_loads.py", "traffic.py", "variants.py")


def source_hash() -> str:
    """Return a hash of the code that decides what a cell gives: domain, simulator, loads and fleets."""
    packages = (scheduler_svc.domain.__file__, sage_simulator.__file__)
    files = [path for package in packages for path in sorted(Path(str(package)).parent.rglob("*.py"))]
    files += [Path(__file__).with_name(name) for name in _DECIDING]
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


class Results:
    """The figures of cells by their key."""

    def __init__(self, path: Path | None = None, *, any_source: bool = False) -> None:
        """Begin with what the file holds; None: keep results in memory only.

        ``any_source``: also take figures that another source gave, to read them; cells added to them would mix sources.
        """
        self._path = path
        self._source = source_hash()
        self._cells: dict[str, Figures] = {}
        self.discarded = 0  # cells of the file that another source gave
        if path is not None and path.is_file():
            self._load(json.loads(path.read_text(encoding="utf-8")), any_source=any_source)

    def _load(self, document: Mapping[str, object], *, any_source: bool) -> None:
        cells = document["cells"]
        assert isinstance(cells, dict), "a file of results has cells"
        if document["source"] != self._source:
            if not any_source:
                self.discarded = len(cells)
                return
            self._source = str(document["source"])
        self._cells = {key: Figures(**figures) for key, figures in cells.items()}

    def __len__(self) -> int:
        """Count the cells."""
        return len(self._cells)

    def find(self, cell: Cell) -> Figures | None:
        """Return the figures of a cell; None if it was not run."""
        return self._cells.get(cell.key)

    def add(self, found: Mapping[str, Figures]) -> None:
        """Take figures by key."""
        self._cells |= found

    def save(self) -> None:
        """Write the file, if there is one: at every moment it is a whole one."""
        if self._path is not None:
            scratch = self._path.with_name(self._path.name + ".new")
            scratch.write_text(json.dumps(self.document()), encoding="utf-8")
            scratch.replace(self._path)

    def document(self) -> dict[str, object]:
        """Return everything, to be written as JSON."""
        return {"source": self._source, "cells": {key: asdict(figures) for key, figures in self._cells.items()}}
