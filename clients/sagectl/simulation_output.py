"""Writes what simulations gave as JSON."""

from __future__ import annotations

import json
from typing import IO, Any

from sagectl.json_output import plain


def write_json(file: IO[str], **what: Any) -> None:
    """Write one JSON object."""
    json.dump(plain(what), file, indent=2)
    file.write("\n")
