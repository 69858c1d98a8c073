"""Writes what simulations gave as JSON."""

from __future__ import annotations

import json
from typing import Any

from sage_client import plain


def write_json(options: dict[str, Any], **what: Any) -> bool:
    """Write one JSON object where ``--json`` says; return whether stdout is taken by it."""
    file = options["json_file"]
    if file is None:
        return False
    json.dump(plain(what), file, indent=2)
    file.write("\n")
    return bool(file.name == "<stdout>")  # click wraps it, so it is not sys.stdout itself
