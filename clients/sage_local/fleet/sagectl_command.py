"""Writes ``sagectl`` commands that work when they are copied from the output."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from sage_local.fleet.spec import DEFAULT_ADDRESS


def sagectl_command(arguments: str = "", *, address: str = "") -> str:
    """Return a shell command that runs this installation's ``sagectl`` from the current directory.

    ``arguments`` is the subcommand with its arguments, quoted for a shell.  ``address`` is the scheduler's
    ``host:port``: the command names it only if sagectl would use another one, and not at all if it is empty.  A command
    without an address reads the fleet's directory, so it names ``SAGE_HOME`` where that is set.
    """
    home = os.environ.get("SAGE_HOME", "") if not address else ""
    variable = f"SAGE_HOME={shlex.quote(str(Path(home).absolute()))}" if home else ""
    where = os.environ.get("SAGE_SCHEDULER_ADDRESS") or DEFAULT_ADDRESS
    flag = f"--address {shlex.quote(address)}" if address and address != where else ""
    return " ".join(part for part in (variable, _program(), arguments, flag) if part)


def _program() -> str:
    for script in (Path(sys.argv[0]), Path(sys.executable).with_name("sagectl")):
        if script.name == "sagectl" and os.access(script, os.X_OK):
            return "sagectl" if _is_on_path(script) else shlex.quote(_from_here(script))
    return f"{shlex.quote(_from_here(Path(sys.executable)))} -m sagectl"


def _is_on_path(script: Path) -> bool:
    found = shutil.which("sagectl")
    return found is not None and Path(found).samefile(script)


def _from_here(path: Path) -> str:
    path = path.absolute()
    if not path.is_relative_to(Path.cwd()):
        return str(path)
    return os.path.join(".", relative) if os.sep not in (relative := str(path.relative_to(Path.cwd()))) else relative
